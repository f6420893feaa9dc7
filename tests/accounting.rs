//! The counts of a pool add up at rest, however its tasks end, and looking at them blocks nobody.

mod common;

use common::{assert_adds_up, registry, tidy, within};
use std::sync::mpsc::{channel, Sender, TryRecvError::Disconnected};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use winddown::{task, JoinHandle, Pool, PoolBuilder, PoolStats, Registry, WhenFull};

fn builder(registry: &Registry) -> PoolBuilder {
    Pool::builder().registry(registry).max_threads(1)
}

/// A task that has started and goes on until what this returns is dropped, or it is told to stop.
fn occupy(pool: &Pool) -> (Sender<()>, JoinHandle<()>) {
    let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
    let task = move || {
        started.send(()).unwrap();
        while wait.try_recv() != Err(Disconnected) && !task::is_cancelled() {
            thread::yield_now();
        }
    };
    let handle = pool.spawn(task).unwrap();
    has_started.recv().unwrap();
    (go, handle)
}

/// What became of tasks; the other counts are those of tasks that are not over.
#[derive(PartialEq, Debug, Default)]
struct Ends {
    completed: u64,
    panicked: u64,
    cancelled: u64,
    returned: u64,
    abandoned: u64,
}

/// The ends of all tasks, of which there were as many as were accepted.
#[track_caller]
fn ends(stats: &PoolStats) -> Ends {
    assert_adds_up(stats);
    assert_eq!((stats.queued, stats.running, stats.delayed), (0, 0, 0), "{stats:?}");
    let PoolStats { completed, panicked, cancelled, returned, abandoned, .. } = *stats;
    Ends { completed, panicked, cancelled, returned, abandoned }
}

/// Whether a registry and its pools say the same.
#[track_caller]
fn assert_agrees(registry: &Registry, pool: &Pool) {
    let stats = pool.stats();
    let seen = registry.stats().into_iter().find(|seen| seen.name == stats.name).expect("it is not over");
    assert_adds_up(&seen);
    assert_eq!((seen.accepted, seen.queued, seen.running), (stats.accepted, stats.queued, stats.running));
    assert_eq!(registry.progress().tasks_left, stats.queued + stats.running);
    assert_eq!(pool.running().len() as u64, stats.running);
}

#[test]
fn tasks_that_return_and_panic() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(&registry()).max_threads(4).build().unwrap();
        for n in 0..100 {
            pool.execute(move || assert_ne!(n % 10, 0)).unwrap();
            drop(pool.spawn(move || assert_ne!(n % 5, 0)).unwrap());
            let large = [n; 100]; // does not fit into a place of the queue
            pool.execute(move || assert_ne!(large[99] % 20, 0)).unwrap();
        }
        pool.wait_idle();
        let expected = Ends { completed: 265, panicked: 35, ..Ends::default() };
        assert_eq!(ends(&pool.stats()), expected);
        assert_eq!((ends(pool.shutdown().stats()), pool.stats().accepted), (expected, 300));
    });
}

#[test]
fn a_panic_whose_payload_panics_when_it_is_dropped() {
    let _tidy = tidy();
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the drop of a payload");
        }
    }
    within(|| {
        let pool = builder(&registry()).build().unwrap();
        pool.execute(|| std::panic::panic_any(Bomb)).unwrap();
        drop(pool.spawn(|| std::panic::panic_any(Bomb)).unwrap());
        drop(pool.spawn(|| std::panic::panic_any(Bomb)).unwrap().join().unwrap_err());
        assert_eq!(ends(pool.shutdown().stats()), Ends { panicked: 3, ..Ends::default() });
    });
}

#[test]
fn tasks_that_their_handle_cancels() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).build().unwrap();
        let (go, running) = occupy(&pool);
        let handles: Vec<_> = (0..10).map(|_| pool.spawn(|| ()).unwrap()).collect();
        assert_eq!((pool.stats().queued, pool.stats().running), (10, 1));
        assert_agrees(&registry, &pool);
        assert_eq!(handles.iter().step_by(2).filter(|handle| handle.cancel()).count(), 5);
        assert_eq!((pool.stats().queued, pool.stats().cancelled), (5, 5));
        assert_agrees(&registry, &pool);
        assert!(handles[0].cancel() && !running.cancel());
        running.join().unwrap(); // it asks
        pool.wait_idle();
        assert_eq!(ends(&pool.stats()), Ends { completed: 6, cancelled: 5, ..Ends::default() });
        drop((go, handles));
    });
}

#[test]
fn tasks_that_a_deadline_cancels_and_abandons() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).max_threads(2).build().unwrap();
        let (go, wait) = channel::<()>();
        let (started, has_started) = channel();
        let (over, is_over) = channel();
        let inner = pool.clone();
        let nested = move || {
            // Two of them, one in the place of the other.
            let child = inner.spawn(move || {
                started.send(()).unwrap();
                let _ = wait.recv();
            });
            let is_abandoned = child.unwrap().join().is_err_and(|error| error.is_abandoned());
            over.send(is_abandoned).unwrap();
        };
        let (_go, told) = occupy(&pool); // ends by itself when it is told to
        let nested = pool.spawn(nested).unwrap();
        has_started.recv().unwrap();
        (0..10).for_each(|_| pool.execute(|| ()).unwrap());
        let queued = pool.spawn(|| ()).unwrap();
        let report = pool.shutdown_timeout(Duration::from_secs(2));
        told.join().unwrap();
        assert!(queued.join().unwrap_err().is_cancelled() && nested.join().unwrap_err().is_abandoned());
        let expected = || Ends { completed: 1, cancelled: 11, abandoned: 2, ..Ends::default() };
        assert_eq!(ends(report.stats()), expected());
        drop(go);
        assert!(is_over.recv().unwrap());
        pool.shutdown();
        assert_eq!(ends(&pool.stats()), expected(), "each settles once");
    });
}

#[test]
fn tasks_that_shutdown_now_gives_back() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).build().unwrap();
        let (_go, _running) = occupy(&pool);
        let handles: Vec<_> = (0..5).map(|n| pool.spawn(move || n).unwrap()).collect();
        (0..5).for_each(|_| pool.execute(|| ()).unwrap());
        assert!(handles[0].cancel());
        assert_agrees(&registry, &pool);
        let (report, unstarted) = pool.shutdown_now();
        let expected = Ends { completed: 1, cancelled: 1, returned: 9, ..Ends::default() };
        assert_eq!((ends(report.stats()), unstarted.len()), (expected, 9));
        assert!(handles[1].cancel(), "it is outside, and so in no count");
        unstarted.into_iter().for_each(|task| task.run());
        assert_eq!(handles.into_iter().filter_map(|handle| handle.join().ok()).sum::<i32>(), 2 + 3 + 4);
        assert_eq!(ends(&pool.stats()), Ends { completed: 1, cancelled: 1, returned: 9, ..Ends::default() });
    });
}

#[test]
fn a_limits_backlog_that_is_cancelled_given_back_or_run() {
    let _tidy = tidy();
    within(|| {
        for handed_back in [false, true] {
            let registry = registry();
            let pool = builder(&registry).max_threads(2).build().unwrap();
            let limit = pool.limit(1);
            let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
            let first = move || {
                started.send(()).unwrap();
                while wait.try_recv() != Err(Disconnected) && !task::is_cancelled() {
                    thread::yield_now();
                }
            };
            limit.execute(first).unwrap();
            has_started.recv().unwrap();
            let handles: Vec<_> = (0..6).map(|_| limit.spawn(|| ()).unwrap()).collect();
            pool.spawn(|| ()).unwrap().join().unwrap(); // passes the backlog
            assert_eq!((pool.stats().queued, pool.stats().running), (6, 1));
            assert_agrees(&registry, &pool);
            assert!(handles[0].cancel() && handles[3].cancel());
            assert_eq!(pool.stats().queued, 4);
            assert_agrees(&registry, &pool);
            if handed_back {
                let (report, unstarted) = pool.shutdown_now();
                let expected = Ends { completed: 2, cancelled: 2, returned: 4, ..Ends::default() };
                assert_eq!((ends(report.stats()), unstarted.len()), (expected, 4));
                drop(unstarted);
            } else {
                drop(go);
                pool.wait_idle();
                assert_eq!(ends(&pool.stats()), Ends { completed: 6, cancelled: 2, ..Ends::default() });
                limit.execute(|| ()).unwrap();
                assert_eq!(
                    ends(pool.shutdown().stats()),
                    Ends { completed: 7, cancelled: 2, ..Ends::default() }
                );
            }
        }
    });
}

#[test]
fn a_limits_backlog_at_a_deadline() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).max_threads(2).build().unwrap();
        let limit = pool.limit(1);
        let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
        let first = move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        };
        limit.execute(first).unwrap();
        has_started.recv().unwrap();
        let handles: Vec<_> = (0..6).map(|_| limit.spawn(|| ()).unwrap()).collect();
        assert!(handles[2].cancel());
        let report = registry.shutdown_timeout(Duration::from_millis(50));
        let expected = || Ends { cancelled: 6, abandoned: 1, ..Ends::default() };
        assert_eq!(ends(&report.totals()), expected());
        assert!(handles.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
        drop(go);
        pool.shutdown();
        assert_eq!(ends(&pool.stats()), expected(), "each settles once");
    });
}

#[test]
fn tasks_that_their_submitter_runs_and_tasks_that_are_refused() {
    let _tidy = tidy();
    within(|| {
        for when_full in [WhenFull::CallerRuns, WhenFull::Reject] {
            let registry = registry();
            let pool = builder(&registry).queue_capacity(2).when_full(when_full).build().unwrap();
            let (go, _running) = occupy(&pool);
            let results: Vec<_> = (0..6).map(|n| pool.execute(move || assert!(n < 4)).is_ok()).collect();
            let (handles, refused): (Vec<_>, Vec<_>) =
                (0..2).map(|_| pool.spawn(|| ())).partition(Result::is_ok);
            assert_agrees(&registry, &pool);
            drop(go);
            pool.wait_idle();
            let expected = match when_full {
                WhenFull::CallerRuns => Ends { completed: 1 + 4 + 2, panicked: 2, ..Ends::default() },
                _ => Ends { completed: 1 + 2, ..Ends::default() },
            };
            assert_eq!(ends(&pool.stats()), expected);
            let refused = refused.len() + results.iter().filter(|is_ok| !**is_ok).count();
            assert_eq!(pool.stats().rejected, refused as u64);
            assert_eq!(ends(pool.shutdown().stats()), expected);
            drop(handles);
        }
    });
}

#[test]
fn a_pool_that_broke() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let start = move || {
            let _ = wait.lock().unwrap().recv();
            panic!("no connection");
        };
        let pool = builder(&registry).on_thread_start(start).build().unwrap();
        let limit = pool.limit(1);
        let handles: Vec<_> = (0..4).map(|_| limit.spawn(|| ()).unwrap()).collect();
        (0..4).for_each(|_| pool.execute(|| ()).unwrap());
        assert!(handles[1].cancel());
        assert_agrees(&registry, &pool);
        drop(go);
        pool.wait_idle();
        assert_eq!(ends(&pool.stats()), Ends { cancelled: 8, ..Ends::default() });
        assert!(pool.execute(|| ()).is_err());
        assert_eq!((ends(registry.shutdown().pools()[0].stats()).cancelled, pool.stats().rejected), (8, 1));
    });
}

#[test]
fn tasks_that_run_in_place() {
    let _tidy = tidy();
    within(|| {
        for threads in [1, 3] {
            let registry = registry();
            let pool = builder(&registry).max_threads(threads).build().unwrap();
            let inner = pool.clone();
            let seen = registry.clone();
            let parent = move || {
                let children: Vec<_> =
                    (0..6).map(|n| inner.spawn(move || assert_ne!(n, 3)).unwrap()).collect();
                let limited = inner.limit(1).spawn(|| ()).unwrap();
                let cancelled = inner.spawn(|| ()).unwrap();
                let is_cancelled = cancelled.cancel();
                let panics = children.into_iter().rev().filter_map(|child| child.join().err()).count();
                limited.join().unwrap();
                if threads == 1 {
                    assert_agrees(&seen, &inner);
                }
                assert_eq!(panics, 1);
                is_cancelled
            };
            let is_cancelled = u64::from(pool.spawn(parent).unwrap().join().unwrap());
            pool.wait_idle();
            let completed = 1 + 5 + 1 + (1 - is_cancelled);
            let expected = || Ends { completed, panicked: 1, cancelled: is_cancelled, ..Ends::default() };
            assert_eq!(ends(&pool.stats()), expected());
            assert_eq!(ends(pool.shutdown().stats()), expected());
        }
    });
}

#[test]
fn tasks_that_are_blocked_in_the_wait_for_an_end() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).build().unwrap();
        let (go, wait) = channel::<()>();
        let of_task = registry.clone();
        let task = pool.spawn(move || {
            wait.recv().unwrap_err();
            of_task.shutdown()
        });
        (0..3).for_each(|_| pool.execute(|| ()).unwrap());
        drop(go);
        let report = task.unwrap().join().unwrap();
        assert_adds_up(&report.totals());
        assert_eq!((report.totals().running, report.totals().completed), (1, 3));
        assert_eq!(ends(&pool.stats()), Ends { completed: 4, ..Ends::default() });
    });
}

#[test]
fn delays_that_pass_that_are_cancelled_and_that_a_close_finds() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).build().unwrap();
        let hour = Duration::from_secs(3600);
        let handles: Vec<_> = (0..5).map(|_| pool.spawn_after(hour, || ()).unwrap()).collect();
        pool.spawn_after(Duration::from_millis(1), || ()).unwrap().join().unwrap();
        let failed = pool.spawn_after(Duration::from_millis(1), || panic!("no luck")).unwrap();
        assert!(failed.join().unwrap_err().is_panic());
        assert!(handles[3].cancel());
        pool.wait_idle(); // which does not wait for what is not due
        let stats = pool.stats();
        assert_adds_up(&stats);
        assert_eq!((stats.delayed, stats.queued, stats.running, stats.accepted), (4, 0, 0, 7));
        assert_adds_up(&registry.stats()[0]);
        pool.close();
        let expected = || Ends { completed: 1, panicked: 1, cancelled: 5, ..Ends::default() };
        assert!(handles.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
        assert_eq!(ends(pool.shutdown().stats()), expected());
        assert!(registry.shutdown().is_clean(), "that is no loss");
    });
}

#[test]
fn tasks_that_borrow() {
    let _tidy = tidy();
    within(|| {
        for threads in [1, 3] {
            let registry = registry();
            let pool = builder(&registry).max_threads(threads).build().unwrap();
            let mut values = [0_u32; 6];
            let inside = |pool: &Pool, values: &mut [u32; 6]| {
                pool.scope(|scope| {
                    for value in values.iter_mut() {
                        scope.spawn(move || *value += 1);
                    }
                    scope.spawn(|| panic!("no luck")).join().unwrap_err().is_panic()
                })
            };
            assert!(inside(&pool, &mut values));
            let inner = pool.clone();
            let (values, panicked) = pool
                .spawn(move || {
                    let panicked = inside(&inner, &mut values);
                    (values, panicked)
                })
                .unwrap()
                .join()
                .unwrap();
            assert!(panicked && values == [2; 6]);
            pool.wait_idle();
            let stats = pool.stats();
            assert_eq!(ends(&stats), Ends { completed: 13, panicked: 2, ..Ends::default() });
            assert_agrees(&registry, &pool);
        }
    });
}

#[test]
fn tasks_that_borrow_and_are_cancelled_where_others_are_given_back() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).build().unwrap();
        let (started, has_started) = channel();
        let remote = pool.clone();
        let ender = thread::spawn(move || {
            has_started.recv().unwrap();
            let (report, unstarted) = remote.shutdown_now();
            (report, unstarted.len())
        });
        let ran = std::sync::atomic::AtomicUsize::new(0);
        pool.scope(|scope| {
            (0..3).for_each(|_| pool.execute(|| ()).unwrap());
            pool.wait_idle();
            let (queued, all_queued) = channel::<()>();
            let started = &started;
            scope.spawn(move || {
                let _ = all_queued.recv();
                started.send(()).unwrap();
                while !task::is_cancelled() {
                    thread::yield_now();
                }
            });
            for _ in 0..4 {
                scope.spawn(|| ran.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            }
            pool.execute(|| ()).unwrap();
            drop(queued);
        });
        let (report, unstarted) = ender.join().unwrap();
        let expected = || Ends { completed: 4, cancelled: 4, returned: 1, ..Ends::default() };
        assert_eq!((ends(report.stats()), unstarted), (expected(), 1));
        assert_eq!((ends(&pool.stats()), ran.into_inner()), (expected(), 0));
    });
}

#[test]
fn a_daemon_pool_that_is_left_behind() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).daemon().build().unwrap();
        let (go, running) = occupy(&pool);
        (0..3).for_each(|_| pool.execute(|| ()).unwrap());
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        assert_adds_up(report.pools()[0].stats());
        drop(go);
        running.join().unwrap();
        assert_eq!(ends(&pool.stats()), Ends { completed: 1, cancelled: 3, ..Ends::default() });
    });
}

/// While tasks of every kind come and go, whoever looks gets an answer, and no count ever goes back.
#[test]
fn looking_disturbs_nothing_and_is_held_up_by_nothing() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry)
            .max_threads(2)
            .queue_capacity(4)
            .when_full(WhenFull::CallerRuns)
            .build()
            .unwrap();
        let limit = pool.limit(1);
        let (stop, stopped) = channel::<()>();
        let (looked_at, of_looker) = (pool.clone(), registry.clone());
        let looker = thread::spawn(move || {
            let mut looks = 0;
            let mut accepted = 0;
            while stopped.try_recv() != Err(Disconnected) {
                let stats = looked_at.stats();
                assert!(stats.accepted >= accepted, "{stats:?}");
                accepted = stats.accepted;
                assert!(looked_at.running().iter().all(|task| task.pool() == looked_at.name()));
                let shown = format!("{looked_at:?} {of_looker:?} {:?}", of_looker.progress());
                assert!(shown.contains("Pool") && of_looker.stats().len() <= 1);
                looks += 1;
            }
            looks
        });
        for n in 0..2_000_u32 {
            let label = move || {
                task::set_label(format!("number {n}"));
                // Inside a task, too.
                let pool = Pool::current().unwrap();
                assert!(!format!("{pool:?} {:?}", pool.stats()).is_empty() && !pool.running().is_empty());
            };
            match n % 4 {
                0 => pool.execute(label).unwrap(),
                1 => drop(pool.spawn(label).unwrap().cancel()),
                2 => limit.execute(label).unwrap(),
                _ => pool.spawn(label).unwrap().join().unwrap(),
            }
        }
        pool.wait_idle();
        drop(stop);
        assert!(looker.join().unwrap() > 0);
        let stats = pool.stats();
        assert_eq!((ends(&stats).panicked, stats.accepted), (0, 2_000));
    });
}
