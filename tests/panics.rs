//! Promise 5 for panics: wherever others' code panics, the pool, its registry and the process go on.

mod common;

use common::{assert_adds_up, meet, registry, tidy, within, Tracked};
use std::future::Future;
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;
use winddown::{HookOutcome, Pool, Registry};

const WORKERS: usize = 2;

/// Panics when it is dropped, and is tracked all the same.
struct Bomb(Tracked<&'static str>);

impl Bomb {
    fn new() -> Bomb {
        Bomb(Tracked::new("a bomb was dropped"))
    }

    fn touch(&self) {
        std::hint::black_box(self);
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("{}", self.0 .0);
    }
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

/// All workers are there and meet, tasks run in and out of limits, scopes, maps and delays, and everything can be asked.
#[track_caller]
fn assert_works(registry: &Registry, pool: &Pool, after: &str) {
    let meeting = Arc::new(Barrier::new(WORKERS));
    let all = (0..WORKERS).map(|_| meeting.clone());
    let handles: Vec<_> = all.map(|meeting| pool.spawn(move || meet(&meeting)).unwrap()).collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    assert_eq!(pool.limit(1).spawn(|| 1).unwrap().join().unwrap(), 1, "after {after}");
    assert_eq!(pool.scope(|s| s.spawn(|| 2).join().unwrap()), 2, "after {after}");
    assert!(pool.map(0..9, |n| n).map(Result::unwrap).eq(0..9), "after {after}");
    assert_eq!(pool.spawn_after(Duration::ZERO, || 3).unwrap().join().unwrap(), 3, "after {after}");
    pool.wait_idle();
    assert_adds_up(&pool.stats());
    assert!(pool.running().is_empty() && registry.stats().len() == 1, "after {after}");
    assert_eq!((pool.stats().peak_threads, registry.progress().tasks_left), (WORKERS, 0), "after {after}");
}

#[test]
fn everything_works_after_panics_everywhere() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let builder = Pool::builder().registry(&registry).max_threads(WORKERS);
        let builder = builder.worker_state(Bomb::new).on_thread_stop(|| panic!("on_thread_stop"));
        let pool = builder.on_task_panic(|_, _| panic_any(Bomb::new())).build().unwrap();
        let works_after = |what: &str| assert_works(&registry, &pool, what);

        for _ in 0..3 * WORKERS {
            pool.execute(|| panic!("a task")).unwrap();
        }
        works_after("tasks whose panics are told to a callback that panics");
        for _ in 0..3 * WORKERS {
            drop(pool.spawn(|| panic_any(Bomb::new())).unwrap().join().unwrap_err());
        }
        works_after("tasks whose payloads panic when they are dropped");
        for _ in 0..WORKERS {
            let meeting = Arc::new(Barrier::new(2));
            let (bomb, started) = (Bomb::new(), meeting.clone());
            let detached = move || {
                meet(&started);
                bomb
            };
            drop(pool.spawn(detached).unwrap());
            meet(&meeting);
        }
        works_after("results that panic when they are dropped");
        let bomb = Bomb::new();
        let error = pool.spawn(move || bomb.touch()).unwrap().join().unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("a bomb was dropped"), "{error}");
        works_after("a capture that panics when it is dropped");
        let meeting = Arc::new(Barrier::new(2));
        let (waker, ends) = (Waker::from(Arc::new(PanickingWaker)), meeting.clone());
        let mut polled = pool.spawn(move || meet(&ends)).unwrap();
        assert!(pin!(&mut polled).poll(&mut Context::from_waker(&waker)).is_pending());
        meet(&meeting);
        polled.join().unwrap();
        works_after("a waker that panics");
        let scope =
            catch_unwind(AssertUnwindSafe(|| pool.scope(|s| drop(s.spawn(|| panic!("a borrowed task"))))));
        assert_eq!(scope.unwrap_err().downcast_ref(), Some(&"a borrowed task"));
        works_after("a scoped task");
        assert!(pool.map(0..3, |_| -> u32 { panic!("a map") }).all(|result| result.is_err()));
        pool.limit(1).execute(|| panic!("a limited task")).unwrap();
        drop(pool.spawn_after(Duration::ZERO, || panic!("a delayed task")).unwrap().join().unwrap_err());
        works_after("tasks of every other kind");
        let bomb = Bomb::new();
        let removed = registry.before_join("removed", move || drop(bomb)).unwrap();
        assert!(registry.remove(removed));
        works_after("a hook that is removed");

        let works = {
            let (of_hook, in_hook) = (registry.clone(), pool.clone());
            move || assert_works(&of_hook, &in_hook, "a hook")
        };
        registry.before_join("works", works).unwrap();
        registry.before_join("panics", || panic!("a hook")).unwrap();
        registry.before_join("panics, too", || panic_any(Bomb::new())).unwrap();
        registry.after_join("last", || ()).unwrap();
        registry.after_join("panics", || panic!("a hook")).unwrap();
        let report = registry.shutdown();
        let ran = report.hooks().iter().filter(|hook| *hook.outcome() == HookOutcome::Ran).count();
        assert_eq!((report.hooks().len(), ran), (5, 2), "{report}");
        assert_eq!(report.pools()[0].workers_joined(), WORKERS);
        assert!(report.pools()[0].is_clean(), "{report}");
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn each_panic_is_counted_once_and_while_others_run() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = Pool::builder().registry(&registry).max_threads(WORKERS).build().unwrap();
        for count in 1..=20 {
            let meeting = Arc::new(Barrier::new(2));
            let ends = meeting.clone();
            let other = pool.spawn(move || meet(&ends)).unwrap();
            let thread = pool.spawn(|| -> () { panic!("{:?}", thread::current().name()) }).unwrap();
            assert!(thread.join().unwrap_err().is_panic());
            assert_eq!(pool.stats().panicked, count);
            meet(&meeting);
            other.join().unwrap();
        }
        pool.wait_idle();
        assert_eq!((pool.stats().panicked, pool.stats().completed), (20, 20));
    });
}

#[cfg(all(unix, feature = "exit-hook"))] // On Windows `std::process::exit` runs no handlers.
#[test]
fn panics_of_all_tasks_at_exit_are_counted_and_name_their_threads() {
    let _tidy = tidy();
    let mut command = common::command("all_tasks_panic_at_exit");
    command.env("RUST_BACKTRACE", "0");
    let outcome = common::finish(command);
    outcome.assert_code(3);
    assert_eq!(outcome.count("task "), 50, "{outcome:#?}");
    assert_eq!(outcome.count("panicked: 50, completed: 0, clean: true"), 1, "{outcome:#?}");
    for n in 0..50 {
        assert_eq!(outcome.stderr.matches(&format!("no luck with {n}\n")).count(), 1, "{outcome:#?}");
    }
    assert_eq!(outcome.stderr.matches("thread 'mail-worker-").count(), 50, "{outcome:#?}");
}
