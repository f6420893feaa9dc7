//! Nothing is left behind (promise 9), and no task is lost where the system runs out of threads (promises 1 to 4).

mod common;

use common::{tidy, Outcome};

fn run(case: &str) -> Outcome {
    let outcome = common::run(case);
    outcome.assert_code(0).assert_silent();
    outcome
}

// ---- leaks: each case compares the bytes that live after a tenth of the rounds and after all ----

#[test]
fn pools_that_ran_a_task_and_were_dropped_leave_nothing_behind() {
    let _tidy = tidy();
    run("leak_dropped_pools");
}

#[test]
fn pools_that_were_closed_or_shut_down_or_never_used_leave_nothing_behind() {
    let _tidy = tidy();
    for case in ["leak_closed_pools", "leak_shut_down_pools", "leak_unused_pools"] {
        run(case);
    }
}

#[test]
fn registries_leave_nothing_behind() {
    let _tidy = tidy();
    for case in ["leak_registries", "leak_used_registries", "leak_shut_down_registries"] {
        run(case);
    }
}

#[test]
fn hooks_holds_tokens_and_handles_leave_nothing_behind() {
    let _tidy = tidy();
    for case in ["leak_hooks", "leak_waiters", "leak_handles"] {
        run(case);
    }
}

// ---- threads that come and go ----

#[test]
fn thousands_of_expired_workers_leave_nothing_behind_and_run_their_destructors() {
    let _tidy = tidy();
    run("expiry");
}

#[test]
fn the_destructors_of_expired_workers_have_run_when_post_join_hooks_do() {
    let _tidy = tidy();
    assert_eq!(run("expiry_at_exit").stdout, "all destructors have run: true\n");
}

#[test]
fn exit_waits_for_the_last_destructor_of_a_dropped_pool_and_of_an_expired_worker() {
    let _tidy = tidy();
    for case in ["last_destructor_of_pool", "last_destructor_of_expired"] {
        assert_eq!(run(case).stdout, "destroyed\n", "{case}");
    }
}

#[test]
fn exit_waits_for_the_last_destructor_of_a_pool_whose_registry_is_dropped() {
    let _tidy = tidy();
    assert_eq!(run("last_destructor_of_registry").stdout, "destroyed\n");
}

#[cfg(unix)]
#[test]
fn idle_workers_and_blocked_waiters_use_no_processor_time() {
    let _tidy = tidy();
    run("idle");
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_sleeps_is_not_woken_before_its_time() {
    let _tidy = tidy();
    run("sleep");
}

#[cfg(target_os = "linux")]
#[test]
fn a_shutdown_does_not_wake_up_for_each_hook() {
    let _tidy = tidy();
    run("many_hooks");
}

#[test]
fn the_shutdown_of_many_pools_needs_no_more_memory_for_each_than_that_of_a_few() {
    let _tidy = tidy();
    run("memory_of_shutdown");
}

#[test]
fn a_scope_of_very_many_tasks_keeps_none_that_is_over() {
    let _tidy = tidy();
    run("memory_of_scopes");
}

#[test]
fn after_shutdown_everything_is_refused_and_nothing_panics() {
    let _tidy = tidy();
    run("pool_after_shutdown");
}

// ---- no more threads ----

#[cfg(target_os = "linux")]
mod limited {
    use super::{common, run, tidy};

    #[test]
    fn a_refused_first_thread_gives_the_closure_back_and_queues_nothing() {
        let _tidy = tidy();
        run("no_first_thread");
    }

    #[test]
    fn one_worker_runs_everything_where_no_second_can_be_had() {
        let _tidy = tidy();
        run("no_second_thread");
    }

    #[test]
    fn hooks_and_the_drain_run_at_exit_where_no_helper_can_be_had() {
        let _tidy = tidy();
        let outcome = run("no_helper");
        let mut expected = vec!["before".to_owned()];
        expected.extend((0..20).map(|n| format!("task {n}")));
        expected.extend(["from a hook".into(), "after".into()]);
        assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_deadline_is_kept_where_no_helper_can_be_had() {
        let _tidy = tidy();
        assert_eq!(run("no_helper_deadline").stdout, "after\n");
    }

    #[test]
    fn a_requested_shutdown_that_has_no_thread_is_run_by_whoever_waits_for_it() {
        let _tidy = tidy();
        assert_eq!(run("no_shutdown_thread").stdout.replace("task\n", ""), "requested\nbefore\nafter\n");
        let outcome = run("no_shutdown_thread_waiter");
        assert!(outcome.position("before") < outcome.position("after"), "{outcome:#?}");
        let outcome = run("no_shutdown_thread_exit");
        assert!(outcome.position("requested") < outcome.position("before"), "{outcome:#?}");
        assert!(outcome.position("still accepted") < outcome.position("after"), "{outcome:#?}");
    }

    #[test]
    fn a_worker_blocked_in_wait_idle_runs_the_queue_that_nobody_else_can() {
        let _tidy = tidy();
        run("no_substitute_wait_idle");
    }

    #[test]
    fn a_worker_blocked_in_the_shutdown_of_its_pool_runs_the_queue_that_nobody_else_can() {
        let _tidy = tidy();
        run("no_substitute_pool");
    }

    #[test]
    fn a_worker_blocked_in_the_shutdown_of_its_registry_runs_the_queue_that_nobody_else_can() {
        let _tidy = tidy();
        run("no_substitute_registry");
    }

    #[test]
    fn a_worker_that_sleeps_in_a_wait_wakes_up_for_the_queue_that_nobody_else_can_run() {
        let _tidy = tidy();
        run("no_substitute_asleep");
    }

    #[test]
    fn a_worker_that_exits_the_process_runs_the_queue_that_nobody_else_can() {
        let _tidy = tidy();
        let outcome = common::run("no_substitute_exit");
        outcome.assert_code(3).assert_silent();
        let expected: String = (0..10).map(|n| format!("task {n}\n")).collect();
        assert_eq!(outcome.stdout, expected);
    }

    #[test]
    fn a_task_for_a_pool_that_can_have_no_thread_at_exit_comes_back_and_the_exit_goes_on() {
        let _tidy = tidy();
        assert_eq!(run("no_first_thread_at_exit").stdout, "run by a hook\nrun by a task\nafter\n");
    }
}
