//! However a program ends: one drain, one deadline, and one report.

mod common;

use common::{occupy_with, pool_in, registry, run, run_within, tidy, within};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use winddown::{task, Pool, PoolPhase};

/// What the program prints of its report, and what began the shutdown.
fn report_of(case: &str) -> (String, String) {
    let outcome = run(case);
    outcome.assert_code(0);
    (outcome.stdout, outcome.stderr.trim().to_owned())
}

#[test]
fn the_report_is_the_same_whatever_ends_the_process() {
    let _tidy = tidy();
    let mut ways = Vec::new();
    if cfg!(feature = "exit-hook") {
        ways.extend([("mixed_work_and_main_returns", "Exit")]);
    }
    if cfg!(all(unix, feature = "exit-hook")) {
        ways.extend([("mixed_work_and_process_exits", "Exit")]);
    }
    ways.push(("mixed_work_and_shutdown", "Call"));
    // The program tells of it in an exit handler of C: on Windows none runs then.
    if cfg!(unix) {
        ways.push(("mixed_work_and_winddown_exits", "Exit"));
    }
    if cfg!(all(unix, feature = "signals")) {
        ways.extend([("mixed_work_and_signal", "Signal(15)")]);
    }
    let expected = [
        "clean: false, adds up: true",
        "accepted 15, completed 8, panicked 2, cancelled 4, abandoned 1, rejected 1",
        "hook PreJoin fails: Panicked(\"no luck\")",
        "hook PreJoin fine: Ran",
        "hook PostJoin fine, too: Ran",
    ];
    for (case, reason) in ways {
        let (report, because) = report_of(case);
        assert_eq!(because, reason, "{case}");
        let lines: Vec<_> = report.lines().collect();
        assert_eq!(lines[..5], expected, "{case}: {report}");
        let pools: Vec<_> = lines[5..].iter().map(|line| line.split_once(',').unwrap()).collect();
        assert_eq!(pools[0].0, "pool stuck: 5 tasks", "newest first, in {case}");
        assert!(pools[0].1.contains("Some(\"invoice 4711\")"), "{case}: {report}");
        assert_eq!((pools[1], pools.len()), (("pool busy: 10 tasks", " abandoned []"), 2), "{case}");
    }
}

#[cfg(all(unix, feature = "signals"))]
#[test]
fn two_threads_and_a_signal_that_end_the_process_at_once_drain_it_once() {
    let _tidy = tidy();
    for _ in 0..50 {
        let outcome = run("ends_of_all_sorts_at_once");
        outcome.assert_silent();
        assert!(matches!(outcome.status.code(), Some(0 | 3)), "{outcome:#?}");
        assert_eq!(outcome.count("task "), 50, "{outcome:#?}");
        assert_eq!((outcome.count("before"), outcome.count("after")), (1, 1), "{outcome:#?}");
    }
}

#[test]
fn twenty_stuck_pools_of_eleven_registries_share_the_deadline_of_the_process() {
    let _tidy = tidy();
    // Of 1.5 s stuck tasks have nine tenths: two of them one after the other would take 2.7 s.
    let outcome = run_within("twenty_stuck_pools", Duration::from_millis(2600));
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "after\n");
    assert!(outcome.elapsed >= Duration::from_millis(1300), "{outcome:#?}");
}

#[test]
fn a_process_may_have_a_deadline_of_nothing_and_one_without_end() {
    let _tidy = tidy();
    let nothing = run_within("deadline_of_nothing", Duration::from_secs(1));
    nothing.assert_code(3).assert_silent();
    assert_eq!(nothing.stdout, "", "there is no time for any of it");
    assert_runs_all("deadline_without_end");
}

#[test]
fn a_process_that_is_done_before_its_deadline_ends_at_once() {
    let _tidy = tidy();
    assert_runs_all("deadline_in_an_hour");
}

#[track_caller]
fn assert_runs_all(case: &str) {
    let outcome = run_within(case, Duration::from_secs(1));
    outcome.assert_code(3).assert_silent();
    let mut lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines.pop(), Some("after"));
    lines.sort_unstable(); // The hook and the task run at the same time.
    assert_eq!(lines, ["before", "task"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_stuck_task_that_holds_the_stdout_of_c_does_not_hold_up_the_end() {
    let _tidy = tidy();
    let outcome = run("stuck_in_c_stdio");
    outcome.assert_code(9).assert_silent();
    assert_eq!(outcome.stdout, "locked\n");
}

/// In this order: the token, the queued tasks' waiters and the running tasks' flag, the running tasks' waiters.
#[test]
fn waiters_of_queued_tasks_wake_and_running_tasks_are_told_before_these_are_given_up() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let (end, wait) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let (told, is_told) = mpsc::channel();
        let stuck = pool.spawn(move || {
            started.send(()).unwrap();
            while !task::is_cancelled() {
                thread::yield_now();
            }
            told.send(Instant::now()).unwrap();
            let _ = wait.recv();
        });
        has_started.recv().unwrap();
        let waits_for = |handle: winddown::JoinHandle<()>| {
            thread::spawn(move || {
                let error = handle.join().unwrap_err();
                (Instant::now(), error.kind())
            })
        };
        let queued = waits_for(pool.spawn(|| ()).unwrap());
        let stuck = waits_for(stuck.unwrap());
        let token = registry.token();
        let token = thread::spawn(move || {
            token.wait();
            Instant::now()
        });
        // The reserve is 0.8 s, of which the half lies between what is told first and what is given up.
        let report = registry.shutdown_timeout(Duration::from_secs(4));
        let token = token.join().unwrap();
        let (queued, cancelled) = queued.join().unwrap();
        let (given_up, abandoned) = stuck.join().unwrap();
        let told = is_told.recv().unwrap();
        assert_eq!(cancelled, winddown::JoinErrorKind::Cancelled);
        assert_eq!(abandoned, winddown::JoinErrorKind::Abandoned);
        assert!(token < queued && token < told, "the token fires at once");
        assert!(queued < given_up && told < given_up, "{:?} {:?}", given_up - queued, given_up - told);
        assert_eq!((report.totals().cancelled, report.totals().abandoned), (1, 1), "{report}");
        drop(end);
    });
}

#[test]
fn after_an_end_that_ran_out_of_time_another_one_joins_the_rest() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = Pool::builder().registry(&registry).max_threads(2).build().unwrap();
        let (go, stuck) = occupy_with(|task| pool.spawn(task).unwrap());
        let first = pool.shutdown_timeout(Duration::from_millis(100));
        assert_eq!((first.stats().abandoned, first.is_clean()), (1, false), "{first}");
        assert_eq!(first.stats().threads, 1, "its thread is still at it");
        assert!(stuck.join().unwrap_err().is_abandoned());
        drop(go);
        // It need not wait: nothing but the process knows of that thread any more, until it comes back.
        common::eventually("the thread comes back", || pool.stats().threads == 0);
        let second = pool.shutdown();
        assert_eq!(
            (second.stats().abandoned, second.stats().completed),
            (1, 0),
            "it stays abandoned: {second}"
        );
        assert_eq!((second.workers_joined(), second.stats().phase), (1, PoolPhase::Closed), "{second}");
        assert!(registry.shutdown().totals().accepted <= 1);
    });
}
