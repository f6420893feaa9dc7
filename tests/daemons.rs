//! Daemon pools: the process does not wait for them, and they harm nothing when they are left behind.

mod common;

use common::{occupy_with, registry, run, run_within, tidy, within};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use winddown::{Pool, PoolPhase};

#[test]
fn hooks_run_though_there_are_only_daemon_pools() {
    let _tidy = tidy();
    let outcome = run_within("only_daemons", Duration::from_secs(1));
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "before\nafter\n");
}

/// A hundred times, since each end meets forty threads wherever they are.
#[cfg(unix)]
#[test]
fn daemons_that_use_files_and_stdout_do_not_hold_up_the_end_nor_fail_at_it() {
    let _tidy = tidy();
    for _ in 0..100 {
        let outcome = run("daemons_use_files_and_stdout");
        outcome.assert_code(0).assert_silent();
        assert_eq!(outcome.count("task"), 1, "{outcome:#?}");
        assert!(outcome.elapsed < Duration::from_secs(20), "{outcome:#?}");
    }
}

#[test]
fn daemons_that_submit_to_a_pool_to_the_very_end_are_refused_and_harm_nothing() {
    let _tidy = tidy();
    for _ in 0..10 {
        let outcome = run("daemons_submit_to_the_end");
        outcome.assert_code(0).assert_silent();
        assert_eq!(outcome.count("task "), 50, "{outcome:#?}");
        assert_eq!(outcome.count("all are ShuttingDown: true"), 1, "{outcome:#?}");
    }
}

#[test]
fn a_task_may_wait_for_one_of_a_daemon_pool_while_the_process_ends() {
    let _tidy = tidy();
    let outcome = run("daemon_is_joined_at_the_end");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "Some(\"served\")\n");
}

#[test]
fn a_task_that_waits_for_a_queued_one_of_a_daemon_pool_that_never_starts_is_helped_by_a_deadline_alone() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let build = || Pool::builder().registry(&registry).max_threads(1);
        let (pool, daemon) = (build().build().unwrap(), build().daemon().build().unwrap());
        let (go, ()) = occupy_with(|task| daemon.execute(task).unwrap());
        let queued = daemon.spawn(|| ()).unwrap();
        let (started, has_started) = mpsc::channel();
        let waits = pool.spawn(move || {
            started.send(()).unwrap();
            queued.join()
        });
        has_started.recv().unwrap();
        let report = registry.shutdown_timeout(Duration::from_millis(300));
        assert!(!report.is_clean() && report.totals().abandoned == 1, "{report}");
        assert_eq!(report.totals().cancelled, 1, "what the daemon pool had queued never starts: {report}");
        assert!(waits.unwrap().join().unwrap_err().is_abandoned());
        drop(go);
    });
}

#[test]
fn a_pool_is_a_daemon_or_not_from_its_beginning_to_its_end() {
    let _tidy = tidy();
    within(|| {
        for is_daemon in [false, true] {
            let registry = registry();
            let builder = Pool::builder().registry(&registry).max_threads(1);
            let pool = if is_daemon { builder.daemon() } else { builder }.build().unwrap();
            let seen = |phase| {
                let stats = pool.stats();
                assert_eq!((stats.is_daemon, stats.phase), (is_daemon, phase), "{stats:?}");
            };
            seen(PoolPhase::Open);
            let (go, ()) = occupy_with(|task| pool.execute(task).unwrap());
            pool.close();
            seen(PoolPhase::Draining);
            let remote = pool.clone();
            let ender = thread::spawn(move || remote.shutdown());
            drop(go);
            assert_eq!(ender.join().unwrap().stats().is_daemon, is_daemon);
            seen(PoolPhase::Closed);
        }
    });
}
