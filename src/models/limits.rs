//! Limits, delays and scopes: permits, moments and borrowed tasks come to their end with everything else.

use super::*;
use std::time::Duration;

#[test]
fn a_limit_is_never_exceeded_and_leaves_nothing_behind() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let limited = pool.limit(1);
        let running = Arc::new(AtomicUsize::new(0));
        let trace = Trace::default();
        let task = || {
            let (running, trace) = (running.clone(), trace.clone());
            move || {
                assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0);
                thread::yield_now();
                running.fetch_sub(1, Ordering::Relaxed);
                trace.leave();
            }
        };
        let other = {
            let (limited, task) = (limited.clone(), task());
            thread::spawn(move || limited.execute(task).unwrap())
        };
        let handle = limited.spawn(task()).unwrap();
        let cancelled = limited.spawn(task()).unwrap();
        pool.execute(trace.task()).unwrap();
        let is_cancelled = cancelled.cancel();
        handle.join().unwrap();
        other.join().unwrap();
        let stats = pool.shutdown().stats().clone();
        assert_adds_up(&stats);
        assert_eq!((stats.accepted, stats.cancelled), (4, u64::from(is_cancelled)));
        assert_eq!((stats.completed as usize, stats.panicked), (trace.ran(), 0));
        drop((pool, limited, cancelled));
    });
}

#[test]
fn a_task_for_later_runs_or_is_cancelled_when_its_pool_closes() {
    explore(|| {
        let (registry, pool) = pool(1);
        let trace = Trace::default();
        let time = Time::jumps(3);
        let handles = [1, 2].map(|s| pool.spawn_after(Duration::from_secs(s), trace.task()).unwrap());
        let is_cancelled = handles[1].cancel();
        let closer = {
            let pool = pool.clone();
            thread::spawn(move || pool.close())
        };
        let [first, second] = handles.map(|handle| handle.join());
        closer.join().unwrap();
        assert_eq!(second.is_err(), is_cancelled || second.as_ref().is_err_and(|error| error.is_cancelled()));
        let stats = pool.shutdown().stats().clone();
        assert_adds_up(&stats);
        let ran = [&first, &second].into_iter().filter(|result| result.is_ok()).count();
        assert_eq!((stats.completed as usize, stats.cancelled as usize), (ran, 2 - ran));
        assert_eq!(trace.ran(), ran);
        drop(pool);
        registry.shutdown();
        drop(time);
        trace.assert_no_captures();
    });
}

#[test]
fn a_scope_ends_when_all_that_borrows_from_it_has() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let closer = {
            let pool = pool.clone();
            thread::spawn(move || {
                let (_, unstarted) = pool.shutdown_now();
                assert!(unstarted.is_empty(), "what borrows is never handed back");
            })
        };
        let mut numbers = [1, 2, 3];
        pool.scope(|s| {
            for n in &mut numbers {
                s.spawn(|| *n += 1);
            }
        });
        // Each ran, on the pool or here, or was dropped by `shutdown_now`; none still borrows.
        assert!(numbers.iter().zip(1..).all(|(now, before)| *now == before || *now == before + 1));
        closer.join().unwrap();
        assert_adds_up(pool.shutdown().stats());
    });
}
