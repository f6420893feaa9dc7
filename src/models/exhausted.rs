//! A system that is out of threads: a task is refused, or run by those that are there.

use super::*;
use crate::RejectReason;
use shuttle::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn a_submission_that_meets_the_end_of_the_last_thread_is_run_or_comes_back() {
    explore(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 1).keep_alive(Duration::from_secs(1)).build().unwrap();
        pool.spawn(|| ()).unwrap().join().unwrap();
        while modelled::waits() == 0 {
            thread::yield_now();
        }
        modelled::exhaust_threads(true);
        let time = Time::jumps(1);
        match pool.spawn(|| 7) {
            Ok(handle) => assert_eq!(handle.join().unwrap(), 7),
            Err(refused) => {
                assert_eq!(refused.reason(), RejectReason::NoThread);
                assert_eq!(refused.into_inner()(), 7);
            }
        }
        drop(time);
        modelled::exhaust_threads(false);
        assert_eq!(pool.spawn(|| 8).unwrap().join().unwrap(), 8);
        assert_adds_up(pool.shutdown().stats());
    });
}

#[test]
fn tasks_for_which_there_is_no_further_thread_are_run_by_those_that_are_there() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let trace = Trace::default();
        pool.execute(trace.task()).unwrap();
        modelled::exhaust_threads(true);
        let submitters = [(); 2].map(|()| {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || (0..2).for_each(|_| pool.execute(trace.task()).unwrap()))
        });
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        modelled::exhaust_threads(false);
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, trace.ran(), stats.threads), (5, 5, 0));
    });
}

#[test]
fn a_blocked_task_runs_what_is_queued_behind_it_if_nobody_can_stand_in_for_it() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let trace = Trace::default();
        let (blocked, is_blocked) = channel();
        let inner = pool.clone();
        let waits = pool.spawn(move || {
            blocked.send(()).unwrap();
            inner.wait_idle();
        });
        is_blocked.recv().unwrap();
        modelled::exhaust_threads(true);
        // It may see the pool idle before, between, or after them.
        let submitter = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || pool.execute(trace.task()).unwrap())
        };
        pool.spawn(trace.task()).unwrap().join().unwrap();
        submitter.join().unwrap();
        waits.unwrap().join().unwrap();
        pool.wait_idle();
        assert_eq!(trace.ran(), 2);
        modelled::exhaust_threads(false);
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, stats.peak_threads), (3, 1));
    });
}

#[test]
fn a_task_that_joins_one_of_a_limit_runs_what_that_waits_for_if_nobody_can_stand_in_for_it() {
    explore(|| {
        let (_registry, pool) = pool(1);
        let inner = pool.clone();
        let parent = pool.spawn(move || {
            let limit = inner.limit(1);
            let [first, second] = [1, 2].map(|n| limit.spawn(move || n).unwrap());
            modelled::exhaust_threads(true);
            second.join().unwrap() + first.join().unwrap()
        });
        assert_eq!(parent.unwrap().join().unwrap(), 3);
        modelled::exhaust_threads(false);
        assert_eq!(pool.shutdown().stats().completed, 3);
    });
}

/// Waits until so many threads are blocked, and lets them come as far as to sleep, mostly.
fn asleep(pool: &Pool, threads: usize) {
    while pool.blocked_threads() < threads {
        thread::yield_now();
    }
    (0..10).for_each(|_| thread::yield_now());
}

/// The one task of the pool's thread sleeps until time passes, and time stands still.
fn a_task_comes_while_one_sleeps(
    sleep: impl Fn(&Pool, crate::JoinHandle<()>) + Copy + Send + Sync + 'static,
) {
    explore(move || {
        let (registry, pool) = pool(1);
        let late = pool.spawn_after(Duration::from_secs(1), || ()).unwrap();
        let canceller = late.canceller();
        let inner = pool.clone();
        let sleeps = pool.spawn(move || sleep(&inner, late)).unwrap();
        asleep(&pool, 1);
        modelled::exhaust_threads(true);
        assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
        assert!(canceller.cancel());
        sleeps.join().unwrap();
        modelled::exhaust_threads(false);
        let report = registry.shutdown();
        let stats = report.totals();
        assert_eq!((stats.completed, stats.cancelled, stats.peak_threads), (2, 1, 1));
    });
}

#[test]
fn a_task_that_sleeps_in_a_join_runs_what_comes_if_nobody_can_stand_in_for_it() {
    a_task_comes_while_one_sleeps(|_, late| assert!(late.join().is_err()));
}

#[test]
fn a_task_that_sleeps_in_a_wait_for_several_runs_what_comes_if_nobody_can_stand_in_for_it() {
    a_task_comes_while_one_sleeps(|_, late| assert_eq!(crate::as_completed([late]).count(), 1));
}

#[test]
fn tasks_that_sleep_in_a_scope_run_what_comes_if_nobody_can_stand_in_for_them() {
    explore(|| {
        let (registry, pool) = pool(2);
        let late = pool.spawn_after(Duration::from_secs(1), || ()).unwrap();
        let canceller = late.canceller();
        let (inner, (begun, has_begun)) = (pool.clone(), channel());
        let owner = pool.spawn(move || {
            inner.scope(|s| {
                s.spawn(|| {
                    begun.send(()).unwrap();
                    assert!(late.join().is_err());
                });
                has_begun.recv().unwrap();
            });
        });
        asleep(&pool, 2);
        modelled::exhaust_threads(true);
        assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
        assert!(canceller.cancel());
        owner.unwrap().join().unwrap();
        modelled::exhaust_threads(false);
        assert_eq!(registry.shutdown().totals().completed, 3);
    });
}
