//! Tasks that their submitter runs, since the queue is full: what they may ask and do, on whatever thread.

mod common;

use common::{assert_adds_up, registry, tidy, within};
use std::sync::mpsc::{channel, Sender};
use std::thread;
use std::time::Duration;
use winddown::{
    task, Canceller, FollowUps, HookOutcome, JoinHandle, Pool, PoolBuilder, Registry, RejectReason, WhenFull,
};

fn builder(registry: &Registry) -> PoolBuilder {
    Pool::builder().registry(registry).max_threads(1).queue_capacity(1).when_full(WhenFull::CallerRuns)
}

/// A pool whose worker is in a task until the sender is dropped, and whose queue is full: what comes now, its submitter runs.
fn full(registry: &Registry) -> (Pool, Sender<()>) {
    let pool = builder(registry).name("full").build().unwrap();
    let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
    let first = move || {
        started.send(()).unwrap();
        let _ = wait.recv();
    };
    pool.execute(first).unwrap();
    has_started.recv().unwrap();
    pool.execute(|| ()).unwrap();
    (pool, go)
}

/// Has the submitter run `f` as a task of the pool.
#[track_caller]
fn run_here<R: Send + 'static>(pool: &Pool, f: impl FnOnce() -> R + Send + 'static) -> R {
    let here = thread::current().id();
    let task = move || {
        assert_eq!(thread::current().id(), here, "the queue is full");
        assert_eq!(Pool::current().map(|pool| pool.name().to_owned()).as_deref(), Some("full"));
        f()
    };
    let result = pool.spawn(task).unwrap().join();
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Where a submitter may be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    PlainThread,
    /// In a task of another pool, of one thread.
    OtherPool,
    Hook,
}

use Place::{Hook, OtherPool, PlainThread};

/// Does `f` with a full pool, and what opens the gate before it, and the pool that the submitter's task is in, if it is in
/// one; everything must end.
fn at<R: Send + 'static>(
    place: Place,
    f: impl FnOnce(&Registry, &Pool, Sender<()>, Option<&Pool>) -> R + Send + 'static,
) -> R {
    within(move || {
        let registry = registry();
        let (pool, go) = full(&registry);
        let inner = pool.clone();
        let of_task = registry.clone();
        let result = match place {
            PlainThread => f(&registry, &pool, go, None),
            OtherPool => {
                let other = Pool::builder().registry(&registry).max_threads(1).name("other").build().unwrap();
                let itself = other.clone();
                let task = other.spawn(move || f(&of_task, &inner, go, Some(&itself)));
                task.unwrap().join().unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
            }
            Hook => {
                let (results, result) = channel();
                let hook = move || results.send(f(&of_task, &inner, go, None)).unwrap();
                registry.before_join("submits", hook).unwrap();
                let report = registry.shutdown();
                assert_eq!(report.hooks()[0].outcome(), &HookOutcome::Ran);
                result.recv().unwrap()
            }
        };
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        let stats = pool.stats();
        assert_adds_up(&stats);
        assert_eq!((stats.queued, stats.running, stats.cancelled), (0, 0, 0));
        result
    })
}

#[test]
fn it_is_a_task_of_its_pool_like_any_other() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool, Hook] {
        at(place, |_, pool, go, other| {
            task::set_label("the submitter's own");
            let inner = pool.clone();
            run_here(pool, move || {
                task::set_label("invoice 4711");
                let running = inner.running();
                let this = running.iter().find(|task| task.label() == Some("invoice 4711")).unwrap();
                let name = thread::current().name().unwrap_or("a submitter").to_owned();
                assert_eq!((this.pool(), this.worker()), ("full", name.as_str()));
                assert_eq!((inner.stats().running, inner.stats().queued), (2, 1));
                assert!(!task::is_cancelled());
                assert_adds_up(&inner.stats());
            });
            // Back outside, or in the task before.
            assert_eq!(
                Pool::current().map(|pool| pool.name().to_owned()),
                other.map(|pool| pool.name().to_owned())
            );
            if let Some(other) = other {
                assert_eq!(other.running()[0].label(), Some("the submitter's own"));
            }
            assert_eq!((pool.stats().running, pool.stats().completed), (1, 1));
            drop(go);
        });
    }
}

#[test]
fn it_has_a_flag_of_its_own() {
    let _tidy = tidy();
    at(PlainThread, |registry, pool, go, _| {
        let other = Pool::builder().registry(registry).max_threads(1).build().unwrap();
        let (give, take) = channel::<Canceller>();
        let inner = pool.clone();
        let outer = other.spawn(move || {
            let canceller = take.recv().unwrap();
            let of_inner = run_here(&inner, move || {
                assert!(!canceller.cancel(), "the one around this runs");
                task::is_cancelled()
            });
            (of_inner, task::is_cancelled())
        });
        let outer = outer.unwrap();
        give.send(outer.canceller()).unwrap();
        assert_eq!(outer.join().unwrap(), (false, true));
        drop(go);
    });
}

#[test]
fn it_is_told_when_its_pool_is_to_end_at_once_and_its_submitters_task_is_not() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool] {
        at(place, |_, pool, go, _| {
            let remote = pool.clone();
            let ender = run_here(pool, move || {
                let ender = thread::spawn(move || {
                    let (report, unstarted) = remote.shutdown_now();
                    unstarted.into_iter().for_each(|task| task.run());
                    report.stats().returned
                });
                while !task::is_cancelled() {
                    thread::yield_now();
                }
                ender
            });
            assert!(!task::is_cancelled());
            drop(go);
            assert_eq!(ender.join().unwrap(), 1);
            pool.wait_idle();
        });
    }
}

#[test]
fn it_may_submit_to_its_pool_while_that_drains_and_goes_over_the_bound() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool] {
        at(place, |_, pool, go, _| {
            let inner = pool.clone();
            let (follow_up, refused) = run_here(pool, move || {
                inner.close();
                let follow_up = inner.spawn(|| Pool::current().unwrap().name().to_owned()).unwrap();
                assert_eq!(inner.stats().queued, 2);
                let remote = inner.clone();
                let outside = thread::spawn(move || remote.execute(|| ()).unwrap_err().reason());
                (follow_up, outside.join().unwrap())
            });
            assert_eq!(refused, RejectReason::Closed, "from outside");
            drop(go);
            assert_eq!(follow_up.join().unwrap(), "full");
        });
    }
}

#[test]
fn it_may_not_submit_while_a_pool_drains_that_takes_no_follow_ups() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry).follow_ups(FollowUps::Reject).build().unwrap();
        let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
        let first = move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        };
        pool.execute(first).unwrap();
        has_started.recv().unwrap();
        pool.execute(|| ()).unwrap();
        let inner = pool.clone();
        let here = pool.spawn(move || {
            inner.close();
            inner.execute(|| ()).unwrap_err().reason()
        });
        assert_eq!(here.unwrap().join().unwrap(), RejectReason::Closed);
        drop(go);
        assert!(registry.shutdown().is_clean());
    });
}

/// What it may submit where does not depend on who runs it.
#[test]
fn its_submissions_to_the_pool_that_its_submitter_is_in_are_those_of_a_stranger() {
    let _tidy = tidy();
    at(OtherPool, |_, pool, go, other| {
        let other = other.unwrap().clone();
        run_here(pool, move || {
            other.execute(|| ()).unwrap();
            other.close();
            assert_eq!(other.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
        });
        drop(go);
    });
}

#[test]
fn it_may_shut_its_pool_down() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool, Hook] {
        at(place, |_, pool, go, _| {
            let inner = pool.clone();
            let report = run_here(pool, move || {
                drop(go);
                inner.shutdown()
            });
            assert!(report.is_clean() && report.workers_joined() == 1, "{report}");
            assert_eq!((report.stats().completed, report.stats().running), (2, 1), "it counts as finished");
            assert_eq!(pool.stats().completed, 3);
            assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Closed, "nobody runs it now");
        });
    }
}

#[test]
fn it_may_shut_down_the_pool_that_its_submitter_is_in() {
    let _tidy = tidy();
    at(OtherPool, |_, pool, go, other| {
        let other = other.unwrap().clone();
        let behind = other.spawn(|| 7).unwrap();
        let report = run_here(pool, move || other.shutdown());
        assert!(report.is_clean() && report.stats().completed == 1, "{report}");
        assert_eq!(behind.join().unwrap(), 7);
        drop(go);
    });
}

#[test]
fn it_may_shut_its_registry_down_unless_its_submitter_is_a_hook() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool] {
        at(place, |registry, pool, go, _| {
            let registry = registry.clone();
            let report = run_here(pool, move || {
                drop(go);
                registry.shutdown()
            });
            assert!(report.is_clean() && report.totals().abandoned == 0, "{report}");
        });
    }
    at(Hook, |registry, pool, go, _| {
        let registry = registry.clone();
        let error = pool.spawn(move || drop(registry.shutdown())).unwrap().join().unwrap_err();
        assert!(error.to_string().contains("inside a shutdown hook"), "{error}");
        drop(go);
    });
}

#[test]
fn it_may_wait_until_pools_are_idle() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool, Hook] {
        at(place, |_, pool, go, other| {
            let (inner, other) = (pool.clone(), other.cloned());
            let behind = other.as_ref().map(|other| other.spawn(|| 7).unwrap());
            let is_done = run_here(pool, move || {
                drop(go);
                inner.wait_idle();
                other.inspect(|other| other.wait_idle());
                inner.stats().completed == 2 && behind.as_ref().map_or(true, JoinHandle::is_finished)
            });
            assert!(is_done);
        });
    }
}

#[test]
fn it_may_join_tasks_of_its_pool_and_of_the_one_that_its_submitter_is_in() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool, Hook] {
        at(place, |_, pool, go, other| {
            let (inner, other) = (pool.clone(), other.cloned());
            run_here(pool, move || {
                let name = || (Pool::current().unwrap().name().to_owned(), thread::current().id());
                let here = thread::current().id();
                let own = inner.spawn(name).unwrap().join().unwrap();
                assert_eq!(own, ("full".into(), here), "in place: the worker is busy");
                // The only thread of that pool is this one.
                let others = other.map(|other| other.spawn(name).unwrap().join().unwrap());
                assert!(others.map_or(true, |others| others == ("other".into(), here)));
                assert_eq!(name().0, "full");
            });
            drop(go);
        });
    }
}

#[test]
fn it_panics_where_it_joins_the_task_that_runs_it() {
    let _tidy = tidy();
    at(PlainThread, |registry, pool, go, _| {
        let other = Pool::builder().registry(registry).max_threads(1).build().unwrap();
        let (give, take) = channel::<JoinHandle<String>>();
        let inner = pool.clone();
        let (told, message) = channel();
        let outer = other.spawn(move || {
            let own = take.recv().unwrap();
            let error = inner.spawn(move || own.join()).unwrap().join().unwrap_err();
            told.send(error.to_string()).unwrap();
            String::new()
        });
        give.send(outer.unwrap()).unwrap();
        let message = message.recv().unwrap();
        assert!(message.contains("joined inside itself"), "{message}");
        drop(go);
    });
}

/// Two pools of one thread and one place each, whose tasks submit to the other one: whatever that does with them, nobody waits
/// for himself.
#[test]
fn pools_that_submit_to_each_other_do_not_deadlock_nor_grow_the_stack() {
    let _tidy = tidy();
    fn pass(pools: [Pool; 2], left: usize) {
        if left > 0 {
            let [this, next] = pools.clone();
            let task = move || pass([next, this], left - 1);
            pools[1].execute(task).unwrap();
        }
    }
    for when_full in [WhenFull::CallerRuns, WhenFull::Block] {
        within(move || {
            let registry = registry();
            let pools = [WhenFull::CallerRuns, when_full].map(|when_full| {
                builder(&registry).when_full(when_full).stack_size(256 << 10).build().unwrap()
            });
            for _ in 0..4 {
                let pools = pools.clone();
                pools.clone()[0].execute(move || pass(pools, 2_000)).unwrap();
            }
            assert!(registry.shutdown().is_clean());
            let completed: u64 = pools.iter().map(|pool| pool.stats().completed).sum();
            assert_eq!(completed, 4 * 2_001);
        });
    }
}

#[test]
fn it_may_drop_the_last_handle_of_its_pool() {
    let _tidy = tidy();
    for place in [PlainThread, OtherPool] {
        within(move || {
            let registry = registry();
            let (pool, go) = full(&registry);
            let submit = move || {
                let (give, take) = channel::<Pool>();
                let task = move || {
                    drop(take.recv().unwrap());
                    let pool = Pool::current().unwrap();
                    assert!(pool.is_closed());
                    drop(go);
                    pool.execute(|| ()).expect("a follow-up");
                };
                give.send(pool.clone()).unwrap();
                let here = pool.limit(1); // keeps nothing open but what is dropped below
                drop(here);
                pool.execute(task).unwrap();
            };
            match place {
                PlainThread => submit(),
                _ => Pool::builder()
                    .registry(&registry)
                    .build()
                    .unwrap()
                    .spawn(submit)
                    .unwrap()
                    .join()
                    .unwrap(),
            }
            assert!(registry.shutdown().is_clean());
        });
    }
}

#[test]
fn at_a_deadline_it_is_abandoned_like_any_other() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (pool, go) = full(&registry);
        let remote = pool.clone();
        let (report, reports) = channel();
        let task = move || {
            task::set_label("run by its submitter");
            let ender = thread::spawn(move || remote.shutdown_timeout(Duration::from_millis(50)));
            let ended = ender.join().unwrap();
            // What it does now is nobody's business any more, and disturbs nobody.
            let pool = Pool::current().unwrap();
            assert!(task::is_cancelled() && pool.execute(|| ()).is_err());
            pool.wait_idle();
            report.send((ended, pool.shutdown())).unwrap();
        };
        let error = pool.spawn(task).unwrap().join().unwrap_err();
        assert!(error.is_abandoned(), "{error}");
        let (first, second) = reports.try_recv().expect("it ran to its end here");
        assert_eq!(first.abandoned().len(), 2);
        assert!(first.abandoned().iter().any(|task| task.label() == Some("run by its submitter")));
        assert_eq!((first.stats().abandoned, second.stats().abandoned, second.stats().cancelled), (2, 2, 1));
        drop(go);
        pool.shutdown();
        let stats = pool.stats();
        assert_adds_up(&stats);
        assert_eq!((stats.running, stats.completed), (0, 0), "{stats:?}");
    });
}

#[test]
fn a_shutdown_waits_for_it_as_for_any_other() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (pool, go) = full(&registry);
        let remote = registry.clone();
        let ender = run_here(&pool, move || {
            drop(go);
            let ender = thread::spawn(move || remote.shutdown());
            let pool = Pool::current().unwrap();
            while pool.stats().completed < 2 || !pool.is_closed() {
                thread::yield_now();
            }
            pool.execute(|| ()).expect("it is not over while this runs");
            ender
        });
        let report = ender.join().unwrap();
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.totals().completed, report.totals().running), (4, 0));
    });
}

/// Twenty tasks drain, the last hook runs, and the process ends with the code.
#[track_caller]
fn assert_drains(case: &str, code: i32) {
    let outcome = common::run(case);
    outcome.assert_code(code).assert_silent();
    assert_eq!((outcome.count("task "), outcome.count("after")), (20, 1), "{outcome:#?}");
}

#[test]
fn it_may_end_the_process_with_a_code() {
    let _tidy = tidy();
    assert_drains("exit_in_caller_run_task", 3);
    assert_drains("exit_in_caller_run_task_of_a_task", 3);
    assert_drains("exit_in_caller_run_task_of_a_hook", 3);
    assert_drains("exit_in_caller_run_task_of_a_last_hook", 3);
}

#[cfg(feature = "exit-hook")]
#[test]
fn it_may_call_process_exit() {
    let _tidy = tidy();
    assert_drains("process_exit_in_caller_run_task", 6);
    assert_drains("process_exit_in_caller_run_task_of_a_task", 6);
    assert_drains("process_exit_in_caller_run_task_of_a_hook", 6);
    assert_drains("exit_in_caller_run_task_of_a_hook_at_exit", 5);
}

#[cfg(target_os = "linux")]
#[test]
fn it_may_wait_for_the_pool_that_its_submitter_is_in_where_no_thread_can_stand_in() {
    let _tidy = tidy();
    common::run("no_substitute_caller_runs").assert_code(0).assert_silent();
}
