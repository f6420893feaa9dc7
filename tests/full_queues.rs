//! Bounded queues: what becomes of a task for which there is no room.

mod common;

use common::full::{await_sleepers, builder, full, occupy, submitter};
use common::{
    assert_adds_up, assert_threads_at_most, eventually, meet, registry, thread_count, tidy, within,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{Pool, RejectReason, WhenFull};

#[test]
fn a_full_queue_refuses_those_who_do_not_wait_and_gives_the_closure_back() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 3).when_full(WhenFull::Reject), 3);
        let refused = pool.execute(|| ()).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::Full);
        refused.into_inner()();
        assert_eq!(pool.spawn(|| 5).unwrap_err().into_inner()(), 5);
        assert_eq!(pool.try_execute(|| ()).unwrap_err().reason(), RejectReason::Full);
        assert_eq!(pool.try_spawn(|| ()).unwrap_err().reason(), RejectReason::Full);
        let stats = pool.stats();
        assert_eq!((stats.queued, stats.running, stats.accepted, stats.rejected), (3, 1, 4, 4));
        drop(go);
        assert!(pool.shutdown().is_clean());
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn a_submitter_waits_for_room_and_those_who_wait_come_in_in_their_order() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (about_to, is_about_to) = mpsc::channel();
        let submitters: Vec<_> = (0..5)
            .map(|n| {
                let (pool, order) = (pool.clone(), order.clone());
                let submit = move || pool.execute(move || order.lock().unwrap().push(n)).unwrap();
                let thread = submitter(&format!("waits-{n}"), &about_to, submit);
                await_sleepers(&is_about_to, 1);
                thread
            })
            .collect();
        assert_eq!(pool.stats().queued, 1);
        drop(go);
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        pool.shutdown();
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    });
}

/// It is the place that counts, not the end of a task: the only worker is busy all the time.
#[test]
fn each_place_that_comes_free_lets_in_one_who_waits() {
    let _tidy = tidy();
    const TASKS: u64 = 6;
    within(|| {
        let pool = builder(1, 1).build().unwrap();
        let (started, has_started) = mpsc::channel();
        let (mut tasks, mut gos) = (Vec::new(), Vec::new());
        for n in 0..TASKS {
            let (go, wait) = mpsc::channel::<()>();
            let started = started.clone();
            tasks.push(move || {
                started.send(n).unwrap();
                let _ = wait.recv();
            });
            gos.push(go);
        }
        let mut tasks = tasks.into_iter();
        pool.execute(tasks.next().unwrap()).unwrap();
        assert_eq!(has_started.recv().unwrap(), 0);
        pool.execute(tasks.next().unwrap()).unwrap();
        let (about_to, is_about_to) = mpsc::channel();
        let submitters: Vec<_> = tasks
            .enumerate()
            .map(|(n, task)| {
                let pool = pool.clone();
                let thread =
                    submitter(&format!("queues-{n}"), &about_to, move || pool.execute(task).unwrap());
                await_sleepers(&is_about_to, 1);
                thread
            })
            .collect();
        assert_eq!(pool.stats().accepted, 2);
        for (n, go) in (1..TASKS).zip(gos) {
            drop(go);
            assert_eq!(has_started.recv().unwrap(), n, "in their order");
            let expected = TASKS.min(n + 2);
            eventually("the next one is in", || pool.stats().accepted >= expected);
            let stats = pool.stats();
            assert_eq!((stats.accepted, stats.queued), (expected, expected - n - 1), "{stats:?}");
        }
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        assert_eq!(pool.shutdown().stats().completed, TASKS);
    });
}

#[test]
fn a_wait_for_room_ends_with_its_time_and_gives_the_closure_back() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let start = Instant::now();
        let time = Duration::from_millis(20);
        let refused = pool.execute_timeout(|| (), time).unwrap_err();
        assert!(start.elapsed() >= time);
        assert_eq!(refused.reason(), RejectReason::Timeout);
        refused.into_inner()();
        let refused = pool.spawn_timeout(|| 7, Duration::ZERO).unwrap_err();
        assert_eq!((refused.reason(), refused.into_inner()()), (RejectReason::Timeout, 7));
        drop(go);
        assert_eq!(pool.spawn_timeout(|| 7, Duration::MAX).unwrap().join().unwrap(), 7);
    });
}

#[test]
fn a_wait_for_room_keeps_its_time_behind_those_who_wait_without_limit() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let (about_to, is_about_to) = mpsc::channel();
        let patient = ["patient-1", "patient-2"].map(|name| {
            let pool = pool.clone();
            let submitter = submitter(name, &about_to, move || pool.execute(|| ()).is_ok());
            await_sleepers(&is_about_to, 1);
            submitter
        });
        for millis in [0, 1, 20] {
            let (start, time) = (Instant::now(), Duration::from_millis(millis));
            assert_eq!(pool.execute_timeout(|| (), time).unwrap_err().reason(), RejectReason::Timeout);
            assert!(start.elapsed() >= time);
        }
        assert!(patient.iter().all(|submitter| !submitter.is_finished()));
        drop(go);
        assert!(patient.into_iter().all(|submitter| submitter.join().unwrap()));
        assert_eq!(pool.shutdown().stats().completed, 4);
    });
}

#[test]
fn who_gives_up_waiting_leaves_its_place_to_the_next() {
    let _tidy = tidy();
    within(|| {
        for round in 0..200 {
            let (pool, go) = full(builder(1, 1), 1);
            let submitters: Vec<_> = (0..4)
                .map(|n| {
                    let pool = pool.clone();
                    // Some give up about when there is room; the others wait for as long as it takes.
                    let time = if n % 2 == 0 { Duration::from_micros(round * 3) } else { Duration::MAX };
                    thread::spawn(move || pool.execute_timeout(|| (), time).is_ok())
                })
                .collect();
            drop(go);
            let accepted = submitters.into_iter().map(|submitter| submitter.join().unwrap());
            let accepted: Vec<bool> = accepted.collect();
            assert!(accepted[1] && accepted[3], "{accepted:?}");
            let expected = 2 + accepted.iter().filter(|is_accepted| **is_accepted).count() as u64;
            assert_eq!(pool.shutdown().stats().completed, expected);
        }
    });
}

#[test]
fn closing_wakes_all_who_wait_and_needs_no_room() {
    let _tidy = tidy();
    type End = fn(&Pool);
    let ends: [(RejectReason, End); 7] = [
        (RejectReason::Closed, |pool| pool.close()),
        (RejectReason::Closed, |pool| drop(pool.shutdown())),
        (RejectReason::Closed, |pool| drop(pool.shutdown_timeout(Duration::ZERO))),
        (RejectReason::Closed, |pool| drop(pool.shutdown_now())),
        (RejectReason::ShuttingDown, |pool| pool.registry().request_shutdown()),
        (RejectReason::ShuttingDown, |pool| drop(pool.registry().shutdown())),
        (RejectReason::ShuttingDown, |pool| drop(pool.registry().shutdown_timeout(Duration::ZERO))),
    ];
    for (expected, end) in ends {
        within(move || {
            let (pool, go) = full(builder(1, 2), 2);
            let ran = Arc::new(AtomicUsize::new(0));
            let (about_to, is_about_to) = mpsc::channel();
            let submitters: Vec<_> = (0..8)
                .map(|n| {
                    let (pool, ran) = (pool.clone(), ran.clone());
                    let submit = move || {
                        let task = move || _ = ran.fetch_add(1, SeqCst);
                        let refused = match n % 4 {
                            0 => pool.execute(task).unwrap_err(),
                            1 => pool.execute_timeout(task, Duration::MAX).unwrap_err(),
                            2 => pool.spawn(task).unwrap_err(),
                            _ => pool.spawn_timeout(task, Duration::MAX).unwrap_err(),
                        };
                        let reason = refused.reason();
                        drop(refused.into_inner());
                        reason
                    };
                    submitter(&format!("blocked-{n}"), &about_to, submit)
                })
                .collect();
            await_sleepers(&is_about_to, 8);
            let start = Instant::now();
            let of_ender = pool.clone();
            let ender = thread::spawn(move || end(&of_ender)); // It may wait for the task that runs.
            for submitter in submitters {
                assert_eq!(submitter.join().unwrap(), expected);
            }
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "they were told after {took:?}");
            drop(go);
            ender.join().unwrap();
            pool.shutdown();
            assert_eq!(ran.load(SeqCst), 0);
            assert_adds_up(&pool.stats());
        });
    }
}

#[test]
fn a_task_goes_over_the_bound_of_its_own_pool() {
    let _tidy = tidy();
    within(|| {
        for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
            let pool = builder(1, 1).when_full(when_full).build().unwrap();
            let inner = pool.clone();
            let (queued, rejected) = pool
                .spawn(move || {
                    let first = inner.try_spawn(|| 1).unwrap();
                    assert_eq!(inner.try_execute(|| ()).unwrap_err().reason(), RejectReason::Full);
                    let second = inner.spawn_timeout(|| 2, Duration::MAX).unwrap();
                    let handles: Vec<_> = (0..1000).map(|n| inner.spawn(move || n).unwrap()).collect();
                    let queued = inner.stats().queued;
                    assert_eq!(first.join().unwrap() + second.join().unwrap(), 3);
                    assert!(handles.into_iter().enumerate().all(|(n, handle)| handle.join().unwrap() == n));
                    (queued, inner.stats().rejected)
                })
                .unwrap()
                .join()
                .unwrap();
            assert_eq!((queued, rejected), (1002, 1), "{when_full:?}");
        }
    });
}

#[test]
fn a_task_that_is_cancelled_in_the_queue_makes_room() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 2), 1);
        let queued = pool.spawn(|| ()).unwrap();
        assert_eq!(pool.try_execute(|| ()).unwrap_err().reason(), RejectReason::Full);
        let (about_to, is_about_to) = mpsc::channel();
        let other = pool.clone();
        let waiting = submitter("waits-cancel", &about_to, move || other.execute(|| ()).is_ok());
        await_sleepers(&is_about_to, 1);
        assert!(queued.cancel());
        assert!(waiting.join().unwrap());
        assert_eq!(pool.try_execute(|| ()).unwrap_err().reason(), RejectReason::Full);
        drop(go);
        pool.shutdown();
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn the_caller_runs_what_there_is_no_room_for_unless_the_pool_is_closed() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1).name("helped").when_full(WhenFull::CallerRuns), 1);
        let me = thread::current().id();
        let (ran_on, was_run_on) = mpsc::channel();
        let note = ran_on.clone();
        pool.execute(move || {
            assert_eq!(Pool::current().unwrap().name(), "helped");
            note.send(thread::current().id()).unwrap();
        })
        .unwrap();
        assert_eq!(was_run_on.try_recv().unwrap(), me);
        let handle = pool.spawn(|| thread::current().id()).unwrap();
        assert!(handle.is_finished());
        assert_eq!(handle.join().unwrap(), me);
        let panics = pool.spawn(|| panic!("on the caller's thread")).unwrap();
        assert!(panics.join().unwrap_err().is_panic());
        let stats = pool.stats();
        assert_eq!((stats.completed, stats.panicked, stats.running, stats.queued), (2, 1, 1, 1));
        assert_adds_up(&stats);
        pool.close();
        let refused = pool.execute(move || ran_on.send(thread::current().id()).unwrap()).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::Closed);
        drop(refused);
        assert!(was_run_on.recv().is_err());
        drop(go);
        assert_eq!(pool.shutdown().stats().completed, 4);
    });
}

#[test]
fn a_drain_waits_for_what_a_caller_runs() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1).when_full(WhenFull::CallerRuns), 1);
        let (running, is_running) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let caller = pool.clone();
        let caller = thread::spawn(move || {
            caller.execute(move || {
                running.send(()).unwrap();
                let _ = wait.recv();
            })
        });
        is_running.recv().unwrap();
        drop(go);
        assert!(!pool.wait_idle_timeout(Duration::from_millis(20)));
        assert_eq!(pool.running().len(), 1);
        drop(end);
        let report = pool.shutdown();
        assert_eq!((report.stats().completed, report.is_clean()), (3, true));
        caller.join().unwrap().unwrap();
    });
}

#[test]
fn no_sampler_sees_more_queued_than_there_is_room_for() {
    let _tidy = tidy();
    within(|| {
        const CAPACITY: u64 = 8;
        let pool = builder(3, CAPACITY as usize).build().unwrap();
        let meeting = Arc::new(Barrier::new(5));
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let (pool, meeting) = (pool.clone(), meeting.clone());
                thread::spawn(move || {
                    meet(&meeting);
                    for _ in 0..20_000 {
                        pool.execute(|| ()).unwrap();
                    }
                })
            })
            .collect();
        meet(&meeting);
        while pool.stats().accepted < 80_000 {
            let queued = pool.stats().queued;
            assert!(queued <= CAPACITY, "{queued}");
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(pool.shutdown().stats().completed, 80_000);
    });
}

/// A cancelled task leaves its place at once, and a worker that has it in hand finds that out later. The test counts, too: what the
/// pool counts is what it goes by.
#[test]
fn cancels_let_no_more_in_than_there_are_places_and_threads() {
    let _tidy = tidy();
    within(|| {
        const CAPACITY: usize = 4;
        const THREADS: usize = 3;
        let pool = builder(THREADS, CAPACITY).build().unwrap();
        let (meeting, held) = (Arc::new(Barrier::new(THREADS + 1)), Arc::new(AtomicIsize::new(0)));
        let producers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (pool, meeting, held) = (pool.clone(), meeting.clone(), held.clone());
                thread::spawn(move || {
                    meet(&meeting);
                    for n in 0..10_000 {
                        let leaves = held.clone();
                        let handle = pool.spawn(move || _ = leaves.fetch_sub(1, SeqCst)).unwrap();
                        held.fetch_add(1, SeqCst);
                        if n % 3 > 0 && handle.cancel() {
                            held.fetch_sub(1, SeqCst);
                        }
                    }
                })
            })
            .collect();
        meet(&meeting);
        let (mut most, mut most_queued) = (0, 0);
        while producers.iter().any(|producer| !producer.is_finished()) {
            most = most.max(held.load(SeqCst));
            most_queued = most_queued.max(pool.stats().queued);
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert!(most_queued <= (CAPACITY + THREADS) as u64, "{most_queued} were queued");
        // One that each worker is about to start, and one that each producer has just cancelled.
        assert!(most <= (CAPACITY + 2 * THREADS) as isize, "{most} were held");
        let stats = pool.shutdown().stats().clone();
        assert!(stats.cancelled > 0 && stats.accepted == 30_000, "{stats:?}");
        assert_eq!(held.load(SeqCst), 0);
        assert_adds_up(&stats);
    });
}

#[test]
fn a_capacity_may_be_one_or_as_large_as_numbers_go() {
    let _tidy = tidy();
    within(|| {
        for capacity in [1, 2, usize::MAX] {
            let pool = builder(2, capacity).build().unwrap();
            let sum = Arc::new(AtomicUsize::new(0));
            for n in 0..1000 {
                let sum = sum.clone();
                pool.execute(move || _ = sum.fetch_add(n, SeqCst)).unwrap();
            }
            pool.wait_idle();
            assert_eq!(sum.load(SeqCst), 499_500);
        }
    });
}

#[test]
fn a_hook_may_submit_to_a_full_queue() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = Pool::builder().registry(&registry).max_threads(1).queue_capacity(1).build().unwrap();
        let go = occupy(&pool);
        pool.execute(|| ()).unwrap();
        let from_hook = pool.clone();
        registry
            .before_join("submits", move || {
                drop(go);
                for _ in 0..10 {
                    from_hook.execute(|| ()).unwrap();
                }
            })
            .unwrap();
        assert!(registry.shutdown().is_clean());
        assert_eq!(pool.stats().completed, 12);
    });
}

#[test]
fn a_follow_up_waits_for_room_in_another_pool_that_drains() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let make = || Pool::builder().registry(&registry).max_threads(1).queue_capacity(1);
        let (older, go) = full(make(), 1);
        let (newer, hold) = full(make(), 0);
        let target = older.clone();
        newer
            .execute(move || {
                for _ in 0..10 {
                    target.execute(|| ()).unwrap();
                }
            })
            .unwrap();
        registry.request_shutdown();
        drop((go, hold));
        assert!(registry.wait_finished().is_clean());
        assert_eq!((older.stats().completed, newer.stats().completed), (12, 2));
    });
}

/// Bytes that are allocated now, by all tests: what the system has given the process depends on how many threads they start.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does all of it.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn memory_stays_flat_and_nothing_is_lost_through_a_short_queue() {
    let _tidy = tidy();
    within(|| {
        // The tests beside this one panic, and std then keeps tens of megabytes of what it has read to name the frames.
        let _ = std::backtrace::Backtrace::force_capture().to_string();
        let tasks: usize = if cfg!(debug_assertions) { 400_000 } else { 4_000_000 };
        let before = thread_count();
        let pool = builder(2, 1000).build().unwrap();
        let sum = Arc::new(AtomicUsize::new(0));
        let mut at_first = 0;
        for n in 0..tasks {
            if n == 100_000 {
                at_first = ALLOCATED.load(SeqCst);
            }
            let sum = sum.clone();
            pool.execute(move || _ = sum.fetch_add(1, SeqCst)).unwrap();
        }
        let grown = ALLOCATED.load(SeqCst).saturating_sub(at_first);
        assert_eq!(pool.shutdown().stats().completed, tasks as u64);
        assert_eq!(sum.load(SeqCst), tasks);
        assert!(grown < 4 << 20, "{grown} bytes more at the end than after 100,000 tasks");
        drop(pool);
        if let Some(before) = before {
            assert_threads_at_most(before + 20); // Other tests run beside this one.
        }
    });
}

#[test]
fn a_callback_of_a_pool_goes_over_its_bound() {
    let _tidy = tidy();
    within(|| {
        let (send, receive) = mpsc::channel::<Pool>();
        let (submitted, has_submitted) = mpsc::channel();
        let receive = Mutex::new(Some(receive));
        let start = move || {
            let Some(receive) = receive.lock().unwrap().take() else { return };
            let pool = receive.recv().unwrap();
            (0..3).for_each(|_| pool.execute(|| ()).unwrap());
            submitted.send(()).unwrap();
        };
        let pool = builder(1, 1).on_thread_start(start).build().unwrap();
        pool.execute(|| ()).unwrap();
        send.send(pool.clone()).unwrap();
        has_submitted.recv().unwrap();
        assert_eq!(pool.shutdown().stats().completed, 4);
    });
}

#[test]
fn a_task_that_a_worker_of_another_pool_runs_is_inside_that_pool_too() {
    let _tidy = tidy();
    within(|| {
        let (helped, hold) = full(builder(1, 1).when_full(WhenFull::CallerRuns), 1);
        let pool = builder(1, 1).build().unwrap();
        let inner = pool.clone();
        let outer = pool.spawn(move || {
            inner.execute(|| ()).unwrap();
            let innermost = inner.clone();
            let nested = move || {
                // The pool's only thread is this one.
                let current = || Pool::current().unwrap().name().to_owned();
                let name = innermost.spawn(current).unwrap().join().unwrap();
                assert_eq!(name, innermost.name());
                assert_ne!(current(), name);
                5
            };
            helped.spawn(nested).unwrap().join().unwrap()
        });
        assert_eq!(outer.unwrap().join().unwrap(), 5);
        drop(hold);
        pool.wait_idle();
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn a_caller_whose_task_was_abandoned_is_no_worker_that_is_stuck() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1).when_full(WhenFull::CallerRuns), 1);
        let (running, is_running) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let (done, is_done) = mpsc::channel();
        let caller = pool.clone();
        let caller = thread::spawn(move || {
            let inner = caller.clone();
            let task = move || {
                running.send(()).unwrap();
                let _ = wait.recv();
                inner.wait_idle();
                done.send(()).unwrap();
            };
            caller.execute(task).unwrap();
        });
        is_running.recv().unwrap();
        assert_eq!(pool.shutdown_timeout(Duration::ZERO).abandoned().len(), 2);
        drop(end);
        is_done.recv().unwrap();
        drop(go);
        caller.join().unwrap();
        assert_adds_up(&pool.stats());
    });
}
