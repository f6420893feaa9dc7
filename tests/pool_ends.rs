//! How one pool ends: by a close that does not wait, by a shutdown that does, with failures on the way.

mod common;

use common::{assert_adds_up, eventually, occupy_with, pool_in, registry, tidy, within, Tracked};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use winddown::{Pool, PoolPhase, RejectReason};

/// Inside a task: waits until its pool drains.
fn wait_until_closed() {
    let pool = Pool::current().expect("this is inside a task");
    while !pool.is_closed() {
        thread::yield_now();
    }
}

#[test]
fn after_a_shutdown_every_task_has_run_and_every_handle_has_its_value() {
    let _tidy = tidy();
    within(|| {
        let pool = pool_in(&registry(), 5);
        let handles: Vec<_> = (0..50)
            .map(|n| {
                let result = Tracked::new(n);
                let task = move || {
                    if n < 5 {
                        wait_until_closed(); // Not one of the fifty is over before the shutdown begins.
                    }
                    (0..20).for_each(|_| thread::yield_now());
                    result
                };
                pool.spawn(task).unwrap()
            })
            .collect();
        let report = pool.shutdown();
        assert!(handles.iter().all(|handle| handle.is_finished()));
        assert!(handles.into_iter().map(|handle| handle.join().unwrap().0).eq(0..50));
        assert!(report.is_clean());
        assert_eq!((report.stats().completed, report.workers_joined()), (50, 5));
        assert_eq!((report.stats().threads, report.stats().phase), (0, PoolPhase::Closed));
        assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
    });
}

#[test]
fn a_close_returns_before_its_tasks_have_run_and_they_run_all_the_same() {
    let _tidy = tidy();
    within(|| {
        let pool = pool_in(&registry(), 2);
        let (gates, running): (Vec<_>, Vec<_>) =
            (0..2).map(|_| occupy_with(|task| pool.spawn(task).unwrap())).unzip();
        let queued: Vec<_> = (0..40).map(|n| pool.spawn(move || n).unwrap()).collect();
        pool.close();
        pool.close();
        assert!(pool.is_closed() && running.iter().all(|handle| !handle.is_finished()));
        assert_eq!((pool.stats().phase, pool.stats().queued), (PoolPhase::Draining, 40));
        assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
        drop(gates);
        assert!(queued.into_iter().map(|handle| handle.join().unwrap()).eq(0..40));
        // Its threads leave by themselves: nobody waits for them.
        eventually("the threads have left", || pool.stats().threads == 0);
        eventually("it is over", || pool.stats().phase == PoolPhase::Closed);
        assert_eq!(pool.stats().completed, 42);
        running.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

#[test]
fn a_pool_goes_from_open_to_draining_to_closed_and_never_back() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..50 {
            let pool = pool_in(&registry(), 2);
            let is_over = Arc::new(AtomicBool::new(false));
            let watcher = thread::spawn({
                let (pool, is_over) = (pool.clone(), is_over.clone());
                move || {
                    let mut seen = vec![PoolPhase::Open];
                    while !is_over.load(SeqCst) {
                        let (was_closed, phase) = (pool.is_closed(), pool.stats().phase);
                        assert!(!was_closed || phase != PoolPhase::Open, "it was closed, and is {phase:?}");
                        if seen.last() != Some(&phase) {
                            seen.push(phase);
                        }
                    }
                    seen
                }
            });
            let (go, running) = occupy_with(|task| pool.spawn(task).unwrap());
            assert_eq!((pool.stats().phase, pool.is_closed()), (PoolPhase::Open, false));
            pool.close();
            assert_eq!((pool.stats().phase, pool.is_closed()), (PoolPhase::Draining, true));
            drop(go);
            pool.shutdown();
            assert_eq!((pool.stats().phase, pool.is_closed()), (PoolPhase::Closed, true));
            // Whatever is asked of it now, it stays as it is.
            pool.close();
            pool.execute(|| ()).unwrap_err();
            pool.wait_idle();
            drop(pool.shutdown_now());
            pool.shutdown();
            assert_eq!((pool.stats().phase, pool.is_closed()), (PoolPhase::Closed, true));
            is_over.store(true, SeqCst);
            let seen = watcher.join().unwrap();
            let order = [PoolPhase::Open, PoolPhase::Draining, PoolPhase::Closed];
            let places: Vec<_> =
                seen.iter().map(|seen| order.iter().position(|phase| phase == seen)).collect();
            assert!(places.is_sorted_by(|one, other| one < other), "{seen:?}");
            running.join().unwrap();
        }
    });
}

#[test]
fn tasks_that_fail_after_the_shutdown_began_do_not_hold_it_up() {
    let _tidy = tidy();
    within(|| {
        for by_registry in [false, true] {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let fail = || {
                wait_until_closed();
                panic!("after the shutdown began");
            };
            pool.execute(fail).unwrap();
            let handle = pool.spawn(fail).unwrap();
            for _ in 0..10 {
                pool.execute(|| panic!("from the queue")).unwrap();
            }
            let last = pool.spawn(|| 7).unwrap();
            let report = match by_registry {
                false => pool.shutdown(),
                true => registry.shutdown().pools()[0].clone(),
            };
            assert!(handle.join().unwrap_err().is_panic());
            assert_eq!(last.join().unwrap(), 7);
            assert!(report.is_clean());
            assert_eq!((report.stats().panicked, report.stats().completed), (12, 1));
            assert_eq!(report.workers_joined(), 2);
        }
    });
}

#[test]
fn a_worker_that_fails_to_start_in_a_drain_does_not_hold_it_up() {
    let _tidy = tidy();
    within(|| {
        for by_registry in [false, true] {
            let registry = registry();
            let starts = AtomicUsize::new(0);
            let start = move || assert_eq!(starts.fetch_add(1, SeqCst), 0, "no second connection");
            let builder = Pool::builder().registry(&registry).max_threads(2).on_thread_start(start);
            let pool = builder.build().unwrap();
            let first = pool.spawn(|| {
                wait_until_closed();
                // Each of them asks for a second worker, and the first time there is none the pool is broken.
                let pool = Pool::current().unwrap();
                let mut accepted = Vec::new();
                loop {
                    match pool.spawn(|| ()) {
                        Ok(handle) => accepted.push(handle),
                        Err(refused) => return (accepted, refused.reason()),
                    }
                    thread::yield_now();
                }
            });
            let report = match by_registry {
                false => pool.shutdown(),
                true => registry.shutdown().pools()[0].clone(),
            };
            let (accepted, reason) = first.unwrap().join().unwrap();
            assert_eq!(reason, RejectReason::Broken);
            assert!(!accepted.is_empty() && !report.is_clean(), "{report:?}");
            let stats = report.stats();
            assert_eq!((stats.completed, stats.cancelled), (1, accepted.len() as u64), "{stats:?}");
            assert_adds_up(stats);
            for handle in accepted {
                assert!(handle.join().unwrap_err().is_cancelled());
            }
        }
    });
}
