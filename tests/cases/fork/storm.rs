//! Forks while other threads use everything.

use super::unix::{before_end, child, fork};
use crate::Ended;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use winddown::*;

/// Threads that use everything without a pause.
struct Storm {
    pool: Pool,
    registry: Registry,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Storm {
    fn new() -> Storm {
        let registry = Registry::new();
        let mut storm = Storm { pool: Pool::new(2), registry, stop: Arc::default(), threads: Vec::new() };
        storm.blow(|pool, _| {
            let handles: Vec<_> = (0..20).filter_map(|n| pool.spawn(move || n).ok()).collect();
            handles.into_iter().for_each(|handle| drop(handle.join()));
        });
        storm.blow(|pool, _| {
            (0..50).for_each(|_| pool.execute(|| ()).unwrap());
            pool.wait_idle();
        });
        storm.blow(|_, registry| {
            let pool = Pool::builder().registry(registry).max_threads(1).build().unwrap();
            pool.execute(|| ()).unwrap();
            registry.remove(registry.before_join("hook", || ()).unwrap());
            drop(registry.hold("hold"));
            let other = Registry::new();
            let pool = Pool::builder().registry(&other).max_threads(1).build().unwrap();
            pool.execute(|| ()).unwrap();
            pool.shutdown();
        });
        storm.blow(|pool, registry| {
            pool.running();
            registry.stats();
            registry.progress();
        });
        storm
    }

    fn blow(&mut self, gust: fn(&Pool, &Registry)) {
        let (pool, registry, stop) = (self.pool.clone(), self.registry.clone(), self.stop.clone());
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                gust(&pool, &registry);
            }
        }));
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Builds a pool, has its threads contend for everything, and leaves some tasks to the drain at exit.
fn contend(threads: usize) {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    let pool = Pool::new(threads);
    let task = || RAN.fetch_add(1, Ordering::Relaxed);
    let seen = pool.clone();
    let sampler = thread::spawn(move || {
        while seen.stats().accepted < 200 {
            seen.running();
        }
    });
    let handles: Vec<_> = (0..200)
        .map(|n| {
            if n % 10 == 0 {
                pool.running();
                Pool::new(1).execute(|| ()).unwrap();
            }
            pool.spawn(task).unwrap()
        })
        .collect();
    for handle in handles {
        handle.join().unwrap();
    }
    sampler.join().unwrap();
    (0..20).for_each(|_| drop(pool.spawn(task).unwrap()));
    let check = || {
        if RAN.load(Ordering::Relaxed) != 220 {
            // SAFETY: ends the process.
            unsafe { libc::_exit(9) };
        }
    };
    after_join("check", check).unwrap();
    before_end();
}

/// Ends the storm if the child had to be ended.
fn expect_code_0(n: usize, end: &str) {
    if end != "code 0" {
        println!("child {n}: {end}");
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) };
    }
}

pub fn storm() -> Ended {
    let storm = Storm::new();
    for n in 0..200 {
        let child = child(|| {
            assert_eq!(storm.pool.execute(|| ()).unwrap_err().reason(), RejectReason::Forked);
            assert_eq!(storm.pool.stats().threads + storm.registry.stats().len(), 0);
            storm.pool.wait_idle();
            storm.pool.shutdown();
            storm.registry.shutdown();
            storm.registry.wait_finished();
            contend(2 + n % 3);
        });
        expect_code_0(n, &child.end());
    }
    println!("all ended");
    storm.end();
    before_end();
    Ok(())
}

/// The locks of the very pool whose worker is left in the child are contended when it forks.
pub fn storm_in_tasks() -> Ended {
    let storm = Storm::new();
    for n in 0..200 {
        let end = storm.pool.spawn(move || match fork() {
            Some(child) => Some(child.end()),
            None => {
                match n % 4 {
                    0 => contend(2),
                    1 => Pool::new(1).wait_idle(),
                    2 => std::process::exit(0),
                    _ => {} // out of the task, and of the last thread
                }
                if n % 4 < 2 {
                    std::process::exit(0);
                }
                None
            }
        })?;
        expect_code_0(n, &end.join()?.unwrap_or_default());
    }
    println!("all ended");
    storm.end();
    before_end();
    Ok(())
}

pub fn storm_old_registry() -> Ended {
    let storm = Storm::new();
    for n in 0..200 {
        let child = child(|| {
            let builder = Pool::builder().registry(&storm.registry);
            assert_eq!(builder.build().unwrap_err(), BuildError::ShuttingDown);
            let builder = Pool::builder().registry(storm.pool.registry());
            assert_eq!(builder.build().unwrap_err(), BuildError::ShuttingDown);
        });
        expect_code_0(n, &child.end());
    }
    println!("all ended");
    storm.end();
    before_end();
    Ok(())
}
