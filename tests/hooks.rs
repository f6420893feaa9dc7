//! Hooks that do what they may: promises 5, 6 and 8 from inside a hook, and at exit.

mod common;

use common::{pool_in, registry, tidy, within, Tracked};
use std::sync::mpsc::channel;
use std::thread;
use winddown::{Pool, Registry, Stage};

/// What other threads may ask of a registry and its pools at any time.
fn use_everything(registry: &Registry, pool: &Pool, stage: Stage) {
    assert_eq!(registry.stats().len(), 1);
    assert_eq!(registry.progress().phase, registry.phase());
    assert!(registry.token().is_triggered());
    let captured = Tracked::new(());
    let late = registry.before_join("late", move || drop(captured)).unwrap_err();
    assert!(registry.after_join("late", late.into_inner()).is_err() && registry.hold("late").is_err());
    registry.set_deadline(None);
    registry.request_shutdown();
    assert!(format!("{registry:?} {pool:?}").contains("Pool"));
    assert_eq!((pool.stats().running, pool.running().len()), (0, 0));
    let built = Pool::builder().registry(registry).build();
    match stage {
        Stage::PreJoin => {
            assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
            let built = built.unwrap();
            built.spawn(|| ()).unwrap().join().unwrap();
            assert!(built.shutdown().is_clean());
        }
        _ => assert!(pool.execute(|| ()).is_err() && built.is_err()),
    }
    pool.wait_idle();
}

#[test]
fn no_lock_is_held_while_a_hook_runs() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let (done, has_done) = channel();
        for stage in [Stage::PreJoin, Stage::PostJoin] {
            let (of_hook, in_hook, done) = (registry.clone(), pool.clone(), done.clone());
            let hook = move || {
                // On another thread: a lock that may be taken twice by one would not be noticed.
                let other = thread::spawn({
                    let (registry, pool) = (of_hook.clone(), in_hook.clone());
                    move || use_everything(&registry, &pool, stage)
                });
                other.join().unwrap();
                use_everything(&of_hook, &in_hook, stage);
                done.send(stage).unwrap();
            };
            match stage {
                Stage::PreJoin => registry.before_join("asks", hook).unwrap(),
                _ => registry.after_join("asks", hook).unwrap(),
            };
        }
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        drop(done);
        assert_eq!(has_done.iter().collect::<Vec<_>>(), [Stage::PreJoin, Stage::PostJoin]);
    });
}

#[test]
fn hooks_share_one_thread_which_is_not_that_of_the_caller() {
    let _tidy = tidy();
    within(|| {
        let (told, tell) = channel();
        let registry = registry();
        for _ in 0..2 {
            let told = told.clone();
            registry.before_join("tells", move || told.send(thread::current().id()).unwrap()).unwrap();
        }
        assert!(registry.shutdown().is_clean());
        let threads = [tell.recv().unwrap(), tell.recv().unwrap()];
        assert!(threads[0] == threads[1] && threads[0] != thread::current().id(), "a thread of their own");
    });
}

#[cfg(feature = "exit-hook")]
mod at_exit {
    use super::*;
    use common::{run, Outcome};
    use std::time::Duration;

    /// Everything but the one hook that hangs has been done, in time, and the report names it.
    #[track_caller]
    fn assert_left_behind(case: &str) {
        let outcome: Outcome = run(case);
        outcome.assert_code(0).assert_silent();
        assert_eq!(outcome.count("task "), 20, "{outcome:#?}");
        for line in ["newer", "older", "last"] {
            assert_eq!(outcome.count(line), 1, "{line} in {outcome:#?}");
        }
        let report = "report: newer Ran, bad TimedOut, older Ran, last Ran, clean: false";
        assert_eq!(outcome.count(report), 1, "{outcome:#?}");
        assert!(outcome.elapsed < Duration::from_secs(10), "{outcome:#?}");
    }

    #[test]
    fn a_hook_that_never_ends_is_left_behind_and_the_process_ends() {
        let _tidy = tidy();
        assert_left_behind("hook_never_ends");
    }

    #[test]
    #[cfg(target_os = "linux")] // Elsewhere std does not keep a second thread from exiting.
    fn a_hook_that_calls_process_exit_while_the_process_exits_is_left_behind() {
        let _tidy = tidy();
        assert_left_behind("hook_calls_process_exit_at_exit");
    }

    #[test]
    fn a_hook_may_start_and_join_threads_at_exit() {
        let _tidy = tidy();
        let outcome = run("hook_starts_threads_at_exit");
        outcome.assert_code(0).assert_silent();
        let lines: Vec<_> = outcome.stdout.lines().collect();
        let expected = [
            "before: a thread with the name \"for before\"",
            "before: on main: false, named: true",
            "after: a thread with the name \"for after\"",
            "after: on main: false, named: true",
        ];
        assert_eq!(lines, expected);
    }
}
