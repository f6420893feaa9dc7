//! Delays: what comes due against close, cancel, expiry, and the end of the thread that calls.

use super::*;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_delay_that_is_added_while_the_timer_goes_is_not_forgotten() {
    explore(|| {
        let (registry, pool) = pool(1);
        let time = Time::passes();
        let trace = Trace::default();
        for n in 0..3 {
            // By then the thread that calls may have nothing left to wait for, and be about to end.
            assert_eq!(pool.spawn_after(SECOND, move || n).unwrap().join().unwrap(), n);
        }
        let other = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || pool.spawn_after(SECOND, trace.task()).unwrap().join().unwrap())
        };
        pool.spawn_after(2 * SECOND, trace.task()).unwrap().join().unwrap();
        other.join().unwrap();
        assert_eq!(registry.shutdown().totals().completed, 5);
        drop(time);
    });
}

#[test]
fn a_delay_comes_due_while_the_last_worker_goes() {
    explore(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 2).keep_alive(SECOND).build().unwrap();
        let time = Time::passes();
        let handles = [1, 2, 1].map(|s| pool.spawn_after(s * SECOND, move || s).unwrap());
        assert_eq!(handles.map(|handle| handle.join().unwrap()), [1, 2, 1]);
        assert_eq!(pool.shutdown().stats().completed, 3);
        drop(time);
        assert!(registry.shutdown().is_clean());
    });
}

#[test]
fn a_delayed_task_settles_once_whoever_comes_to_it_first() {
    explore(|| {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        let time = Time::passes();
        let handles = [1, 1, 2].map(|s| pool.spawn_after(s * SECOND, trace.task()).unwrap());
        let cancellers = [handles[0].canceller(), handles[2].canceller()];
        let canceller = thread::spawn(move || cancellers.map(|it| it.cancel()));
        let closer = {
            let pool = pool.clone();
            thread::spawn(move || drop(pool.shutdown_now()))
        };
        let results = handles.map(|handle| handle.join());
        let [first, last] = canceller.join().unwrap();
        closer.join().unwrap();
        assert!(!first || results[0].is_err());
        assert!(!last || results[2].is_err());
        let ran = results.iter().filter(|result| result.is_ok()).count();
        let stats = pool.shutdown().stats().clone();
        assert_adds_up(&stats);
        assert_eq!((stats.completed as usize, trace.ran(), stats.accepted), (ran, ran, 3));
        assert_eq!((stats.cancelled + stats.returned) as usize, 3 - ran);
        drop(pool);
        registry.shutdown();
        drop(time);
        trace.assert_no_captures();
    });
}

#[test]
fn a_delay_neither_outlives_its_pool_nor_is_waited_for() {
    explore(|| {
        let registry = Registry::root();
        let trace = Trace::default();
        let pool = builder(&registry, 1).build().unwrap();
        let adder = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || usize::from(pool.spawn_after(SECOND, trace.task()).is_ok()))
        };
        let own = pool.clone();
        let left = trace.clone();
        pool.execute(move || drop(own.spawn_after(SECOND, left.task()))).unwrap();
        drop(pool);
        // No time passes: what is not due is cancelled.
        let report = registry.shutdown();
        adder.join().unwrap();
        assert!(report.is_clean());
        assert_eq!(trace.ran(), 0);
        trace.assert_no_captures();
    });
}

#[test]
fn a_wait_for_idleness_does_not_wait_for_what_is_not_due() {
    explore(|| {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        let later = pool.spawn_after(SECOND, trace.task()).unwrap();
        let last = pool.spawn_after(2 * SECOND, trace.task()).unwrap();
        let canceller = thread::spawn(move || later.cancel());
        pool.execute(trace.task()).unwrap();
        pool.wait_idle();
        assert_eq!(trace.ran(), 1);
        assert!(canceller.join().unwrap());
        pool.wait_idle();
        assert_eq!(pool.stats().delayed, 1);
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, stats.cancelled, stats.delayed), (1, 2, 0));
        assert!(last.join().unwrap_err().is_cancelled());
        // No time passes: the thread that calls ends since it is told to.
        registry.shutdown();
        trace.assert_no_captures();
    });
}
