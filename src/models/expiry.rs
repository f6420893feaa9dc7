//! Idle expiry against submit: a worker whose time is up leaves no task behind.
//!
//! Each model brings a worker to the brink first: it sleeps, and waits for the end of its keep-alive. Then that moment comes, and
//! a submission with it. Of orders drawn without that, next to none have a worker asleep when a task comes.

use super::*;
use std::time::Duration;

const KEEP_ALIVE: Duration = Duration::from_secs(1);

fn expiring(max_threads: usize, min_threads: usize, keep_alive: Duration) -> (Registry, Pool) {
    let registry = Registry::root();
    let builder = builder(&registry, max_threads).min_threads(min_threads).keep_alive(keep_alive);
    let pool = builder.build().unwrap();
    (registry, pool)
}

fn asleep_for_a_while(workers: usize) {
    while modelled::waits() < workers {
        thread::yield_now();
    }
}

/// So many tasks that need a thread each, and so many threads asleep after them.
fn threads_asleep(pool: &Pool, threads: usize) {
    let meeting = Arc::new(shuttle::sync::Barrier::new(threads));
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let meeting = meeting.clone();
            pool.spawn(move || _ = meeting.wait()).unwrap()
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    asleep_for_a_while(threads);
}

#[test]
fn the_last_worker_whose_time_is_up_leaves_no_task_behind() {
    explore(|| {
        let (_registry, pool) = expiring(1, 0, KEEP_ALIVE);
        for n in 1..=2 {
            threads_asleep(&pool, 1);
            let time = Time::jumps(1);
            // Nothing comes after it that would bring a thread for it, too.
            assert_eq!(pool.spawn(move || n).unwrap().join().unwrap(), n);
            drop(time);
        }
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, stats.peak_threads, stats.threads), (4, 1, 0));
        assert_adds_up(&stats);
    });
}

#[test]
fn one_of_several_workers_whose_time_is_up_leaves_no_task_behind() {
    explore(|| {
        let (_registry, pool) = expiring(2, 0, KEEP_ALIVE);
        threads_asleep(&pool, 2);
        let time = Time::jumps(2);
        // They need a thread each, whichever of the two that are there are on their way out.
        let meeting = Arc::new(shuttle::sync::Barrier::new(2));
        let (one, other) = (meeting.clone(), meeting);
        let submitter = {
            let pool = pool.clone();
            thread::spawn(move || pool.spawn(move || _ = one.wait()).unwrap())
        };
        let handle = pool.spawn(move || _ = other.wait()).unwrap();
        submitter.join().unwrap().join().unwrap();
        handle.join().unwrap();
        drop(time);
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, stats.peak_threads), (4, 2));
        assert_adds_up(&stats);
    });
}

#[test]
fn a_worker_that_is_not_kept_at_all_leaves_no_task_behind() {
    explore(|| {
        let (_registry, pool) = expiring(2, 0, Duration::ZERO);
        let trace = Trace::default();
        let other = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || {
                pool.execute(trace.task()).unwrap();
                while pool.stats().threads > 1 {
                    thread::yield_now();
                }
                pool.execute(trace.task()).unwrap();
            })
        };
        for n in 0..2 {
            assert_eq!(pool.spawn(move || n).unwrap().join().unwrap(), n);
            while pool.stats().threads > 1 {
                thread::yield_now();
            }
        }
        other.join().unwrap();
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, trace.ran()), (4, 2));
        assert_adds_up(&stats);
    });
}

#[test]
fn idle_workers_go_when_their_time_is_up_and_the_least_number_stays() {
    explore(|| {
        let (_registry, pool) = expiring(2, 1, KEEP_ALIVE);
        threads_asleep(&pool, 2);
        // Both find that their time is up.
        assert!(modelled::pass() && modelled::pass());
        while pool.stats().threads > 1 {
            thread::yield_now();
        }
        for _ in 0..10 {
            thread::yield_now();
            assert_eq!(pool.stats().threads, 1);
        }
        assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
        assert_eq!(pool.shutdown().stats().completed, 3);
    });
}
