//! Tasks run in place, lent permits, and maps and scopes that come to an early end.

use super::*;
use shuttle::rand::Rng;
use shuttle::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn a_join_in_place_and_a_shutdown_that_hands_back_settle_the_child_once() {
    for max_threads in [1, 2] {
        explore(move || {
            let (registry, pool) = pool(max_threads);
            let trace = Trace::default();
            let (inner, left) = (pool.clone(), trace.clone());
            let parent = move || {
                let children = [(); 2].map(|()| inner.spawn(left.task()).ok());
                let results = children.map(|child| child.map(|child| child.join()));
                results.iter().flatten().filter(|result| result.is_ok()).count()
            };
            let parent = pool.spawn(parent).unwrap();
            let (report, unstarted) = pool.shutdown_now();
            drop(unstarted);
            assert_adds_up(report.stats());
            let ran = parent.join().unwrap_or(0);
            assert_eq!(trace.ran(), ran);
            let stats = pool.stats();
            assert_adds_up(&stats);
            assert_eq!(stats.queued + stats.running, 0);
            drop(pool);
            assert!(registry.stats().is_empty());
            trace.assert_no_captures();
        });
    }
}

#[test]
fn a_join_in_place_and_a_deadline_count_the_child_once() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let (spawned, has_spawned) = channel();
        let inner = pool.clone();
        let parent = move || {
            let child = inner.spawn(|| ()).unwrap();
            spawned.send(()).unwrap();
            child.join().is_ok()
        };
        let parent = pool.spawn(parent).unwrap();
        has_spawned.recv().unwrap();
        // Whoever claims the child counts it, the parent a little later than it claims it.
        let report = pool.shutdown_timeout(Duration::ZERO);
        assert_adds_up(report.stats());
        assert_eq!((report.stats().queued, report.stats().running), (0, 0));
        drop(parent);
        while pool.stats().threads > 0 {
            thread::yield_now();
        }
    });
}

#[test]
fn a_scope_in_a_task_ends_though_its_tasks_are_doomed_meanwhile() {
    for max_threads in [1, 2] {
        explore(move || {
            let (_registry, pool) = pool(max_threads);
            let inner = pool.clone();
            let task = move || {
                let mut numbers = [1, 2, 3];
                inner.scope(|s| {
                    for n in &mut numbers {
                        s.spawn(|| *n += 1);
                    }
                });
                assert!(numbers.iter().zip(1..).all(|(now, before)| *now == before || *now == before + 1));
            };
            let handle = pool.spawn(task).unwrap();
            let time = Time::passes();
            let report = pool.shutdown_timeout(Duration::from_secs(5));
            drop(time);
            // What was left behind may submit just now: a push to its thread's own queue counts until it finds the gate.
            if max_threads == 1 || report.stats().abandoned == 0 {
                assert_adds_up(report.stats());
            }
            if let Err(error) = handle.join() {
                assert!(!error.is_panic());
            }
            while pool.stats().threads > 0 {
                thread::yield_now();
            }
        });
    }
}

#[test]
fn a_scope_leaves_a_thread_to_those_whom_its_tasks_wait_for() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let (inner, limited) = (pool.clone(), pool.limit(1));
        let outer = move || {
            inner.scope(|s| {
                s.spawn(|| {
                    let first = limited.spawn(|| 1).unwrap();
                    // Another thread has to run the first, whether this one is the scope's or not.
                    let second = limited.spawn(|| 2).unwrap();
                    assert_eq!(second.join().unwrap() + first.join().unwrap(), 3);
                });
            });
        };
        pool.spawn(outer).unwrap().join().unwrap();
        assert_eq!(pool.shutdown().stats().completed, 4);
    });
}

#[test]
fn scopes_within_scopes_end_on_however_few_threads() {
    for max_threads in [1, 2] {
        explore(move || {
            let (_registry, pool) = pool(max_threads);
            let sum = AtomicUsize::new(0);
            pool.scope(|outer| {
                for _ in 0..2 {
                    outer.spawn(|| {
                        pool.scope(|inner| {
                            for _ in 0..2 {
                                inner.spawn(|| _ = sum.fetch_add(1, Ordering::Relaxed));
                            }
                        })
                    });
                }
            });
            assert_eq!(sum.load(Ordering::Relaxed), 4);
            assert_adds_up(pool.shutdown().stats());
        });
    }
}

#[test]
fn a_map_that_is_dropped_early_leaves_nothing_behind() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let trace = Trace::default();
        let f = {
            let trace = trace.clone();
            move |n: usize| {
                trace.leave();
                // What has started ends when it is told.
                while n > 0 && !crate::task::is_cancelled() {
                    thread::yield_now();
                }
                n
            }
        };
        let mut ordered = pool.map_with_lookahead(0_usize.., 3, f.clone());
        assert_eq!(ordered.next().unwrap().unwrap(), 0);
        drop(ordered);
        let mut unordered = pool.map_unordered(0..3_usize, f);
        assert_eq!(unordered.next().unwrap().unwrap(), 0);
        drop(unordered);
        pool.wait_idle();
        let stats = pool.shutdown().stats().clone();
        assert_adds_up(&stats);
        assert_eq!(stats.completed as usize, trace.ran());
        assert_eq!((stats.accepted, stats.completed + stats.cancelled), (6, 6));
        trace.assert_no_captures();
    });
}

/// The thread of an item that stops because it was told to must not come for the next one.
#[test]
fn nothing_starts_once_a_map_that_is_dropped_has_told_what_runs() {
    fn drop_early<M: Iterator<Item = Result<(), crate::JoinError>>>(
        max_threads: usize,
        make: fn(&Pool, Box<dyn Fn(usize) + Send + Sync>) -> M,
    ) where
        M: 'static,
    {
        explore(move || {
            let (_registry, pool) = pool(max_threads);
            let trace = Trace::default();
            let started = trace.clone();
            let work = move |n: usize| {
                started.leave();
                while n > 0 && !crate::task::is_cancelled() {
                    thread::yield_now();
                }
            };
            let mut results = make(&pool, Box::new(work));
            results.next().unwrap().unwrap();
            // All threads have an item that does not end by itself.
            while trace.ran() < 1 + max_threads {
                thread::yield_now();
            }
            drop(results);
            pool.wait_idle();
            assert_eq!(trace.ran(), 1 + max_threads);
            pool.shutdown();
            trace.assert_no_captures();
        });
    }
    drop_early(1, |pool, work| pool.map_with_lookahead(0..4, 3, work));
    drop_early(2, |pool, work| pool.map_unordered(0..5, work));
}

#[test]
fn a_map_in_a_task_ends_when_its_pool_closes() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let inner = pool.clone();
        let task = move || inner.map(0..3, |n| n).filter(|result| result.is_ok()).count();
        let handle = pool.spawn(task).unwrap();
        pool.close();
        // Its own tasks may submit to it until it is empty.
        assert_eq!(handle.join().unwrap(), 3);
        assert_eq!(pool.shutdown().stats().completed, 4);
    });
}

#[test]
fn a_permit_is_lent_to_those_who_are_waited_for() {
    for max_threads in [1, 2] {
        explore(move || {
            let (_registry, pool) = pool(max_threads);
            let limited = pool.limit(1);
            let trace = Trace::default();
            let (own, left) = (pool.clone(), trace.clone());
            let task = move || {
                own.wait_idle();
                left.leave();
            };
            limited.execute(task.clone()).unwrap();
            limited.execute(task).unwrap();
            let last = limited.spawn(trace.task()).unwrap();
            let is_cancelled = last.cancel();
            assert_eq!(last.join().is_err(), is_cancelled);
            // Those that have waited take the permit again, and give it back, while these come: one at a time.
            let running = Arc::new(AtomicUsize::new(0));
            let alone = [(); 3].map(|()| {
                let running = running.clone();
                limited.spawn(move || {
                    assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::Relaxed);
                })
            });
            alone.into_iter().for_each(|handle| handle.unwrap().join().unwrap());
            let stats = pool.shutdown().stats().clone();
            assert_adds_up(&stats);
            assert_eq!(trace.ran(), 3 - usize::from(is_cancelled));
            drop(limited);
            drop(pool);
            trace.assert_no_captures();
        });
    }
}

#[test]
fn a_limited_task_joins_one_of_its_limit_and_one_of_another() {
    for max_threads in [1, 2] {
        explore(move || {
            let (_registry, pool) = pool(max_threads);
            let (mine, other) = (pool.limit(1), pool.limit(1));
            let (same, elsewhere) = (mine.clone(), other.clone());
            other.execute(|| ()).unwrap();
            let parent = move || {
                let a = same.spawn(|| 1).unwrap();
                let b = elsewhere.spawn(|| 2).unwrap();
                // Another thread has to run the one before it, for which there may be none.
                let c = elsewhere.spawn(|| 3).unwrap();
                [a, c, b].into_iter().map(|handle| handle.join().unwrap()).sum::<i32>()
            };
            let parents = [mine.spawn(parent.clone()).unwrap(), mine.spawn(parent).unwrap()];
            parents.into_iter().for_each(|parent| assert_eq!(parent.join().unwrap(), 6));
            assert_eq!(pool.shutdown().stats().completed, 9);
        });
    }
}

#[test]
fn limits_leave_nothing_behind_at_a_deadline() {
    explore(|| {
        let (registry, pool) = pool(1);
        let limited = pool.limit(1);
        let trace = Trace::default();
        let (go, wait) = channel::<()>();
        let stuck = limited.spawn(move || _ = wait.recv()).unwrap();
        let behind = [(); 2].map(|()| limited.spawn(trace.task()).unwrap());
        let canceller = behind[0].canceller();
        let other = thread::spawn(move || canceller.cancel());
        let time = Time::passes();
        let report = registry.shutdown_timeout(Duration::from_secs(5));
        assert!(other.join().unwrap());
        drop(time);
        assert!(stuck.join().is_err());
        behind.into_iter().for_each(|handle| assert!(handle.join().unwrap_err().is_cancelled()));
        assert!(!report.is_clean());
        assert_eq!(trace.ran(), 0);
        drop(go);
        drop((pool, limited));
        while Arc::strong_count(&trace.captured) > 1 {
            thread::yield_now();
        }
    });
}

#[test]
fn who_waits_for_a_task_behind_a_limit_gets_it_when_it_is_handed_back() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let limited = pool.limit(1);
        let trace = Trace::default();
        let ((started, has_started), (go, wait)) = (channel(), channel::<()>());
        let holder = started.clone();
        let hold = move || {
            holder.send(()).unwrap();
            let _ = wait.recv();
        };
        limited.execute(hold).unwrap();
        let (behind, left) = (limited.clone(), trace.clone());
        let parent = pool.spawn(move || {
            let child = behind.spawn(left.task()).unwrap();
            started.send(()).unwrap();
            let is_ok = child.join().is_ok();
            // The permit was there for nobody until now.
            drop(go);
            usize::from(is_ok)
        });
        (0..2).for_each(|_| has_started.recv().unwrap());
        // Meanwhile the parent comes to wait, or nearly so.
        (0..shuttle::rand::thread_rng().gen_range(0..40)).for_each(|_| thread::yield_now());
        // This waits for the parent, which waits for what is handed back here.
        let (report, unstarted) = pool.shutdown_now();
        assert_adds_up(report.stats());
        drop(unstarted);
        assert_eq!((parent.unwrap().join().unwrap(), trace.ran()), (1, 1));
        drop((pool, limited));
        trace.assert_no_captures();
    });
}

#[test]
fn waits_that_end_without_a_reason_end_nothing_else() {
    explore_spurious(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 2).queue_capacity(1).build().unwrap();
        let trace = Trace::default();
        registry.after_join("last", trace.task()).unwrap();
        let submitter = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || (0..3).for_each(|_| pool.execute(trace.task()).unwrap()))
        };
        let handles = (0..3).map(|n| pool.spawn(move || n).unwrap());
        let results = crate::as_completed(handles).map(Result::unwrap);
        assert_eq!(results.sum::<i32>(), 3);
        submitter.join().unwrap();
        pool.wait_idle();
        assert_eq!(trace.ran(), 3);
        let other = {
            let registry = registry.clone();
            thread::spawn(move || registry.wait_finished())
        };
        assert!(registry.shutdown().is_clean() && other.join().unwrap().is_clean());
        assert_eq!((registry.phase(), trace.ran()), (crate::Phase::Finished, 4));
    });
}

/// No time passes here: whatever wakes a timed wait, it goes on until there is what it waits for.
#[test]
fn timed_waits_that_end_without_a_reason_are_not_over() {
    const LONG: Duration = Duration::from_secs(1);
    explore_spurious(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 1).queue_capacity(1).build().unwrap();
        let token = registry.token();
        let waits = thread::spawn(move || token.wait_timeout(LONG));
        let handles = (0..2).map(|n| pool.spawn_timeout(move || n, LONG).unwrap());
        let mut results = crate::as_completed(handles);
        for _ in 0..2 {
            assert!(results.next_timeout(LONG).unwrap().is_some());
        }
        let handle = pool.spawn_timeout(|| 5, LONG).unwrap();
        assert!(pool.wait_idle_timeout(LONG));
        assert_eq!(handle.join_timeout(LONG).unwrap().unwrap(), 5);
        assert!(registry.shutdown_timeout(LONG).is_clean());
        assert!(waits.join().unwrap());
    });
}
