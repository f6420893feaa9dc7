//! Promise 4, the order of a shutdown, and promise 5, one failure stops nothing: the whole, in child processes.

mod common;

use common::{command, finish, run, run_within, tidy, Outcome};
use std::time::Duration;

/// The order of everything in a shutdown of `registries`, each of whose pools has run so many `tasks`, by the lines
/// that these print.
#[track_caller]
fn assert_whole_order(lines: &[&str], registries: &[&str], tasks: usize) {
    let mut expected = Vec::new();
    for registry in registries {
        expected.extend([2, 1].map(|n| format!("before {n} of {registry}")));
    }
    for registry in registries {
        for n in [2, 1] {
            expected.extend((0..tasks).map(|_| format!("task of {registry} {n}")));
        }
    }
    let mut destructors = Vec::new();
    for registry in registries {
        destructors.extend([1, 2].map(|n| format!("destructor of {registry} {n}")));
    }
    destructors.sort();
    let joined = expected.len();
    expected.extend(destructors);
    for registry in registries {
        expected.extend([2, 1].map(|n| format!("after {n} of {registry}")));
    }
    let mut lines = lines.to_vec();
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    // They run at the same time.
    lines[joined..joined + 2 * registries.len()].sort_unstable();
    assert_eq!(lines, expected);
}

#[track_caller]
fn whole_order(case: &str, code: i32) {
    let outcome = run(case);
    outcome.assert_code(code).assert_silent();
    assert_whole_order(&outcome.stdout.lines().collect::<Vec<_>>(), &["new", "old", "global"], 7);
}

#[test]
fn hooks_pools_threads_and_hooks_end_in_order_in_an_explicit_shutdown() {
    let _tidy = tidy();
    whole_order("whole_order_when_main_shuts_down", 0);
}

#[test]
fn hooks_pools_threads_and_hooks_end_in_order_when_a_task_exits() {
    let _tidy = tidy();
    whole_order("whole_order_when_a_task_exits", 7);
}

#[test]
#[cfg(feature = "exit-hook")]
fn hooks_pools_threads_and_hooks_end_in_order_when_main_returns() {
    let _tidy = tidy();
    whole_order("whole_order_when_main_returns", 0);
}

#[test]
#[cfg(all(unix, feature = "exit-hook"))]
fn hooks_pools_threads_and_hooks_end_in_order_when_main_exits() {
    let _tidy = tidy();
    whole_order("whole_order_when_main_exits", 3);
}

#[test]
fn a_private_registry_can_be_shut_down_ahead_of_the_others() {
    let _tidy = tidy();
    let outcome = run("whole_order_when_a_private_shutdown_came_first");
    outcome.assert_code(0).assert_silent();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    let cut = outcome.position("shut down");
    assert_whole_order(&lines[..cut], &["new"], 3);
    assert_whole_order(&lines[cut + 1..], &["old", "global"], 7);
}

/// A case that ends well, by a call and, with the exit net, by the return from `main`.
#[track_caller]
fn run_well(case: &str, look: impl Fn(&Outcome)) {
    for end in ["exit", "return"] {
        if end == "exit" || cfg!(feature = "exit-hook") {
            let mut command = command(case);
            command.arg(end);
            let outcome = finish(command);
            outcome.assert_code(0).assert_silent().assert_prompt();
            look(&outcome);
        }
    }
}

/// The same for one that prints just this.
#[track_caller]
fn prints(case: &str, expected: &str) {
    run_well(case, |outcome| assert_eq!(outcome.stdout, expected, "{case}"));
}

#[test]
fn thread_local_destructors_of_every_worker_run_before_post_join_hooks() {
    let _tidy = tidy();
    for case in
        ["destructor_of_a_live_pool", "destructor_of_a_dropped_pool", "destructor_of_an_expired_worker"]
    {
        prints(case, "destructor\nafter\n");
    }
}

#[test]
fn hooks_run_once_however_often_the_process_shuts_down() {
    let _tidy = tidy();
    prints("hooks_run_once", "before\nafter\n");
}

#[test]
#[cfg(feature = "exit-hook")]
fn hooks_run_at_exit_though_there_never_was_a_pool() {
    let _tidy = tidy();
    prints("hooks_without_a_pool", "before\nafter\n");
}

#[test]
fn a_panicking_hook_stops_nothing_and_keeps_the_exit_code() {
    let _tidy = tidy();
    let mut endings = vec![("hook_panics_and_main_exits", 3)];
    if cfg!(feature = "exit-hook") {
        endings.push(("hook_panics", 0));
    }
    for (case, code) in endings {
        let outcome = run(case);
        outcome.assert_code(code);
        assert_eq!(outcome.stdout, "before\ntask\nafter\n");
        assert_eq!(outcome.stderr.matches("panicked at").count(), 2, "{outcome:#?}");
        assert!(outcome.stderr.contains("no luck before") && outcome.stderr.contains("no luck after"));
    }
}

#[test]
fn a_hook_ends_a_worker_that_waits_for_more() {
    let _tidy = tidy();
    prints("hook_ends_a_consumer", "request 7\n");
}

#[test]
fn work_that_a_hook_leaves_on_a_new_pool_is_drained() {
    let _tidy = tidy();
    run_well("hook_leaves_work_on_a_new_pool", |outcome| {
        assert_eq!(outcome.count("task "), 10, "{outcome:#?}");
        assert_eq!(outcome.position("after"), 10, "{outcome:#?}");
    });
}

#[test]
fn follow_ups_between_pools_run_to_their_end_at_exit() {
    let _tidy = tidy();
    run_well("follow_ups_between_pools", |outcome| assert_eq!(outcome.count("task"), 200, "{outcome:#?}"));
}

#[test]
fn tasks_that_wait_for_tasks_of_another_pool_end_at_exit() {
    let _tidy = tidy();
    run_well("tasks_wait_for_tasks_of_another_pool", |outcome| {
        assert_eq!(outcome.count("task "), 20, "{outcome:#?}");
    });
}

#[test]
fn tasks_that_wait_for_tasks_of_an_idle_pool_end_at_exit_whichever_is_older() {
    let _tidy = tidy();
    for case in [
        "tasks_wait_for_tasks_of_an_older_pool",
        "tasks_wait_for_tasks_of_a_newer_pool",
        "tasks_wait_for_tasks_of_an_older_used_pool",
        "tasks_wait_for_tasks_of_a_newer_used_pool",
    ] {
        run_well(case, |outcome| assert_eq!(outcome.count("task "), 10, "{case}"));
    }
}

#[test]
fn a_pool_that_rejects_follow_ups_hands_them_back_at_exit() {
    let _tidy = tidy();
    prints("pool_rejects_follow_ups", "ShuttingDown\na follow-up\naccepted before\nOk(())\n");
}

#[test]
fn exit_does_not_wait_for_a_daemon_pool() {
    let _tidy = tidy();
    prints("daemon_runs_for_ever", "before\ntask\nafter\n");
    run_within("daemon_runs_for_ever", Duration::from_secs(1)).assert_code(0);
}
