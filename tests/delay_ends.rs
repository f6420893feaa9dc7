//! The end of a pool that has delays: each is run or cancelled, with its captures, and none is a loss.

mod common;

use common::delayed::{doomed, millis, HOUR};
use common::{assert_adds_up, eventually, listen, meet, occupy_with, pool_in, registry, tidy, within};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{JoinHandle, Pool, PoolPhase, PoolReport, PoolStats, RejectReason};

fn pool(max_threads: usize) -> Pool {
    pool_in(&registry(), max_threads)
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> (Sender<()>, JoinHandle<()>) {
    occupy_with(|task| pool.spawn(task).unwrap())
}

// ---- the end ----

/// A way in which a pool ends.
type End = (&'static str, fn(Pool) -> Option<PoolReport>);

const ENDS: &[End] = &[
    ("close", |pool| {
        pool.close();
        None
    }),
    ("drop", |pool| {
        drop(pool);
        None
    }),
    ("shutdown", |pool| Some(pool.shutdown())),
    ("shutdown_timeout", |pool| Some(pool.shutdown_timeout(HOUR))),
    ("shutdown_timeout(0)", |pool| Some(pool.shutdown_timeout(Duration::ZERO))),
    ("shutdown_now", |pool| {
        let (report, unstarted) = pool.shutdown_now();
        assert!(unstarted.is_empty(), "delays are not handed back");
        Some(report)
    }),
    ("the registry's shutdown", |pool| {
        let report = pool.registry().shutdown();
        assert!(report.is_clean());
        Some(report.pools()[0].clone())
    }),
    ("the registry's deadline", |pool| {
        let report = pool.registry().shutdown_timeout(Duration::ZERO);
        assert!(report.is_clean(), "{report}");
        Some(report.pools()[0].clone())
    }),
];

#[test]
fn every_end_of_a_pool_cancels_its_delays_and_counts_no_loss() {
    let _tidy = tidy();
    for (name, end) in ENDS {
        within(move || {
            let registry = registry();
            let pool = pool_in(&registry, 1);
            assert_eq!(pool.spawn(|| 5).unwrap().join().unwrap(), 5);
            let delayed: Vec<_> = (0..100)
                .map(|n| {
                    let (task, drops) = doomed();
                    (pool.spawn_after(HOUR + millis(n), task).unwrap(), drops)
                })
                .collect();
            assert!(delayed[0].0.cancel());
            let start = Instant::now();
            let report = end(pool);
            for (handle, drops) in delayed {
                assert!(handle.join().unwrap_err().is_cancelled(), "{name}");
                // The captures are dropped before the handle resolves, unless there is no time for that.
                if matches!(*name, "shutdown_timeout(0)" | "the registry's deadline") {
                    eventually("they are dropped all the same", || drops.load(SeqCst) == 1);
                }
                assert_eq!(drops.load(SeqCst), 1, "{name}");
            }
            assert!(start.elapsed() < HOUR / 60, "{name} waited for delays");
            if let Some(report) = report {
                let stats = report.stats();
                assert!(report.is_clean(), "{name}: {report:?}");
                assert_eq!((stats.accepted, stats.completed), (101, 1), "{name}");
                assert_eq!((stats.cancelled, stats.delayed, stats.returned), (100, 0, 0), "{name}");
                assert_eq!(stats.phase, PoolPhase::Closed);
                assert_adds_up(stats);
            }
            assert!(registry.shutdown().is_clean(), "{name}");
        });
    }
}

#[test]
fn a_closing_pool_runs_what_is_due_and_cancels_what_is_not() {
    let _tidy = tidy();
    // All but the drop of the last handle, which leaves nothing to look at, and those that cancel what is queued.
    for (name, end) in
        ENDS.iter().filter(|(name, _)| matches!(*name, "close" | "shutdown" | "the registry's shutdown"))
    {
        within(move || {
            let registry = registry();
            let pool = pool_in(&registry, 1);
            let (go, _) = occupy(&pool);
            let due: Vec<_> = (0..20).map(|n| pool.spawn_after(millis(2), move || n).unwrap()).collect();
            let not_due = pool.spawn_after(HOUR, || ()).unwrap();
            thread::sleep(millis(5)); // Now they are due, whether or not the timer has come to them.
            let pool_that_ends = pool.clone();
            let ender = thread::spawn(move || end(pool_that_ends));
            assert!(not_due.join().unwrap_err().is_cancelled(), "{name}");
            drop(go);
            ender.join().unwrap();
            for (n, handle) in due.into_iter().enumerate() {
                assert_eq!(handle.join().unwrap(), n, "{name}");
            }
            assert!(registry.shutdown().is_clean(), "{name}");
        });
    }
}

#[test]
fn a_pool_that_is_not_open_refuses_delays_even_of_its_own_tasks() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let (inner, meeting) = (pool.clone(), Arc::new(Barrier::new(2)));
        let inside = meeting.clone();
        let task = pool.spawn(move || {
            meet(&inside);
            meet(&inside);
            // A follow-up is taken on, what is to follow later is not.
            let follow_up = inner.spawn(|| 5).unwrap();
            for delay in [Duration::ZERO, millis(1), Duration::MAX] {
                let refused = inner.spawn_after(delay, || 6).unwrap_err();
                assert_eq!(refused.reason(), RejectReason::Closed);
                assert_eq!(refused.into_inner()(), 6);
            }
            follow_up.join().unwrap()
        });
        meet(&meeting);
        pool.close();
        meet(&meeting);
        assert_eq!(task.unwrap().join().unwrap(), 5);
        assert_eq!(pool.shutdown().stats().rejected, 3);

        let other = pool_in(&registry, 1);
        registry.shutdown();
        let refused = other.spawn_after(millis(1), || ()).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::ShuttingDown);
    });
}

#[test]
fn delays_come_due_until_their_own_pool_closes() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (older, newer) = (pool_in(&registry, 1), pool_in(&registry, 1));
        let (inner, hooked) = (older.clone(), older.clone());
        registry
            .before_join("wait for a delay", move || {
                assert_eq!(hooked.spawn_after(millis(5), || 1).unwrap().join().unwrap(), 1);
            })
            .unwrap();
        // The newer pool drains first, and this task of it waits for a delay of the older one, which is open as yet.
        let task = newer.spawn(move || inner.spawn_after(millis(5), || 2).unwrap().join().unwrap()).unwrap();
        let pending = older.spawn_after(HOUR, || ()).unwrap();
        assert!(registry.shutdown().is_clean());
        assert_eq!(task.join().unwrap(), 2);
        assert!(pending.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_broken_pool_cancels_its_delays() {
    let _tidy = tidy();
    within(|| {
        let lines = listen();
        let registry = registry();
        let broken = || -> () { panic!("no connection for delays") };
        let pool =
            Pool::builder().registry(&registry).max_threads(1).on_thread_start(broken).build().unwrap();
        let (task, drops) = doomed();
        let pending = pool.spawn_after(HOUR, task).unwrap();
        // Its coming due starts the thread that breaks.
        let due = pool.spawn_after(millis(1), || ()).unwrap();
        assert!(due.join().unwrap_err().is_cancelled());
        assert!(pending.join().unwrap_err().is_cancelled());
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(pool.spawn_after(HOUR, || ()).unwrap_err().reason(), RejectReason::Broken);
        assert!(lines.iter().any(|line| line.contains("no connection for delays")));
        let report = pool.shutdown();
        assert_adds_up(report.stats());
        // What was due is a loss, what was not is none.
        assert_eq!((report.stats().cancelled, report.is_clean()), (2, false));
    });
}

#[test]
fn closing_meets_delays_that_come_due_and_every_one_is_settled() {
    let _tidy = tidy();
    within(|| {
        for round in 0..100 {
            let pool = pool(2);
            let ran = Arc::new(AtomicUsize::new(0));
            let handles: Vec<_> = (0..100)
                .map(|n| {
                    let ran = ran.clone();
                    let delay = Duration::from_micros(10 * (n % 50) + 1);
                    pool.spawn_after(delay, move || ran.fetch_add(1, SeqCst)).unwrap()
                })
                .collect();
            thread::sleep(Duration::from_micros(5 * round)); // Chance is what is wanted.
            let report = pool.shutdown();
            assert!(report.is_clean(), "{report:?}");
            let cancelled = handles.into_iter().filter_map(|handle| handle.join().err()).inspect(|error| {
                assert!(error.is_cancelled());
            });
            let cancelled = cancelled.count();
            assert_eq!(ran.load(SeqCst) + cancelled, 100);
            let PoolStats { completed, cancelled: counted, delayed, .. } = *report.stats();
            assert_eq!((completed, counted, delayed), (ran.load(SeqCst) as u64, cancelled as u64, 0));
        }
    });
}

#[test]
fn a_delayed_task_may_hold_the_last_handle_of_its_pool() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        // It keeps the pool open, and runs.
        let pool = pool_in(&registry, 1);
        let last = pool.clone();
        let handle = pool.spawn_after(millis(20), move || last.is_closed()).unwrap();
        drop(pool);
        assert!(!handle.join().unwrap());
        // Cancelled, it closes the pool, which cancels the others.
        let pool = pool_in(&registry, 1);
        let last = pool.clone();
        let holder = pool.spawn_after(HOUR, move || drop(last)).unwrap();
        let other = pool.spawn_after(HOUR, || ()).unwrap();
        drop(pool);
        assert!(!other.is_finished());
        assert!(holder.cancel());
        assert!(other.join().unwrap_err().is_cancelled());
        // So it goes in a shutdown.
        let pool = pool_in(&registry, 1);
        let last = pool.clone();
        let holder = pool.spawn_after(HOUR, move || drop(last)).unwrap();
        drop(pool);
        assert!(registry.shutdown().is_clean());
        assert!(holder.join().unwrap_err().is_cancelled());
    });
}

// ---- captures are other people's code ----

/// Calls it when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<F: FnMut()> OnDrop<F> {
    fn touch(&self) {}
}

#[test]
fn captures_that_panic_when_they_are_dropped_do_no_harm() {
    let _tidy = tidy();
    for (name, end) in ENDS {
        within(move || {
            let pool = pool(1);
            let handles: Vec<_> = (0..3)
                .map(|_| {
                    let bomb = OnDrop(|| {
                        if !thread::panicking() {
                            panic!("a bomb was dropped");
                        }
                    });
                    pool.spawn_after(HOUR, move || bomb.touch()).unwrap()
                })
                .collect();
            assert!(handles[0].cancel());
            end(pool);
            for handle in handles {
                assert!(handle.join().unwrap_err().is_cancelled(), "{name}");
            }
        });
    }
}

#[test]
fn captures_may_use_the_pool_and_end_its_registry_when_they_are_dropped() {
    let _tidy = tidy();
    for (name, end) in ENDS {
        within(move || {
            let registry = registry();
            let pool = pool_in(&registry, 1);
            let inner = pool.clone();
            let task = OnDrop(move || {
                assert!(inner.stats().delayed == 0 && inner.is_closed());
                assert!(inner.spawn_after(HOUR, || ()).is_err());
                inner.wait_idle();
                inner.shutdown();
            });
            let one = pool.spawn_after(HOUR, move || task.touch()).unwrap();
            let of_registry = registry.clone();
            let task = OnDrop(move || drop(of_registry.shutdown()));
            let other = pool.spawn_after(HOUR, move || task.touch()).unwrap();
            if *name == "drop" {
                pool.close();
            }
            end(pool);
            assert!(one.join().unwrap_err().is_cancelled(), "{name}");
            assert!(other.join().unwrap_err().is_cancelled(), "{name}");
            registry.shutdown();
        });
    }
}

#[test]
fn captures_whose_drop_hangs_are_left_behind_at_the_deadline() {
    let _tidy = tidy();
    let timeouts: [fn(&Pool) -> bool; 2] = [
        |pool| pool.shutdown_timeout(millis(100)).is_clean(),
        |pool| pool.registry().shutdown_timeout(millis(100)).is_clean(),
    ];
    for end in timeouts {
        within(move || {
            let pool = pool(1);
            let (go, wait): (Sender<()>, Receiver<()>) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            let hanging = OnDrop(move || {
                let _ = wait.recv();
                let _ = tell.send(());
            });
            let handles = [
                pool.spawn_after(HOUR, move || hanging.touch()).unwrap(),
                pool.spawn_after(HOUR, || ()).unwrap(),
            ];
            assert!(end(&pool));
            // The handles resolve, though nobody has dropped what the first one captured.
            for handle in handles {
                assert!(handle.join().unwrap_err().is_cancelled());
            }
            assert!(told.try_recv().is_err());
            drop(go);
            told.recv().unwrap();
        });
    }
}
