//! Promises 1 and 4 under races: no wake-up is lost, none is taken for what it is not, and who asks is answered.

mod common;

use common::{assert_adds_up, eventually, meet, occupy_with, registry, tidy, within};
use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use winddown::{BuildError, Phase, Pool, PoolBuilder, Registry, RejectReason};

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> Sender<()> {
    occupy_with(|task| pool.execute(task).unwrap()).0
}

/// Without a time-out nothing but the news of the end gets such a worker out of its bed.
#[test]
fn a_worker_that_is_about_to_sleep_hears_that_its_pool_ends() {
    let _tidy = tidy();
    within(|| {
        for round in 0..512 {
            let registry = registry();
            let builder = Pool::builder().registry(&registry).max_threads(1 + round % 2);
            let pool = builder.keep_alive(Duration::MAX).build().unwrap();
            pool.spawn(|| ()).unwrap().join().unwrap();
            (0..round % 50).for_each(|_| thread::yield_now());
            match round % 4 {
                0 => assert_eq!(pool.shutdown().workers_joined(), 1),
                1 => assert!(registry.shutdown().is_clean()),
                2 => pool.close(),
                _ => drop(pool), // that the thread ends is for `tidy` to see
            }
        }
    });
}

/// While one worker of each pool is about to leave, having been idle for long enough, its pool ends.
#[test]
fn a_worker_that_is_about_to_leave_is_joined_once() {
    let _tidy = tidy();
    within(|| {
        for round in 0..300 {
            let keep_alive = Duration::from_micros(round * 2);
            let pool = builder(1).keep_alive(keep_alive).build().unwrap();
            pool.spawn(|| ()).unwrap().join().unwrap();
            (0..round % 30).for_each(|_| thread::yield_now());
            let report = pool.shutdown();
            assert_eq!((report.workers_joined(), report.stats().threads), (1, 0), "{report}");
        }
    });
}

/// Counts that its thread has run its destructors.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        thread::yield_now(); // Its worker has left the pool by now: let the others see that.
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn pools_that_end_while_their_registry_shuts_down_run_everything_and_are_joined() {
    let _tidy = tidy();
    thread_local!(static ENDED: RefCell<Option<Ended>> = const { RefCell::new(None) });
    within(|| {
        for round in 0..150 {
            let registry = registry();
            let ended = Arc::new(AtomicUsize::new(0));
            let pools: Vec<Pool> = (0..6)
                .map(|n| {
                    let pool = common::pool_in(&registry, 1 + n % 2);
                    let ended = Ended(ended.clone());
                    pool.execute(move || ENDED.set(Some(ended))).unwrap();
                    pool
                })
                .collect();
            let start = Arc::new(Barrier::new(2));
            let here = start.clone();
            let ender = thread::spawn(move || {
                meet(&here);
                for (n, pool) in pools.into_iter().enumerate() {
                    match n % 3 {
                        0 => drop(pool),
                        1 => assert_eq!(pool.shutdown().workers_joined(), 1),
                        _ => pool.close(),
                    }
                }
            });
            meet(&start);
            (0..round % 20).for_each(|_| thread::yield_now());
            let report = registry.shutdown();
            assert!(report.is_clean() && report.totals().threads == 0, "{report}");
            // Each pool had one task, and so one thread.
            assert_eq!(ended.load(SeqCst), 6, "the report came before a thread had ended: {report}");
            assert!(report.pools().iter().all(|pool| pool.workers_joined() <= 1), "{report}");
            ender.join().unwrap();
        }
    });
}

/// Says that it is dropped, which then takes until the sender is dropped.
struct Slow(Sender<()>, Receiver<()>);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
        let _ = self.1.recv();
    }
}

#[test]
fn while_a_worker_is_joined_its_registry_and_its_pool_answer_everybody() {
    let _tidy = tidy();
    thread_local!(static SLOW: RefCell<Option<Slow>> = const { RefCell::new(None) });
    within(|| {
        let registry = registry();
        let pool = common::pool_in(&registry, 1);
        let (dropping, is_dropping) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        pool.execute(move || SLOW.set(Some(Slow(dropping, wait)))).unwrap();
        let remote = registry.clone();
        let shutdown = thread::spawn(move || remote.shutdown());
        is_dropping.recv().unwrap();
        eventually("the worker is being joined", || registry.phase() == Phase::Joining);
        assert_eq!(registry.progress().tasks_left, 0);
        assert_eq!(registry.stats().len(), 1);
        assert!(registry.token().is_triggered() && !format!("{registry:?} {pool:?}").is_empty());
        assert_eq!(registry.before_join("late", || ()).unwrap_err().reason(), RejectReason::ShuttingDown);
        assert_eq!(registry.after_join("late", || ()).unwrap_err().reason(), RejectReason::ShuttingDown);
        assert!(registry.hold("late").is_err());
        assert_eq!(Pool::builder().registry(&registry).build().unwrap_err(), BuildError::ShuttingDown);
        assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::ShuttingDown);
        assert_eq!((pool.stats().completed, pool.running().len()), (1, 0));
        pool.wait_idle();
        pool.close();
        registry.request_shutdown();
        // Other registries come and go.
        let other = common::registry();
        common::pool_in(&other, 1).execute(|| ()).unwrap();
        assert!(other.shutdown().is_clean() && !shutdown.is_finished());
        drop(end);
        let report = shutdown.join().unwrap();
        assert!(report.is_clean() && report.pools()[0].workers_joined() == 1, "{report}");
    });
}

/// A sampler beside tasks of every kind: no count is ever beyond what there can be. One that went below zero would be.
#[test]
fn no_count_is_ever_more_than_there_can_be() {
    let _tidy = tidy();
    const ROUNDS: u64 = 3_000;
    within(|| {
        let pool = builder(3).keep_alive(Duration::from_micros(50)).build().unwrap();
        let (begun, ended, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let counts = Arc::new((begun, ended, failed));
        let start = Arc::new(Barrier::new(4));
        let producers: Vec<_> = (0..3)
            .map(|producer| {
                let (pool, counts, start) = (pool.clone(), counts.clone(), start.clone());
                thread::spawn(move || {
                    meet(&start);
                    for n in 0..ROUNDS {
                        counts.0.fetch_add(1, SeqCst);
                        let of_task = counts.clone();
                        let ends = move || _ = of_task.1.fetch_add(1, SeqCst);
                        let of_task = counts.clone();
                        let fails = move || {
                            of_task.2.fetch_add(1, SeqCst);
                            resume_unwind(Box::new("without a message"))
                        };
                        match (n + producer) % 5 {
                            0 => pool.execute(ends).unwrap(),
                            1 => pool.execute(fails).unwrap(),
                            2 => drop(pool.spawn(ends).unwrap().cancel()),
                            3 => pool.spawn(ends).unwrap().join().unwrap(),
                            _ => drop(pool.spawn(ends).unwrap().cancel_on_drop()),
                        }
                    }
                })
            })
            .collect();
        meet(&start);
        let mut looks = 0;
        while producers.iter().any(|producer| !producer.is_finished()) {
            let stats = pool.stats();
            let (begun, ended, failed) = (&counts.0, &counts.1, &counts.2);
            assert!(stats.threads <= 3 && stats.idle <= 3 && stats.peak_threads <= 3, "{stats:?}");
            assert!(stats.running <= 3 && stats.delayed == 0, "{stats:?}");
            // What is read later can only be more.
            assert!(stats.queued <= begun.load(SeqCst), "{stats:?}");
            assert!(
                stats.completed <= ended.load(SeqCst) && stats.panicked <= failed.load(SeqCst),
                "{stats:?}"
            );
            assert!(
                stats.cancelled <= begun.load(SeqCst) && stats.accepted <= begun.load(SeqCst),
                "{stats:?}"
            );
            looks += 1;
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert!(looks > 0);
        let stats = pool.shutdown().stats().clone();
        assert_adds_up(&stats);
        assert_eq!(stats.accepted, 3 * ROUNDS);
        assert_eq!((stats.completed, stats.panicked), (counts.1.load(SeqCst), counts.2.load(SeqCst)));
        assert_eq!((stats.running, stats.queued, stats.threads, stats.idle), (0, 0, 0, 0));
    });
}

/// The system may wake whoever waits on a futex without a reason; here that is done on purpose.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // The system call.
mod spurious {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::time::Instant;
    use winddown::as_completed;

    /// Wakes the threads of this process that wait on a futex and whose names begin with `prefix`. Adds to each name how
    /// often its thread was woken.
    fn wake_all(prefix: &str, woken: &mut BTreeMap<String, usize>) {
        for thread in fs::read_dir("/proc/self/task").unwrap().flatten() {
            // What ends in the meantime is none of ours.
            let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let (name, call) = (read("comm"), read("syscall"));
            let mut words = call.split_whitespace();
            if !name.starts_with(prefix) || words.next() != Some(libc::SYS_futex.to_string().as_str()) {
                continue;
            }
            let number = |word: &str| usize::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
            let address = number(words.next().unwrap());
            let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: to wake is to touch nothing: the address is but a name, valid or not.
            let count = unsafe { libc::syscall(libc::SYS_futex, address, operation, i32::MAX) };
            *woken.entry(name.trim().to_owned()).or_default() += usize::from(count > 0);
        }
    }

    #[test]
    fn a_wake_up_for_nothing_is_taken_for_no_task_no_end_and_no_time_out() {
        let _tidy = tidy();
        const HOUR: Duration = Duration::from_secs(3600);
        type Wait = Box<dyn FnOnce() + Send>;
        within(|| {
            let idle = [
                builder(2).name("w-timed").keep_alive(HOUR).build().unwrap(),
                builder(2).name("w-kept").min_threads(1).build().unwrap(),
            ];
            for pool in &idle {
                pool.spawn(|| ()).unwrap().join().unwrap();
            }
            let full = builder(1).name("full").queue_capacity(2).build().unwrap();
            let go = occupy(&full);
            let [first, second] = [0, 1].map(|n| full.spawn(move || n).unwrap());
            let stuck = builder(1).build().unwrap();
            let end = occupy(&stuck);
            let handles: Vec<_> = (0..3).map(|n| stuck.spawn(move || n).unwrap()).collect();
            let [joined, timed, several]: [_; 3] = handles.try_into().unwrap();
            let pools = [0; 7].map(|_| full.clone());
            let [submits, submits_timed, looks, looks_timed, registry_of, token_of, token_timed] = pools;
            let ended = stuck.clone();
            let waits: Vec<Wait> = vec![
                Box::new(move || submits.execute(|| ()).unwrap()),
                Box::new(move || submits_timed.execute_timeout(|| (), HOUR).unwrap()),
                Box::new(move || looks.wait_idle()),
                Box::new(move || assert!(looks_timed.wait_idle_timeout(HOUR))),
                Box::new(move || assert!(registry_of.registry().wait_finished().is_clean())),
                Box::new(move || token_of.registry().token().wait()),
                Box::new(move || assert!(token_timed.registry().token().wait_timeout(HOUR))),
                Box::new(move || assert_eq!(joined.join().unwrap(), 0)),
                Box::new(move || assert_eq!(timed.join_timeout(HOUR).unwrap().unwrap(), 1)),
                Box::new(move || assert_eq!(as_completed([several]).next().unwrap().unwrap(), 2)),
                Box::new(move || assert!(ended.shutdown().is_clean())),
            ];
            let mut waiting = 2; // the idle workers
            let (over, is_over) = mpsc::channel();
            let waiters: Vec<_> = waits
                .into_iter()
                .enumerate()
                .map(|(n, wait)| {
                    waiting += 1;
                    let over = over.clone();
                    let wait = move || {
                        wait();
                        over.send(n).unwrap();
                    };
                    thread::Builder::new().name(format!("w-{n}")).spawn(wait).unwrap()
                })
                .collect();
            let (start, mut woken) = (Instant::now(), BTreeMap::new());
            while woken.len() < waiting || woken.values().any(|times| *times < 20) {
                wake_all("w-", &mut woken);
                assert!(start.elapsed() < Duration::from_secs(30), "not all of them wait: {woken:?}");
                thread::yield_now();
            }
            assert_eq!(is_over.try_recv(), Err(mpsc::TryRecvError::Empty), "{woken:?}");
            for pool in &idle {
                let stats = pool.stats();
                assert_eq!((stats.threads, stats.running, stats.completed), (1, 0, 1), "{stats:?}");
            }
            assert_eq!((full.stats().queued, full.stats().accepted), (2, 3));
            // And each of them still hears what it does wait for.
            drop((go, end));
            assert_eq!((first.join().unwrap(), second.join().unwrap()), (0, 1));
            full.wait_idle();
            eventually("those who submit are in", || full.stats().completed == 5);
            assert!(full.registry().shutdown().is_clean());
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
            for pool in &idle {
                pool.spawn(|| ()).unwrap().join().unwrap();
                assert_eq!(pool.stats().peak_threads, 1);
            }
        });
    }

    #[test]
    fn a_worker_that_is_woken_for_nothing_leaves_when_its_time_is_over_and_not_before() {
        let _tidy = tidy();
        within(|| {
            let keep_alive = Duration::from_millis(300);
            let pool = builder(1).name("w-expires").keep_alive(keep_alive).build().unwrap();
            let start = Instant::now();
            pool.spawn(|| ()).unwrap().join().unwrap();
            let mut woken = BTreeMap::new();
            while pool.stats().threads > 0 {
                wake_all("w-expires", &mut woken);
                assert!(start.elapsed() < Duration::from_secs(20), "each wake-up starts its time again");
                thread::sleep(Duration::from_millis(1)); // wakes it often, and not all the time
            }
            assert!(start.elapsed() >= keep_alive);
            assert!(woken.values().sum::<usize>() > 10, "{woken:?}");
            // There is nobody left to leave: the registry has nothing to wait for.
            assert!(pool.registry().shutdown().is_clean());
        });
    }

    /// A registry has no other wait that a test could meet: this one is for a hold.
    #[test]
    fn a_shutdown_that_is_woken_for_nothing_goes_on_waiting() {
        let _tidy = tidy();
        within(|| {
            let registry = registry();
            let hold = registry.hold("request").unwrap();
            let remote: Registry = registry.clone();
            let shutdown = thread::Builder::new().name("w-shutdown".into());
            let shutdown =
                shutdown.spawn(move || remote.shutdown_timeout(Duration::from_secs(3600))).unwrap();
            let mut woken = BTreeMap::new();
            while woken.values().sum::<usize>() < 100 {
                wake_all("w-shutdown", &mut woken);
                thread::yield_now();
            }
            assert!(!shutdown.is_finished() && registry.phase() == Phase::PreJoin);
            drop(hold);
            assert!(shutdown.join().unwrap().is_clean());
        });
    }
}
