//! Promise 8: never a self-deadlock, wherever shutdown, a wait, a drop or exit is called.

mod common;

use common::{pool_in, registry, tidy, within};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use winddown::{BuildError, HookOutcome, JoinHandle, Pool, Registry, RejectReason, Report};

/// Queues tasks that count themselves.
fn queue(pool: &Pool, tasks: usize, ran: &Arc<AtomicUsize>) {
    for _ in 0..tasks {
        let ran = ran.clone();
        let task = move || {
            ran.fetch_add(1, SeqCst);
        };
        pool.execute(task).unwrap();
    }
}

/// A task on a pool of `threads` that, with 10 tasks behind it, does `f`. All must end, and the registry's shutdown
/// be clean. Returns what `f` returned.
fn in_a_task<R: Send + 'static>(threads: usize, f: impl FnOnce(&Registry, &Pool) -> R + Send + 'static) -> R {
    within(move || {
        let registry = registry();
        let pool = pool_in(&registry, threads);
        let ran = Arc::new(AtomicUsize::new(0));
        let (go, wait) = mpsc::channel::<()>();
        let handle = {
            let (registry, pool) = (registry.clone(), pool.clone());
            pool.clone().spawn(move || {
                wait.recv().unwrap_err();
                f(&registry, &pool)
            })
        };
        queue(&pool, 10, &ran);
        drop(go);
        let result = handle.unwrap().join().unwrap();
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        pool.shutdown();
        assert_eq!(ran.load(SeqCst), 10);
        assert_eq!(pool.stats().completed, pool.stats().accepted);
        result
    })
}

#[test]
fn a_task_may_shut_its_registry_down() {
    let _tidy = tidy();
    for threads in [1, 2] {
        let report = in_a_task(threads, |registry, _| registry.shutdown());
        assert!(report.is_clean(), "the blocked task is no loss: {report}");
        assert_eq!((report.totals().completed, report.totals().abandoned), (10, 0), "{report}");
        assert_eq!(report.totals().running, 1, "{report}");
    }
}

#[test]
fn a_task_may_shut_its_registry_down_with_a_deadline_that_it_does_not_need() {
    let _tidy = tidy();
    for threads in [1, 2] {
        let report = in_a_task(threads, |registry, _| registry.shutdown_timeout(Duration::from_secs(50)));
        assert!(report.is_clean(), "{report}");
        assert!(
            report.elapsed() < Duration::from_secs(20),
            "it waited for the task that called it: {report}"
        );
    }
}

#[test]
fn a_task_may_shut_its_own_pool_down() {
    let _tidy = tidy();
    for threads in [1, 2] {
        let report = in_a_task(threads, |_, pool| pool.shutdown());
        assert!(report.is_clean() && report.abandoned().is_empty(), "{report}");
        assert_eq!(report.stats().completed, 10, "{report}");
    }
}

#[test]
fn a_task_may_shut_its_own_pool_down_with_a_deadline_that_it_does_not_need() {
    let _tidy = tidy();
    let report = in_a_task(1, |_, pool| pool.shutdown_timeout(Duration::from_secs(50)));
    assert!(report.is_clean() && report.elapsed() < Duration::from_secs(20), "{report}");
}

#[test]
fn a_task_may_shut_another_pool_down() {
    let _tidy = tidy();
    in_a_task(1, |registry, _| {
        let other = pool_in(registry, 1);
        let ran = Arc::new(AtomicUsize::new(0));
        queue(&other, 10, &ran);
        assert!(other.shutdown().is_clean());
        assert_eq!(ran.load(SeqCst), 10);
    });
}

#[test]
fn tasks_of_two_pools_may_shut_each_other_down() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pools = [pool_in(&registry, 1), pool_in(&registry, 1)];
        let both = Arc::new(Barrier::new(2));
        let tasks = [0, 1].map(|n: usize| {
            let (other, both) = (pools[1 - n].clone(), both.clone());
            pools[n].spawn(move || {
                both.wait();
                other.shutdown()
            })
        });
        for task in tasks {
            assert!(task.unwrap().join().unwrap().is_clean());
        }
        assert!(registry.shutdown().is_clean());
    });
}

#[test]
fn tasks_of_two_registries_may_shut_each_other_down() {
    let _tidy = tidy();
    within(|| {
        let registries = [registry(), registry()];
        let pools = registries.each_ref().map(|registry| pool_in(registry, 1));
        let both = Arc::new(Barrier::new(2));
        let tasks = [0, 1].map(|n: usize| {
            let (other, both) = (registries[1 - n].clone(), both.clone());
            pools[n].spawn(move || {
                both.wait();
                other.shutdown()
            })
        });
        for task in tasks {
            assert!(task.unwrap().join().unwrap().is_clean());
        }
    });
}

/// Two tasks of one pool that do the same at once.
fn by_two_tasks<R: Send + 'static>(f: fn(&Registry, &Pool) -> R) -> [R; 2] {
    within(move || {
        let registry = registry();
        let pool = pool_in(&registry, 2);
        let all = Arc::new(Barrier::new(3));
        let ran = Arc::new(AtomicUsize::new(0));
        let tasks = [0, 1].map(|_| {
            let (registry, pool, all) = (registry.clone(), pool.clone(), all.clone());
            pool.clone().spawn(move || {
                all.wait();
                f(&registry, &pool)
            })
        });
        queue(&pool, 10, &ran);
        all.wait();
        let results = tasks.map(|task| task.unwrap().join().unwrap());
        assert!(registry.shutdown().is_clean());
        assert_eq!(ran.load(SeqCst), 10);
        results
    })
}

#[test]
fn two_tasks_may_shut_their_registry_down_at_once() {
    let _tidy = tidy();
    let [one, other] = by_two_tasks(|registry, _| registry.shutdown());
    assert_eq!(one.elapsed(), other.elapsed());
    assert!(one.is_clean() && other.is_clean());
}

#[test]
fn two_tasks_may_shut_their_pool_down_at_once() {
    let _tidy = tidy();
    let reports = by_two_tasks(|_, pool| pool.shutdown());
    assert!(reports.iter().all(|report| report.is_clean() && report.stats().completed >= 10), "{reports:?}");
}

#[test]
fn a_task_may_shut_its_pool_down_while_another_shuts_the_registry_down() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..50 {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let both = Arc::new(Barrier::new(2));
            let (of_pool, first) = (pool.clone(), both.clone());
            let one = pool.spawn(move || {
                first.wait();
                of_pool.shutdown().is_clean()
            });
            let of_registry = registry.clone();
            let other = pool.spawn(move || {
                both.wait();
                of_registry.shutdown().is_clean()
            });
            assert!(one.unwrap().join().unwrap() && other.unwrap().join().unwrap());
            assert!(registry.shutdown().is_clean());
        }
    });
}

#[test]
fn two_tasks_may_wait_at_once_until_their_pool_is_idle() {
    let _tidy = tidy();
    by_two_tasks(|_, pool| pool.wait_idle());
}

#[test]
fn a_task_may_wait_until_its_pool_is_idle_with_tasks_behind_it() {
    let _tidy = tidy();
    for threads in [1, 2] {
        in_a_task(threads, |_, pool| {
            pool.wait_idle();
            assert_eq!(pool.stats().completed, 10);
            assert!(pool.wait_idle_timeout(Duration::ZERO));
        });
    }
}

#[test]
fn tasks_of_two_pools_may_each_wait_until_the_other_is_idle() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pools = [pool_in(&registry, 1), pool_in(&registry, 1)];
        let both = Arc::new(Barrier::new(2));
        let tasks = [0, 1].map(|n: usize| {
            let (other, both) = (pools[1 - n].clone(), both.clone());
            pools[n].spawn(move || {
                both.wait();
                other.wait_idle();
            })
        });
        for task in tasks {
            task.unwrap().join().unwrap();
        }
        assert!(registry.shutdown().is_clean());
    });
}

#[test]
fn a_task_may_wait_for_the_end_of_a_shutdown() {
    let _tidy = tidy();
    within(|| {
        for threads in [1, 2] {
            let registry = registry();
            let pool = pool_in(&registry, threads);
            let ran = Arc::new(AtomicUsize::new(0));
            let (waits, waiting) = mpsc::channel();
            let of_task = registry.clone();
            let task = pool.spawn(move || {
                waits.send(()).unwrap();
                of_task.wait_finished()
            });
            queue(&pool, 10, &ran);
            waiting.recv().unwrap();
            let report = registry.shutdown();
            assert!(report.is_clean(), "{report}");
            assert_eq!((ran.load(SeqCst), report.totals().completed), (10, 10));
            assert_eq!(task.unwrap().join().unwrap().elapsed(), report.elapsed());
        }
    });
}

#[test]
fn a_task_may_drop_the_last_handle_of_its_pool() {
    let _tidy = tidy();
    within(|| {
        for threads in [1, 2] {
            let registry = registry();
            let pool = pool_in(&registry, threads);
            let ran = Arc::new(AtomicUsize::new(0));
            let (give, take) = mpsc::channel::<Pool>();
            let (ended, has_ended) = mpsc::channel();
            let task = move || {
                let pool = take.recv().unwrap();
                drop(pool);
                let pool = Pool::current().unwrap();
                assert!(pool.is_closed());
                pool.execute(move || ended.send(()).unwrap()).expect("its own tasks may still submit");
            };
            pool.execute(task).unwrap();
            queue(&pool, 10, &ran);
            give.send(pool).unwrap();
            has_ended.recv().unwrap();
            assert!(registry.shutdown().is_clean());
            assert_eq!(ran.load(SeqCst), 10);
        }
    });
}

#[test]
fn a_task_joins_its_children_in_place_however_deep_they_nest() {
    let _tidy = tidy();
    fn descend(depth: u32) -> u32 {
        let pool = Pool::current().unwrap();
        let thread = thread::current().id();
        let child = move || {
            assert_eq!(thread::current().id(), thread, "in place");
            if depth == 0 {
                0
            } else {
                descend(depth - 1) + 1
            }
        };
        pool.spawn(child).unwrap().join().unwrap()
    }
    assert_eq!(in_a_task(1, |_, _| descend(3)), 3);
}

#[test]
fn a_child_is_joined_in_place_though_others_are_queued_before_it() {
    let _tidy = tidy();
    in_a_task(1, |_, pool| {
        let before = pool.stats().completed;
        let children: Vec<JoinHandle<u32>> = (0..5).map(|n| pool.spawn(move || n).unwrap()).collect();
        let sum: u32 = children.into_iter().rev().map(|child| child.join().unwrap()).sum();
        assert_eq!((sum, pool.stats().completed), (10, before + 5));
        assert_eq!(pool.stats().queued, 10);
    });
}

#[test]
fn a_task_that_joins_itself_panics() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let (give, take) = mpsc::channel::<JoinHandle<()>>();
        let (panicked, has_panicked) = mpsc::channel();
        let outer = pool.clone();
        let handle = pool.spawn(move || {
            let own = take.recv().unwrap();
            // The same through a child that runs in place.
            let child = outer.spawn(move || own.join());
            panicked.send(child.unwrap().join().unwrap_err().to_string()).unwrap();
        });
        give.send(handle.unwrap()).unwrap();
        let message = has_panicked.recv().unwrap();
        assert!(message.contains("joined inside itself") && message.contains(file!()), "{message}");
        assert!(registry.shutdown().is_clean());
    });
}

#[test]
fn a_task_may_join_tasks_of_another_pool() {
    let _tidy = tidy();
    in_a_task(1, |registry, pool| {
        let other = pool_in(registry, 1);
        let back = pool.clone();
        // The other pool's task waits in turn for one of the first, whose only thread is blocked: with a time limit.
        let task = other.spawn(move || {
            let child = back.spawn(|| 5).unwrap();
            child.join_timeout(Duration::from_millis(10)).is_err()
        });
        assert!(task.unwrap().join().unwrap(), "tasks of other pools never run in place");
        other.shutdown();
    });
}

fn in_a_hook<R: Send + 'static>(
    f: impl FnOnce(&Registry, &Pool) -> R + Send + 'static,
) -> (Report, Option<R>) {
    within(move || {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let ran = Arc::new(AtomicUsize::new(0));
        let (results, result) = mpsc::channel();
        let (of_hook, in_hook) = (registry.clone(), pool.clone());
        registry.before_join("calls", move || results.send(f(&of_hook, &in_hook)).unwrap()).unwrap();
        queue(&pool, 10, &ran);
        let report = registry.shutdown();
        assert_eq!(ran.load(SeqCst), 10);
        (report, result.recv().ok())
    })
}

#[test]
fn what_would_wait_for_its_own_hook_panics_with_a_message_that_says_so() {
    let _tidy = tidy();
    type Call = fn(&Registry);
    let calls: [(&str, Call); 5] = [
        ("shutdown()", |registry| drop(registry.shutdown())),
        ("shutdown_timeout()", |registry| drop(registry.shutdown_timeout(Duration::from_secs(1)))),
        ("wait_finished()", |registry| drop(registry.wait_finished())),
        ("shutdown()", |_| drop(winddown::shutdown())),
        ("shutdown()", |_| drop(registry().shutdown())),
    ];
    for (name, call) in calls {
        let (report, result) = in_a_hook(move |registry, _| call(registry));
        assert!(result.is_none() && !report.is_clean());
        match report.hooks()[0].outcome() {
            HookOutcome::Panicked(text) => assert!(text.contains(name) && text.contains("hook"), "{text}"),
            other => panic!("{name} in a hook: {other:?}"),
        }
    }
}

#[test]
fn a_post_join_hook_that_calls_shutdown_panics_as_well() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let of_hook = registry.clone();
        registry.after_join("calls", move || drop(of_hook.shutdown())).unwrap();
        assert!(matches!(registry.shutdown().hooks()[0].outcome(), HookOutcome::Panicked(_)));
    });
}

#[test]
fn a_hook_may_submit_and_join_and_wait_until_pools_are_idle() {
    let _tidy = tidy();
    let (report, result) = in_a_hook(|_, pool| {
        let sum = pool.spawn(|| 2 + 2).unwrap().join().unwrap();
        pool.wait_idle();
        (sum, pool.stats().completed, pool.wait_idle_timeout(Duration::MAX))
    });
    assert_eq!(result, Some((4, 11, true)));
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_hook_may_shut_a_pool_down_and_drop_it() {
    let _tidy = tidy();
    let (report, result) = in_a_hook(|registry, pool| {
        drop(pool_in(registry, 1));
        let own = pool_in(registry, 1);
        own.execute(|| ()).unwrap();
        drop(own);
        (pool.shutdown().stats().completed, pool.execute(|| ()).unwrap_err().reason())
    });
    assert_eq!(result, Some((10, RejectReason::Closed)));
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_hook_may_register_pools_and_is_refused_hooks_and_holds() {
    let _tidy = tidy();
    let (report, result) = in_a_hook(|registry, _| {
        let pool = pool_in(registry, 1);
        pool.execute(|| ()).unwrap();
        registry.request_shutdown();
        assert!(registry.hold("late").is_err());
        let late = registry.before_join("late", || ()).unwrap_err().reason();
        (late, registry.after_join("late", || ()).unwrap_err().reason(), pool)
    });
    let (before, after, _pool) = result.unwrap();
    assert_eq!((before, after), (RejectReason::ShuttingDown, RejectReason::ShuttingDown));
    assert!(report.is_clean() && report.totals().completed == 11, "{report}");
}

#[test]
fn a_post_join_hook_is_refused_pools_and_tasks() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let (results, result) = mpsc::channel();
        let (of_hook, in_hook) = (registry.clone(), pool.clone());
        let hook = move || {
            assert_eq!(Pool::builder().registry(&of_hook).build().unwrap_err(), BuildError::ShuttingDown);
            in_hook.wait_idle();
            in_hook.shutdown();
            results.send(in_hook.execute(|| ()).unwrap_err().reason()).unwrap();
        };
        registry.after_join("late", hook).unwrap();
        assert!(registry.shutdown().is_clean());
        assert_eq!(result.recv().unwrap(), RejectReason::ShuttingDown);
    });
}

#[test]
fn a_hook_may_wait_for_a_task_that_is_blocked_in_wait_idle() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let in_task = pool.clone();
        let task = pool.spawn(move || in_task.wait_idle()).unwrap();
        let in_hook = pool.clone();
        registry.before_join("waits", move || in_hook.wait_idle()).unwrap();
        assert!(registry.shutdown().is_clean());
        task.join().unwrap();
    });
}

#[test]
fn a_chain_of_resubmissions_does_not_grow_the_stack() {
    let _tidy = tidy();
    fn again(left: u32, ended: mpsc::Sender<()>) {
        match left.checked_sub(1) {
            Some(left) => Pool::current().unwrap().execute(move || again(left, ended)).unwrap(),
            None => ended.send(()).unwrap(),
        }
    }
    within(|| {
        let registry = registry();
        let builder = Pool::builder().registry(&registry).max_threads(1).stack_size(128 << 10);
        let pool = builder.build().unwrap();
        let (ended, has_ended) = mpsc::channel();
        let while_draining = ended.clone();
        pool.execute(move || again(20_000, ended)).unwrap();
        has_ended.recv().unwrap();
        pool.execute(move || again(20_000, while_draining)).unwrap();
        assert!(registry.shutdown().is_clean());
        has_ended.try_recv().expect("the drain waits for all of them");
    });
}

#[test]
fn the_queue_behind_a_blocked_task_runs_on_a_substitute_and_no_more_than_one() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let is_alone = Arc::new(AtomicBool::new(true));
        let running = Arc::new(AtomicUsize::new(0));
        let in_task = registry.clone();
        let (go, wait) = mpsc::channel::<()>();
        let task = pool.spawn(move || {
            wait.recv().unwrap_err();
            in_task.shutdown()
        });
        let caller = thread::current().id();
        for _ in 0..20 {
            let (is_alone, running) = (is_alone.clone(), running.clone());
            pool.execute(move || {
                is_alone.fetch_and(running.fetch_add(1, SeqCst) == 0, SeqCst);
                thread::yield_now();
                assert_ne!(thread::current().id(), caller);
                running.fetch_sub(1, SeqCst);
            })
            .unwrap();
        }
        drop(go);
        let report = task.unwrap().join().unwrap();
        assert!(report.is_clean() && report.totals().completed == 20, "{report}");
        assert!(is_alone.load(SeqCst), "a pool of one thread ran two tasks at once");
        assert!(report.totals().peak_threads <= 2, "{report}");
    });
}

#[test]
fn a_child_that_runs_in_place_may_shut_everything_down() {
    let _tidy = tidy();
    in_a_task(1, |registry, pool| {
        let in_child = registry.clone();
        let child = pool.spawn(move || in_child.shutdown()).unwrap();
        let report = child.join().unwrap();
        assert!(report.is_clean() && report.totals().abandoned == 0, "{report}");
    });
}

/// Runs a case that has twenty tasks to drain, each of which prints a line.
#[track_caller]
fn assert_drains(case: &str, code: i32) {
    let outcome = common::run(case);
    outcome.assert_code(code).assert_silent();
    assert_eq!(outcome.count("task "), 20, "{outcome:#?}");
    assert_eq!(outcome.count("after"), 1, "{outcome:#?}");
}

#[test]
fn a_task_may_end_the_process_with_a_code() {
    let _tidy = tidy();
    assert_drains("exit_in_task", 3);
    assert_drains("exit_in_task_with_queue_behind", 3);
    assert_drains("exit_in_task_during_shutdown", 3);
}

#[test]
fn of_two_tasks_that_end_the_process_the_first_wins() {
    let _tidy = tidy();
    let outcome = common::run("exit_in_two_tasks");
    assert!(matches!(outcome.status.code(), Some(3 | 4)), "{outcome:#?}");
    assert_eq!((outcome.count("task "), outcome.count("after")), (20, 1), "{outcome:#?}");
}

#[test]
fn a_hook_may_end_the_process_with_a_code() {
    let _tidy = tidy();
    assert_drains("exit_in_hook", 4);
    assert_drains("exit_in_last_hook", 4);
}

#[cfg(all(unix, feature = "exit-hook"))]
#[test]
fn a_hook_that_calls_exit_while_the_process_exits_does_not_hang_it() {
    let _tidy = tidy();
    assert_drains("exit_in_hook_at_exit", 5);
}

#[cfg(all(unix, feature = "exit-hook"))]
#[test]
fn a_task_may_call_process_exit() {
    let _tidy = tidy();
    assert_drains("process_exit_in_task", 6);
    assert_drains("process_exit_in_task_with_queue_behind", 6);
    assert_drains("process_exit_in_task_during_shutdown", 6);
}

#[cfg(all(unix, feature = "exit-hook"))]
#[test]
fn a_hook_may_call_process_exit() {
    let _tidy = tidy();
    assert_drains("process_exit_in_hook", 7);
    assert_drains("process_exit_in_last_hook", 7);
    assert_drains("process_exit_in_hook_of_private_registry", 7);
}

#[test]
fn a_task_may_shut_the_process_registry_down_and_main_goes_on() {
    let _tidy = tidy();
    assert_drains("shutdown_in_task", 0);
}

#[test]
fn a_guard_that_is_dropped_in_a_task_or_a_hook_hangs_nothing() {
    let _tidy = tidy();
    assert_drains("guard_in_task", 0);
    let outcome = common::run("guard_in_hook");
    assert_eq!((outcome.status.code(), outcome.count("task ")), (Some(0), 20), "{outcome:#?}");
}
