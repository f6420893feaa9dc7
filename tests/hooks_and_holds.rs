//! Hooks and holds: when they run, what they may do, and until when they and new pools are taken.

mod common;

use common::journal::{pool_of, wait_until_closed, Journal, Tested};
use common::{registry, tidy};
use std::process::ExitCode;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use winddown::{BuildError, HookOutcome, Phase, Pool, Registry, RejectReason, ShuttingDown, Stage};

#[test]
fn hooks_run_newest_first_around_the_drain() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let pools = [pool_of(&registry, "old", 2), pool_of(&registry, "new", 2)];
    for n in 1..=3 {
        let (pools, inner) = (pools.clone(), journal.clone());
        registry.before_join(format!("before {n}"), move || {
            inner.note(format!("before {n}"));
            for pool in pools {
                let task = inner.noting("task");
                pool.execute(move || {
                    wait_until_closed();
                    task();
                })
                .unwrap();
            }
        })?;
        registry.after_join(format!("after {n}"), journal.noting(format!("after {n}")))?;
    }
    let report = registry.shutdown();
    assert!(report.is_clean());
    let mut expected = vec!["before 3", "before 2", "before 1"];
    expected.extend(["task"; 6]);
    expected.extend(["after 3", "after 2", "after 1"]);
    assert_eq!(journal.take(), expected);
    let names: Vec<_> = report.hooks().iter().map(|hook| hook.name()).collect();
    assert_eq!(names, ["before 3", "before 2", "before 1", "after 3", "after 2", "after 1"]);
    Ok(())
}

#[test]
fn ten_thousand_hooks_run_in_order() -> Tested {
    let _tidy = tidy();
    const COUNT: usize = 10_000;
    let registry = registry();
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..COUNT {
        let (before, after) = (order.clone(), order.clone());
        registry.before_join("before", move || before.lock().unwrap().push(n))?;
        registry.after_join("after", move || after.lock().unwrap().push(COUNT + n))?;
    }
    let report = registry.shutdown();
    assert!(report.is_clean() && report.hooks().len() == 2 * COUNT);
    let expected: Vec<_> = (0..COUNT).rev().chain((COUNT..2 * COUNT).rev()).collect();
    assert!(*order.lock().unwrap() == expected);
    Ok(())
}

#[test]
fn hooks_run_once_however_many_ask_for_the_shutdown() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    for _ in 0..2 {
        registry.before_join("before", journal.noting("before"))?;
        registry.after_join("after", journal.noting("after"))?;
    }
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let registry = registry.clone();
            thread::spawn(move || registry.shutdown())
        })
        .collect();
    let mut reports: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    registry.request_shutdown();
    reports.push(registry.shutdown());
    reports.push(registry.wait_finished());
    assert_eq!(journal.take(), ["before", "before", "after", "after"]);
    assert!(reports
        .iter()
        .all(|report| report.elapsed() == reports[0].elapsed() && report.hooks().len() == 4));
    Ok(())
}

#[test]
fn a_panicking_hook_is_reported_and_stops_nothing() -> Tested {
    let _tidy = tidy();
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("no luck with the payload");
        }
    }
    let (registry, journal) = (registry(), Journal::default());
    let pool = pool_of(&registry, "pool", 1);
    registry.before_join("first", journal.noting("before"))?;
    registry.before_join("panics", || panic!("no luck before"))?;
    let late = pool.clone();
    let task = journal.noting("task");
    registry.before_join("late", move || late.execute(task).unwrap())?;
    registry.after_join("first", journal.noting("after"))?;
    registry.after_join("panics", || std::panic::panic_any(Bomb))?;
    let report = registry.shutdown();
    assert_eq!(report.pools()[0].stats().completed, 1);
    let noted = journal.take();
    assert_eq!(noted.last().map(String::as_str), Some("after"));
    assert!(noted.len() == 3 && noted.contains(&"before".into()), "{noted:?}");
    assert!(!report.is_clean());
    assert!(report.pools()[0].is_clean());
    let outcomes: Vec<_> = report.hooks().iter().map(|hook| (hook.stage(), hook.outcome().clone())).collect();
    assert_eq!(
        outcomes,
        [
            (Stage::PreJoin, HookOutcome::Ran),
            (Stage::PreJoin, HookOutcome::Panicked("no luck before".into())),
            (Stage::PreJoin, HookOutcome::Ran),
            (Stage::PostJoin, HookOutcome::Panicked("a panic without a message".into())),
            (Stage::PostJoin, HookOutcome::Ran),
        ]
    );
    assert_eq!(format!("{:?}", ExitCode::from(&report)), format!("{:?}", ExitCode::FAILURE));
    Ok(())
}

#[test]
fn a_hook_or_hold_that_comes_too_late_is_refused_and_the_closure_returned() -> Tested {
    let _tidy = tidy();
    fn assert_refused(registry: &Registry, journal: &Journal, when: &str) {
        let before = registry.before_join("late", journal.noting(format!("{when}, before"))).unwrap_err();
        let after = registry.after_join("late", journal.noting(format!("{when}, after"))).unwrap_err();
        assert_eq!(before.reason(), RejectReason::ShuttingDown);
        assert_eq!(after.reason(), RejectReason::ShuttingDown);
        before.into_inner()();
        after.into_inner()();
        let _: ShuttingDown = registry.hold("late").unwrap_err();
    }
    let (registry, journal) = (registry(), Journal::default());
    let pool = pool_of(&registry, "pool", 1);
    let (of_hook, noted) = (registry.clone(), journal.clone());
    registry.before_join("before", move || assert_refused(&of_hook, &noted, "before"))?;
    let (of_hook, noted) = (registry.clone(), journal.clone());
    registry.after_join("after", move || assert_refused(&of_hook, &noted, "after"))?;
    let (of_task, noted) = (registry.clone(), journal.clone());
    pool.execute(move || {
        wait_until_closed();
        assert_refused(&of_task, &noted, "task");
    })?;
    let report = registry.shutdown();
    assert!(report.is_clean(), "{report}");
    assert_refused(&registry, &journal, "finished");
    let noted = journal.take();
    assert_eq!(noted.len(), 8, "{noted:?}");
    assert_eq!(report.hooks().len(), 2);
    Ok(())
}

#[test]
fn a_hook_can_remove_others_and_not_itself() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let before = registry.before_join("removed", journal.noting("before"))?;
    let after = registry.after_join("removed", journal.noting("after"))?;
    let (own, its_own) = channel();
    let (of_hook, noted) = (registry.clone(), journal.clone());
    let id = registry.before_join("removes", move || {
        let own = its_own.recv().unwrap();
        let removed = [before, after, before, own].map(|id| of_hook.remove(id));
        let removed_by_another = thread::spawn(move || of_hook.remove(own)).join().unwrap();
        noted.note(format!("{removed:?}, {removed_by_another}"));
    })?;
    own.send(id)?;
    let report = registry.shutdown();
    assert!(report.is_clean());
    assert_eq!(journal.take(), ["[true, true, false, false], false"]);
    assert_eq!(report.hooks().len(), 1);
    assert!(!registry.remove(id));
    Ok(())
}

#[test]
fn a_hooks_captures_are_dropped_right_after_it_ran() -> Tested {
    let _tidy = tidy();
    struct Capture(Journal, &'static str, bool);
    impl Drop for Capture {
        fn drop(&mut self) {
            self.0.note(format!("dropped {}", self.1));
            assert!(!self.2, "no luck with a capture");
        }
    }
    let (registry, journal) = (registry(), Journal::default());
    for (name, panics) in [("a", false), ("b", true), ("c", false)] {
        let capture = Capture(journal.clone(), name, panics);
        registry.before_join(name, move || capture.0.note(capture.1))?;
    }
    let removed = Capture(journal.clone(), "d", false);
    let id = registry.after_join("d", move || drop(removed))?;
    assert!(registry.remove(id));
    assert_eq!(journal.take(), ["dropped d"]);
    let report = registry.shutdown();
    assert_eq!(journal.take(), ["c", "dropped c", "b", "dropped b", "a", "dropped a"]);
    let outcomes: Vec<_> = report.hooks().iter().map(|hook| hook.outcome().clone()).collect();
    let panicked = HookOutcome::Panicked("no luck with a capture".into());
    assert_eq!(outcomes, [HookOutcome::Ran, panicked, HookOutcome::Ran]);
    Ok(())
}

#[test]
fn a_hook_can_wait_for_tasks_and_for_threads() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let pool = pool_of(&registry, "pool", 1);
    let hook_pool = pool.clone();
    let noted = journal.clone();
    registry.before_join("waits", move || {
        let handle = hook_pool.spawn(|| 7).unwrap();
        noted.note(format!("joined {}", handle.join().unwrap()));
        hook_pool.execute(noted.noting("idle")).unwrap();
        hook_pool.wait_idle();
        noted.note("after idle");
        let value = thread::spawn(|| thread::current().name().is_none()).join().unwrap();
        noted.note(format!("thread {value}"));
        noted.note(format!("closed {}", hook_pool.is_closed()));
    })?;
    assert!(registry.shutdown().is_clean());
    assert_eq!(journal.take(), ["joined 7", "idle", "after idle", "thread true", "closed false"]);
    Ok(())
}

#[test]
fn pools_can_be_built_until_the_drain_begins() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let (of_hook, noted) = (registry.clone(), journal.clone());
    registry.before_join("builds", move || {
        pool_of(&of_hook, "late", 1).execute(noted.noting("task of a late pool")).unwrap();
    })?;
    let pool = pool_of(&registry, "pool", 1);
    let (of_task, noted) = (registry.clone(), journal.clone());
    pool.execute(move || {
        wait_until_closed();
        let error = Pool::builder().registry(&of_task).build().unwrap_err();
        assert_eq!(error, BuildError::ShuttingDown);
        noted.note("refused");
    })?;
    let report = registry.shutdown();
    assert!(report.is_clean());
    assert_eq!(report.totals().panicked, 0);
    let noted = journal.take();
    assert!(noted.contains(&"task of a late pool".into()) && noted.contains(&"refused".into()), "{noted:?}");
    Ok(())
}

#[test]
fn a_hold_keeps_pools_open_until_it_is_dropped() -> Tested {
    let _tidy = tidy();
    let registry = registry();
    let pool = pool_of(&registry, "pool", 1);
    let (ran, has_run) = channel();
    registry.before_join("runs", move || ran.send(()).unwrap())?;
    let holds = [registry.hold("one")?, registry.hold("two")?];
    registry.request_shutdown();
    has_run.recv()?;
    let (ended, has_ended) = channel();
    let of_waiter = registry.clone();
    let waiter = thread::spawn(move || ended.send(of_waiter.wait_finished()));
    for hold in holds {
        // It would be over in no time.
        let waited = has_ended.recv_timeout(Duration::from_millis(50)).map(drop);
        assert_eq!(waited, Err(RecvTimeoutError::Timeout));
        assert_eq!(registry.phase(), Phase::PreJoin);
        pool.execute(|| ())?;
        drop(hold);
    }
    let report = has_ended.recv()?;
    waiter.join().unwrap()?;
    assert!(report.is_clean());
    assert_eq!(report.totals().completed, 2);
    Ok(())
}
