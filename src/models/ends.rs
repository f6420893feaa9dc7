//! The end of registries: daemons, deadlines, nested ones, and the waits of others for it.

use super::*;
use crate::Phase;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);

#[test]
fn a_daemon_pool_serves_until_all_others_are_joined_and_then_settles_what_it_has() {
    explore(|| {
        let registry = Registry::root();
        let daemon = builder(&registry, 1).daemon().build().unwrap();
        let pool = builder(&registry, 1).build().unwrap();
        let trace = Trace::default();
        let (serves, left) = (daemon.clone(), trace.clone());
        let task = move || {
            serves.spawn(left.task()).unwrap().join().unwrap();
            left.leave();
        };
        pool.execute(task).unwrap();
        let outside = {
            let (daemon, trace) = (daemon.clone(), trace.clone());
            thread::spawn(move || match daemon.spawn(trace.task()) {
                Ok(handle) => usize::from(handle.join().is_ok()),
                Err(_) => 0,
            })
        };
        let report = registry.shutdown();
        let ran = outside.join().unwrap();
        assert!(report.is_clean());
        while daemon.stats().threads > 0 {
            thread::yield_now();
        }
        let stats = daemon.stats();
        assert_adds_up(&stats);
        assert_eq!((stats.completed as usize, trace.ran()), (1 + ran, 2 + ran));
        drop((daemon, pool));
        while Arc::strong_count(&trace.captured) > 1 {
            thread::yield_now();
        }
    });
}

#[test]
fn a_hold_a_hook_and_a_blocked_submitter_cost_no_more_than_the_deadline() {
    explore(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 1).queue_capacity(1).build().unwrap();
        let (go, wait) = shuttle::sync::mpsc::channel::<()>();
        let (release, hang) = shuttle::sync::mpsc::channel::<()>();
        let trace = Trace::default();
        let hold = registry.hold("kept").unwrap();
        let captured = trace.clone();
        registry
            .before_join("hangs", move || {
                let _ = hang.recv();
                captured.leave();
            })
            .unwrap();
        registry.after_join("last", trace.task()).unwrap();
        let stuck = pool.spawn(move || _ = wait.recv()).unwrap();
        let submitters = [(); 2].map(|()| {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || match pool.spawn(trace.task()) {
                Ok(handle) => assert!(handle.join().unwrap_err().is_cancelled()),
                Err(refused) => drop(refused),
            })
        });
        let time = Time::passes();
        let report = registry.shutdown_timeout(DEADLINE);
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        assert_eq!(registry.phase(), Phase::Finished);
        let totals = report.totals();
        assert_adds_up(&totals);
        assert_eq!(totals.completed, 0);
        assert!(totals.abandoned <= 1);
        assert!(stuck.join().is_err());
        assert!(!report.is_clean());
        drop(time);
        drop((go, release, hold));
    });
}

#[test]
fn a_join_ends_when_the_deadline_leaves_its_task_behind() {
    explore(|| {
        let (registry, pool) = pool(1);
        let (go, wait) = shuttle::sync::mpsc::channel::<()>();
        let stuck = pool.spawn(move || _ = wait.recv()).unwrap();
        let queued = pool.spawn(|| ()).unwrap();
        let joiners = [stuck, queued].map(|handle| thread::spawn(move || handle.join()));
        let time = Time::passes();
        let report = registry.shutdown_timeout(DEADLINE);
        let [stuck, queued] = joiners.map(|joiner| joiner.join().unwrap().unwrap_err());
        drop(time);
        assert!(queued.is_cancelled());
        let totals = report.totals();
        // It may not have started when the reserve began.
        assert_eq!(totals.abandoned, u64::from(stuck.is_abandoned()));
        assert_eq!(totals.abandoned + totals.cancelled, 2);
        drop(go);
    });
}

#[test]
fn registries_that_are_shut_down_from_both_ends_are_all_over() {
    explore(|| {
        let above = Registry::root();
        let below = above.child();
        let trace = Trace::default();
        let [up, down] = [&above, &below].map(|registry| builder(registry, 1).build().unwrap());
        let left = trace.clone();
        let (to, whole) = (up.clone(), above.clone());
        // A task below waits for the end of all.
        let task = move || {
            let _ = to.execute(left.task());
            whole.shutdown();
            left.leave();
        };
        down.execute(task).unwrap();
        let own = {
            let below = below.clone();
            thread::spawn(move || below.shutdown())
        };
        let report = above.shutdown();
        let own = own.join().unwrap();
        assert!(report.is_clean() && own.is_clean());
        assert_eq!((above.phase(), below.phase()), (Phase::Finished, Phase::Finished));
        drop((up, down, above, below));
        while Arc::strong_count(&trace.captured) > 1 {
            thread::yield_now();
        }
    });
}

#[test]
fn a_registry_that_is_made_and_left_while_the_one_above_ends_loses_no_task() {
    explore(|| {
        let above = Registry::root();
        let trace = Trace::default();
        let maker = {
            let (above, trace) = (above.clone(), trace.clone());
            thread::spawn(move || {
                let below = above.child();
                let pool = builder(&below, 1).build();
                drop(below);
                usize::from(pool.is_ok_and(|pool| pool.execute(trace.task()).is_ok()))
            })
        };
        above.shutdown();
        let accepted = maker.join().unwrap();
        while trace.ran() < accepted {
            thread::yield_now();
        }
        while Arc::strong_count(&trace.captured) > 1 {
            thread::yield_now();
        }
    });
}

#[test]
fn a_token_and_a_report_come_to_whoever_waits_for_them() {
    explore(|| {
        let (registry, pool) = pool(1);
        let token = registry.token();
        let waiter = thread::spawn(move || token.wait());
        let (token, finished) = (registry.token(), registry.finished());
        let future = thread::spawn(move || {
            shuttle::future::block_on(token);
            shuttle::future::block_on(finished)
        });
        pool.execute(|| ()).unwrap();
        registry.request_shutdown();
        waiter.join().unwrap();
        assert_eq!(future.join().unwrap().totals().completed, 1);
    });
}
