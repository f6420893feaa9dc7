//! Shutdown of a registry against whatever comes to it meanwhile.

use super::*;
use crate::{BuildError, Phase};
use std::time::Duration;

#[test]
fn a_hook_that_is_registered_while_the_shutdown_begins_runs_once_or_comes_back() {
    explore(|| {
        let (registry, _pool) = pool(1);
        let trace = Trace::default();
        let registrar = {
            let (registry, trace) = (registry.clone(), trace.clone());
            thread::spawn(move || {
                let before = registry.before_join("before", trace.task()).is_ok();
                let after = registry.after_join("after", trace.task()).is_ok();
                usize::from(before) + usize::from(after)
            })
        };
        let report = registry.shutdown();
        let registered = registrar.join().unwrap();
        assert!(report.is_clean());
        assert_eq!((trace.ran(), report.hooks().len()), (registered, registered));
        trace.assert_no_captures();
    });
}

#[test]
fn a_hook_that_is_removed_while_the_shutdown_begins_runs_or_was_removed() {
    explore(|| {
        let registry = Registry::root();
        let trace = Trace::default();
        let id = registry.before_join("removed", trace.task()).unwrap();
        let remover = {
            let registry = registry.clone();
            thread::spawn(move || registry.remove(id))
        };
        registry.shutdown();
        assert_eq!(trace.ran(), usize::from(!remover.join().unwrap()));
        trace.assert_no_captures();
    });
}

#[test]
fn a_pool_that_is_built_while_the_shutdown_begins_is_drained_or_refused() {
    explore(|| {
        let registry = Registry::root();
        let trace = Trace::default();
        let builder = {
            let (registry, trace) = (registry.clone(), trace.clone());
            thread::spawn(move || match builder(&registry, 1).build() {
                Ok(pool) => {
                    let accepted = usize::from(pool.execute(trace.task_to_the_last()).is_ok());
                    (Some(pool), accepted)
                }
                Err(error) => {
                    assert!(matches!(error, BuildError::ShuttingDown));
                    (None, 0)
                }
            })
        };
        let report = registry.shutdown();
        assert_eq!(registry.phase(), Phase::Finished);
        let (pool, accepted) = builder.join().unwrap();
        // Who built it before the pools close has its task run; no task is accepted after that.
        assert_eq!(report.pools().len(), usize::from(pool.is_some()));
        assert_eq!(trace.ran(), 2 * accepted);
        assert_eq!(report.totals().accepted as usize, accepted);
        drop(pool);
        trace.assert_no_captures();
    });
}

#[test]
fn all_who_shut_down_get_the_same_report_and_every_hook_runs_once() {
    explore(|| {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        registry.before_join("once", trace.task()).unwrap();
        pool.execute(trace.task()).unwrap();
        let others = [(); 2].map(|()| {
            let registry = registry.clone();
            thread::spawn(move || registry.shutdown())
        });
        registry.request_shutdown();
        let report = registry.wait_finished();
        for other in others {
            let other = other.join().unwrap();
            assert_eq!(other.totals().completed, report.totals().completed);
            assert_eq!(other.elapsed(), report.elapsed());
        }
        assert_eq!((trace.ran(), report.totals().completed, report.hooks().len()), (2, 1, 1));
    });
}

#[test]
fn a_hold_is_waited_for_and_whoever_comes_too_late_gets_none() {
    explore(|| {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        let request = {
            let (registry, pool, trace) = (registry.clone(), pool.clone(), trace.clone());
            thread::spawn(move || match registry.hold("request") {
                Ok(hold) => {
                    // The pools are open while it is held.
                    pool.execute(trace.task_to_the_last()).unwrap();
                    drop(hold);
                    2
                }
                Err(_) => 0,
            })
        };
        registry.shutdown();
        assert_eq!(request.join().unwrap(), trace.ran());
    });
}

#[test]
fn pools_that_feed_each_other_drain_until_both_are_quiet() {
    /// So many tasks, each of which submits the next to the other pool.
    fn feed(pool: &Pool, other: &Pool, trace: &Trace, tasks: usize) {
        let (this, next, left) = (pool.clone(), other.clone(), trace.clone());
        let task = move || {
            left.leave();
            if tasks > 1 {
                feed(&next, &this, &left, tasks - 1);
            }
        };
        pool.execute(task).unwrap();
    }
    explore(|| {
        let registry = Registry::root();
        let [a, b] = [(); 2].map(|()| builder(&registry, 1).build().unwrap());
        let trace = Trace::default();
        feed(&a, &b, &trace, 4);
        let report = registry.shutdown();
        assert!(report.is_clean());
        assert_eq!((trace.ran(), report.totals().completed, report.totals().panicked), (4, 4, 0));
        drop((a, b));
        trace.assert_no_captures();
    });
}

#[test]
fn a_registry_below_is_wound_down_with_the_one_above_whoever_else_does_it() {
    explore(|| {
        let above = Registry::root();
        let below = above.child();
        let pool = builder(&below, 1).build().unwrap();
        let trace = Trace::default();
        below.before_join("below", trace.task()).unwrap();
        let submitter = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || usize::from(pool.execute(trace.task_to_the_last()).is_ok()))
        };
        let own = {
            let below = below.clone();
            thread::spawn(move || below.shutdown())
        };
        above.shutdown();
        assert_eq!((above.phase(), below.phase()), (Phase::Finished, Phase::Finished));
        let accepted = submitter.join().unwrap();
        assert_eq!(trace.ran(), 1 + 2 * accepted);
        let own = own.join().unwrap();
        assert_eq!((own.totals().completed as usize, own.hooks().len()), (accepted, 1));
    });
}

#[test]
fn the_last_handle_of_a_pool_may_go_while_its_registry_shuts_down() {
    explore(|| {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        pool.execute(trace.task_to_the_last()).unwrap();
        let dropper = thread::spawn(move || drop(pool));
        let report = registry.shutdown();
        // Its thread is joined, whoever had it by then.
        assert_eq!(trace.ran(), 2);
        dropper.join().unwrap();
        assert!(report.is_clean());
        assert!(registry.stats().is_empty());
        trace.assert_no_captures();
    });
}

#[test]
fn two_shutdowns_of_a_pool_both_wait_for_the_end_of_its_threads() {
    explore(|| {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        pool.execute(trace.task_to_the_last()).unwrap();
        let own = {
            let trace = trace.clone();
            thread::spawn(move || {
                pool.shutdown();
                assert_eq!(trace.ran(), 2);
            })
        };
        registry.shutdown();
        assert_eq!(trace.ran(), 2);
        own.join().unwrap();
    });
}

#[test]
fn a_worker_that_has_left_its_pool_and_not_ended_is_joined() {
    explore(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 1).keep_alive(Duration::from_secs(1)).build().unwrap();
        let trace = Trace::default();
        pool.execute(trace.task_to_the_last()).unwrap();
        let time = Time::passes();
        while pool.stats().threads > 0 {
            thread::yield_now();
        }
        drop(time);
        registry.shutdown();
        assert_eq!(trace.ran(), 2);
    });
}
