//! The end of a pool whose scopes are open, and queues that are full: no task outlives its scope, and none is lost.

mod common;

use common::ground::{caught, message, Ground, Loan};
use common::{assert_adds_up, meet, occupy_with, registry, tidy, within};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use winddown::{task, FollowUps, Pool, PoolBuilder, WhenFull};

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

fn pool(max_threads: usize) -> Pool {
    builder(max_threads).build().unwrap()
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> Sender<()> {
    occupy_with(|task| pool.execute(task).unwrap()).0
}

// ---- the end of the pool ----

#[test]
fn a_deadline_drops_queued_tasks_before_the_scope_ends() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let go = occupy(&pool);
        let ran = AtomicBool::new(false);
        pool.scope(|s| {
            let task = || {
                let (loan, ran) = (ground.loan(), &ran);
                move || {
                    loan.touch();
                    ran.store(true, SeqCst);
                }
            };
            let handles: Vec<_> = (0..100).map(|_| s.spawn(task())).collect();
            let report = pool.shutdown_timeout(Duration::from_millis(10));
            assert!(!report.is_clean());
            assert_eq!(
                (report.stats().cancelled, report.stats().abandoned, report.stats().returned),
                (100, 1, 0)
            );
            for handle in handles.into_iter().take(50) {
                assert!(handle.join().unwrap_err().is_cancelled());
            }
        });
        assert_eq!(ground.ended.load(SeqCst), 100);
        assert!(!ran.into_inner());
        drop(go);
        assert_adds_up(&pool.stats());
    });
}

/// A capture whose drop takes its time, and uses what it borrows at its end.
struct Slow<'a>(Loan<'a>, Sender<()>, Receiver<()>);

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
        let _ = self.2.recv();
        self.0.touch();
    }
}

#[test]
fn a_capture_that_is_being_dropped_after_a_deadline_holds_the_scope() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let busy = occupy(&pool);
        let (dropping, is_dropping) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        pool.scope(|s| {
            let slow = Slow(ground.loan(), dropping, wait);
            let handle = s.spawn(move || slow.0.touch());
            pool.shutdown_timeout(Duration::from_millis(1));
            // Its handle has resolved, while somebody who was left behind is at the captures.
            assert!(handle.join().unwrap_err().is_cancelled());
            is_dropping.recv().unwrap();
            assert_eq!(ground.ended.load(SeqCst), 0);
            // Long enough for a scope that does not wait to be over: not waited for by anything else.
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                go.send(()).unwrap();
            });
        });
        assert_eq!(ground.ended.load(SeqCst), 1);
        drop(busy);
    });
}

#[test]
fn a_task_that_a_deadline_abandons_holds_its_scope() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let (go, wait) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let result = caught(|| {
            pool.scope(|s| {
                let loan = ground.loan();
                let handle = s.spawn(move || {
                    started.send(()).unwrap();
                    let _ = wait.recv();
                    assert!(task::is_cancelled());
                    loan.touch();
                    panic!("long after the deadline");
                });
                has_started.recv().unwrap();
                let report = pool.shutdown_timeout(Duration::from_millis(1));
                assert_eq!(report.abandoned().len(), 1);
                assert_eq!(report.abandoned()[0].location().file(), file!());
                assert!(handle.join().unwrap_err().is_abandoned());
                assert_eq!(ground.ended.load(SeqCst), 0);
                drop(go); // from here on it ends, while the scope waits
            })
        });
        assert_eq!(ground.ended.load(SeqCst), 1);
        // Nobody has received that.
        assert_eq!(message(result), "long after the deadline");
        let stats = pool.stats();
        assert_eq!((stats.abandoned, stats.completed, stats.panicked), (1, 0, 0));
        assert_adds_up(&stats);
    });
}

#[test]
fn shutdown_now_cancels_scoped_tasks_and_gives_none_back() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let (started, has_started) = mpsc::channel();
        pool.scope(|s| {
            let loan = ground.loan();
            let running = s.spawn(move || {
                started.send(()).unwrap();
                while !task::is_cancelled() {
                    thread::yield_now();
                }
                loan.touch();
                5
            });
            has_started.recv().unwrap();
            let queued: Vec<_> = (0..20)
                .map(|_| {
                    let loan = ground.loan();
                    s.spawn(move || loan.touch())
                })
                .collect();
            pool.execute(|| ()).unwrap();
            let (report, unstarted) = pool.shutdown_now();
            assert!(report.is_clean());
            assert_eq!(unstarted.len(), 1);
            let stats = report.stats();
            assert_eq!((stats.returned, stats.cancelled, stats.completed), (1, 20, 1));
            assert_eq!(ground.ended.load(SeqCst), 21);
            assert_eq!(running.join().unwrap(), 5);
            assert!(queued.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
        });
        assert_adds_up(&pool.stats());
    });
}

/// Whatever ends the pool, at whatever moment: each task has ended when its scope has, and was run or cancelled once.
#[test]
fn no_task_outlives_its_scope_whatever_ends_the_pool_meanwhile() {
    let _tidy = tidy();
    within(|| {
        let rounds = if cfg!(debug_assertions) { 400 } else { 2000 };
        for round in 0..rounds {
            let pool = pool(1 + round % 3);
            let meeting = Arc::new(Barrier::new(2));
            let (other, met) = (pool.clone(), meeting.clone());
            let end = thread::spawn(move || {
                meet(&met);
                (0..round % 50).for_each(|_| std::hint::spin_loop());
                match round % 4 {
                    0 => drop(other.shutdown_now()),
                    1 => drop(other.shutdown_timeout(Duration::from_micros(round as u64 % 200))),
                    2 => other.close(),
                    _ => drop(other.shutdown_timeout(Duration::ZERO)),
                }
            });
            let ground = Ground::new();
            let ran = AtomicUsize::new(0);
            let scope = |pool: &Pool| {
                pool.scope(|s| {
                    let (ground, ran) = (&ground, &ran);
                    for n in 0..20 {
                        if n == 5 {
                            meet(&meeting);
                        }
                        let loan = ground.loan();
                        let handle = s.spawn(move || {
                            ran.fetch_add(1, SeqCst);
                            let inner = ground.loan();
                            s.spawn(move || inner.touch());
                            loan.touch();
                            ground.loan()
                        });
                        if n % 7 == 0 {
                            drop(handle.join());
                        }
                    }
                })
            };
            if round % 5 == 0 {
                // Its own task borrows the same things, so it runs in a scope itself.
                pool.scope(|s| drop(s.spawn(|| scope(&pool))));
            } else {
                scope(&pool);
            }
            assert!(ground.ended.load(SeqCst) >= 20);
            drop(ground);
            end.join().unwrap();
            pool.shutdown();
            assert_adds_up(&pool.stats());
        }
    });
}

#[test]
fn what_a_closed_pool_refuses_the_caller_runs() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        pool.close();
        let here = thread::current().id();
        let mut order = Vec::new();
        let result = caught(|| {
            pool.scope(|s| {
                for n in 0..3 {
                    let handle = s.spawn(move || (n, thread::current().id()));
                    assert!(handle.is_finished());
                    order.push(handle.join().unwrap());
                }
                let nested = s.spawn(|| s.spawn(|| thread::current().id()).join().unwrap());
                assert_eq!(nested.join().unwrap(), here);
                assert!(s.spawn(|| panic!("joined")).join().unwrap_err().is_panic());
                s.spawn(|| panic!("not joined"));
                order.push((3, here));
            })
        });
        assert_eq!(message(result), "not joined");
        assert_eq!(order, (0..4).map(|n| (n, here)).collect::<Vec<_>>());
        let stats = pool.stats();
        assert_eq!((stats.accepted, stats.rejected), (0, 7));
    });
}

#[test]
fn a_scope_goes_on_while_its_pool_closes() {
    let _tidy = tidy();
    for follow_ups in [FollowUps::Accept, FollowUps::Reject] {
        within(move || {
            let pool = builder(2).follow_ups(follow_ups).build().unwrap();
            let count = AtomicUsize::new(0);
            pool.scope(|s| {
                for n in 0..100 {
                    if n == 50 {
                        pool.close();
                    }
                    s.spawn(|| {
                        count.fetch_add(1, SeqCst);
                        s.spawn(|| count.fetch_add(1, SeqCst));
                    });
                }
            });
            assert_eq!(count.into_inner(), 200);
            assert!(pool.shutdown().is_clean());
        });
    }
}

// ---- full queues ----

#[test]
fn full_queues_block_or_have_the_caller_run() {
    let _tidy = tidy();
    for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
        for threads in [1, 2] {
            within(move || {
                let pool = builder(threads).queue_capacity(2).when_full(when_full).build().unwrap();
                let ground = Ground::new();
                let here = thread::current().id();
                let (count, count_here) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let run = || {
                    pool.scope(|s| {
                        for _ in 0..500 {
                            let loan = ground.loan();
                            s.spawn(|| {
                                loan.touch();
                                drop(loan);
                                count.fetch_add(1, SeqCst);
                                count_here.fetch_add(usize::from(thread::current().id() == here), SeqCst);
                            });
                        }
                    });
                };
                run();
                pool.scope(|s| drop(s.spawn(run))); // over the bound
                assert_eq!((count.into_inner(), ground.ended.load(SeqCst)), (1000, 1000));
                assert!(when_full != WhenFull::Block || count_here.load(SeqCst) == 0);
                let stats = pool.stats();
                assert!(when_full == WhenFull::Reject || stats.rejected == 0);
                assert_eq!(stats.completed + stats.rejected, 1001);
                assert_adds_up(&stats);
            });
        }
    }
}

#[test]
fn what_a_full_pool_refuses_the_caller_runs_before_spawn_returns() {
    let _tidy = tidy();
    for when_full in [WhenFull::Reject, WhenFull::CallerRuns] {
        within(move || {
            let pool = builder(1).queue_capacity(1).when_full(when_full).build().unwrap();
            let go = occupy(&pool);
            let here = thread::current().id();
            pool.scope(|s| {
                let queued = s.spawn(|| thread::current().id());
                let full = s.spawn(|| thread::current().id());
                assert!(!queued.is_finished() && full.is_finished());
                assert_eq!(full.join().unwrap(), here);
                drop(go);
                assert_ne!(queued.join().unwrap(), here);
            });
        });
    }
}

/// The scope's own closure waits on the queue of the pool, and what unblocks it comes from elsewhere.
#[test]
fn a_submitter_that_is_blocked_in_a_scope_goes_on_when_the_pool_closes() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(1).queue_capacity(1).build().unwrap();
        let go = occupy(&pool);
        let (at, is_at): (Sender<()>, Receiver<()>) = mpsc::channel();
        let other = pool.clone();
        let closer = thread::spawn(move || {
            is_at.recv().unwrap();
            other.close();
        });
        let here = thread::current().id();
        let ran = pool.scope(|s| {
            let queued = s.spawn(|| thread::current().id());
            at.send(()).unwrap();
            // Blocks until the pool refuses it, or is refused at once.
            let refused = s.spawn(|| thread::current().id());
            drop(go);
            (queued.join().unwrap() == here, refused.join().unwrap() == here)
        });
        assert_eq!(ran, (false, true));
        closer.join().unwrap();
    });
}
