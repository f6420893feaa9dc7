//! Pools: how they are built, grow, shrink, order their tasks, count and refuse.

mod common;

use common::full::{await_sleepers, submitter};
use common::{assert_adds_up, eventually, meet, occupy_with, registry, threads_named, tidy, within};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use winddown::{BuildError, FollowUps, JoinHandle, Phase, Pool, PoolBuilder, PoolPhase, RejectReason};

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

fn pool(max_threads: usize) -> Pool {
    builder(max_threads).build().unwrap()
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> (Sender<()>, JoinHandle<()>) {
    occupy_with(|task| pool.spawn(task).unwrap())
}

#[test]
fn a_builder_refuses_what_cannot_work_and_says_why() {
    let _tidy = tidy();
    let error = |builder: PoolBuilder| builder.build().unwrap_err();
    let registry = registry();
    registry.shutdown();
    let errors = [
        (error(builder(0)), BuildError::ZeroThreads, "max_threads"),
        (error(builder(2).min_threads(3)), BuildError::MinAboveMax, "min_threads"),
        (error(builder(1).name("a\0b")), BuildError::BadName, "NUL"),
        (error(Pool::builder().registry(&registry)), BuildError::ShuttingDown, "shutdown"),
    ];
    for (error, expected, part) in errors {
        assert_eq!(error, expected);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(catch_unwind(|| Pool::new(0)).is_err());
    assert!(builder(2).min_threads(2).stack_size(1 << 20).name(String::from("owned")).build().is_ok());
}

#[test]
fn names_are_unique_and_threads_are_named_after_their_pool() {
    let _tidy = tidy();
    within(|| {
        let (one, other) = (pool(1), pool(1));
        assert_ne!(one.name(), other.name());
        assert!(one.name().starts_with("pool-"), "{}", one.name());
        let named = builder(2).name("mail").build().unwrap();
        assert_eq!((named.name(), &*named.stats().name), ("mail", "mail"));
        let name = || thread::current().name().unwrap().to_owned();
        let (_go, _running) = occupy(&named);
        assert_eq!(named.running()[0].worker(), "mail-worker-1");
        assert_eq!(named.spawn(name).unwrap().join().unwrap(), "mail-worker-2");
        named.spawn(|| panic!("a panic costs no name")).unwrap().join().unwrap_err();
        assert_eq!(named.spawn(name).unwrap().join().unwrap(), "mail-worker-2");
    });
}

#[test]
fn the_current_pool_is_that_of_the_task_and_does_not_keep_it_open() {
    let _tidy = tidy();
    within(|| {
        assert!(Pool::current().is_none());
        let registry = registry();
        let pool = Pool::builder().registry(&registry).name("mine").max_threads(1).build().unwrap();
        let (give, take) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let task = pool.spawn(move || {
            let current = Pool::current().unwrap();
            assert_eq!(current.name(), "mine");
            give.send(current.clone()).unwrap();
            wait.recv().unwrap_err();
            (current.is_closed(), current.execute(|| ()).is_ok())
        });
        let current = take.recv().unwrap();
        assert!(!current.is_closed());
        drop(pool);
        assert!(current.is_closed(), "neither the handle nor its clone counts");
        assert_eq!(current.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
        drop(go);
        assert_eq!(task.unwrap().join().unwrap(), (true, true));
        assert!(registry.shutdown().is_clean());
        assert_eq!(current.stats().completed, 2);
    });
}

#[test]
fn a_pool_without_tasks_has_no_thread_and_ends_at_once() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(4).min_threads(4).name("lazy").build().unwrap();
        assert_eq!((pool.stats().threads, pool.stats().phase), (0, PoolPhase::Open));
        pool.wait_idle();
        pool.registry().before_join("hook", || ()).map(|id| pool.registry().remove(id)).unwrap();
        let _ = (pool.limit(2), pool.registry().token(), pool.map(0..3, |n| n), pool.scope(|_| ()));
        assert_eq!((threads_named("lazy"), threads_named("winddown")), (0, 0));
        let report = pool.shutdown();
        assert!(report.is_clean() && report.workers_joined() == 0);
        assert_eq!(pool.stats().phase, PoolPhase::Closed);
        pool.registry().shutdown();
        assert_eq!(pool.registry().phase(), Phase::Finished);
    });
}

#[test]
fn an_idle_worker_is_used_again() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(4);
        let mut threads: Vec<_> =
            (0..20).map(|_| pool.spawn(|| thread::current().id()).unwrap().join().unwrap()).collect();
        threads.dedup();
        assert_eq!((threads.len(), pool.stats().peak_threads), (1, 1));
    });
}

#[test]
fn the_callbacks_of_a_worker_run_once_each_around_its_tasks() {
    let _tidy = tidy();
    // Again and again: the workers leave at once, and each has to find its callback.
    let round = || {
        let (starts, stops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (started, stopped) = (starts.clone(), stops.clone());
        let pool = builder(3)
            .on_thread_start(move || {
                assert!(Pool::current().is_none(), "a callback is not a task");
                started.fetch_add(1, SeqCst);
            })
            .on_thread_stop(move || {
                stopped.fetch_add(1, SeqCst);
                panic!("is logged");
            })
            .build()
            .unwrap();
        let meeting = Arc::new(Barrier::new(3));
        for _ in 0..3 {
            let (meeting, starts) = (meeting.clone(), starts.clone());
            let task = move || {
                meeting.wait();
                assert_eq!(starts.load(SeqCst), 3);
            };
            pool.execute(task).unwrap();
        }
        let report = pool.shutdown();
        assert_eq!((report.workers_joined(), report.stats().completed), (3, 3));
        assert_eq!((starts.load(SeqCst), stops.load(SeqCst)), (3, 3));
        assert!(report.is_clean());
    };
    within(move || (0..50).for_each(|_| round()));
}

#[test]
fn a_worker_that_expires_runs_its_callbacks_like_any_other() {
    let _tidy = tidy();
    within(|| {
        let (note, noted) = mpsc::channel();
        let [start, stop] = ["start", "stop"].map(|what| {
            let note = Mutex::new(note.clone());
            move || note.lock().unwrap().send((what, thread::current().id())).unwrap()
        });
        let builder = builder(1).keep_alive(Duration::ZERO).on_thread_start(start).on_thread_stop(stop);
        let pool = builder.build().unwrap();
        for _ in 0..20 {
            let worker = pool.spawn(|| thread::current().id()).unwrap().join().unwrap();
            eventually("it has left", || pool.stats().threads == 0);
            assert!(noted.try_iter().eq([("start", worker), ("stop", worker)]));
        }
        pool.shutdown();
        assert!(noted.try_recv().is_err(), "once each");
    });
}

#[test]
fn a_pool_whose_workers_cannot_start_is_broken_and_resolves_what_it_took() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let builder = Pool::builder().registry(&registry).max_threads(1);
        let start = move || {
            let _ = wait.lock().unwrap().recv();
            panic!("no connection");
        };
        let pool = builder.on_thread_start(start).build().unwrap();
        let handles: Vec<_> = (0..3).map(|n| pool.spawn(move || n).unwrap()).collect();
        drop(go);
        for handle in handles {
            assert!(handle.join().unwrap_err().is_cancelled());
        }
        let closure = pool.spawn(|| 7).unwrap_err();
        assert_eq!(closure.reason(), RejectReason::Broken);
        assert_eq!(closure.into_inner()(), 7);
        assert!(pool.is_closed());
        pool.wait_idle();
        assert_eq!(pool.stats().cancelled, 3);
        assert_adds_up(&pool.stats());
        let report = registry.shutdown();
        assert!(!report.is_clean(), "three tasks were lost: {report}");
        assert!(!pool.shutdown().is_clean());
    });
}

#[test]
fn idle_threads_above_the_minimum_leave_and_new_ones_come() {
    let _tidy = tidy();
    within(|| {
        for least in 0..=3 {
            let keep_alive = Duration::from_millis(20);
            let pool = builder(3).min_threads(least).keep_alive(keep_alive).build().unwrap();
            for _ in 0..2 {
                let meeting = Arc::new(Barrier::new(3));
                for _ in 0..3 {
                    let meeting = meeting.clone();
                    pool.execute(move || meet(&meeting)).unwrap();
                }
                pool.wait_idle();
                eventually("the minimum is left", || pool.stats().threads == least);
                thread::sleep(3 * keep_alive);
                let stats = pool.stats();
                assert_eq!((stats.threads, stats.peak_threads), (least, 3), "the minimum is kept");
            }
            assert_eq!(pool.shutdown().stats().completed, 6);
        }
    });
}

#[test]
fn every_keep_alive_from_none_to_for_ever_works() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(2).keep_alive(Duration::ZERO).build().unwrap();
        for n in 0..50 {
            assert_eq!(pool.spawn(move || n).unwrap().join().unwrap(), n);
        }
        eventually("no thread is left", || pool.stats().threads == 0);
        let report = pool.shutdown();
        assert!(report.is_clean() && report.stats().completed == 50);
        assert!(report.workers_joined() >= 1, "expired workers are joined");

        let pool = builder(2).keep_alive(Duration::MAX).build().unwrap();
        pool.spawn(|| ()).unwrap().join().unwrap();
        thread::sleep(Duration::from_millis(30)); // it would show a time-out that overflowed
        assert_eq!(pool.stats().threads, 1);
        assert_eq!(pool.shutdown().workers_joined(), 1);
    });
}

/// Wherever they wait: in the queue, for their time, behind a limit, or in front of the queue with their submitter.
#[test]
fn a_pool_that_breaks_resolves_everything_that_waits() {
    let _tidy = tidy();
    within(|| {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let start = move || {
            let _ = wait.lock().unwrap().recv();
            panic!("no connection");
        };
        let pool = builder(1).queue_capacity(3).on_thread_start(start).build().unwrap();
        let limit = pool.limit(1);
        let content = Arc::new(());
        let task = || {
            let captured = content.clone();
            move || drop(captured)
        };
        let delayed = pool.spawn_after(Duration::from_secs(3600), task()).unwrap();
        let accepted = [
            pool.spawn(task()).unwrap(),
            limit.spawn(task()).unwrap(),
            limit.spawn(task()).unwrap(),
            delayed,
        ];
        assert_eq!(pool.try_execute(task()).unwrap_err().reason(), RejectReason::Full);
        let (about_to, is_about_to) = mpsc::channel();
        let (of_pool, of_limit, tasks) = (pool.clone(), limit.clone(), [task(), task()]);
        let [first, second] = tasks;
        let blocked = [
            submitter("waits-pool", &about_to, move || of_pool.execute(first).unwrap_err().reason()),
            submitter("waits-limit", &about_to, move || of_limit.execute(second).unwrap_err().reason()),
        ];
        await_sleepers(&is_about_to, 2);
        drop(go);
        for handle in accepted {
            assert!(handle.join().unwrap_err().is_cancelled());
        }
        assert_eq!(blocked.map(|submitter| submitter.join().unwrap()), [RejectReason::Broken; 2]);
        assert_eq!(limit.try_execute(task()).unwrap_err().reason(), RejectReason::Broken);
        assert_eq!(pool.spawn_after(Duration::ZERO, task()).unwrap_err().reason(), RejectReason::Broken);
        pool.wait_idle();
        assert_eq!(Arc::strong_count(&content), 1);
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.accepted, stats.cancelled, stats.threads), (4, 4, 0));
        assert_adds_up(&stats);
    });
}

#[test]
fn there_are_never_more_threads_than_the_maximum() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                let (pool, running, most) = (pool.clone(), running.clone(), most.clone());
                thread::spawn(move || {
                    for _ in 0..500 {
                        let (running, most) = (running.clone(), most.clone());
                        let task = move || {
                            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                            thread::yield_now();
                            running.fetch_sub(1, SeqCst);
                        };
                        pool.execute(task).unwrap();
                        let stats = pool.stats();
                        assert!(
                            stats.threads <= 3 && stats.idle <= stats.threads && stats.running <= 3,
                            "{stats:?}"
                        );
                    }
                })
            })
            .collect();
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        pool.wait_idle();
        assert!(most.load(SeqCst) <= 3 && pool.stats().peak_threads <= 3);
        assert_eq!(pool.stats().completed, 2000);
        assert_adds_up(&pool.stats());
    });
}

/// While tasks are blocked nothing else goes on, so that the counts can be told exactly.
#[test]
fn each_blocked_task_is_counted_as_running_and_nothing_else_is() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(4);
        let is = |running: u64, threads: usize| {
            let stats = pool.stats();
            let seen = (stats.running, stats.threads, stats.idle, pool.running().len() as u64);
            seen == (running, threads, threads - running as usize, running)
        };
        let mut blocked = Vec::new();
        for n in 1..=4 {
            blocked.push(occupy(&pool));
            assert!(is(n, n as usize), "{n}: {:?}", pool.stats());
        }
        for n in (0..4).rev() {
            let (go, handle) = blocked.pop().unwrap();
            drop(go);
            handle.join().unwrap();
            eventually("its thread is idle", || is(n, 4));
        }
        assert_eq!(pool.stats().peak_threads, 4);
    });
}

#[test]
fn one_thread_starts_tasks_in_the_order_in_which_they_were_accepted() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (go, _running) = occupy(&pool);
        let note = |n: u32| {
            let order = order.clone();
            move || order.lock().unwrap().push(n)
        };
        for n in 0..5 {
            let (now, follow_up) = (note(n), note(n + 100));
            let task = move || {
                now();
                Pool::current().unwrap().execute(follow_up).unwrap();
            };
            match n % 2 {
                0 => pool.execute(task).unwrap(),
                _ => drop(pool.spawn(task).unwrap()),
            }
        }
        pool.execute(note(5)).unwrap();
        drop(go);
        pool.shutdown();
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104]);
    });
}

#[test]
fn the_counts_tell_every_state_a_task_can_be_in() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        pool.spawn(|| panic!("counted")).unwrap().join().unwrap_err();
        pool.spawn(|| ()).unwrap().join().unwrap();
        let (go, _running) = occupy(&pool);
        assert!(pool.spawn(|| ()).unwrap().cancel());
        let _queued = [pool.spawn(|| ()).unwrap(), pool.spawn(|| ()).unwrap()];
        let s = pool.stats();
        assert_eq!(
            (s.accepted, s.completed, s.panicked, s.cancelled, s.running, s.queued),
            (6, 1, 1, 1, 1, 2)
        );
        assert_eq!((s.threads, s.peak_threads, s.idle, s.phase), (1, 1, 0, PoolPhase::Open));
        assert_adds_up(&s);
        pool.close();
        assert_eq!(pool.stats().phase, PoolPhase::Draining);
        pool.execute(|| ()).unwrap_err();
        drop(go);
        let s = pool.shutdown().stats().clone();
        assert_eq!((s.accepted, s.completed, s.panicked, s.cancelled, s.rejected), (6, 4, 1, 1, 1));
        assert_eq!((s.threads, s.running, s.queued, s.phase), (0, 0, 0, PoolPhase::Closed));
        assert_adds_up(&s);
    });
}

#[test]
fn running_names_each_task_with_its_location_and_label() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(2).name("lookup").build().unwrap();
        assert!(pool.running().is_empty());
        let meeting = Arc::new(Barrier::new(3));
        let go = Arc::new(Barrier::new(3));
        let (first, first_go) = (meeting.clone(), go.clone());
        let bare = line!() + 1;
        pool.execute(move || {
            winddown::task::set_label("old");
            winddown::task::set_label(format!("order {}", 7));
            first.wait();
            first_go.wait();
        })
        .unwrap();
        let (second, second_go) = (meeting.clone(), go.clone());
        let spawned = line!() + 1;
        let handle = pool.spawn(move || {
            second.wait();
            second_go.wait();
        });
        meeting.wait();
        let mut running = pool.running();
        running.sort_by_key(|task| task.location().line());
        let shown: Vec<_> =
            running.iter().map(|task| (task.pool(), task.location().line(), task.label())).collect();
        assert_eq!(shown, [("lookup", bare, Some("order 7")), ("lookup", spawned, None)]);
        assert!(running.iter().all(|task| task.location().file() == file!()));
        let text = running[0].to_string();
        assert!(text.contains("order 7") && text.contains(&format!("{}:{bare}", file!())), "{text}");
        thread::sleep(Duration::from_millis(30)); // their work
        assert!(pool.running().iter().all(|task| task.running_for() >= Duration::from_millis(10)));
        go.wait();
        handle.unwrap().join().unwrap();
        pool.wait_idle();
        assert!(pool.running().is_empty());
        pool.spawn(|| assert_eq!(Pool::current().unwrap().running()[0].label(), None))
            .unwrap()
            .join()
            .unwrap();
        winddown::task::set_label("nobody's");
    });
}

#[test]
fn a_daemon_pool_is_left_behind_by_the_registry_and_waited_for_when_asked() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let daemon = Pool::builder().registry(&registry).max_threads(1).daemon().build().unwrap();
        let (submit, to_submit) = (daemon.clone(), daemon.clone());
        let normal = Pool::builder().registry(&registry).max_threads(1).build().unwrap();
        let (go, running) = occupy(&daemon);
        // It stays open for the tasks and hooks of others up to the end of the join.
        registry.before_join("feeds it", move || submit.execute(|| ()).unwrap()).unwrap();
        let token = registry.token();
        let task = move || {
            token.wait();
            to_submit.execute(|| ()).unwrap();
        };
        normal.execute(task).unwrap();
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        let stats = report.pools().iter().find(|pool| pool.stats().is_daemon).unwrap().stats().clone();
        assert_eq!((stats.running, stats.cancelled, stats.abandoned), (1, 2, 0), "{report}");
        assert_eq!(daemon.execute(|| ()).unwrap_err().reason(), RejectReason::ShuttingDown);
        assert!(!running.is_finished());
        drop(go);
        running.join().unwrap();

        let daemon = builder(1).daemon().build().unwrap();
        let ran = daemon.spawn(|| thread::sleep(Duration::from_millis(20))).unwrap();
        let report = daemon.shutdown();
        assert!(ran.is_finished());
        assert_eq!((report.stats().completed, report.workers_joined()), (1, 1));
    });
}

#[test]
fn a_closed_pool_gives_the_closure_back_with_the_reason() {
    let _tidy = tidy();
    within(|| {
        let closed = pool(1);
        closed.close();
        closed.close();
        let dead = pool(1);
        dead.registry().shutdown();
        let ended = pool(1);
        ended.shutdown();
        for (pool, reason) in [
            (closed, RejectReason::Closed),
            (dead, RejectReason::ShuttingDown),
            (ended, RejectReason::Closed),
        ] {
            assert!(pool.is_closed());
            let owned = String::from("still mine");
            let refused = pool.spawn(move || owned).unwrap_err();
            assert_eq!(refused.reason(), reason);
            assert_eq!(refused.to_string(), reason.to_string());
            assert!(format!("{refused:?}").contains(&format!("{reason:?}")));
            assert_eq!(refused.into_inner()(), "still mine");
            assert_eq!(pool.execute(|| ()).unwrap_err().reason(), reason);
            let stats = pool.stats();
            assert_eq!((stats.rejected, stats.accepted, stats.threads), (2, 0, 0));
        }
    });
}

#[test]
fn follow_ups_are_taken_while_a_pool_drains_unless_it_was_built_to_refuse_them() {
    let _tidy = tidy();
    within(|| {
        for (follow_ups, is_taken) in [(FollowUps::Accept, true), (FollowUps::Reject, false)] {
            let pool = builder(1).follow_ups(follow_ups).build().unwrap();
            let (go, wait) = mpsc::channel::<()>();
            let task = pool.spawn(move || {
                wait.recv().unwrap_err();
                Pool::current().unwrap().execute(|| ()).is_ok()
            });
            pool.close();
            drop(go);
            assert_eq!(task.unwrap().join().unwrap(), is_taken);
            assert_eq!(pool.shutdown().stats().completed, 1 + u64::from(is_taken));
        }
    });
}

#[test]
fn debug_shows_the_name_and_blocks_nowhere() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(1).name("shown").build().unwrap();
        assert!(format!("{pool:?}").contains("shown"));
        let inside = pool.spawn(|| format!("{:?}", Pool::current().unwrap())).unwrap().join().unwrap();
        assert!(inside.contains("shown"));
        assert!(format!("{:?} {:?}", pool.registry(), pool.stats()).contains("shown"));
    });
}

#[test]
fn large_captures_move_by_pointer_and_small_ones_of_every_size_arrive() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(1).stack_size(256 << 10).build().unwrap();
        let large = vec![7_u8; 8 << 20].into_boxed_slice();
        let address = large.as_ptr() as usize;
        assert_eq!(pool.spawn(move || large.as_ptr() as usize).unwrap().join().unwrap(), address);
        let on_stack = [7_u8; 16 << 10];
        assert_eq!(pool.spawn(move || on_stack[on_stack.len() - 1]).unwrap().join().unwrap(), 7);
        let (sum, sums) = mpsc::channel();
        fn send<const N: usize>(pool: &Pool, sum: &Sender<usize>) {
            let (words, sum) = ([1_usize; N], sum.clone());
            pool.execute(move || sum.send(words.iter().sum()).unwrap()).unwrap();
        }
        send::<0>(&pool, &sum);
        send::<1>(&pool, &sum);
        send::<2>(&pool, &sum);
        send::<3>(&pool, &sum);
        send::<4>(&pool, &sum);
        send::<100>(&pool, &sum);
        drop(sum);
        assert_eq!(sums.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 100]);
    });
}

#[test]
fn a_pool_that_is_gone_leaves_nothing_in_its_registry() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        for _ in 0..100 {
            let pool = Pool::builder().registry(&registry).max_threads(2).build().unwrap();
            pool.execute(|| ()).unwrap();
        }
        eventually("all of them have left", || registry.stats().is_empty());
        assert!(registry.shutdown().pools().is_empty());
    });
}
