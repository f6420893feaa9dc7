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
