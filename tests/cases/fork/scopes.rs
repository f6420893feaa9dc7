//! Forks in the middle of scopes: nothing of the parent's tasks is run, dropped or waited for in the child.

use super::before::{gate, is_abandoned};
use super::unix::{before_end, child, fork};
use crate::Ended;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use winddown::*;

/// Says where it is dropped.
struct Dropped<'a>(&'a str, u32);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        println!("{} dropped in {}", self.0, super::unix::whoami(self.1));
    }
}

/// The closure of the scope forks, with a task that runs, one that is queued, and one that has ended.
pub fn in_closure() -> Ended {
    let parent = std::process::id();
    let pool = Pool::new(1);
    let (open, wait) = gate();
    let (started, has_started) = channel();
    let told = pool.scope(|s| {
        let done = s.spawn(|| 5);
        pool.wait_idle();
        let running = s.spawn(move || {
            started.send(()).unwrap();
            wait();
        });
        has_started.recv().unwrap();
        let capture = Dropped("a capture", parent);
        let queued = s.spawn(move || drop(capture));
        match fork() {
            Some(child) => {
                let end = child.end();
                drop(open);
                assert_eq!(done.join().unwrap(), 5);
                end
            }
            None => {
                assert!(running.is_finished() && queued.is_finished());
                assert!(
                    is_abandoned(running.join()) && is_abandoned(queued.join()) && is_abandoned(done.join())
                );
                // What the pool refuses runs here.
                assert_eq!(s.spawn(|| s.spawn(|| 7).join().unwrap()).join().unwrap(), 7);
                let panics = s.spawn(|| std::panic::resume_unwind(Box::new("in the child")));
                assert!(panics.join().unwrap_err().is_panic());
                "the child's".into()
            }
        }
    });
    println!("{told}");
    if std::process::id() == parent {
        before_end();
    } else {
        // A scope of the old pool, and of a new one.
        assert_eq!(pool.scope(|s| s.spawn(|| 3).join().unwrap()), 3);
        assert_eq!(Pool::new(1).scope(|s| s.spawn(|| 4).join().unwrap()), 4);
        drop(pool);
        std::process::exit(0);
    }
    Ok(())
}

/// A task of a scope forks: on a worker while the owner waits elsewhere, and in the owner's place.
pub fn in_task() -> Ended {
    let parent = std::process::id();
    let pool = Pool::new(1);
    let fork_and_end = || match fork() {
        Some(child) => println!("child: {}", child.end()),
        None => println!("a task in the child"),
    };
    pool.scope(|s| drop(s.spawn(fork_and_end)));
    let inner = pool.clone();
    let outer = pool.spawn(move || {
        let capture = Dropped("a capture", parent);
        inner.scope(|s| {
            s.spawn(fork_and_end);
            s.spawn(move || drop(capture));
        });
        println!("the scope is over in {}", super::unix::whoami(parent));
    });
    outer?.join()?;
    before_end();
    Ok(())
}

/// Forks while other threads are at all places of scopes, which share what the child is in.
pub fn storm() -> Ended {
    let pool = Pool::new(2);
    let is_over = AtomicBool::new(false);
    let count = AtomicUsize::new(0);
    thread::scope(|threads| {
        let storm = threads.spawn(|| {
            catch_unwind(AssertUnwindSafe(|| {
                for _ in 0..200 {
                    let end = pool.scope(|s| {
                        for _ in 0..20 {
                            s.spawn(|| s.spawn(|| count.fetch_add(1, SeqCst)));
                        }
                        // In the child the scope ends, and with it the process.
                        child(|| pool.scope(|t| drop(t.spawn(|| s.spawn(|| ()).join())))).end()
                    });
                    assert_eq!(end, "code 0");
                }
                // From inside a task, where the scope has a list.
                let forks = || {
                    pool.scope(|s| {
                        let handles: Vec<_> = (0..20).map(|_| s.spawn(|| drop(s.spawn(|| ())))).collect();
                        let end = child(|| drop(s.spawn(|| ()))).end();
                        handles.into_iter().for_each(|handle| handle.join().unwrap());
                        end
                    })
                };
                for _ in 0..200 {
                    assert_eq!(pool.scope(|s| s.spawn(forks).join().unwrap()), "code 0");
                }
            }))
        });
        while !storm.is_finished() {
            pool.scope(|s| (0..10).for_each(|_| drop(s.spawn(|| count.fetch_add(1, SeqCst)))));
        }
        is_over.store(storm.join().unwrap().is_ok(), SeqCst);
    });
    assert!(is_over.into_inner());
    println!("all ended");
    before_end();
    Ok(())
}
