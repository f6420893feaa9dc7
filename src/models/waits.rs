//! Waits inside tasks: none waits for itself, and no two for each other.

use super::*;
use std::time::Duration;

/// So many tasks on so many threads, each of which calls `wait`.
fn tasks_that_wait(
    max_threads: usize,
    tasks: usize,
    wait: impl Fn(&Registry, &Pool) + Send + Sync + Copy + 'static,
) {
    explore(move || {
        let (registry, pool) = pool(max_threads);
        let trace = Trace::default();
        let mut accepted = 0;
        for _ in 0..tasks {
            let (registry, own, trace) = (registry.clone(), pool.clone(), trace.clone());
            let task = move || {
                wait(&registry, &own);
                trace.leave();
            };
            // The one before may have closed the pool.
            accepted += usize::from(pool.execute(task).is_ok());
        }
        pool.shutdown();
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        // A task that was blocked in a shutdown counts as finished for it, and ends a little later.
        while pool.stats().threads > 0 {
            thread::yield_now();
        }
        let stats = pool.stats();
        assert_adds_up(&stats);
        assert_eq!(
            (stats.accepted as usize, stats.completed as usize, trace.ran()),
            (accepted, accepted, accepted)
        );
        drop((pool, registry));
        trace.assert_no_captures();
    });
}

#[test]
fn two_tasks_that_shut_down_their_pool_at_once_both_return() {
    tasks_that_wait(2, 2, |_, pool| drop(pool.shutdown()));
    tasks_that_wait(1, 2, |_, pool| drop(pool.shutdown()));
}

#[test]
fn two_tasks_that_shut_down_their_registry_at_once_both_return() {
    tasks_that_wait(2, 2, |registry, _| drop(registry.shutdown()));
    tasks_that_wait(1, 2, |registry, _| drop(registry.shutdown()));
}

#[test]
fn tasks_that_wait_for_the_end_of_all_are_not_waited_for() {
    tasks_that_wait(2, 2, |registry, _| drop(registry.wait_finished()));
    tasks_that_wait(1, 2, |registry, _| drop(registry.wait_finished()));
}

#[test]
fn tasks_that_wait_until_their_pool_is_idle_do_not_wait_for_each_other() {
    tasks_that_wait(2, 2, |_, pool| pool.wait_idle());
    tasks_that_wait(1, 2, |_, pool| pool.wait_idle());
}

#[test]
fn a_task_that_shuts_down_and_one_that_waits_for_idleness_both_return() {
    explore(|| {
        let (registry, pool) = pool(2);
        let (a, b) = (pool.clone(), pool.clone());
        let trace = Trace::default();
        let (left_a, left_b) = (trace.clone(), trace.clone());
        pool.execute(move || {
            a.shutdown();
            left_a.leave();
        })
        .unwrap();
        let second = pool.execute(move || {
            b.wait_idle();
            left_b.leave();
        });
        let accepted = 1 + usize::from(second.is_ok());
        drop(second);
        registry.shutdown();
        drop((pool, registry));
        while Arc::strong_count(&trace.captured) > 1 {
            thread::yield_now();
        }
        assert_eq!(trace.ran(), accepted);
    });
}

#[test]
fn tasks_of_two_pools_that_shut_down_each_others_pool_both_return() {
    explore(|| {
        let registry = Registry::root();
        let [a, b] = [(); 2].map(|()| builder(&registry, 1).build().unwrap());
        let trace = Trace::default();
        let mut accepted = 0;
        for (pool, other) in [(&a, &b), (&b, &a)] {
            let (other, trace) = (other.clone(), trace.clone());
            let task = move || {
                other.shutdown();
                trace.leave();
            };
            accepted += usize::from(pool.execute(task).is_ok());
        }
        assert!(registry.shutdown().is_clean());
        drop((a, b, registry));
        while Arc::strong_count(&trace.captured) > 1 {
            thread::yield_now();
        }
        assert_eq!(trace.ran(), accepted);
    });
}

#[test]
fn a_task_joins_its_children_on_however_few_threads() {
    for max_threads in [1, 2] {
        explore(move || {
            let (_registry, pool) = pool(max_threads);
            let inner = pool.clone();
            let parent = move || {
                let children: Vec<_> = (0..2).map(|n| inner.spawn(move || n).unwrap()).collect();
                children.into_iter().map(|child| child.join().unwrap()).sum::<usize>()
            };
            let parents = [pool.spawn(parent.clone()).unwrap(), pool.spawn(parent).unwrap()];
            parents.into_iter().for_each(|parent| assert_eq!(parent.join().unwrap(), 1));
            assert_eq!(pool.shutdown().stats().completed, 6);
        });
    }
}

#[test]
fn a_task_that_is_stuck_is_left_behind_at_the_deadline_and_the_rest_is_not() {
    for has_handle in [true, false] {
        explore(move || {
            let (registry, pool) = pool(2);
            let (go, wait) = shuttle::sync::mpsc::channel::<()>();
            let (started, has_started) = shuttle::sync::mpsc::channel();
            let task = move || {
                started.send(()).unwrap();
                let _ = wait.recv();
            };
            let stuck = match has_handle {
                true => Some(pool.spawn(task).unwrap()),
                false => pool.execute(task).map(|()| None).unwrap(),
            };
            has_started.recv().unwrap();
            let trace = Trace::default();
            pool.execute(trace.task()).unwrap();
            let time = Time::passes();
            let report = registry.shutdown_timeout(Duration::from_secs(5));
            drop(time);
            if let Some(stuck) = stuck {
                assert!(stuck.join().unwrap_err().is_abandoned());
            }
            // The other one may run at that very moment.
            let totals = report.totals();
            assert!((1..=2).contains(&totals.abandoned));
            assert_eq!(totals.completed + totals.cancelled + totals.abandoned, 2);
            assert!(totals.abandoned == 2 || trace.ran() as u64 == totals.completed);
            drop(go);
            // They end after all, and are not counted once more.
            while pool.stats().threads > 0 {
                thread::yield_now();
            }
            let stats = pool.stats();
            assert_eq!((stats.completed, stats.abandoned), (totals.completed, totals.abandoned));
        });
    }
}
