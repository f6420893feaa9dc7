//! Idle expiry against submit: a worker whose time is up leaves no task behind.

use super::*;
use std::time::Duration;

fn expiring(max_threads: usize, min_threads: usize, keep_alive: Duration) -> (Registry, Pool) {
    let registry = Registry::root();
    let builder = builder(&registry, max_threads).min_threads(min_threads).keep_alive(keep_alive);
    let pool = builder.build().unwrap();
    (registry, pool)
}

fn submit_while_workers_expire(max_threads: usize, min_threads: usize, keep_alive: Duration) {
    explore(move || {
        let (_registry, pool) = expiring(max_threads, min_threads, keep_alive);
        let time = Time::passes();
        let trace = Trace::default();
        let other = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || (0..2).for_each(|_| pool.execute(trace.task()).unwrap()))
        };
        for n in 0..3 {
            assert_eq!(pool.spawn(move || n).unwrap().join().unwrap(), n);
            assert!(pool.stats().threads >= min_threads);
        }
        other.join().unwrap();
        let stats = pool.shutdown().stats().clone();
        drop(time);
        assert_eq!((stats.completed, trace.ran(), stats.threads), (5, 2, 0));
        assert_adds_up(&stats);
    });
}

#[test]
fn the_last_worker_whose_time_is_up_leaves_no_task_behind() {
    submit_while_workers_expire(1, 0, Duration::from_secs(1));
}

#[test]
fn one_of_several_workers_whose_time_is_up_leaves_no_task_behind() {
    submit_while_workers_expire(2, 0, Duration::from_secs(1));
    submit_while_workers_expire(2, 1, Duration::from_secs(1));
}

#[test]
fn a_worker_that_is_not_kept_at_all_leaves_no_task_behind() {
    submit_while_workers_expire(2, 0, Duration::ZERO);
}

#[test]
fn idle_workers_go_when_their_time_is_up_and_the_least_number_stays() {
    explore(|| {
        let (_registry, pool) = expiring(2, 1, Duration::from_secs(1));
        let meeting = Arc::new(shuttle::sync::Barrier::new(2));
        let handles = [(); 2].map(|()| {
            let meeting = meeting.clone();
            pool.spawn(move || _ = meeting.wait()).unwrap()
        });
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        let _time = Time::passes();
        while pool.stats().threads > 1 {
            thread::yield_now();
        }
        assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
        assert_eq!(pool.shutdown().stats().completed, 3);
    });
}
