//! Cancel against start: a task runs or is cancelled, whoever comes first, and settles once.

use super::*;
use std::time::Duration;

#[test]
fn a_task_runs_or_is_cancelled_and_never_both() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let trace = Trace::default();
        let handle = pool.spawn(trace.task()).unwrap();
        let canceller = handle.canceller();
        let other = thread::spawn(move || canceller.cancel());
        let is_cancelled = handle.cancel();
        let captured = trace.captured.clone();
        let result = handle.join();
        // Before the handle resolves, captures are gone: what is left is the trace's own, and this.
        assert_eq!(Arc::strong_count(&captured), 2);
        // And it is counted.
        let stats = pool.stats();
        assert_eq!((stats.completed + stats.cancelled, stats.queued + stats.running), (1, 0));
        let is_cancelled_by_other = other.join().unwrap();
        // Both may be told that it will never run, and then it does not.
        assert_eq!(is_cancelled || is_cancelled_by_other, result.is_err());
        assert_eq!(trace.ran(), usize::from(result.is_ok()));
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed as usize, stats.cancelled as usize), (trace.ran(), 1 - trace.ran()));
        assert_adds_up(&stats);
    });
}

/// Cancels tasks while the pool is asked for them. Where its thread `is_busy`, it comes to none of them.
fn hand_back_against_cancel(tasks: usize, is_busy: bool) {
    explore(move || {
        let (registry, pool) = pool(1);
        let (go, wait) = shuttle::sync::mpsc::channel::<()>();
        let (started, has_started) = shuttle::sync::mpsc::channel();
        if is_busy {
            let busy = move || {
                started.send(()).unwrap();
                let _ = wait.recv();
            };
            pool.execute(busy).unwrap();
            has_started.recv().unwrap();
        }
        let trace = Trace::default();
        let handles: Vec<_> = (0..tasks).map(|_| pool.spawn(trace.task()).unwrap()).collect();
        let cancellers: Vec<_> = handles.iter().map(|handle| handle.canceller()).collect();
        let canceller = thread::spawn(move || {
            let cancelled = cancellers.iter().filter(|it| it.cancel()).count();
            drop(go);
            cancelled
        });
        let (report, unstarted) = pool.shutdown_now();
        let handed_back = unstarted.len();
        // One is run and resolves with its value, unless it was cancelled meanwhile; the rest is dropped.
        for (n, task) in unstarted.into_iter().enumerate() {
            if n == 0 {
                task.run();
            }
        }
        let cancelled = canceller.join().unwrap();
        let results: Vec<_> = handles.into_iter().map(|handle| handle.join()).collect();
        let finished = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(trace.ran(), finished);
        assert!(results.iter().filter(|result| result.is_err()).count() >= cancelled);
        assert_adds_up(report.stats());
        assert!(report.stats().returned as usize <= handed_back);
        assert_adds_up(&pool.stats());
        drop(pool);
        assert!(registry.stats().is_empty());
        trace.assert_no_captures();
    });
}

#[test]
fn a_shutdown_now_and_a_cancel_settle_a_task_once() {
    hand_back_against_cancel(2, false);
    hand_back_against_cancel(1, true);
}

fn end_at_a_deadline(timeout: Duration) {
    explore(move || {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        let handles = [(); 3].map(|()| pool.spawn(trace.task()).unwrap());
        let canceller = handles[2].canceller();
        let other = thread::spawn(move || canceller.cancel());
        let time = Time::passes();
        let report = pool.shutdown_timeout(timeout);
        other.join().unwrap();
        drop(time);
        let results = handles.map(|handle| handle.join());
        for result in &results {
            assert!(matches!(result, Ok(())) || result.as_ref().is_err_and(|error| !error.is_panic()));
        }
        assert_adds_up(report.stats());
        // What was still being cancelled when the report was made counted as queued.
        assert_eq!(report.stats().running, 0);
        let stats = pool.stats();
        assert_eq!(stats.completed + stats.cancelled + stats.abandoned, 3);
        // What ran is completed, or was abandoned while it ran.
        assert!(trace.ran() as u64 >= stats.completed);
        assert!(trace.ran() as u64 <= stats.completed + stats.abandoned);
        drop(pool);
        registry.shutdown();
    });
}

#[test]
fn a_deadline_and_a_start_settle_a_task_once() {
    end_at_a_deadline(Duration::from_secs(5));
}

#[test]
fn a_deadline_that_has_passed_and_a_start_settle_a_task_once() {
    end_at_a_deadline(Duration::ZERO);
}

#[test]
fn a_handle_that_cancels_on_drop_and_a_start_settle_a_task_once() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let trace = Trace::default();
        let before = pool.spawn(|| ()).unwrap();
        let handle = pool.spawn(trace.task()).unwrap().cancel_on_drop();
        before.join().unwrap();
        drop(handle);
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed as usize, stats.cancelled as usize), (1 + trace.ran(), 1 - trace.ran()));
        trace.assert_no_captures();
    });
}
