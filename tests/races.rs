//! Promises 1 and 2 under races: what is accepted settles exactly once, what is refused comes back.

mod common;

use common::{assert_adds_up, meet, pool_in, registry, tidy, within};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use winddown::{BuildError, HookOutcome, Phase, Pool, PoolStats, Registry, RejectReason};

/// What a racing thread does at most before the other one has come. On a busy machine that may be long.
const MOST: usize = 100;

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn count(number: &AtomicUsize) {
    number.fetch_add(1, SeqCst);
}

/// The way to submit that needs neither a handle nor a limit, and does not ask for room.
const PLAINLY: usize = 4;

#[derive(Default)]
struct Tally {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    ran: AtomicUsize,
    handed_back: AtomicUsize,
}

impl Tally {
    /// Submits a task that counts its run, now in this way, now in that; a closure that comes back is called as proof that it
    /// is the same one.
    fn submit(self: &Arc<Self>, pool: &Pool, way: usize) -> Result<(), RejectReason> {
        let me = self.clone();
        let is_refused = Arc::new(AtomicUsize::new(0));
        let seen = is_refused.clone();
        let task = move || {
            count(if seen.load(SeqCst) == 0 { &me.ran } else { &me.handed_back });
        };
        let refused = match way {
            0 => pool.spawn(task).map(|handle| handle.join().unwrap()).err(),
            1 => pool.limit(1).execute(task).err(),
            2 => pool.try_execute(task).err(),
            3 => pool.execute_timeout(task, Duration::MAX).err(),
            _ => pool.execute(task).err(),
        };
        let Some(refused) = refused else {
            count(&self.accepted);
            return Ok(());
        };
        let reason = refused.reason();
        is_refused.store(1, SeqCst);
        refused.into_inner()();
        count(&self.refused);
        Err(reason)
    }

    #[track_caller]
    fn assert_agrees(&self, stats: &PoolStats) {
        let read = |number: &AtomicUsize| number.load(SeqCst) as u64;
        assert_eq!(read(&self.accepted), read(&self.ran), "{stats:?}");
        assert_eq!(read(&self.refused), read(&self.handed_back), "{stats:?}");
        assert_eq!((stats.accepted, stats.completed), (read(&self.ran), read(&self.ran)));
        assert_eq!(stats.rejected, read(&self.refused), "{stats:?}");
        assert_adds_up(stats);
    }
}

/// Three threads submit until they are refused, while `end` ends the pool.
fn race_submissions_against(reason: RejectReason, end: impl Fn(&Registry, &Pool)) {
    for round in 0..150 {
        let registry = registry();
        let pool = pool_in(&registry, 1 + round % 3);
        let tally = Arc::new(Tally::default());
        let start = Arc::new(Barrier::new(4));
        let submitters: Vec<_> = (0..3)
            .map(|n| {
                let (pool, tally, start) = (pool.clone(), tally.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    for number in 0.. {
                        if number >= MOST {
                            wait_until(|| pool.is_closed());
                        }
                        if let Err(reason) = tally.submit(&pool, number % (3 + 2 * n)) {
                            return reason;
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        start.wait();
        (0..round % 50).for_each(|_| thread::yield_now());
        end(&registry, &pool);
        for submitter in submitters {
            assert_eq!(submitter.join().unwrap(), reason);
        }
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        tally.assert_agrees(&pool.stats());
    }
}

#[test]
fn a_submission_that_races_close_runs_once_or_comes_back() {
    let _tidy = tidy();
    within(|| race_submissions_against(RejectReason::Closed, |_, pool| pool.close()));
}

#[test]
fn a_submission_that_races_the_shutdown_of_its_pool_runs_once_or_comes_back() {
    let _tidy = tidy();
    within(|| {
        race_submissions_against(RejectReason::Closed, |_, pool| assert!(pool.shutdown().is_clean()));
    });
}

#[test]
fn a_submission_that_races_the_shutdown_of_the_registry_runs_once_or_comes_back() {
    let _tidy = tidy();
    within(|| {
        race_submissions_against(RejectReason::ShuttingDown, |registry, _| drop(registry.shutdown()));
    });
}

#[test]
fn a_hook_that_races_shutdown_runs_once_or_comes_back() {
    let _tidy = tidy();
    within(|| {
        for round in 0..200 {
            let registry = registry();
            let ran = Arc::new(AtomicUsize::new(0));
            let start = Arc::new(Barrier::new(3));
            let registrars = [true, false].map(|is_before| {
                let (registry, ran, start) = (registry.clone(), ran.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    for registered in 0.. {
                        if registered >= MOST {
                            wait_until(|| registry.phase() > Phase::Running);
                        }
                        let ran = ran.clone();
                        let hook = move || count(&ran);
                        let result = match is_before {
                            true => registry.before_join("raced", hook),
                            false => registry.after_join("raced", hook),
                        };
                        if let Err(refused) = result {
                            assert_eq!(refused.reason(), RejectReason::ShuttingDown);
                            let hook = refused.into_inner();
                            return (registered, hook);
                        }
                    }
                    unreachable!()
                })
            });
            start.wait();
            (0..round % 20).for_each(|_| thread::yield_now());
            let report = registry.shutdown();
            let returned = registrars.map(|registrar| registrar.join().unwrap());
            let registered: usize = returned.iter().map(|(registered, _)| registered).sum();
            assert_eq!(ran.load(SeqCst), registered);
            assert_eq!(report.hooks().len(), registered);
            assert!(report.is_clean());
            returned.into_iter().for_each(|(_, hook)| hook());
            assert_eq!(ran.load(SeqCst), registered + 2);
        }
    });
}

#[test]
fn a_pool_that_races_shutdown_is_drained_or_refused() {
    let _tidy = tidy();
    within(|| {
        for round in 0..150 {
            let registry = registry();
            let tally = Arc::new(Tally::default());
            let start = Arc::new(Barrier::new(3));
            let builders = [0, 1].map(|_| {
                let (registry, tally, start) = (registry.clone(), tally.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    let mut pools = Vec::new();
                    loop {
                        if pools.len() >= MOST {
                            wait_until(|| registry.phase() >= Phase::Draining);
                        }
                        match Pool::builder().registry(&registry).max_threads(1).build() {
                            Ok(pool) => {
                                // Draining may begin between the two; then the task comes back.
                                let _ = tally.submit(&pool, PLAINLY);
                                pools.push(pool);
                            }
                            Err(error) => {
                                assert_eq!(error, BuildError::ShuttingDown);
                                return pools;
                            }
                        }
                    }
                })
            });
            start.wait();
            (0..round % 20).for_each(|_| thread::yield_now());
            let report = registry.shutdown();
            let ran = tally.ran.load(SeqCst);
            let pools: Vec<Pool> = builders.into_iter().flat_map(|it| it.join().unwrap()).collect();
            assert_eq!(ran, tally.accepted.load(SeqCst), "the report came before a task had run");
            assert_eq!(report.pools().len(), pools.len(), "a pool was missed");
            assert!(report.is_clean(), "{report}");
            assert_eq!(report.pools().iter().map(|pool| pool.workers_joined()).sum::<usize>(), ran);
        }
    });
}

#[test]
fn a_hold_that_was_granted_keeps_every_pool_open() {
    let _tidy = tidy();
    within(|| {
        for round in 0..200 {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let start = Arc::new(Barrier::new(3));
            let requests = [0, 1].map(|_| {
                let (registry, pool, start) = (registry.clone(), pool.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    let mut requests = 0;
                    while let Ok(hold) = registry.hold("request") {
                        pool.execute(|| ()).expect("a hold keeps the pool open");
                        drop(hold);
                        requests += 1;
                        if requests >= MOST {
                            wait_until(|| registry.phase() > Phase::Running);
                        }
                    }
                })
            });
            start.wait();
            (0..round % 20).for_each(|_| thread::yield_now());
            assert!(registry.shutdown().is_clean());
            requests.into_iter().for_each(|request| request.join().unwrap());
            assert_adds_up(&pool.stats());
        }
    });
}

#[test]
fn concurrent_shutdowns_run_everything_once_and_get_one_report() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..150 {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let ran = Arc::new(AtomicUsize::new(0));
            let hook = |ran: &Arc<AtomicUsize>| {
                let ran = ran.clone();
                move || count(&ran)
            };
            registry.before_join("before", hook(&ran)).unwrap();
            registry.after_join("after", hook(&ran)).unwrap();
            pool.execute(hook(&ran)).unwrap();
            let start = Arc::new(Barrier::new(4));
            let callers: Vec<_> = (0..4)
                .map(|n| {
                    let (registry, start) = (registry.clone(), start.clone());
                    thread::spawn(move || {
                        start.wait();
                        match n {
                            0 => registry.shutdown(),
                            1 => registry.shutdown_timeout(Duration::MAX),
                            2 => registry.wait_finished(),
                            _ => {
                                registry.request_shutdown();
                                registry.shutdown()
                            }
                        }
                    })
                })
                .collect();
            let reports: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
            assert_eq!(ran.load(SeqCst), 3);
            for report in &reports {
                assert_eq!(report.elapsed(), reports[0].elapsed());
                assert_eq!((report.hooks().len(), report.pools().len()), (2, 1));
                assert_eq!(report.totals().completed, 1);
            }
        }
    });
}

#[test]
fn no_submission_near_the_end_of_the_keep_alive_is_lost() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let keep_alive = Duration::from_micros(1500);
        let pool = Pool::builder().registry(&registry).max_threads(3).keep_alive(keep_alive).build().unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let producers: Vec<_> = (0..10)
            .map(|producer: u32| {
                let (pool, ran) = (pool.clone(), ran.clone());
                thread::spawn(move || {
                    for n in 0..100_u32 {
                        // To hit the moment at which a worker gives up waiting.
                        thread::sleep(
                            keep_alive + Duration::from_micros(u64::from(n * 7 + producer * 13) % 200),
                        );
                        let ran = ran.clone();
                        if n % 10 == producer {
                            pool.spawn(move || ran.fetch_add(1, SeqCst)).unwrap().join().unwrap();
                        } else {
                            pool.execute(move || count(&ran)).unwrap();
                        }
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        pool.wait_idle();
        assert_eq!(ran.load(SeqCst), 1000);
        assert!(pool.stats().peak_threads <= 3, "{:?}", pool.stats());
        assert!(registry.shutdown().is_clean());
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn a_cancel_that_races_the_start_leaves_a_task_either_run_or_cancelled() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 2);
        let (cancellers, to_cancel) = mpsc::channel::<winddown::Canceller>();
        let (answers, answer) = mpsc::channel();
        let other = thread::spawn(move || {
            for canceller in to_cancel {
                let first = canceller.cancel();
                answers.send(first).unwrap();
            }
        });
        let (mut runs, mut cancels) = (0, 0);
        for round in 0..4000 {
            let ran = Arc::new(AtomicUsize::new(0));
            let task = ran.clone();
            let handle = pool.spawn(move || count(&task)).unwrap();
            if round % 2 == 0 {
                cancellers.send(handle.canceller()).unwrap();
            }
            let cancelled_here = round % 2 == 1 && handle.cancel();
            let result = handle.join();
            let was_cancelled = cancelled_here || (round % 2 == 0 && answer.recv().unwrap());
            assert_eq!(was_cancelled, result.is_err());
            assert!(result.map_or_else(|error| error.is_cancelled(), |()| true));
            assert_eq!(ran.load(SeqCst), usize::from(!was_cancelled));
            assert_eq!(Arc::strong_count(&ran), 1, "the captures are gone before the handle resolves");
            *(if was_cancelled { &mut cancels } else { &mut runs }) += 1;
        }
        drop(cancellers);
        other.join().unwrap();
        assert!(registry.shutdown().is_clean());
        let stats = pool.stats();
        assert_eq!((stats.completed, stats.cancelled), (runs, cancels));
        assert_adds_up(&stats);
    });
}

#[test]
fn a_pool_whose_last_handle_is_dropped_still_runs_all_it_accepted() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..200 {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let tally = Arc::new(Tally::default());
            let start = Arc::new(Barrier::new(4));
            let users: Vec<_> = (0..3)
                .map(|n| {
                    let (pool, tally, start) = (pool.clone(), tally.clone(), start.clone());
                    thread::spawn(move || {
                        start.wait();
                        for _ in 0..n * 10 {
                            let follow_up = tally.clone();
                            let task = move || {
                                // The pool may drain already: its own tasks may submit all the same.
                                let pool = Pool::current().expect("inside a task");
                                follow_up.submit(&pool, PLAINLY).expect("a follow-up is accepted");
                            };
                            pool.execute(task).unwrap();
                            tally.submit(&pool, PLAINLY).expect("the pool has a handle");
                        }
                    })
                })
                .collect();
            start.wait();
            drop(pool);
            users.into_iter().for_each(|user| user.join().unwrap());
            assert!(registry.shutdown().is_clean());
            assert_eq!(tally.accepted.load(SeqCst), 60);
            assert_eq!(tally.ran.load(SeqCst), 60);
        }
    });
}

#[test]
fn wait_idle_sees_every_task_that_was_submitted_before_it() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let keep_alive = Duration::from_micros(100);
        let pool = Pool::builder().registry(&registry).max_threads(2).keep_alive(keep_alive).build().unwrap();
        let users: Vec<_> = (0..3)
            .map(|user: usize| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for round in 0..400 {
                        let ran = Arc::new(AtomicUsize::new(0));
                        for _ in 0..1 + (round + user) % 4 {
                            let ran = ran.clone();
                            pool.execute(move || count(&ran)).unwrap();
                        }
                        pool.wait_idle();
                        assert_eq!(ran.load(SeqCst), 1 + (round + user) % 4);
                    }
                })
            })
            .collect();
        users.into_iter().for_each(|user| user.join().unwrap());
        assert_eq!(pool.stats().running + pool.stats().queued, 0);
        assert!(registry.shutdown().is_clean());
    });
}

#[test]
fn as_many_tasks_as_workers_meet_in_every_one_of_512_fresh_pools() {
    let _tidy = tidy();
    within(|| {
        for round in 0..512 {
            let registry = registry();
            let workers = 2 + round % 3;
            let pool = pool_in(&registry, workers);
            if round % 2 == 0 {
                // A worker that has just ended a task, and is about to look for another, is there.
                pool.spawn(|| ()).unwrap().join().unwrap();
            }
            let meeting = Arc::new(Barrier::new(workers));
            for _ in 0..workers {
                let meeting = meeting.clone();
                pool.execute(move || meet(&meeting)).unwrap();
            }
            let report = registry.shutdown();
            assert_eq!(report.totals().peak_threads, workers);
            assert!(report.is_clean());
        }
    });
}

#[test]
fn a_task_that_ends_as_the_deadline_passes_is_counted_once() {
    let _tidy = tidy();
    within(|| {
        for round in 0..200_u64 {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let (ended, all_ended) = mpsc::channel::<()>();
            let mut handles = Vec::new();
            for n in 0..4_u64 {
                let ended = ended.clone();
                let work = Duration::from_micros((500 + n * 300 + round * 37) % 1500);
                let task = move || {
                    let _ended = ended;
                    thread::sleep(work);
                };
                match n % 2 {
                    0 => pool.execute(task).unwrap(),
                    _ => handles.push(pool.spawn(task).unwrap()),
                }
            }
            drop(ended);
            let report = registry.shutdown_timeout(Duration::from_micros(1000));
            let lost = handles.into_iter().filter_map(|handle| handle.join().err());
            let lost: Vec<_> = lost.map(|error| error.kind()).collect();
            assert!(all_ended.recv().is_err()); // every task has ended, or its captures were dropped
            pool.shutdown();
            let stats = pool.stats();
            assert_adds_up(&stats);
            assert_eq!(stats.accepted, 4);
            assert!(stats.cancelled + stats.abandoned >= lost.len() as u64, "{stats:?} {lost:?}");
            assert_eq!(report.is_clean(), stats.cancelled + stats.abandoned == 0, "{report}\n{stats:?}");
        }
    });
}

#[test]
fn a_report_is_clean_only_if_every_accepted_task_has_ended_however_short_the_deadline() {
    let _tidy = tidy();
    within(|| {
        for round in 0..3000 {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let (go, wait) = mpsc::channel::<()>();
            let task = move || {
                let _ = wait.recv();
            };
            pool.execute(task).unwrap();
            (0..round % 40).for_each(|_| thread::yield_now());
            let report = registry.shutdown_timeout(Duration::ZERO);
            let stats = report.totals();
            assert_eq!(stats.accepted, stats.cancelled + stats.abandoned, "round {round}: {report}");
            assert!(!report.is_clean(), "{report}");
            drop(go);
        }
    });
}

#[test]
fn hooks_of_racing_registries_all_run() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..100 {
            let outer = registry();
            let ran = Arc::new(AtomicUsize::new(0));
            let start = Arc::new(Barrier::new(2));
            let inner = registry();
            for registry in [&outer, &inner] {
                let ran = ran.clone();
                registry.before_join("count", move || count(&ran)).unwrap();
            }
            let other = {
                let (inner, start) = (inner.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    inner.shutdown()
                })
            };
            start.wait();
            let reports = [outer.shutdown(), other.join().unwrap()];
            assert_eq!(ran.load(SeqCst), 2);
            for report in reports {
                assert_eq!(*report.hooks()[0].outcome(), HookOutcome::Ran);
            }
        }
    });
}
