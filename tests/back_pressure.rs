//! Bounded queues under load: as many tasks as there are threads and places, whoever submits and however tasks end.

mod common;

use common::{assert_adds_up, meet, occupy_with, registry, run, tidy, within};
use std::panic::resume_unwind;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use winddown::{BuildError, Pool, PoolBuilder, RejectReason, WhenFull};

fn builder(max_threads: usize, capacity: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads).queue_capacity(capacity)
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> Sender<()> {
    occupy_with(|task| pool.execute(task).unwrap()).0
}

#[test]
fn a_pool_takes_exactly_as_many_tasks_as_it_has_threads_and_places() {
    let _tidy = tidy();
    within(|| {
        for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
            for (threads, capacity) in [(1, 1), (3, 5), (4, 2)] {
                let pool = builder(threads, capacity).when_full(when_full).build().unwrap();
                let all = Arc::new(Barrier::new(threads + 1));
                let (end, wait) = mpsc::channel::<()>();
                let wait = Arc::new(Mutex::new(wait));
                for _ in 0..threads {
                    let (all, wait) = (all.clone(), wait.clone());
                    let task = move || {
                        meet(&all);
                        let _ = wait.lock().unwrap().recv();
                    };
                    // A worker that is still starting has not made room yet.
                    pool.execute_timeout(task, Duration::MAX).unwrap();
                }
                meet(&all);
                for _ in 0..capacity {
                    pool.try_execute(|| ()).unwrap();
                }
                for _ in 0..3 {
                    let refused = pool.try_spawn(|| "still mine").unwrap_err();
                    assert_eq!(
                        (refused.reason(), refused.into_inner()()),
                        (RejectReason::Full, "still mine")
                    );
                }
                let stats = pool.stats();
                assert_eq!((stats.running, stats.queued), (threads as u64, capacity as u64), "{stats:?}");
                assert_eq!((stats.accepted, stats.rejected), ((threads + capacity) as u64, 3));
                drop(end);
                assert!(pool.shutdown().is_clean());
                assert_adds_up(&pool.stats());
            }
        }
    });
}

#[test]
fn a_capacity_of_zero_is_refused() {
    let _tidy = tidy();
    let error = builder(1, 0).build().unwrap_err();
    assert_eq!(error, BuildError::ZeroCapacity);
    assert!(error.to_string().contains("queue_capacity"), "{error}");
}

#[test]
fn a_wait_for_room_takes_what_is_free_at_once_and_what_comes_free_in_time() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(1, 1).build().unwrap();
        let go = occupy(&pool);
        pool.execute_timeout(|| (), Duration::ZERO).expect("there is room");
        let late = pool.clone();
        let (about_to, is_about_to) = mpsc::channel();
        let late = thread::spawn(move || {
            about_to.send(()).unwrap();
            late.spawn_timeout(|| 7, Duration::from_secs(3600)).unwrap().join().unwrap()
        });
        is_about_to.recv().unwrap();
        assert_eq!(pool.execute_timeout(|| (), Duration::ZERO).unwrap_err().reason(), RejectReason::Timeout);
        drop(go);
        assert_eq!(late.join().unwrap(), 7);
        assert_eq!(pool.shutdown().stats().completed, 3);
    });
}

#[test]
fn the_tasks_of_each_producer_stay_in_their_order_through_a_queue_of_one_place() {
    let _tidy = tidy();
    const TASKS: usize = 300;
    within(|| {
        let pool = builder(1, 1).build().unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let producers: Vec<_> = (0..3)
            .map(|producer| {
                let (pool, order) = (pool.clone(), order.clone());
                thread::spawn(move || {
                    for n in 0..TASKS {
                        let order = order.clone();
                        let task = move || order.lock().unwrap().push((producer, n));
                        match n % 3 {
                            0 => pool.execute(task).unwrap(),
                            1 => drop(pool.spawn(task).unwrap()),
                            _ => pool.execute_timeout(task, Duration::MAX).unwrap(),
                        }
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert!(pool.shutdown().is_clean());
        let order = order.lock().unwrap();
        for producer in 0..3 {
            let own: Vec<_> = order.iter().filter(|(of, _)| *of == producer).map(|(_, n)| *n).collect();
            assert_eq!(own, (0..TASKS).collect::<Vec<_>>(), "of producer {producer}");
        }
    });
}

#[test]
fn tasks_that_panic_give_their_places_back() {
    let _tidy = tidy();
    const TASKS: u64 = 200;
    within(|| {
        let pool = builder(2, 2).build().unwrap();
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for _ in 0..TASKS {
                        let panics = || resume_unwind(Box::new("without a message"));
                        match producer % 2 {
                            0 => pool.execute(panics).unwrap(),
                            _ => drop(pool.spawn(panics).unwrap()),
                        }
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(pool.spawn(|| 5).unwrap().join().unwrap(), 5);
        let report = pool.shutdown();
        assert_eq!((report.stats().panicked, report.stats().completed), (4 * TASKS, 1), "{report}");
        assert!(report.stats().peak_threads <= 2 && report.is_clean());
    });
}

/// What the pool had taken is run, what it had not is refused, and the process ends.
#[track_caller]
fn assert_refuses_at_the_end(case: &str, code: i32) {
    let outcome = run(case);
    outcome.assert_code(code).assert_silent();
    assert_eq!(outcome.stdout, "task first\ntask queued\nsubmitting: Err(\"ShuttingDown\")\n");
}

#[cfg(feature = "exit-hook")]
#[test]
fn a_submitter_that_is_blocked_when_main_returns_does_not_hold_up_the_process() {
    let _tidy = tidy();
    assert_refuses_at_the_end("blocked_submitter_and_main_returns", 0);
}

#[cfg(all(unix, feature = "exit-hook"))]
#[test]
fn a_submitter_that_is_blocked_when_the_process_exits_does_not_hold_it_up() {
    let _tidy = tidy();
    assert_refuses_at_the_end("blocked_submitter_and_process_exits", 3);
}

#[test]
fn a_submitter_that_is_blocked_when_winddown_exits_does_not_hold_it_up() {
    let _tidy = tidy();
    assert_refuses_at_the_end("blocked_submitter_and_winddown_exits", 7);
}

#[test]
fn a_hook_that_waits_for_room_at_the_end_of_the_process_gets_it() {
    let _tidy = tidy();
    let outcome = run("hook_fills_a_full_queue");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.count("task "), 22, "{outcome:#?}");
    assert_eq!(outcome.count("the hook is done"), 1, "{outcome:#?}");
}
