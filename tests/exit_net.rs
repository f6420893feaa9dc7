//! Promise 3: the process waits, however it ends.

mod common;

#[test]
fn all_queued_tasks_run_when_main_returns() {
    let outcome = common::run("main_returns");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.count("task "), 50, "{outcome:#?}");
}
