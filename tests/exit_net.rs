//! Promise 3: the process waits, however it ends.

mod common;

use common::{run, tidy, Outcome};

/// The case ends with `code`, all of its `tasks` have run, and it has complained of nothing.
#[track_caller]
fn drains(case: &str, code: i32, tasks: usize) -> Outcome {
    let outcome = run(case);
    outcome.assert_code(code).assert_silent().assert_prompt();
    assert_eq!(outcome.count("task "), tasks, "{outcome:#?}");
    outcome
}

/// As [`drains`] with 50 tasks, where something else panics or fails and says so on stderr.
#[track_caller]
fn drains_and_says(case: &str, code: i32, complaint: &str) {
    let outcome = run(case);
    outcome.assert_code(code).assert_prompt();
    assert_eq!(outcome.count("task "), 50, "{outcome:#?}");
    assert_eq!(outcome.stderr.matches(complaint).count(), 1, "{outcome:#?}");
}

// What works without the feature `exit-hook`, too.

#[test]
fn an_explicit_shutdown_drains_before_it_returns() {
    let _tidy = tidy();
    let outcome = drains("main_shuts_down", 0, 50);
    assert_eq!(outcome.position("shut down"), 50, "{outcome:#?}");
}

#[test]
fn a_guard_drains_when_main_returns() {
    let _tidy = tidy();
    drains("guard_is_dropped", 0, 50);
}

#[test]
fn a_guard_drains_when_main_panics() {
    let _tidy = tidy();
    drains_and_says("guard_is_dropped_in_a_panic", 101, "no luck");
}

#[test]
fn crate_exit_in_main_drains_and_keeps_its_code() {
    let _tidy = tidy();
    drains("main_exits_with_crate", 7, 50);
}

#[test]
fn crate_exit_in_a_task_drains_all_others_and_keeps_its_code() {
    let _tidy = tidy();
    drains("task_exits_with_crate", 7, 100);
}

#[test]
fn crate_exit_in_a_plain_thread_drains_and_keeps_its_code() {
    let _tidy = tidy();
    drains("thread_exits_with_crate", 7, 50);
}

#[test]
fn crate_exit_in_a_task_that_main_waits_for_ends_the_process() {
    let _tidy = tidy();
    drains("main_joins_a_task_that_exits_with_crate", 7, 50);
}

#[test]
fn crate_exit_in_a_hook_ends_the_process_after_the_shutdown() {
    let _tidy = tidy();
    drains("hook_exits_with_crate_in_a_shutdown", 7, 50);
}

#[test]
fn hooks_of_a_registry_without_handles_run() {
    let _tidy = tidy();
    let outcome = run("hooks_of_a_lost_registry");
    outcome.assert_code(0).assert_silent().assert_prompt();
    assert_eq!(outcome.stdout, "before\nafter\n");
}

#[test]
#[cfg(unix)]
fn an_abort_drains_nothing() {
    let _tidy = tidy();
    use std::os::unix::process::ExitStatusExt;

    const SIGABRT: i32 = 6;
    let outcome = run("process_aborts");
    assert_eq!(outcome.status.signal(), Some(SIGABRT), "{outcome:#?}");
    assert_eq!(outcome.stdout, "");
}

/// What the C runtime's exit handler is for.
#[cfg(feature = "exit-hook")]
mod at_exit {
    use super::*;
    use common::{command, finish, run_within, watch};
    use std::fs;
    use std::io::{BufRead, BufReader, Read};
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn all_queued_tasks_run_when_main_returns() {
        let _tidy = tidy();
        drains("main_returns", 0, 50);
    }

    #[test]
    fn a_hundred_tasks_queued_on_one_worker_run_in_order_when_main_returns() {
        let _tidy = tidy();
        let outcome = run("main_returns_with_one_worker");
        outcome.assert_code(0).assert_silent().assert_prompt();
        let expected: String = (0..100).map(|n| format!("task {n}\n")).collect();
        assert_eq!(outcome.stdout, expected);
    }

    #[test]
    fn all_queued_tasks_run_when_main_returns_an_error() {
        let _tidy = tidy();
        drains_and_says("main_fails", 1, "no luck");
    }

    #[test]
    fn all_queued_tasks_run_when_main_panics() {
        let _tidy = tidy();
        drains_and_says("main_panics", 101, "no luck");
    }

    #[test]
    fn std_works_in_a_task_that_runs_at_exit() {
        let _tidy = tidy();
        let outcome = run("task_uses_std_while_main_exits");
        outcome.assert_code(0).assert_silent().assert_prompt();
        assert_eq!(outcome.stdout, "7 on Some(\"pool-1-worker-1\")\n");
    }

    // ---- exit in a task or a hook ----

    #[test]
    fn crate_exit_in_a_task_while_main_exits_changes_nothing() {
        let _tidy = tidy();
        drains("task_exits_with_crate_while_main_exits", 0, 100);
    }

    #[test]
    fn crate_exit_in_several_tasks_while_main_exits_changes_nothing() {
        let _tidy = tidy();
        drains("tasks_exit_with_crate_while_main_exits", 0, 500);
    }

    #[test]
    #[cfg(unix)]
    fn crate_exit_in_hooks_while_main_exits_changes_nothing() {
        let _tidy = tidy();
        let outcome = drains("hook_exits_with_crate_while_main_exits", 3, 50);
        assert_eq!(outcome.position("the hooks after it run"), 50);
    }

    // ---- where the pool is ----

    #[test]
    fn a_pool_whose_last_handle_was_dropped_is_drained() {
        let _tidy = tidy();
        drains("handle_is_dropped", 0, 50);
    }

    #[test]
    fn a_pool_that_was_forgotten_is_drained() {
        let _tidy = tidy();
        drains("handle_is_forgotten", 0, 50);
    }

    #[test]
    fn a_pool_that_was_leaked_is_drained() {
        let _tidy = tidy();
        drains("handle_is_leaked", 0, 50);
    }

    #[test]
    fn a_pool_in_a_static_is_drained() {
        let _tidy = tidy();
        drains("pool_in_a_static", 0, 50);
    }

    #[test]
    fn a_pool_in_a_thread_local_of_main_is_drained() {
        let _tidy = tidy();
        drains("pool_in_a_thread_local", 0, 50);
    }

    #[test]
    fn a_pool_of_a_registry_without_handles_is_drained() {
        let _tidy = tidy();
        drains("pool_of_a_lost_registry", 0, 50);
    }

    #[test]
    fn a_registry_made_after_an_explicit_shutdown_is_drained() {
        let _tidy = tidy();
        drains("registry_made_after_the_shutdown", 0, 50);
    }

    #[test]
    fn a_first_pool_made_on_another_thread_is_drained() {
        let _tidy = tidy();
        drains("first_pool_on_a_thread", 0, 50);
    }

    // ---- handlers of others ----

    #[test]
    fn a_first_pool_made_in_an_exit_handler_is_drained() {
        let _tidy = tidy();
        drains("first_pool_in_a_handler", 0, 50);
    }

    #[test]
    fn exit_handlers_run_around_the_drain_in_the_order_of_c() {
        let _tidy = tidy();
        let outcome = drains("handlers_around_the_drain", 0, 50);
        let lines: Vec<_> = outcome.stdout.lines().filter(|line| !line.starts_with("task ")).collect();
        let expected = [
            "handler before",
            "handler after",
            "submitting: Err(ShuttingDown)",
            "a new pool: Err(ShuttingDown)",
            "report: Exit, true",
        ];
        assert_eq!(lines, expected);
        assert_eq!(outcome.position("handler before"), 0, "{outcome:#?}");
        assert_eq!(outcome.position("handler after"), 51, "{outcome:#?}");
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn a_pool_of_a_library_that_was_unloaded_is_drained() {
        let _tidy = tidy();
        let mut command = command("library_is_unloaded");
        command.arg(common::library());
        let outcome = finish(command);
        outcome.assert_code(0).assert_silent();
        assert_eq!(outcome.count("task "), 50, "{outcome:#?}");
        assert_eq!(outcome.position("main returns"), 0, "{outcome:#?}");
    }

    // ---- output ----

    #[test]
    fn an_unfinished_line_of_a_draining_task_is_printed() {
        let _tidy = tidy();
        let outcome = run("print_without_newline");
        outcome.assert_code(0).assert_silent().assert_prompt();
        assert_eq!(outcome.stdout, "no newline");
    }

    #[test]
    fn an_unfinished_line_is_printed_when_std_does_not_flush() {
        let _tidy = tidy();
        let outcome = run("print_without_newline_before_exit_in_c");
        outcome.assert_code(3).assert_silent().assert_prompt();
        assert_eq!(outcome.stdout, "main, no newline");
    }

    #[test]
    fn a_task_that_holds_the_lock_of_stdout_while_main_returns_loses_nothing() {
        let _tidy = tidy();
        let outcome = run("stdout_locked_by_a_task");
        outcome.assert_code(0).assert_silent().assert_prompt();
        assert_eq!(outcome.stdout, "before, after");
    }

    #[test]
    fn a_daemon_that_holds_the_lock_of_stdout_for_ever_does_not_hold_up_exit() {
        let _tidy = tidy();
        let outcome = run_within("stdout_locked_by_a_daemon", Duration::from_secs(1));
        outcome.assert_code(0).assert_silent();
    }

    #[test]
    fn daemons_that_print_all_the_time_do_not_hold_up_exit() {
        let _tidy = tidy();
        for _ in 0..10 {
            drains("main_returns_while_daemons_print", 0, 50);
        }
    }

    /// In the second, whatever the crate has to say at exit goes to stderr, and panics where that cannot be written.
    const PANICKING: [&str; 2] = ["tasks_and_hooks_panic", "tasks_and_hooks_panic_and_are_logged"];

    #[test]
    fn panics_of_tasks_and_hooks_leave_the_exit_code_alone() {
        let _tidy = tidy();
        for case in PANICKING {
            let outcome = run(case);
            outcome.assert_code(0);
            assert_eq!(outcome.count("task "), 100, "{outcome:#?}");
            assert_eq!(outcome.stderr.matches("panicked at").count(), 3, "{outcome:#?}");
            let is_logged = case == PANICKING[1];
            assert_eq!(outcome.stderr.contains("DEBUG shutdown enters PostJoin"), is_logged, "{outcome:#?}");
        }
    }

    #[test]
    fn a_reader_of_stderr_that_is_gone_does_no_harm() {
        let _tidy = tidy();
        for case in PANICKING {
            let mut child = command(case).stdin(Stdio::piped()).spawn().unwrap();
            drop(child.stderr.take());
            drop(child.stdin.take()); // The sign to begin.
            let outcome = watch(child, Instant::now());
            outcome.assert_code(0);
            assert_eq!(outcome.count("task "), 100, "{outcome:#?}");
        }
    }

    #[test]
    fn a_reader_of_stdout_that_is_gone_costs_no_task_and_does_no_harm() {
        let _tidy = tidy();
        let mut case = command("tasks_and_hooks_panic");
        let mut child = case.env("RUST_BACKTRACE", "0").stdin(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        drop(child.stdin.take());
        let outcome = watch(child, Instant::now());
        outcome.assert_code(0);
        // Each task runs, and `println` panics in it.
        assert_eq!(outcome.stderr.matches("failed printing to stdout").count(), 100, "{outcome:#?}");
    }

    #[test]
    #[cfg(unix)]
    fn a_closed_stderr_does_no_harm() {
        let _tidy = tidy();
        for case in PANICKING {
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec \"$0\" \"$1\" 2>&-"]).arg(common::program()).arg(case);
            shell.stdin(Stdio::null()).stdout(Stdio::piped());
            let outcome = finish(shell);
            outcome.assert_code(0);
            assert_eq!(outcome.count("task "), 100, "{outcome:#?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_device_under_stderr_does_no_harm() {
        let _tidy = tidy();
        for case in PANICKING {
            let mut command = command(case);
            command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
            let outcome = finish(command);
            outcome.assert_code(0);
            assert_eq!(outcome.count("task "), 100, "{outcome:#?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_device_under_stdout_costs_no_task_and_does_no_harm() {
        let _tidy = tidy();
        let mut command = command("tasks_and_hooks_panic");
        command
            .env("RUST_BACKTRACE", "0")
            .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let outcome = finish(command);
        outcome.assert_code(0);
        assert_eq!(outcome.stderr.matches("failed printing to stdout").count(), 100, "{outcome:#?}");
    }

    #[test]
    fn a_process_with_idle_pools_ends_at_once() {
        let _tidy = tidy();
        // The best of several: a busy machine delays some.
        let runs = (0..10).map(|_| run("pools_are_idle"));
        let best = runs
            .inspect(|outcome| {
                outcome.assert_code(0).assert_silent().assert_prompt();
            })
            .map(|outcome| outcome.elapsed);
        let best = best.min().unwrap();
        assert!(best < Duration::from_millis(200), "{best:?}");
    }

    #[test]
    fn a_process_ends_as_soon_as_its_last_task_has_ended() {
        let _tidy = tidy();
        let took = || {
            let mut child = command("last_task_says_so").spawn().unwrap();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            let (mut line, mut rest) = (String::new(), String::new());
            stdout.read_line(&mut line).unwrap();
            let start = Instant::now();
            stdout.read_to_string(&mut rest).unwrap(); // up to the end of the process
            let took = start.elapsed();
            watch(child, start).assert_code(0).assert_silent();
            assert_eq!((line.as_str(), rest.as_str()), ("the last task ends\n", ""));
            took
        };
        // The best of several, as above: one that polls would be late each time, by half of its period or so.
        let best = (0..10).map(|_| took()).min().unwrap();
        assert!(best < Duration::from_millis(20), "{best:?}");
    }

    #[test]
    fn files_that_tasks_write_at_exit_are_complete() {
        let _tidy = tidy();
        for run in 0..100 {
            let folder =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{}-{run}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let mut command = command("tasks_write_files");
            command.arg(&folder);
            finish(command).assert_code(0).assert_silent();
            for n in 0..40 {
                let expected: String = (0..1000).map(|line| format!("line {line} of {n}\n")).collect();
                assert!(
                    fs::read_to_string(folder.join(n.to_string())).unwrap() == expected,
                    "file {n} of run {run}"
                );
            }
            fs::remove_dir_all(&folder).unwrap();
        }
    }

    /// The front page says so, and what to call instead: `crate_exit_in_main_drains_and_keeps_its_code`.
    #[test]
    #[cfg(windows)]
    fn the_exit_of_std_drains_nothing_on_windows() {
        let _tidy = tidy();
        let outcome = run("main_exits");
        outcome.assert_code(3).assert_silent();
        assert!(outcome.count("task ") < 50, "{outcome:#?}");
    }

    /// On Windows `std::process::exit` runs no handlers.
    #[cfg(unix)]
    mod process_exit {
        use super::*;

        #[test]
        fn in_main_drains_and_keeps_its_code() {
            let _tidy = tidy();
            drains("main_exits", 3, 50);
        }

        #[test]
        fn of_c_in_main_drains_and_keeps_its_code() {
            let _tidy = tidy();
            drains("main_exits_in_c", 3, 50);
        }

        #[test]
        fn in_a_task_drains_all_others_and_keeps_its_code() {
            let _tidy = tidy();
            drains("task_exits", 4, 100);
        }

        #[test]
        fn of_c_in_a_task_drains_all_others_and_keeps_its_code() {
            let _tidy = tidy();
            drains("task_exits_in_c", 4, 100);
        }

        #[test]
        fn in_a_task_that_main_waits_for_ends_the_process() {
            let _tidy = tidy();
            drains("main_joins_a_task_that_exits", 4, 50);
        }

        #[test]
        #[cfg(target_os = "linux")] // Elsewhere std does not keep a second thread from exiting.
        fn in_a_task_while_main_exits_ends_at_the_deadline() {
            let _tidy = tidy();
            let outcome = drains("task_exits_while_main_exits", 0, 100);
            assert!(outcome.elapsed > Duration::from_millis(800), "{outcome:#?}");
        }

        #[test]
        fn in_a_thread_while_main_returns_drains_once_and_ends_with_one_of_the_codes() {
            let _tidy = tidy();
            for case in ["main_returns_while_a_thread_exits", "main_returns_while_a_thread_exits_with_crate"]
            {
                for _ in 0..25 {
                    let outcome = run(case);
                    // That of the thread, or that of `main`, which returns an error. std may say so and still lose the race.
                    assert!(matches!(outcome.status.code(), Some(1 | 3)), "{outcome:#?}");
                    assert!(["", "Error: \"main fails\"\n"].contains(&&*outcome.stderr), "{outcome:#?}");
                    assert_eq!((outcome.count("task "), outcome.count("drained")), (50, 1), "{outcome:#?}");
                    assert_eq!(outcome.position("drained"), 50, "{outcome:#?}");
                }
            }
        }
    }
}
