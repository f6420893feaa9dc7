//! What the front page says does not drain: each way out is pinned with the status that it leaves.
#![cfg(unix)]

mod common;

use common::{run, tidy, Outcome};
use std::os::unix::process::ExitStatusExt;

/// No task and no hook has run.
#[track_caller]
fn undrained(case: &str) -> Outcome {
    let outcome = run(case);
    assert_eq!(outcome.stdout, "", "{outcome:#?}");
    outcome
}

#[track_caller]
fn is_killed(case: &str, signal: i32) -> Outcome {
    let outcome = undrained(case);
    assert_eq!(outcome.status.signal(), Some(signal), "{outcome:#?}");
    outcome
}

#[test]
fn a_signal_that_nobody_handles_drains_nothing() {
    let _tidy = tidy();
    is_killed("undrained_kill", libc::SIGKILL).assert_silent();
    is_killed("undrained_term", libc::SIGTERM).assert_silent();
}

#[test]
fn an_exit_past_the_c_runtime_drains_nothing() {
    let _tidy = tidy();
    undrained("undrained_exit").assert_code(3).assert_silent();
}

#[test]
fn an_exec_drains_nothing() {
    let _tidy = tidy();
    undrained("undrained_exec").assert_code(9).assert_silent();
}

#[test]
fn a_stack_overflow_drains_nothing() {
    let _tidy = tidy();
    let outcome = is_killed("undrained_overflow", libc::SIGABRT);
    assert!(outcome.stderr.contains("has overflowed its stack"), "{outcome:#?}");
}

#[test]
fn a_capture_whose_drop_panics_while_its_task_panics_aborts() {
    let _tidy = tidy();
    let outcome = is_killed("undrained_panic_in_panic", libc::SIGABRT);
    assert!(
        outcome.stderr.contains("a task panics") && outcome.stderr.contains("a drop panics"),
        "{outcome:#?}"
    );
}

#[test]
fn a_panic_in_the_destructor_of_a_workers_thread_local_aborts() {
    let _tidy = tidy();
    let outcome = is_killed("undrained_panic_in_destructor", libc::SIGABRT);
    assert!(outcome.stderr.contains("thread local panicked on drop"), "{outcome:#?}");
}
