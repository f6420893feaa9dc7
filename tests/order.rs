//! Promise 4: the order of a shutdown, and promise 5: one failure stops nothing.

mod common;

use common::journal::{pool_of, wait_until_closed, Farewell, Journal, Tested, FAREWELL};
use common::{registry, tidy};
use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{FollowUps, HookOutcome, Pool, PoolPhase, Reason, Registry, RejectReason, Stage};

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
    let start = Instant::now();
    let report = pool.shutdown();
    assert!(report.is_clean());
    assert_eq!((report.workers_joined(), report.stats().accepted), (0, 0));
    assert!(pool.shutdown().is_clean());
    assert!(pool.registry().shutdown().is_clean());
    // Less than the ten seconds after which a thread that has nothing to do leaves.
    assert!(start.elapsed() < Duration::from_secs(5), "{report:?}");
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
