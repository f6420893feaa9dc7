//! `shutdown_now`: what has not started comes back, and can be run or dropped.

mod common;

use common::{assert_adds_up, registry, tidy, within};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::Arc;
use std::thread;
use winddown::{task, Pool, RejectReason, UnstartedTask};

fn pool(max_threads: usize) -> Pool {
    Pool::builder().registry(&registry()).max_threads(max_threads).build().unwrap()
}

/// Tasks that have started and go on until they are told to stop.
fn occupy(pool: &Pool, count: usize) {
    let (started, has_started) = mpsc::channel();
    for _ in 0..count {
        let started = started.clone();
        let task = move || {
            started.send(()).unwrap();
            while !task::is_cancelled() {
                thread::yield_now();
            }
        };
        pool.execute(task).unwrap();
    }
    (0..count).for_each(|_| has_started.recv().unwrap());
}

fn counted(count: &Arc<AtomicUsize>) -> impl FnOnce() + Send + 'static {
    let count = count.clone();
    move || _ = count.fetch_add(1, SeqCst)
}

#[test]
fn exactly_what_was_not_started_comes_back_in_order_and_running_tasks_are_told_and_waited_for() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        occupy(&pool, 3);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut lines = Vec::new();
        for n in 0..500 {
            let order = order.clone();
            pool.execute(move || order.lock().unwrap().push(n)).unwrap();
            lines.push(line!() - 1);
        }
        let (report, unstarted) = pool.shutdown_now();
        assert_eq!((report.stats().completed, report.stats().returned, report.stats().queued), (3, 500, 0));
        assert!(report.is_clean());
        assert_eq!(report.workers_joined(), 3);
        assert_eq!(unstarted.len(), 500);
        assert!(unstarted.iter().zip(lines).all(|(task, line)| task.location().line() == line));
        assert!(format!("{:?}", unstarted[0]).contains("hand_back.rs"));
        assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
        unstarted.into_iter().for_each(UnstartedTask::run);
        assert_eq!(*order.lock().unwrap(), (0..500).collect::<Vec<_>>());
        assert_adds_up(&pool.stats());
        assert_eq!(pool.stats().returned, 500);
    });
}

#[test]
fn a_handle_waits_until_its_task_is_run_or_dropped() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        occupy(&pool, 1);
        let content = Arc::new(());
        let spawn = |n: u32| {
            let content = content.clone();
            pool.spawn(move || {
                drop(content);
                n
            })
            .unwrap()
        };
        let (run, dropped, cancelled, panics) = (spawn(1), spawn(2), spawn(3), spawn(4));
        let never_run = pool.spawn(|| panic!("when it is run")).unwrap();
        let (report, mut unstarted) = pool.shutdown_now();
        assert_eq!(report.stats().returned, 5);
        assert!([&run, &dropped, &cancelled, &panics].iter().all(|handle| !handle.is_finished()));
        // A task that is with somebody can be cancelled, and is in the counts as returned.
        assert!(cancelled.cancel());
        assert!(!cancelled.canceller().cancel() || cancelled.is_finished());
        assert!(cancelled.join().unwrap_err().is_cancelled());
        let waiter = thread::spawn(move || run.join());
        unstarted.remove(0).run();
        assert_eq!(waiter.join().unwrap().unwrap(), 1);
        drop(unstarted.remove(0));
        assert!(dropped.join().unwrap_err().is_cancelled());
        unstarted.remove(0).run(); // the cancelled one: nothing is left of it to run
        unstarted.remove(0).run();
        assert_eq!(panics.join().unwrap(), 4);
        unstarted.remove(0).run();
        assert!(never_run.join().unwrap_err().is_panic());
        assert_eq!(Arc::strong_count(&content), 1);
        let stats = pool.stats();
        assert_eq!((stats.returned, stats.cancelled, stats.completed), (5, 0, 1));
        assert_adds_up(&stats);
    });
}

#[test]
fn what_was_cancelled_before_does_not_come_back() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        occupy(&pool, 1);
        let handles: Vec<_> = (0..10).map(|n| pool.spawn(move || n).unwrap()).collect();
        assert!(handles.iter().step_by(2).all(|handle| handle.cancel()));
        let (report, unstarted) = pool.shutdown_now();
        assert_eq!((unstarted.len(), report.stats().returned, report.stats().cancelled), (5, 5, 5));
        unstarted.into_iter().for_each(UnstartedTask::run);
        let values: Vec<_> = handles.into_iter().map(|handle| handle.join().ok()).collect();
        assert_eq!(values, (0..10).map(|n| (n % 2 == 1).then_some(n)).collect::<Vec<_>>());
        assert_adds_up(report.stats());
    });
}

#[test]
fn the_backlog_of_a_limit_comes_back_too() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limit = pool.limit(1);
        let (started, has_started) = mpsc::channel();
        let first = move || {
            started.send(()).unwrap();
            while !task::is_cancelled() {
                thread::yield_now();
            }
        };
        limit.execute(first).unwrap();
        has_started.recv().unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..20 {
            limit.execute(counted(&ran)).unwrap();
        }
        let handle = limit.spawn(|| 5).unwrap();
        let (report, unstarted) = pool.shutdown_now();
        assert_eq!((unstarted.len(), report.stats().returned), (21, 21));
        unstarted.into_iter().for_each(UnstartedTask::run);
        assert_eq!((ran.load(SeqCst), handle.join().unwrap()), (20, 5));
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn it_may_be_called_in_a_task_of_the_pool_and_twice() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ran = Arc::new(AtomicUsize::new(0));
        let (inner, count) = (pool.clone(), ran.clone());
        let (go, wait) = mpsc::channel::<()>();
        let handle = pool.spawn(move || {
            let _ = wait.recv();
            let (report, unstarted) = inner.shutdown_now();
            assert!(task::is_cancelled());
            assert!(inner.execute(counted(&count)).is_err());
            (report, unstarted)
        });
        for _ in 0..5 {
            pool.execute(counted(&ran)).unwrap();
        }
        drop(go);
        let (report, unstarted) = handle.unwrap().join().unwrap();
        assert_eq!((unstarted.len(), report.stats().returned), (5, 5));
        let (report, none) = pool.shutdown_now();
        assert_eq!((none.len(), report.stats().returned, report.stats().completed), (0, 5, 1));
        drop(unstarted);
        assert_eq!(ran.load(SeqCst), 0);
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn tasks_that_are_submitted_meanwhile_come_back_run_or_are_refused() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..200 {
            let pool = pool(2);
            let ran = Arc::new(AtomicUsize::new(0));
            let (about, is_about) = mpsc::channel();
            let producer = {
                let (pool, ran) = (pool.clone(), ran.clone());
                thread::spawn(move || {
                    let mut accepted = 0;
                    loop {
                        match pool.execute(counted(&ran)) {
                            Ok(()) => accepted += 1,
                            Err(refused) => {
                                assert_eq!(refused.reason(), RejectReason::Closed);
                                return accepted;
                            }
                        }
                        if accepted == 10 {
                            about.send(()).unwrap();
                        }
                    }
                })
            };
            is_about.recv().unwrap();
            let (report, unstarted) = pool.shutdown_now();
            let accepted: usize = producer.join().unwrap();
            assert_eq!(ran.load(SeqCst) + unstarted.len(), accepted);
            assert_eq!(report.stats().accepted, accepted as u64);
            unstarted.into_iter().for_each(UnstartedTask::run);
            assert_eq!(ran.load(SeqCst), accepted);
        }
    });
}

#[test]
fn a_cancel_races_with_the_hand_back_and_counts_once() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..200 {
            let pool = pool(1);
            occupy(&pool, 1);
            let handles: Vec<_> = (0..50).map(|n| pool.spawn(move || n).unwrap()).collect();
            let cancellers: Vec<_> = handles.iter().map(|handle| handle.canceller()).collect();
            let (go, wait) = mpsc::channel::<()>();
            let canceller = thread::spawn(move || {
                let _ = wait.recv();
                cancellers.iter().filter(|canceller| canceller.cancel()).count()
            });
            drop(go);
            let (report, unstarted) = pool.shutdown_now();
            assert_eq!(canceller.join().unwrap(), 50);
            unstarted.into_iter().for_each(UnstartedTask::run);
            assert!(handles.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
            let stats = pool.stats();
            assert_eq!(stats.cancelled + stats.returned, 50, "{stats:?}");
            assert_adds_up(&stats);
            assert_eq!(report.stats().accepted, 51);
        }
    });
}

#[test]
fn what_comes_back_may_be_dropped_where_its_drop_panics() {
    let _tidy = tidy();
    struct Bomb(Sender<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            panic!("in a drop");
        }
    }
    within(|| {
        let pool = pool(1);
        occupy(&pool, 1);
        let (dropped, was_dropped) = mpsc::channel();
        let bomb = Bomb(dropped);
        let handle = pool.spawn(move || drop(bomb)).unwrap();
        let (_, unstarted) = pool.shutdown_now();
        assert!(catch_unwind(std::panic::AssertUnwindSafe(|| drop(unstarted))).is_ok());
        assert!(handle.join().unwrap_err().is_cancelled());
        was_dropped.recv().unwrap();
    });
}

#[test]
fn a_running_task_that_joins_what_is_handed_back_runs_it() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        occupy(&pool, 1);
        let inner = pool.clone();
        let (told, is_told) = mpsc::channel();
        let parent = pool.spawn(move || {
            let children: Vec<_> = (0..3).map(|n| inner.spawn(move || n).unwrap()).collect();
            told.send(()).unwrap();
            while !task::is_cancelled() {
                thread::yield_now();
            }
            // By now they are with whoever called `shutdown_now`, who waits for this.
            children.into_iter().map(|child| child.join().unwrap()).sum::<i32>()
        });
        is_told.recv().unwrap();
        let (report, unstarted) = pool.shutdown_now();
        assert_eq!(parent.unwrap().join().unwrap(), 3);
        assert_eq!((report.stats().completed, report.stats().returned), (5, 0));
        unstarted.into_iter().for_each(UnstartedTask::run); // nothing is left of them to run
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn a_running_task_that_waits_for_the_backlog_of_a_limit_runs_what_is_handed_back() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..50 {
            let pool = pool(2);
            let limit = pool.limit(1);
            let (started, has_started) = mpsc::channel();
            let first = move || {
                started.send(()).unwrap();
                while !task::is_cancelled() {
                    thread::yield_now();
                }
            };
            limit.execute(first).unwrap();
            has_started.recv().unwrap();
            let waits = limit.spawn(|| 5).unwrap();
            let (told, is_told) = mpsc::channel();
            let parent = pool.spawn(move || {
                told.send(()).unwrap();
                waits.join().unwrap()
            });
            is_told.recv().unwrap();
            let (report, unstarted) = pool.shutdown_now();
            assert_eq!(parent.unwrap().join().unwrap(), 5);
            assert_eq!((report.stats().completed, report.stats().returned), (3, 0));
            drop(unstarted);
            assert_adds_up(&pool.stats());
        }
    });
}
