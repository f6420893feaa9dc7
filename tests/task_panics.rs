//! Panics of tasks whose handle nobody holds.

mod common;

use common::{assert_adds_up, registry, tidy, within};
use std::any::Any;
use std::panic::Location;
use std::sync::mpsc::{channel, Receiver, Sender, TryRecvError};
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use std::time::Duration;
use winddown::{task, Pool, PoolBuilder, RunningTask, WhenFull};

/// What a callback was told.
struct Told {
    task: RunningTask,
    message: String,
    thread: ThreadId,
}

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

/// Has a pool tell of its panics.
fn telling(builder: PoolBuilder) -> (Pool, Receiver<Told>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let callback = move |task: &RunningTask, payload: &(dyn Any + Send)| {
        let message = payload.downcast_ref::<&str>().map_or("of another type", |message| message).to_owned();
        let told = Told { task: task.clone(), message, thread: thread::current().id() };
        tell.lock().unwrap().send(told).unwrap();
    };
    (builder.on_task_panic(callback).build().unwrap(), told)
}

/// A task that goes on until what this returns is dropped, and does `f` then.
fn occupy(pool: &Pool, f: impl FnOnce() + Send + 'static) -> Sender<()> {
    let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
    let task = move || {
        started.send(()).unwrap();
        let _ = wait.recv();
        f();
    };
    pool.execute(task).unwrap();
    has_started.recv().unwrap();
    go
}

#[test]
fn a_panic_that_no_handle_receives_is_told_with_the_task_and_what_it_panicked_with() {
    let _tidy = tidy();
    within(|| {
        let (pool, told) = telling(builder(1).name("mail"));
        let here = Location::caller().line();
        let thread = pool.spawn(|| thread::current().id()).unwrap().join().unwrap();
        let task = || {
            task::set_label("invoice 4711");
            panic!("no luck");
        };
        pool.execute(task).unwrap();
        let Told { task, message, thread: of_callback } = told.recv().unwrap();
        assert_eq!((task.pool(), task.worker(), message.as_str()), ("mail", "mail-worker-1", "no luck"));
        assert_eq!((task.location().file(), task.location().line()), (file!(), here + 6));
        assert_eq!(task.label(), Some("invoice 4711"));
        assert!(task.running_for() < Duration::from_secs(30));
        assert_eq!(of_callback, thread, "it runs where the task ran");
        pool.execute(|| std::panic::panic_any(7)).unwrap();
        assert_eq!(told.recv().unwrap().message, "of another type");
        pool.wait_idle();
        assert_eq!((pool.stats().panicked, pool.stats().completed), (2, 1));
    });
}

#[test]
fn it_is_told_of_a_spawned_task_only_if_its_handle_was_dropped_before() {
    let _tidy = tidy();
    within(|| {
        let (pool, told) = telling(builder(1));
        let (go, wait) = channel::<()>();
        let dropped = pool.spawn(move || -> u32 {
            wait.recv().unwrap_err();
            panic!("dropped");
        });
        let held = pool.spawn(|| -> u32 { panic!("held") }).unwrap();
        drop(dropped);
        drop(go);
        assert_eq!(held.join().unwrap_err().try_into_panic().unwrap().downcast_ref(), Some(&"held"));
        let unread = pool.spawn(|| -> u32 { panic!("unread") }).unwrap();
        pool.wait_idle();
        drop(unread);
        // One that is run in place by who joins it is held, too.
        let parent =
            || drop(Pool::current().unwrap().spawn(|| panic!("in place")).unwrap().join().unwrap_err());
        pool.spawn(parent).unwrap().join().unwrap();
        pool.shutdown();
        assert_eq!(told.try_iter().map(|told| told.message).collect::<Vec<_>>(), ["dropped"]);
        assert_eq!(pool.stats().panicked, 4);
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn it_is_told_whatever_way_the_task_took() {
    let _tidy = tidy();
    within(|| {
        let (pool, told) = telling(builder(1).queue_capacity(1).when_full(WhenFull::CallerRuns));
        pool.limit(1).execute(|| panic!("limited")).unwrap();
        assert_eq!(told.recv().unwrap().message, "limited");
        let (dropped, wait) = channel::<()>();
        let with_handle = move || {
            wait.recv().unwrap_err();
            panic!("limited, with a handle");
        };
        drop(pool.limit(1).spawn(with_handle).unwrap());
        drop(dropped);
        assert_eq!(told.recv().unwrap().message, "limited, with a handle");
        let large = [1_u8; 500];
        pool.execute(move || panic!("{}", ["boxed", "small"][usize::from(large[7] == 0)])).unwrap();
        assert_eq!(told.recv().unwrap().message, "of another type");
        let go = occupy(&pool, || ());
        pool.execute(|| ()).unwrap();
        pool.execute(|| panic!("run by its submitter")).unwrap();
        let Told { task, message, thread: of_callback } = told.try_recv().unwrap();
        assert_eq!((message.as_str(), of_callback), ("run by its submitter", thread::current().id()));
        assert_eq!(
            (task.pool(), task.worker()),
            (pool.name(), thread::current().name().unwrap_or("a submitter"))
        );
        drop(go);
    });
}

#[test]
fn a_task_that_was_handed_back_is_not_the_pools_business() {
    let _tidy = tidy();
    within(|| {
        let (pool, told) = telling(builder(1));
        let (other, others) = telling(builder(1));
        let (started, has_started) = channel();
        let first = move || {
            started.send(()).unwrap();
            while !task::is_cancelled() {
                thread::yield_now();
            }
        };
        pool.execute(first).unwrap();
        has_started.recv().unwrap();
        (0..2).for_each(|_| pool.execute(|| panic!("too late")).unwrap());
        let (_, mut unstarted) = pool.shutdown_now();
        unstarted.pop().unwrap().run();
        let last = unstarted.pop().unwrap();
        other.spawn(move || last.run()).unwrap().join().unwrap();
        other.shutdown();
        assert_eq!((told.try_iter().count(), others.try_iter().count()), (0, 0));
        assert_eq!((pool.stats().returned, pool.stats().panicked, other.stats().panicked), (2, 0, 0));
    });
}

#[test]
fn the_log_names_the_panic_all_the_same_and_one_of_the_callback_too() {
    let _tidy = tidy();
    within(|| {
        let log = common::listen();
        let pool =
            builder(1).name("telltale").on_task_panic(|_, _| panic!("in the callback")).build().unwrap();
        let line = Location::caller().line() + 1;
        pool.execute(|| panic!("with and without")).unwrap();
        pool.execute(|| ()).unwrap();
        let report = pool.shutdown();
        assert_eq!(
            (report.stats().panicked, report.stats().completed, report.stats().peak_threads),
            (1, 1, 1)
        );
        assert!(report.is_clean());
        let ours: Vec<_> = log
            .try_iter()
            .filter(|line| line.contains("with and without") || line.contains("telltale"))
            .collect();
        assert_eq!(ours.len(), 2, "{ours:?}");
        let submitted = format!("ERROR the task submitted at {}:{line}:", file!());
        assert!(
            ours[0].starts_with(&submitted) && ours[0].ends_with("panicked: with and without"),
            "{ours:?}"
        );
        assert_eq!(ours[1], "ERROR on_task_panic of pool telltale panicked: in the callback");
    });
}

/// A pool whose callback says that it has begun, and goes on when it may.
fn pausing(
    builder: PoolBuilder,
    then: impl Fn() + Send + Sync + 'static,
) -> (Pool, Receiver<()>, Sender<()>) {
    let ((begun, has_begun), (go, wait)) = (channel(), channel());
    let (begun, wait) = (Mutex::new(begun), Mutex::new(wait));
    let callback = move |_: &RunningTask, _: &(dyn Any + Send)| {
        begun.lock().unwrap().send(()).unwrap();
        let _: Result<(), _> = wait.lock().unwrap().recv();
        then();
    };
    (builder.on_task_panic(callback).build().unwrap(), has_begun, go)
}

#[test]
fn a_task_runs_until_the_callback_has_returned() {
    let _tidy = tidy();
    within(|| {
        for is_spawned in [false, true] {
            let (pool, has_begun, go) = pausing(builder(1), || ());
            let (all_dropped, wait) = channel::<()>();
            let task = move || {
                wait.recv().unwrap_err();
                task::set_label("invoice 4711");
                panic!("no luck");
            };
            match is_spawned {
                true => drop(pool.spawn(task).unwrap()),
                false => pool.execute(task).unwrap(),
            }
            drop(all_dropped);
            has_begun.recv().unwrap();
            assert_eq!((pool.stats().running, pool.stats().panicked), (1, 0));
            assert_eq!(pool.running()[0].label(), Some("invoice 4711"));
            assert!(!pool.wait_idle_timeout(Duration::ZERO));
            assert_adds_up(&pool.stats());
            drop(go);
            pool.wait_idle();
            assert_eq!((pool.stats().running, pool.stats().panicked), (0, 1));
            assert_adds_up(&pool.stats());
        }
    });
}

#[test]
fn a_shutdown_waits_for_the_callback_and_runs_what_it_submits() {
    let _tidy = tidy();
    within(|| {
        let (ran, has_run) = channel();
        let ran = Mutex::new(ran);
        let retry = move || {
            let ran = ran.lock().unwrap().clone();
            let pool = Pool::current().expect("it is a part of the task");
            pool.execute(move || ran.send("retried").unwrap()).expect("a follow-up");
        };
        let registry = registry();
        let (pool, has_begun, go) = pausing(Pool::builder().registry(&registry).max_threads(1), retry);
        pool.execute(|| panic!("no luck")).unwrap();
        has_begun.recv().unwrap();
        registry.request_shutdown();
        while !pool.is_closed() {
            thread::yield_now();
        }
        drop(go);
        let report = registry.wait_finished();
        assert!(report.is_clean(), "{report}");
        assert_eq!(has_run.try_recv(), Ok("retried"));
        assert_eq!((report.totals().panicked, report.totals().completed), (1, 1));
    });
}

#[test]
fn a_callback_that_hangs_is_abandoned_with_its_task_at_the_deadline() {
    let _tidy = tidy();
    within(|| {
        let (pool, has_begun, go) = pausing(builder(1), || ());
        pool.execute(|| panic!("no luck")).unwrap();
        has_begun.recv().unwrap();
        let report = pool.shutdown_timeout(Duration::from_millis(50));
        assert_eq!((report.abandoned().len(), report.stats().abandoned, report.stats().panicked), (1, 1, 0));
        assert_adds_up(report.stats());
        drop(go);
        let report = pool.shutdown();
        assert_eq!((report.stats().abandoned, report.stats().panicked), (1, 0), "it settles once");
    });
}

#[test]
fn a_callback_may_shut_its_pool_and_its_registry_down() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let of_callback = registry.clone();
        let (done, is_done) = channel();
        let done = Mutex::new(done);
        let callback = move |_: &RunningTask, _: &(dyn Any + Send)| {
            Pool::current().unwrap().shutdown();
            done.lock().unwrap().send(of_callback.shutdown().is_clean()).unwrap();
        };
        let builder = Pool::builder().registry(&registry).max_threads(1).on_task_panic(callback);
        let pool = builder.build().unwrap();
        let go = occupy(&pool, || panic!("no luck"));
        (0..3).for_each(|_| pool.execute(|| ()).unwrap());
        drop(go);
        assert!(is_done.recv().unwrap());
        pool.shutdown();
        assert_eq!((pool.stats().completed, pool.stats().panicked), (3, 1));
    });
}

#[test]
fn the_callback_is_there_for_the_last_task_and_its_captures_are_gone_after_it() {
    let _tidy = tidy();
    within(|| {
        let (pool, told) = telling(builder(1).queue_capacity(1).when_full(WhenFull::CallerRuns));
        let go = occupy(&pool, || ());
        pool.execute(|| ()).unwrap();
        // It runs here, and goes on when the pool has no worker any more, nor will have.
        let inner = pool.clone();
        let last = move || {
            drop(go);
            assert_eq!(inner.shutdown().workers_joined(), 1);
            panic!("the last");
        };
        pool.execute(last).unwrap();
        assert_eq!(told.try_recv().unwrap().message, "the last");
        let is_gone = matches!(told.try_recv(), Err(TryRecvError::Disconnected));
        assert!(is_gone, "the callback and what it captured are dropped, though the pool is not");
        assert_eq!((pool.stats().panicked, pool.stats().completed), (1, 2));
    });
}
