//! Cancelling: what has ended stays as it is, what is cancelled makes room, and nobody waits for it any more.

mod common;

use common::{assert_adds_up, occupy_with, pool_in, registry, run, tidy, within, Tracked};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use winddown::{task, JoinError, JoinHandle, Pool, RejectReason, WhenFull};

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> (Sender<()>, JoinHandle<()>) {
    occupy_with(|task| pool.spawn(task).unwrap())
}

#[test]
fn what_has_ended_stays_as_it_is_whatever_comes_later() {
    let _tidy = tidy();
    /// Says when it is dropped.
    struct Late(Sender<()>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let returned = pool.spawn(|| 7).unwrap();
        let panicked = pool.spawn(|| panic!("no luck")).unwrap();
        pool.wait_idle();
        let (go, running) = occupy(&pool);
        let cancelled = pool.spawn(|| unreachable!("it is cancelled")).unwrap();
        assert!(cancelled.cancel());
        drop(go);
        running.join().unwrap();
        pool.wait_idle(); // the worker has come by the cancelled one
        let before = pool.stats();
        for _ in 0..3 {
            assert!(returned.is_finished() && panicked.is_finished() && cancelled.is_finished());
            assert!(!returned.cancel() && !panicked.cancel() && cancelled.cancel());
            assert!(!returned.canceller().cancel() && !panicked.canceller().cancel());
        }
        let after = pool.stats();
        assert_eq!((after.completed, after.panicked, after.cancelled), (2, 1, 1));
        assert_eq!((before.completed, before.panicked, before.cancelled), (2, 1, 1));
        assert_eq!(returned.join().unwrap(), 7);
        assert!(panicked.join().unwrap_err().is_panic());
        assert!(cancelled.join().unwrap_err().is_cancelled());

        // One that ends after it was given up.
        let (dropped, is_dropped) = channel();
        let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
        let late = Late(dropped);
        let abandoned = pool.spawn(move || {
            started.send(()).unwrap();
            let _ = wait.recv();
            late
        });
        has_started.recv().unwrap();
        assert_eq!(pool.shutdown_timeout(Duration::ZERO).stats().abandoned, 1);
        let abandoned = abandoned.unwrap();
        assert!(abandoned.is_finished() && !abandoned.cancel());
        drop(go);
        is_dropped.recv().expect("its late result is dropped, although the handle is there");
        assert!(abandoned.is_finished() && !abandoned.cancel());
        assert!(abandoned.join().map(drop).unwrap_err().is_abandoned());
        pool.shutdown();
        assert_eq!((pool.stats().abandoned, pool.stats().completed), (1, 2), "it settles once");
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn each_that_is_cancelled_makes_room_for_one_more() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let builder = Pool::builder().registry(&registry).max_threads(1);
        let pool = builder.queue_capacity(10).when_full(WhenFull::Reject).build().unwrap();
        let (go, running) = occupy(&pool);
        let handles: Vec<_> =
            (0..10).map(|_| pool.try_spawn(|| unreachable!("cancelled")).unwrap()).collect();
        for (cancelled, handle) in handles.into_iter().enumerate() {
            let refused = pool.try_execute(|| unreachable!("there is no room for it")).unwrap_err();
            assert_eq!(refused.reason(), RejectReason::Full);
            assert!(handle.cancel());
            assert_eq!(pool.stats().queued, 9, "{cancelled}");
            pool.try_execute(|| ()).unwrap();
        }
        drop(go);
        running.join().unwrap();
        let report = pool.shutdown();
        let stats = report.stats();
        assert_eq!((stats.completed, stats.cancelled, stats.panicked), (11, 10, 0));
    });
}

/// Fifty tasks for five threads, each with a thread that waits for it; `end` ends the pool.
fn cut_off(end: impl FnOnce(&Pool)) -> (Pool, Vec<Result<usize, JoinError>>) {
    let pool = pool_in(&registry(), 5);
    let (started, has_started) = channel();
    let waiters: Vec<_> = (0..50)
        .map(|n| {
            let (started, capture) = (started.clone(), Tracked::new(()));
            let task = move || {
                let _capture = capture;
                started.send(()).unwrap();
                while !task::is_cancelled() {
                    thread::yield_now();
                }
                n
            };
            let handle = pool.spawn(task).unwrap();
            thread::spawn(move || handle.join())
        })
        .collect();
    (0..5).for_each(|_| has_started.recv().unwrap());
    end(&pool);
    let results = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
    (pool, results)
}

#[test]
fn a_deadline_cancels_what_is_queued_and_everyone_who_waits_goes_on() {
    let _tidy = tidy();
    within(|| {
        let (pool, results) = cut_off(|pool| drop(pool.shutdown_timeout(Duration::from_secs(2))));
        let count = |is: fn(&JoinError) -> bool| {
            results.iter().flat_map(|result| result.as_ref().err()).filter(|error| is(error)).count()
        };
        assert_eq!(count(JoinError::is_cancelled), 45);
        // On a busy machine one that is told to stop may not get to ask in time.
        let abandoned = count(JoinError::is_abandoned);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 5 - abandoned);
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.queued, stats.cancelled), (0, 45), "{stats:?}");
        assert_eq!((stats.abandoned as usize, stats.completed as usize), (abandoned, 5 - abandoned));
        assert_adds_up(&stats);
    });
}

/// A worker whose task stops because it was told to must not come for the next one.
#[test]
fn nothing_starts_once_what_runs_was_told_to_stop() {
    let _tidy = tidy();
    type End = fn(&Pool);
    let ends: [End; 3] = [
        |pool| drop(pool.shutdown_now()),
        |pool| drop(pool.shutdown_timeout(Duration::from_millis(2))),
        |pool| drop(pool.registry().shutdown_timeout(Duration::from_millis(2))),
    ];
    within(move || {
        for round in 0..150 {
            let pool = pool_in(&registry(), 3);
            let late = Arc::new(AtomicUsize::new(0));
            let (started, has_started) = channel();
            for _ in 0..60 {
                let (late, started) = (late.clone(), started.clone());
                let task = move || {
                    late.fetch_add(usize::from(task::is_cancelled()), SeqCst);
                    let _ = started.send(());
                    while !task::is_cancelled() {
                        thread::yield_now();
                    }
                };
                pool.execute(task).unwrap();
            }
            // All threads have a task that does not end by itself: no other task starts.
            (0..3).for_each(|_| has_started.recv().unwrap());
            ends[round % 3](&pool);
            assert_eq!(late.load(SeqCst), 0, "round {round}: {:?}", pool.stats());
            let stats = pool.shutdown().stats().clone();
            assert_eq!(
                (stats.cancelled + stats.returned, late.load(SeqCst)),
                (57, 0),
                "round {round}: {stats:?}"
            );
            assert_adds_up(&stats);
        }
    });
}

#[test]
fn who_waits_for_a_task_that_is_handed_back_and_dropped_goes_on() {
    let _tidy = tidy();
    within(|| {
        let (pool, results) = cut_off(|pool| {
            let (report, unstarted) = pool.shutdown_now();
            assert_eq!((unstarted.len(), report.stats().completed), (45, 5));
        });
        let (ran, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!((ran.len(), lost.len()), (5, 45));
        assert!(lost.into_iter().all(|result| result.is_err_and(|error| error.is_cancelled())));
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn what_is_cancelled_does_not_hold_up_a_shutdown_nor_the_exit() {
    let _tidy = tidy();
    let outcome = run("cancelled_at_the_end");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "shut down\n");
    assert!(outcome.elapsed < Duration::from_secs(5), "{outcome:#?}");
}

#[test]
fn main_may_return_while_a_thread_takes_the_queue_back() {
    let _tidy = tidy();
    for _ in 0..20 {
        let outcome = run("main_ends_in_a_shutdown_now");
        outcome.assert_code(0).assert_silent();
        assert_eq!(outcome.stdout, "running\n");
    }
}

#[test]
fn a_token_fires_for_its_own_registry_and_those_below_and_not_for_the_one_above() {
    let _tidy = tidy();
    let outcome = run("tokens_fire_downwards");
    outcome.assert_code(0).assert_silent();
    let mut lines: Vec<_> = outcome.stdout.lines().collect();
    lines.sort_unstable(); // The task does not wait for the hook.
    let expected = ["a hook of the other: true", "a task of the other: true", "one ends: true, false, false"];
    assert_eq!(lines, expected);
}
