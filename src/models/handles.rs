//! What waits for a task is told when it ends: joins, wakers, and several handles at once.

use super::*;
use crate::{as_completed, join_all, join_any};
use shuttle::future::block_on;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[test]
fn a_join_ends_when_the_task_does() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let handles = [1, 2].map(|n| pool.spawn(move || n).unwrap());
        let sums = handles.map(|handle| thread::spawn(move || handle.join().unwrap()));
        assert_eq!(sums.map(|sum| sum.join().unwrap()), [1, 2]);
        pool.shutdown();
    });
}

#[test]
fn a_join_that_runs_out_of_time_gives_the_handle_back_and_the_next_gets_the_result() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let (go, wait) = shuttle::sync::mpsc::channel::<()>();
        let task = move || {
            let _ = wait.recv();
            5
        };
        let handle = pool.spawn(task).unwrap();
        let opener = thread::spawn(move || {
            (0..20).for_each(|_| thread::yield_now());
            drop(go);
        });
        let time = Time::passes();
        let result = match handle.join_timeout(Duration::from_secs(1)) {
            Ok(result) => result,
            // Whoever waits last is told.
            Err(handle) => thread::spawn(move || handle.join()).join().unwrap(),
        };
        assert_eq!(result.unwrap(), 5);
        opener.join().unwrap();
        drop(time);
        pool.shutdown();
    });
}

#[test]
fn a_task_that_is_seen_to_have_ended_is_ready_for_every_thread() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let handle = pool.spawn(|| 5).unwrap();
        let canceller = handle.canceller();
        let other = thread::spawn(move || canceller.cancel());
        let watcher = thread::spawn(move || {
            let has_ended = (0..8).any(|_| {
                thread::yield_now();
                handle.is_finished()
            });
            (has_ended, handle)
        });
        let (has_ended, handle) = watcher.join().unwrap();
        match handle.join_timeout(Duration::ZERO) {
            Ok(result) => assert_eq!(result.is_err(), other.join().unwrap()),
            Err(handle) => {
                assert!(!has_ended, "it was seen to have ended, and is not ready");
                drop((handle, other.join()));
            }
        }
        pool.shutdown();
    });
}

#[test]
fn a_waker_is_woken_when_the_task_ends_or_is_cancelled() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let handle = pool.spawn(|| 5).unwrap();
        let canceller = handle.canceller();
        let other = thread::spawn(move || canceller.cancel());
        let result = block_on(handle);
        assert_eq!(result.is_err(), other.join().unwrap());
        pool.shutdown();
    });
}

/// Polls once with a waker that nobody waits for, then goes on as usual.
struct Moved<F>(Option<F>);

impl<F: Future + Unpin> Future for Moved<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.0.as_mut().unwrap();
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(output);
        }
        Pin::new(future).poll(cx)
    }
}

#[test]
fn the_last_waker_is_the_one_that_counts() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let handle = pool.spawn(|| 5).unwrap();
        assert_eq!(block_on(Moved(Some(handle))).unwrap(), 5);
        pool.shutdown();
    });
}

#[test]
fn a_result_that_nobody_takes_is_dropped_once() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let trace = Trace::default();
        let result = trace.clone();
        let (ends, about_to_end) = shuttle::sync::mpsc::channel();
        let task = move || {
            ends.send(()).unwrap();
            result
        };
        let handle = pool.spawn(task).unwrap();
        // The task is there for as long as somebody may cancel it, and its result is not.
        let canceller = handle.canceller();
        about_to_end.recv().unwrap();
        drop(handle);
        pool.shutdown();
        trace.assert_no_captures();
        drop(canceller);
    });
}

#[test]
fn join_all_has_all_results_in_order() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let handles: Vec<_> = (0..3).map(|n| pool.spawn(move || n).unwrap()).collect();
        let results: Vec<_> = join_all(handles).into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [0, 1, 2]);
        pool.shutdown();
    });
}

#[test]
fn as_completed_yields_each_once_whenever_it_ends() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let handles: Vec<_> = (0..3).map(|n| pool.spawn(move || n).unwrap()).collect();
        let canceller = handles[2].canceller();
        let other = thread::spawn(move || canceller.cancel());
        let _time = Time::jumps(2);
        let mut rest = as_completed(handles);
        let mut seen = Vec::new();
        let mut errors = 0;
        loop {
            match rest.next_timeout(Duration::from_secs(1)) {
                Ok(Some(Ok(n))) => seen.push(n),
                Ok(Some(Err(error))) => errors += usize::from(error.is_cancelled()),
                Ok(None) => break,
                Err(_late) => {}
            }
        }
        assert_eq!(errors, usize::from(other.join().unwrap()));
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2][..3 - errors]);
        pool.shutdown();
    });
}

#[test]
fn join_any_has_one_success_and_leaves_nothing_queued() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let trace = Trace::default();
        let handles: Vec<_> = (0..3).map(|_| pool.spawn(trace.task()).unwrap()).collect();
        assert!(join_any(handles).unwrap().is_ok());
        assert_eq!(pool.stats().queued, 0);
        pool.wait_idle();
        let stats = pool.shutdown().stats().clone();
        assert_eq!(stats.completed + stats.cancelled, 3);
        assert_eq!(stats.completed as usize, trace.ran());
        trace.assert_no_captures();
    });
}
