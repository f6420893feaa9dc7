//! Threads that come in the place of others, that cannot start, or are one too many: the pool ends all the same.

use super::*;
use crate::RejectReason;
use std::time::Duration;

/// Until nothing is left of it, with nobody to help it along.
fn wait_until_gone(registry: &Registry) {
    while !registry.stats().is_empty() {
        thread::yield_now();
    }
}

#[test]
fn a_dropped_pool_ends_though_the_thread_of_its_last_task_is_one_too_many() {
    explore(|| {
        let registry = Registry::root();
        let [busy, pool] = [(); 2].map(|()| builder(&registry, 1).keep_alive(Duration::MAX).build().unwrap());
        let trace = Trace::default();
        busy.execute(trace.task()).unwrap();
        let (other, left) = (busy.clone(), trace.clone());
        let wait = move || {
            other.wait_idle();
            left.leave();
        };
        pool.execute(wait).unwrap();
        // A substitute may run this one.
        pool.execute(trace.task()).unwrap();
        drop((busy, pool));
        wait_until_gone(&registry);
        assert_eq!(trace.ran(), 3);
        trace.assert_no_captures();
    });
}

#[test]
fn a_pool_whose_tasks_wait_for_each_others_pool_ends_when_it_is_dropped() {
    explore(|| {
        let registry = Registry::root();
        let [a, b] = [(); 2].map(|()| builder(&registry, 1).keep_alive(Duration::MAX).build().unwrap());
        let trace = Trace::default();
        for (pool, other) in [(&a, &b), (&b, &a)] {
            let (other, left) = (other.clone(), trace.clone());
            let wait = move || {
                other.wait_idle();
                left.leave();
            };
            pool.execute(wait).unwrap();
            pool.execute(trace.task()).unwrap();
        }
        drop((a, b));
        wait_until_gone(&registry);
        assert_eq!(trace.ran(), 4);
        trace.assert_no_captures();
    });
}

#[test]
fn a_pool_whose_threads_cannot_start_settles_what_it_has_accepted() {
    for bad in [0, 1] {
        explore(move || {
            let registry = Registry::root();
            let starts = AtomicUsize::new(0);
            let start = move || assert_ne!(starts.fetch_add(1, Ordering::Relaxed), bad);
            let pool = builder(&registry, 2).on_thread_start(start).build().unwrap();
            let trace = Trace::default();
            let submitters = [(); 2].map(|()| {
                let (pool, trace) = (pool.clone(), trace.clone());
                thread::spawn(move || match pool.spawn(trace.task()) {
                    Ok(handle) => handle.join().map_or_else(|error| assert!(error.is_cancelled()), |()| ()),
                    Err(refused) => assert_eq!(refused.reason(), RejectReason::Broken),
                })
            });
            submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
            let report = registry.shutdown();
            let totals = report.totals();
            assert_adds_up(&totals);
            assert_eq!(
                (totals.completed + totals.cancelled, totals.completed as usize),
                (totals.accepted, trace.ran())
            );
            assert_eq!(totals.accepted + totals.rejected, 2);
            assert_eq!(report.is_clean(), totals.cancelled == 0);
            drop(pool);
            trace.assert_no_captures();
        });
    }
}

#[test]
fn who_waits_for_room_in_a_pool_whose_threads_cannot_start_gets_the_task_back() {
    explore(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 1).queue_capacity(1).on_thread_start(|| panic!("no")).build().unwrap();
        let trace = Trace::default();
        let submitters = [(); 3].map(|()| {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || pool.execute(trace.task()).is_ok())
        });
        let accepted: usize = submitters.map(|it| usize::from(it.join().unwrap())).iter().sum();
        let totals = registry.shutdown().totals().clone();
        assert_eq!(
            (totals.cancelled as usize, totals.accepted as usize, trace.ran()),
            (accepted, accepted, 0)
        );
        drop(pool);
        trace.assert_no_captures();
    });
}

#[test]
fn the_last_handle_of_a_pool_may_go_in_its_last_task() {
    explore(|| {
        let registry = Registry::root();
        let trace = Trace::default();
        let pool = builder(&registry, 2).keep_alive(Duration::MAX).build().unwrap();
        let (first, second) = (pool.clone(), pool.clone());
        let task = |own: Pool, left: Trace| {
            move || {
                own.execute(left.task_to_the_last()).unwrap();
                drop(own);
                left.leave();
            }
        };
        pool.execute(task(first, trace.clone())).unwrap();
        pool.execute(task(second, trace.clone())).unwrap();
        drop(pool);
        wait_until_gone(&registry);
        // Nothing is left of the pool, but perhaps threads that have not ended.
        registry.shutdown();
        assert_eq!(trace.ran(), 6);
        trace.assert_no_captures();
    });
}

#[test]
fn what_a_pool_calls_at_the_end_of_its_threads_it_calls_once_for_each() {
    explore(|| {
        let registry = Registry::root();
        let (starts, stops) = (Trace::default(), Trace::default());
        let (start, stop) = (starts.clone(), stops.clone());
        let pool = builder(&registry, 2)
            .keep_alive(Duration::from_secs(1))
            .on_thread_start(move || start.leave())
            .on_thread_stop(move || stop.leave())
            .build()
            .unwrap();
        let time = Time::jumps(2);
        let trace = Trace::default();
        let submitter = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || pool.execute(trace.task()).unwrap())
        };
        pool.execute(trace.task()).unwrap();
        submitter.join().unwrap();
        drop(pool);
        let report = registry.shutdown();
        drop(time);
        assert_eq!(trace.ran(), 2);
        assert_eq!(starts.ran(), stops.ran());
        assert!((1..=2).contains(&starts.ran()));
        drop(report);
        starts.assert_no_captures();
        stops.assert_no_captures();
    });
}
