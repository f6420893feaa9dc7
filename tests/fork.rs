//! Promise 10: fork-safe. What was made before a fork is dead in the child, and what the child makes is alive.
#![cfg(unix)]
#![allow(unsafe_code)] // What runs between fork and exec.

mod common;

use common::{tidy, Outcome};
use std::time::Duration;

fn run(case: &str) -> Outcome {
    let outcome = common::run(case);
    outcome.assert_code(0).assert_silent();
    outcome
}

/// Runs a case that forks while threads start and end, without std's detection of stack overflows.
///
/// That keeps a table of threads behind a lock (`thread_info` in std 1.95), which each thread takes when it starts and
/// when it ends. A fork at that moment leaves the lock held in the child, where no thread can start then, whoever
/// starts it: five of 12,000 children hung there. std leaves out the table where these signals are not at their defaults.
fn run_storm(case: &str) -> Outcome {
    use std::os::unix::process::CommandExt;
    let mut command = common::command(case);
    let ignore_faults = || {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            // SAFETY: `signal` may be called between fork and exec.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: the closure only calls `signal`.
    unsafe { command.pre_exec(ignore_faults) };
    let outcome = common::finish(command);
    outcome.assert_code(0).assert_silent();
    outcome
}

#[track_caller]
fn assert_lines(outcome: &Outcome, lines: &[&str]) {
    for line in lines {
        assert_eq!(
            outcome.stdout.lines().filter(|found| found == line).count(),
            1,
            "{line:?} in {outcome:#?}"
        );
    }
}

#[track_caller]
fn assert_no_line(outcome: &Outcome, part: &str) {
    assert!(!outcome.stdout.contains(part), "{part:?} in {outcome:#?}");
}

/// Every way to end a child, and the code it ends with.
const ENDS: [&str; 5] =
    ["Return: code 0", "ProcessExit: code 0", "LibcExit: code 0", "WinddownExit: code 0", "Panic: code 101"];

#[test]
fn what_was_made_before_a_fork_is_dead_in_the_child_and_alive_in_the_parent() {
    let _tidy = tidy();
    let outcome = run("fork_old_things");
    let lines = ["refusals", "joins", "awaits", "collections", "waits", "looks", "drops", "a fresh start"];
    for name in lines {
        assert_lines(&outcome, &[&format!("{name}: code 0")]);
    }
    assert_eq!(outcome.count("a returned closure ran"), 2, "{outcome:#?}");
}

#[test]
fn the_parents_hooks_run_in_the_parent_alone() {
    let _tidy = tidy();
    let outcome = run("fork_hooks");
    assert_lines(&outcome, &ENDS);
    for hook in ["global before", "global after", "private before", "private after"] {
        assert_lines(&outcome, &[&format!("{hook} in parent")]);
    }
    assert_no_line(&outcome, "in child");
}

#[test]
fn a_child_ends_at_once_though_the_parents_workers_are_busy() {
    let _tidy = tidy();
    let outcome = common::run_within("fork_child_ends", Duration::from_secs(2));
    outcome.assert_code(0).assert_silent();
    assert_lines(&outcome, &ENDS);
}

#[test]
fn what_a_child_makes_is_drained_when_the_child_ends() {
    let _tidy = tidy();
    let outcome = run("fork_child_drains");
    assert_lines(&outcome, &ENDS);
    for end in ["Return", "ProcessExit", "LibcExit", "WinddownExit", "Panic"] {
        assert_eq!(outcome.count(&format!("{end} child: task")), 40, "{end} in {outcome:#?}");
        let [before, private, after] = ["before", "private after", "after"]
            .map(|hook| outcome.position(&format!("{end} child: {hook}")));
        assert!(before < private && private < after, "{end} in {outcome:#?}");
    }
}

#[test]
fn a_child_of_a_process_that_has_shut_down_starts_afresh() {
    let _tidy = tidy();
    let outcome = run("fork_after_shutdown");
    assert_lines(&outcome, &["child: code 0", "child: task", "child: after"]);
}

#[test]
fn a_child_forked_inside_a_task_ends_and_runs_nothing_of_the_parents() {
    let _tidy = tidy();
    for case in ["fork_in_executed_task", "fork_in_spawned_task"] {
        let outcome = run(case);
        // A panic stays in the task, and the child's last thread ends.
        assert_lines(&outcome, &ENDS[..4]);
        assert_lines(&outcome, &["Panic: code 0"]);
        assert_eq!(outcome.stdout.matches("a task of parent").count(), 15, "{outcome:#?}");
        assert_eq!(outcome.stdout.matches("a thread of parent").count(), 5, "{outcome:#?}");
        assert_no_line(&outcome, "of child");
    }
}

#[test]
fn a_child_forked_inside_a_task_uses_pools_of_its_own() {
    let _tidy = tidy();
    let outcome = run("fork_in_task_new_pools");
    assert_lines(&outcome, &["child: code 0", "child: shut down", "child: drained", "child: after"]);
}

#[test]
fn a_child_comes_out_of_a_task_that_ran_inside_another() {
    let _tidy = tidy();
    assert_lines(&run("fork_in_joined_task"), &["child: code 0", "child among several: code 0"]);
}

#[test]
fn a_child_forked_inside_a_hook_ends_and_so_does_the_parent() {
    let _tidy = tidy();
    let outcome = run("fork_in_hook");
    for stage in ["pre-join", "post-join"] {
        for end in ["ProcessExit", "LibcExit", "Return", "Panic"] {
            assert_lines(&outcome, &[&format!("{stage} {end}: code 0")]);
        }
    }
    assert_eq!(outcome.count("clean: true"), 4, "{outcome:#?}");
}

#[test]
fn a_child_forked_inside_a_hook_at_exit_ends_and_so_does_the_parent() {
    let _tidy = tidy();
    let outcome = run("fork_in_hook_at_exit");
    assert_eq!(outcome.count("LibcExit: code 0"), 2, "{outcome:#?}");
    assert_eq!(outcome.count("Return: code 0"), 2, "{outcome:#?}");
}

#[test]
fn a_child_forked_inside_a_task_at_exit_ends_and_so_does_the_parent() {
    let _tidy = tidy();
    assert_lines(&run("fork_in_task_at_exit"), &["LibcExit: code 0", "Return: code 0"]);
}

#[test]
fn every_generation_has_a_registry_of_its_own() {
    let _tidy = tidy();
    let outcome = run("fork_grandchildren");
    for generation in 0..4 {
        assert_lines(
            &outcome,
            &[
                &format!("generation {generation} drained"),
                &format!("child of generation {generation}: code 0"),
            ],
        );
    }
}

#[test]
fn no_child_hangs_on_a_lock_that_was_held_when_it_was_forked() {
    let _tidy = tidy();
    assert_lines(&run_storm("fork_storm"), &["all ended"]);
}

#[test]
fn no_child_forked_inside_a_task_hangs_on_a_lock_of_its_pool() {
    let _tidy = tidy();
    assert_lines(&run_storm("fork_storm_in_tasks"), &["all ended"]);
}

#[test]
fn a_pool_for_the_parents_registry_is_an_error_in_the_child_and_no_hang() {
    let _tidy = tidy();
    assert_lines(&run_storm("fork_storm_old_registry"), &["all ended"]);
}

#[test]
fn each_child_of_a_prefork_server_drains_its_own_pools() {
    let _tidy = tidy();
    let outcome = run("fork_prefork");
    assert_eq!(outcome.count("child: code 0"), 4, "{outcome:#?}");
    for n in 0..4 {
        assert_lines(&outcome, &[&format!("server {n}: 100 requests")]);
    }
    assert_lines(&outcome, &["the parent's hook"]);
}

#[test]
fn nothing_that_was_printed_comes_out_twice() {
    let _tidy = tidy();
    let outcome = run("fork_output");
    let expected =
        "a line before the fork\na task before the fork\nhalf a line and the rest\na task at the end";
    assert_eq!(outcome.stdout, expected);
}

#[test]
fn a_child_that_has_not_touched_the_crate_writes_nothing() {
    let _tidy = tidy();
    assert_eq!(run("fork_untouched_output").stdout, "not flushed yet");
}

#[test]
fn a_guard_from_before_the_fork_drains_what_the_child_made() {
    let _tidy = tidy();
    let outcome = run("fork_guard");
    assert_lines(&outcome, &["child: code 0", "task in child", "hook in parent"]);
    assert_no_line(&outcome, "hook in child");
}

#[test]
fn a_scope_in_a_child_neither_waits_for_the_parents_tasks_nor_touches_them() {
    let _tidy = tidy();
    let outcome = run("fork_in_scope");
    assert_lines(&outcome, &["the child's", "code 0", "a capture dropped in parent"]);
    assert_no_line(&outcome, "dropped in child");
}

#[test]
fn a_child_comes_out_of_a_scoped_task() {
    let _tidy = tidy();
    let outcome = run("fork_in_scoped_task");
    assert_eq!(outcome.count("child: code 0"), 2, "{outcome:#?}");
    assert_eq!(outcome.count("a task in the child"), 2, "{outcome:#?}");
    assert_lines(
        &outcome,
        &["the scope is over in parent", "the scope is over in child", "a capture dropped in parent"],
    );
    assert_no_line(&outcome, "dropped in child");
}

#[test]
fn no_child_forked_inside_a_scope_hangs_on_a_lock() {
    let _tidy = tidy();
    assert_lines(&run_storm("fork_storm_in_scopes"), &["all ended"]);
}
