//! Sleep against wake: no task waits while a worker sleeps that could run it.

use super::*;
use shuttle::sync::Barrier;

/// Each task waits for all others, so each needs a worker of its own.
fn all_meet(pool: &Pool, tasks: usize) {
    let meeting = Arc::new(Barrier::new(tasks));
    let meet = || {
        let meeting = meeting.clone();
        pool.spawn(move || _ = meeting.wait()).unwrap()
    };
    let handles: Vec<_> = (0..tasks).map(|_| meet()).collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
}

fn as_many_tasks_as_workers_run_at_once() {
    let (_registry, pool) = pool(3);
    all_meet(&pool, 3);
    // Some of the workers sleep by now, some are about to.
    all_meet(&pool, 3);
    assert_eq!(pool.shutdown().stats().peak_threads, 3);
}

#[test]
fn as_many_tasks_run_at_once_as_there_are_workers() {
    explore(as_many_tasks_as_workers_run_at_once);
}

#[test]
fn a_worker_that_wakes_without_a_reason_takes_it_for_none() {
    explore_spurious(as_many_tasks_as_workers_run_at_once);
}

#[test]
fn a_task_that_comes_while_the_last_worker_lies_down_is_run() {
    for max_threads in [1, 2] {
        explore(move || {
            let (_registry, pool) = pool(max_threads);
            let submitters = [(); 2].map(|()| {
                let pool = pool.clone();
                // Two at once, of which the second comes upon a worker that runs, and then both are waited for: the next
                // come upon one that falls asleep.
                thread::spawn(move || {
                    for _ in 0..2 {
                        let handles = [1, 2].map(|n| pool.spawn(move || n).unwrap());
                        assert_eq!(handles.map(|handle| handle.join().unwrap()), [1, 2]);
                    }
                })
            });
            submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
            assert_eq!(pool.shutdown().stats().completed, 8);
        });
    }
}

#[test]
fn a_follow_up_does_not_wait_behind_its_task_while_another_worker_sleeps() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let inner = pool.clone();
        let outer = move || {
            let meeting = Arc::new(Barrier::new(2));
            let other = meeting.clone();
            inner.execute(move || _ = other.wait()).unwrap();
            meeting.wait();
        };
        pool.spawn(outer).unwrap().join().unwrap();
        assert_eq!(pool.shutdown().stats().completed, 2);
    });
}

#[test]
fn wait_idle_sees_the_end_of_the_last_task() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let trace = Trace::default();
        let waiter = {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || {
                pool.execute(trace.task()).unwrap();
                pool.wait_idle();
                assert!(trace.ran() >= 1);
            })
        };
        let follow_up = {
            let (pool, trace) = (pool.clone(), trace.clone());
            move || pool.execute(trace.task()).unwrap()
        };
        pool.execute(follow_up).unwrap();
        pool.wait_idle();
        waiter.join().unwrap();
        assert_eq!(trace.ran(), 2);
        pool.shutdown();
        drop(pool);
        trace.assert_no_captures();
    });
}
