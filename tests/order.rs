//! Promise 4: the order of a shutdown, and promise 5: one failure stops nothing.

mod common;

use common::{registry, run, tidy, Outcome};
use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use winddown::{
    BuildError, FollowUps, HookOutcome, Phase, Pool, PoolPhase, Reason, Registry, RejectReason,
    ShutdownToken, ShuttingDown, Stage,
};

type Tested = Result<(), Box<dyn Error>>;

/// What happened, in order, as noted from any thread.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Something that notes `what` when it is called.
    fn noting(&self, what: impl Into<String>) -> impl FnOnce() + Send + 'static {
        let (journal, what) = (self.clone(), what.into());
        move || journal.note(what)
    }
}

fn pool_of(registry: &Registry, name: &'static str, threads: usize) -> Pool {
    Pool::builder().registry(registry).name(name).max_threads(threads).build().unwrap()
}

/// Inside a task: waits until its pool drains.
fn wait_until_closed() {
    let pool = Pool::current().expect("this is inside a task");
    while !pool.is_closed() {
        thread::yield_now();
    }
}

/// Notes its text when its thread ends, which takes a while and does not begin before shutdown does.
struct Farewell(Journal, &'static str, ShutdownToken);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.2.wait();
        thread::sleep(Duration::from_millis(20)); // the work
        self.0.note(self.1);
    }
}

thread_local!(static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) });

// ---- the whole, in child processes ----

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

/// A case that ends well.
#[track_caller]
fn run_well(case: &str) -> Outcome {
    let outcome = run(case);
    outcome.assert_code(0).assert_silent();
    outcome
}

#[test]
fn thread_local_destructors_of_every_worker_run_before_post_join_hooks() {
    let _tidy = tidy();
    for case in
        ["destructor_of_a_live_pool", "destructor_of_a_dropped_pool", "destructor_of_an_expired_worker"]
    {
        assert_eq!(run_well(case).stdout, "destructor\nafter\n", "{case}");
    }
}

#[test]
fn hooks_run_once_however_often_the_process_shuts_down() {
    let _tidy = tidy();
    assert_eq!(run_well("hooks_run_once").stdout, "before\nafter\n");
}

#[test]
#[cfg(feature = "exit-hook")]
fn hooks_run_at_exit_though_there_never_was_a_pool() {
    let _tidy = tidy();
    assert_eq!(run_well("hooks_without_a_pool").stdout, "before\nafter\n");
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
    assert_eq!(run_well("hook_ends_a_consumer").stdout, "request 7\n");
}

#[test]
fn work_that_a_hook_leaves_on_a_new_pool_is_drained() {
    let _tidy = tidy();
    let outcome = run_well("hook_leaves_work_on_a_new_pool");
    assert_eq!(outcome.count("task "), 10, "{outcome:#?}");
    assert_eq!(outcome.position("after"), 10, "{outcome:#?}");
}

#[test]
fn follow_ups_between_pools_run_to_their_end_at_exit() {
    let _tidy = tidy();
    assert_eq!(run_well("follow_ups_between_pools").count("task"), 200);
}

#[test]
fn tasks_that_wait_for_tasks_of_another_pool_end_at_exit() {
    let _tidy = tidy();
    assert_eq!(run_well("tasks_wait_for_tasks_of_another_pool").count("task "), 20);
}

#[test]
fn exit_does_not_wait_for_a_daemon_pool() {
    let _tidy = tidy();
    let outcome = run_well("daemon_runs_for_ever");
    assert_eq!(outcome.stdout, "before\ntask\nafter\n");
    assert!(outcome.elapsed < Duration::from_secs(10), "{outcome:#?}");
}

// ---- hooks ----

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
        let removed = [before, after, before, its_own.recv().unwrap()].map(|id| of_hook.remove(id));
        noted.note(format!("{removed:?}"));
    })?;
    own.send(id)?;
    let report = registry.shutdown();
    assert!(report.is_clean());
    assert_eq!(journal.take(), ["[true, true, false, false]"]);
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

#[test]
fn the_token_fires_before_the_first_hook() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let token = registry.token();
    assert!(!token.is_triggered());
    assert!(!token.wait_timeout(Duration::from_millis(1)));
    assert_eq!(poll_once(pin!(token.clone())), Poll::Pending);
    let waiting = token.clone();
    let waiter = thread::spawn(move || block_on(waiting));
    let (of_hook, noted) = (token.clone(), journal.clone());
    registry.before_join("asks", move || noted.note(of_hook.is_triggered().to_string()))?;
    // Woken before the hooks have ended: this one waits for it.
    registry.before_join("waits", move || waiter.join().unwrap())?;
    assert!(registry.shutdown().is_clean());
    assert_eq!(journal.take(), ["true"]);
    token.wait();
    assert!(token.wait_timeout(Duration::ZERO));
    let mut token = token;
    for _ in 0..2 {
        assert_eq!(poll_once(pin!(&mut token)), Poll::Ready(()));
    }
    Ok(())
}

// ---- the drain ----

#[test]
fn pools_drain_newest_first() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let names = ["a", "b", "c", "d"];
    let pools = names.map(|name| pool_of(&registry, name, 1));
    for pool in &pools {
        pool.execute(wait_until_closed)?;
        for _ in 0..20 {
            pool.execute(journal.noting(pool.name()))?;
        }
    }
    let report = registry.shutdown();
    assert!(report.is_clean());
    let expected: Vec<_> = names.iter().rev().flat_map(|name| [*name; 20]).collect();
    assert_eq!(journal.take(), expected);
    let reported: Vec<_> = report.pools().iter().map(|pool| pool.name()).collect();
    assert_eq!(reported, ["d", "c", "b", "a"]);
    Ok(())
}

/// Submits itself again until none is `left`.
fn chain(pool: Pool, left: usize, journal: Journal) {
    journal.note("link");
    if left > 1 {
        let next = pool.clone();
        pool.execute(move || chain(next, left - 1, journal)).unwrap();
    }
}

/// The same, alternating between two pools.
fn bounce(here: Pool, there: Pool, left: usize, journal: Journal) {
    journal.note("link");
    if left > 1 {
        let next = there.clone();
        next.execute(move || bounce(there, here, left - 1, journal)).unwrap();
    }
}

#[test]
fn follow_ups_within_a_pool_run_to_their_end() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let pool = pool_of(&registry, "pool", 2);
    for _ in 0..2 {
        let (own, noted) = (pool.clone(), journal.clone());
        pool.execute(move || {
            wait_until_closed();
            chain(own, 100, noted);
        })?;
    }
    let report = registry.shutdown();
    assert!(report.is_clean());
    assert_eq!(journal.take().len(), 200);
    assert_eq!(report.totals().completed, 200);
    Ok(())
}

#[test]
fn follow_ups_within_a_pool_that_only_closes_run_to_their_end() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    for shut_down in [true, false] {
        let pool = pool_of(&registry, "pool", 2);
        let (own, noted) = (pool.clone(), journal.clone());
        let first = pool.spawn(move || {
            wait_until_closed();
            chain(own, 100, noted);
        })?;
        if shut_down {
            assert_eq!(pool.shutdown().stats().completed, 100);
        } else {
            pool.close();
            first.join()?;
            pool.wait_idle();
        }
        assert_eq!(journal.take().len(), 100);
        assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
    }
    Ok(())
}

#[test]
fn follow_ups_between_pools_run_to_their_end() -> Tested {
    let _tidy = tidy();
    for threads in [1, 2] {
        let (registry, journal) = (registry(), Journal::default());
        let pools = [pool_of(&registry, "old", threads), pool_of(&registry, "new", threads)];
        for (here, there) in [(0, 1), (1, 0)] {
            let (here, there, noted) = (pools[here].clone(), pools[there].clone(), journal.clone());
            here.clone().execute(move || {
                wait_until_closed();
                bounce(here, there, 100, noted);
            })?;
        }
        let report = registry.shutdown();
        assert!(report.is_clean());
        assert_eq!(journal.take().len(), 200);
        assert_eq!((report.totals().completed, report.totals().panicked), (200, 0));
    }
    Ok(())
}

#[test]
fn a_pool_that_rejects_follow_ups_refuses_its_own_tasks() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let pool = Pool::builder().registry(&registry).follow_ups(FollowUps::Reject).max_threads(1).build()?;
    let (own, noted) = (pool.clone(), journal.clone());
    pool.execute(move || {
        wait_until_closed();
        let refused = own.execute(noted.noting("returned")).unwrap_err();
        noted.note(format!("{:?}", refused.reason()));
        refused.into_inner()();
    })?;
    let report = registry.shutdown();
    assert!(report.is_clean());
    assert_eq!(journal.take(), ["ShuttingDown", "returned"]);
    assert_eq!((report.totals().completed, report.totals().rejected), (1, 1));
    Ok(())
}

#[test]
fn submissions_from_outside_are_refused_while_a_pool_drains() -> Tested {
    let _tidy = tidy();
    struct Late(Pool, Journal);
    impl Drop for Late {
        fn drop(&mut self) {
            note_refusal(&self.0, &self.1, "destructor");
        }
    }
    thread_local!(static LATE: RefCell<Option<Late>> = const { RefCell::new(None) });
    fn note_refusal(pool: &Pool, journal: &Journal, from: &str) {
        let refused = pool.execute(journal.noting("returned")).unwrap_err();
        journal.note(format!("{from}: {:?}", refused.reason()));
        refused.into_inner()();
    }
    let (registry, journal) = (registry(), Journal::default());
    let strange = pool_of(&common::registry(), "of another registry", 1);
    let daemon = Pool::builder().registry(&registry).daemon().max_threads(1).build()?;
    let pool = pool_of(&registry, "pool", 1);
    let (own, noted) = (pool.clone(), journal.clone());
    pool.execute(move || {
        wait_until_closed();
        let (of_thread, of_task) = (own.clone(), noted.clone());
        thread::spawn(move || note_refusal(&of_thread, &of_task, "thread")).join().unwrap();
        // A daemon pool is still open, but its tasks are outside.
        let (of_daemon, of_task) = (own.clone(), noted.clone());
        daemon.spawn(move || note_refusal(&of_daemon, &of_task, "daemon")).unwrap().join().unwrap();
        let (of_strange, of_task) = (own.clone(), noted.clone());
        strange.spawn(move || note_refusal(&of_strange, &of_task, "other registry")).unwrap().join().unwrap();
        LATE.set(Some(Late(own, noted)));
    })?;
    let report = registry.shutdown();
    assert!(report.is_clean());
    assert_eq!(report.totals().panicked, 0);
    let mut expected = Vec::new();
    for from in ["thread", "daemon", "other registry", "destructor"] {
        expected.extend([format!("{from}: ShuttingDown"), "returned".into()]);
    }
    assert_eq!(journal.take(), expected);
    Ok(())
}

// ---- the join ----

#[test]
fn workers_are_joined_with_their_destructors_before_post_join_hooks() -> Tested {
    let _tidy = tidy();
    // Each alone: another thread that is joined would give it the time it takes.
    for kind in ["live", "dropped", "expired"] {
        let (registry, journal) = (registry(), Journal::default());
        let farewell = Farewell(journal.clone(), kind, registry.token());
        let builder = Pool::builder().registry(&registry).max_threads(1);
        let pool = match kind {
            "expired" => builder.keep_alive(Duration::from_millis(1)).build()?,
            _ => builder.build()?,
        };
        pool.spawn(move || FAREWELL.set(Some(farewell)))?.join()?;
        let pool = (kind != "dropped").then_some(pool);
        // Until the registry has forgotten the pool, the pool the thread.
        while match kind {
            "dropped" => !registry.stats().is_empty(),
            "expired" => registry.stats()[0].threads > 0,
            _ => false,
        } {
            thread::yield_now();
        }
        registry.after_join("last", journal.noting("after"))?;
        let report = registry.shutdown();
        assert!(report.is_clean());
        assert_eq!(journal.take(), [kind, "after"]);
        if pool.is_some() {
            assert_eq!(report.pools()[0].workers_joined(), 1, "{kind}");
        }
    }
    Ok(())
}

#[test]
fn a_pool_shut_down_by_itself_joins_its_workers_with_their_destructors() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let pool = pool_of(&registry, "pool", 1);
    let ended = common::registry();
    let farewell = Farewell(journal.clone(), "destructor", ended.token());
    ended.shutdown();
    pool.execute(move || FAREWELL.set(Some(farewell)))?;
    let report = pool.shutdown();
    assert_eq!(journal.take(), ["destructor"]);
    assert_eq!(report.workers_joined(), 1);
    Ok(())
}

#[test]
fn a_pool_that_was_never_used_shuts_down_at_once() {
    let _tidy = tidy();
    let pool = pool_of(&registry(), "pool", 4);
    let report = pool.shutdown();
    assert!(report.is_clean());
    assert_eq!((report.workers_joined(), report.stats().accepted), (0, 0));
    assert!(pool.shutdown().is_clean());
}

// ---- daemon pools ----

#[test]
fn a_daemon_pool_stays_open_to_the_last_and_then_is_left_behind() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let daemon = Pool::builder().registry(&registry).name("daemon").daemon().max_threads(1).build()?;
    let pool = pool_of(&registry, "pool", 1);
    let (go, stopped) = channel::<()>();
    let (blocked, is_blocked) = channel();
    // Serves the pool while that drains, and then does not end.
    let (of_task, noted) = (daemon.clone(), journal.clone());
    pool.execute(move || {
        wait_until_closed();
        let handle = of_task.spawn(|| "served").unwrap();
        noted.note(handle.join().unwrap());
        of_task
            .execute(move || {
                blocked.send(()).unwrap();
                let _ = stopped.recv();
            })
            .unwrap();
        is_blocked.recv().unwrap();
    })?;
    let (of_pool, noted) = (daemon.clone(), journal.clone());
    let (queued, was_queued) = channel();
    pool.execute(move || {
        queued.send(of_pool.spawn(noted.noting("lost")).unwrap()).unwrap();
    })?;
    let (of_hook, noted) = (daemon.clone(), journal.clone());
    registry.after_join("submits", move || {
        noted.note(format!("{:?}", of_hook.execute(noted.noting("lost")).unwrap_err().reason()));
    })?;
    let report = registry.shutdown();
    assert!(report.is_clean(), "{report}");
    assert!(was_queued.recv()?.join().unwrap_err().is_cancelled());
    assert_eq!(journal.take(), ["served", "ShuttingDown"]);
    let names: Vec<_> = report.pools().iter().map(|pool| pool.name()).collect();
    assert_eq!(names, ["pool", "daemon"]);
    let stats = report.pools()[1].stats();
    assert!(stats.is_daemon);
    assert_eq!((stats.completed, stats.cancelled, stats.running, stats.queued), (1, 1, 1, 0));
    drop(go);
    assert_eq!(daemon.shutdown().stats().completed, 2);
    assert!(journal.take().is_empty());
    Ok(())
}

#[test]
fn a_daemon_pool_that_was_left_behind_can_be_shut_down_and_joined() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let daemon = Pool::builder().registry(&registry).daemon().max_threads(1).build()?;
    let (go, stopped) = channel::<()>();
    let (begun, has_begun) = channel();
    let farewell = Farewell(journal.clone(), "destructor", registry.token());
    daemon.execute(move || {
        FAREWELL.set(Some(farewell));
        begun.send(()).unwrap();
        let _ = stopped.recv();
    })?;
    has_begun.recv()?;
    assert!(registry.shutdown().is_clean());
    drop(go);
    while daemon.stats().threads > 0 {
        thread::yield_now();
    }
    let report = daemon.shutdown();
    assert_eq!(journal.take(), ["destructor"]);
    assert_eq!(report.workers_joined(), 1);
    Ok(())
}

#[test]
fn an_explicit_shutdown_of_a_daemon_pool_waits_for_it() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let daemon = Pool::builder().registry(&registry).daemon().max_threads(2).build()?;
    let task = journal.noting("first");
    daemon.execute(move || {
        wait_until_closed();
        task();
    })?;
    for _ in 0..20 {
        let task = journal.noting("task");
        daemon.execute(move || {
            thread::sleep(Duration::from_millis(1)); // the work
            task();
        })?;
    }
    let report = daemon.shutdown();
    assert_eq!(journal.take().len(), 21);
    assert_eq!((report.stats().completed, report.workers_joined()), (21, 2));
    Ok(())
}

// ---- what is told ----

#[test]
fn the_report_tells_what_happened() -> Tested {
    let _tidy = tidy();
    let registry = registry();
    let old = pool_of(&registry, "old", 1);
    let new = pool_of(&registry, "new", 3);
    let _unused = pool_of(&registry, "unused", 3);
    registry.before_join("before", || thread::sleep(Duration::from_millis(30)))?; // the work
    registry.after_join("after", || ())?;
    for n in 0..10 {
        new.execute(move || assert!(n > 0, "the first fails"))?;
    }
    let (go, blocked) = channel::<()>();
    old.execute(move || {
        let _ = blocked.recv();
    })?;
    assert!(old.spawn(|| ())?.cancel());
    drop(go);
    let report = registry.shutdown();
    assert!(report.is_clean(), "{report}"); // A panic is the task's affair.
    assert_eq!(report.reason(), Reason::Call);
    assert!(report.elapsed() >= Duration::from_millis(30));
    let [before, after] = report.hooks() else { panic!("{report}") };
    assert_eq!(
        (before.name(), before.stage(), before.outcome()),
        ("before", Stage::PreJoin, &HookOutcome::Ran)
    );
    assert_eq!((after.name(), after.stage(), after.outcome()), ("after", Stage::PostJoin, &HookOutcome::Ran));
    assert!(before.elapsed() >= Duration::from_millis(30));
    let [unused, new, old] = report.pools() else { panic!("{report}") };
    assert_eq!([unused.name(), new.name(), old.name()], ["unused", "new", "old"]);
    assert_eq!((unused.stats().accepted, unused.workers_joined()), (0, 0));
    let stats = new.stats();
    assert_eq!((stats.accepted, stats.completed, stats.panicked), (10, 9, 1));
    assert_eq!((stats.threads, stats.phase), (0, PoolPhase::Closed));
    assert_eq!(new.workers_joined(), stats.peak_threads);
    let stats = old.stats();
    assert_eq!((stats.accepted, stats.completed, stats.cancelled), (2, 1, 1));
    assert_eq!(old.workers_joined(), 1);
    let totals = report.totals();
    assert_eq!((totals.accepted, totals.completed, totals.panicked, totals.cancelled), (12, 10, 1, 1));
    let text = report.to_string();
    for part in ["clean", "unused", "new", "old", "before", "after"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(format!("{:?}", ExitCode::from(&report)), format!("{:?}", ExitCode::SUCCESS));
    Ok(())
}

#[test]
fn phases_and_progress_can_be_followed() -> Tested {
    let _tidy = tidy();
    let (registry, journal) = (registry(), Journal::default());
    let look = |registry: &Registry, journal: &Journal| {
        let progress = registry.progress();
        assert_eq!(progress.phase, registry.phase());
        let (hooks_done, hooks_total) = (progress.hooks_done, progress.hooks_total);
        let (tasks, workers) = (progress.tasks_left, progress.workers_left);
        let phase = progress.phase;
        journal
            .note(format!("{phase:?}: hooks {hooks_done}/{hooks_total}, tasks {tasks}, workers {workers}"));
    };
    let pool = pool_of(&registry, "pool", 1);
    let (of_hook, noted) = (registry.clone(), journal.clone());
    registry.before_join("second", move || look(&of_hook, &noted))?;
    let (of_hook, noted) = (registry.clone(), journal.clone());
    registry.before_join("first", move || look(&of_hook, &noted))?;
    let (of_hook, noted) = (registry.clone(), journal.clone());
    registry.after_join("third", move || look(&of_hook, &noted))?;
    let (of_task, noted) = (registry.clone(), journal.clone());
    pool.execute(move || {
        wait_until_closed();
        look(&of_task, &noted);
    })?;
    pool.execute(|| ())?;
    look(&registry, &journal);
    assert!(registry.shutdown().is_clean());
    look(&registry, &journal);
    assert_eq!(
        journal.take(),
        [
            "Running: hooks 0/3, tasks 2, workers 1",
            "PreJoin: hooks 0/3, tasks 2, workers 1",
            "PreJoin: hooks 1/3, tasks 2, workers 1",
            "Draining: hooks 2/3, tasks 2, workers 1",
            "PostJoin: hooks 2/3, tasks 0, workers 0",
            "Finished: hooks 3/3, tasks 0, workers 0",
        ]
    );
    Ok(())
}

#[test]
fn the_future_of_the_end_resolves_with_the_report() -> Tested {
    let _tidy = tidy();
    let registry = registry();
    assert!(poll_once(pin!(registry.finished())).is_pending());
    let awaited = [registry.finished(), registry.finished()];
    let waiters = awaited.map(|finished| thread::spawn(move || block_on(finished)));
    let pool = pool_of(&registry, "pool", 1);
    pool.execute(|| ())?;
    let report = registry.shutdown();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap().elapsed(), report.elapsed());
    }
    assert_eq!(block_on(registry.finished()).totals().completed, 1);
    Ok(())
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    struct Ignore;
    impl Wake for Ignore {
        fn wake(self: Arc<Self>) {}
    }
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Ignore))))
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
