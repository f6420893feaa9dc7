//! Limits: at most so many tasks of a kind at once, in order, fair between limits, and no worker waits for a permit.

mod common;

use common::{assert_adds_up, occupy_with, registry, tidy, within};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use winddown::{Limited, Pool, PoolBuilder, RejectReason, WhenFull};

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

fn pool(max_threads: usize) -> Pool {
    builder(max_threads).build().unwrap()
}

/// A task of the limit that has started and goes on until what this returns is dropped.
fn occupy(limit: &Limited) -> Sender<()> {
    occupy_with(|task| limit.execute(task).unwrap()).0
}

/// How many are inside at once.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    fn pass(&self) {
        let (now, most) = &*self.0;
        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::yield_now();
        now.fetch_sub(1, SeqCst);
    }

    fn most(&self) -> usize {
        self.0 .1.load(SeqCst)
    }
}

#[test]
fn no_more_tasks_of_a_limit_run_at_once_than_it_allows() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(8);
        let gauges: Vec<(Gauge, Limited, usize)> =
            [1, 2, 3].map(|n| (Gauge::default(), pool.limit(n), n)).into();
        let ran = Arc::new(AtomicUsize::new(0));
        for n in 0..3000 {
            let (gauge, limit, _) = &gauges[n % 3];
            let (gauge, ran) = (gauge.clone(), ran.clone());
            let task = move || {
                gauge.pass();
                ran.fetch_add(1, SeqCst);
            };
            match n % 2 {
                0 => limit.execute(task).unwrap(),
                _ => drop(limit.spawn(task).unwrap()),
            }
        }
        let report = pool.shutdown();
        assert_eq!((ran.load(SeqCst), report.stats().completed), (3000, 3000));
        for (gauge, _, limit) in gauges {
            assert!(gauge.most() <= limit, "{} at once under a limit of {limit}", gauge.most());
        }
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn a_limit_of_one_runs_its_tasks_in_their_order() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(4);
        let serial = pool.limit(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        for n in 0..2000 {
            let order = order.clone();
            serial.execute(move || order.lock().unwrap().push(n)).unwrap();
        }
        pool.wait_idle();
        assert_eq!(*order.lock().unwrap(), (0..2000).collect::<Vec<_>>());
    });
}

#[test]
fn no_worker_waits_for_a_permit() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limit = pool.limit(1);
        let go = occupy(&limit);
        for _ in 0..100 {
            limit.execute(|| ()).unwrap();
        }
        // The other worker is free all the while.
        assert_eq!(pool.spawn(|| 5).unwrap().join().unwrap(), 5);
        let stats = pool.stats();
        assert_eq!((stats.queued, stats.running), (100, 1));
        drop(go);
        assert_eq!(pool.shutdown().stats().completed, 102);
    });
}

#[test]
fn limits_take_turns() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (many, few) = (pool.limit(1), pool.limit(1));
        let go = occupy(&many);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let order = order.clone();
            move || order.lock().unwrap().push(name)
        };
        for _ in 0..100 {
            many.execute(note("many")).unwrap();
        }
        few.execute(note("few")).unwrap();
        few.execute(note("few")).unwrap();
        drop(go);
        pool.shutdown();
        let order = order.lock().unwrap();
        let last = order.iter().rposition(|name| *name == "few").unwrap();
        assert!(last <= 4, "a long backlog of one limit holds up the other: {:?}", &order[..=last]);
    });
}

#[test]
fn clones_share_a_limit_and_every_call_makes_a_new_one() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limit = pool.limit(1);
        let go = occupy(&limit);
        let waits = limit.clone().spawn(|| ()).unwrap();
        pool.limit(1).spawn(|| ()).unwrap().join().unwrap();
        assert!(!waits.is_finished());
        assert!(format!("{limit:?}").contains("limit: 1"));
        drop(go);
        waits.join().unwrap();
    });
}

#[test]
fn a_task_that_panics_gives_its_permit_back() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limit = pool.limit(1);
        let panics = limit.spawn(|| panic!("with a permit")).unwrap();
        let next = limit.spawn(|| 5).unwrap();
        assert_eq!(next.join().unwrap(), 5);
        assert!(panics.join().unwrap_err().is_panic());
    });
}

#[test]
fn a_task_that_is_cancelled_in_the_backlog_takes_no_permit_and_is_dropped_at_once() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limit = pool.limit(1);
        let go = occupy(&limit);
        let content = Arc::new(());
        let cancelled: Vec<_> = (0..10)
            .map(|_| {
                let content = content.clone();
                limit.spawn(move || drop(content)).unwrap()
            })
            .collect();
        let last = limit.spawn(|| 7).unwrap();
        assert!(cancelled.iter().all(|handle| handle.cancel()));
        assert_eq!(Arc::strong_count(&content), 1);
        assert_eq!((pool.stats().queued, pool.stats().cancelled), (1, 10));
        drop(go);
        assert_eq!(last.join().unwrap(), 7);
        assert!(cancelled.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
        pool.wait_idle();
        assert_adds_up(&pool.stats());
        assert_eq!(limit.spawn(|| 8).unwrap().join().unwrap(), 8);
    });
}

#[test]
fn a_task_with_a_permit_that_is_cancelled_before_it_starts_gives_it_back() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let limit = pool.limit(1);
        let go = occupy(&pool.limit(1));
        let first = limit.spawn(|| unreachable!()).unwrap();
        let second = limit.spawn(|| 2).unwrap();
        assert!(first.cancel());
        drop(go);
        assert_eq!(second.join().unwrap(), 2);
    });
}

#[test]
fn a_task_joins_tasks_of_a_limit_on_a_pool_of_one_thread() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let limit = pool.limit(1);
        let spawner = limit.clone();
        // Outside of the limit: in whatever order it joins them.
        let sums = pool.spawn(move || {
            let mut handles: Vec<_> = (0..10).map(|n| spawner.spawn(move || n).unwrap()).collect();
            handles.reverse();
            handles.into_iter().map(|handle| handle.join().unwrap()).sum::<i32>()
        });
        assert_eq!(sums.unwrap().join().unwrap(), 45);
        // Inside of it: they share the permit, to whatever depth.
        fn depth(limit: &Limited, left: u32) -> u32 {
            match left {
                0 => 0,
                _ => {
                    let next = limit.clone();
                    limit.spawn(move || 1 + depth(&next, left - 1)).unwrap().join().unwrap()
                }
            }
        }
        let inner = limit.clone();
        assert_eq!(limit.spawn(move || depth(&inner, 20)).unwrap().join().unwrap(), 20);
        pool.wait_idle();
        assert_adds_up(&pool.stats());
        assert_eq!(limit.spawn(|| 8).unwrap().join().unwrap(), 8);
    });
}

#[test]
fn a_drain_runs_the_backlog_and_a_deadline_cancels_it() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limit = pool.limit(1);
        let go = occupy(&limit);
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..50 {
            let ran = ran.clone();
            limit.execute(move || _ = ran.fetch_add(1, SeqCst)).unwrap();
        }
        pool.close();
        assert_eq!(limit.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
        drop(go);
        let report = pool.shutdown();
        assert_eq!((ran.load(SeqCst), report.is_clean()), (50, true));

        let pool = self::pool(2);
        let limit = pool.limit(1);
        let go = occupy(&limit);
        let content = Arc::new(());
        let handles: Vec<_> = (0..50)
            .map(|_| {
                let content = content.clone();
                limit.spawn(move || drop(content)).unwrap()
            })
            .collect();
        let report = pool.shutdown_timeout(Duration::from_millis(20));
        assert_eq!((report.stats().cancelled, report.stats().abandoned), (50, 1));
        assert!(handles.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
        // On a busy machine the deadline may resolve the handles before the captures are dropped.
        while Arc::strong_count(&content) > 1 {
            std::thread::yield_now();
        }
        drop(go);
        assert_adds_up(report.stats());
    });
}

#[test]
fn a_follow_up_of_a_limit_is_taken_on_while_the_pool_drains() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limit = pool.limit(1);
        let ran = Arc::new(AtomicUsize::new(0));
        fn step(limit: Limited, left: usize, ran: Arc<AtomicUsize>) {
            ran.fetch_add(1, SeqCst);
            if left > 0 {
                let next = limit.clone();
                limit.execute(move || step(next, left - 1, ran)).unwrap();
            }
        }
        let (first, count) = (limit.clone(), ran.clone());
        let go = occupy(&limit);
        limit.execute(move || step(first, 100, count)).unwrap();
        pool.close();
        drop(go);
        assert!(pool.shutdown().is_clean());
        assert_eq!(ran.load(SeqCst), 101);
    });
}

#[test]
fn a_backlog_takes_up_room_in_a_bounded_queue() {
    let _tidy = tidy();
    within(|| {
        for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
            let pool = builder(2).queue_capacity(3).when_full(when_full).build().unwrap();
            let limit = pool.limit(1);
            let go = occupy(&limit);
            for _ in 0..3 {
                limit.execute(|| ()).unwrap();
            }
            assert_eq!(limit.try_execute(|| ()).unwrap_err().reason(), RejectReason::Full);
            assert_eq!(limit.try_spawn(|| ()).unwrap_err().reason(), RejectReason::Full);
            assert_eq!(pool.try_execute(|| ()).unwrap_err().reason(), RejectReason::Full);
            if when_full == WhenFull::Reject {
                assert_eq!(limit.spawn(|| ()).unwrap_err().reason(), RejectReason::Full);
            }
            drop(go);
            pool.wait_idle();
            assert_eq!(limit.spawn(|| 5).unwrap().join().unwrap(), 5);
            assert_eq!(pool.shutdown().stats().completed, 5);
        }
    });
}

#[test]
fn a_limit_keeps_its_pool_open_and_holds_nothing_when_it_is_dropped() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let limit = pool.limit(2);
        drop(pool);
        assert_eq!(limit.spawn(|| 5).unwrap().join().unwrap(), 5);
        let current = limit.spawn(|| Pool::current().unwrap()).unwrap().join().unwrap();
        assert!(!current.is_closed());
        drop(limit);
        assert!(current.is_closed());
    });
}

#[test]
#[should_panic(expected = "limit(0)")]
fn a_limit_of_zero_is_refused() {
    let _tidy = tidy();
    let _ = pool(1).limit(0);
}

#[test]
fn a_limited_task_that_waits_for_its_pool_does_not_wait_for_its_own_permit() {
    let _tidy = tidy();
    within(|| {
        type End = fn(&Pool);
        let ends: [End; 4] = [
            Pool::wait_idle,
            |pool| _ = pool.shutdown(),
            |pool| _ = pool.registry().shutdown(),
            |pool| _ = pool.registry().wait_finished(),
        ];
        for (n, end) in ends.into_iter().enumerate() {
            for threads in [1, 3] {
                let pool = pool(threads);
                let limit = pool.limit(1);
                let (go, wait) = mpsc::channel::<()>();
                let inner = pool.clone();
                let waits = move || {
                    let _ = wait.recv();
                    end(&inner);
                    inner.stats().completed
                };
                let waits = limit.spawn(waits).unwrap();
                for _ in 0..10 {
                    limit.execute(|| ()).unwrap();
                }
                drop(go);
                if n == 3 {
                    pool.registry().request_shutdown();
                }
                assert_eq!(waits.join().unwrap(), 10, "way {n} on {threads}");
                assert_adds_up(&pool.stats());
                assert_eq!(pool.shutdown().stats().completed, 11);
            }
        }
    });
}

#[test]
fn a_limited_task_that_has_waited_for_its_pool_has_its_permit_again() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        let limit = pool.limit(1);
        let (inner, submit) = (pool.clone(), limit.clone());
        let is_over = Arc::new(AtomicUsize::new(0));
        let over = is_over.clone();
        let first = move || {
            inner.wait_idle();
            let seen = over.clone();
            let next = submit.spawn(move || seen.load(SeqCst)).unwrap();
            // It is not in the line for a permit before the others.
            inner.execute(|| ()).unwrap();
            let next = next.join_timeout(Duration::from_millis(30)).unwrap_err();
            over.store(1, SeqCst);
            next
        };
        let next = limit.spawn(first).unwrap().join().unwrap();
        assert_eq!(next.join().unwrap(), 1);
        // And gives it back.
        assert_eq!(limit.spawn(|| 5).unwrap().join().unwrap(), 5);
    });
}
