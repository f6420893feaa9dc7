//! Bad and extreme input: every answer is an error with a type and a remedy, or what the words say; never a panic.

mod common;

use common::full::{await_sleepers, submitter};
use common::{registry, tidy, within};
use std::error::Error;
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::time::Duration;
use winddown::*;

/// A pool in a registry of its own, so that tests do not meet.
fn pool(set: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Pool {
    set(Pool::builder().max_threads(1).registry(&registry())).build().unwrap()
}

/// Occupies the only worker until the sender is dropped.
fn block(pool: &Pool) -> (Sender<()>, JoinHandle<()>) {
    let ((open, closed), (started, has_started)) = (channel::<()>(), channel());
    let task = move || {
        started.send(()).unwrap();
        let _ = closed.recv();
    };
    let handle = pool.spawn(task).unwrap();
    has_started.recv().unwrap();
    (open, handle)
}

#[test]
fn a_builder_refuses_what_no_pool_can_be() {
    let _tidy = tidy();
    let refusals = [
        (Pool::builder().max_threads(0).build(), BuildError::ZeroThreads, "max_threads"),
        (Pool::builder().min_threads(3).max_threads(2).build(), BuildError::MinAboveMax, "min_threads"),
        (Pool::builder().min_threads(1).max_threads(0).build(), BuildError::ZeroThreads, "at least 1"),
        (Pool::builder().name("a\0b").build(), BuildError::BadName, "NUL"),
        (Pool::builder().name(String::from("\0")).build(), BuildError::BadName, "leave it out"),
    ];
    for (result, expected, remedy) in refusals {
        let error = result.unwrap_err();
        assert_eq!(error, expected);
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

#[test]
#[should_panic(expected = "max_threads is 0")]
fn a_pool_of_no_threads_panics_like_std_and_says_why() {
    let _tidy = tidy();
    drop(Pool::new(0));
}

#[test]
fn names_may_be_anything_else() {
    let _tidy = tidy();
    for name in
        ["", " ", "träge Zünfte", "a name that is longer than any system lets a thread's name be", "%s\n"]
    {
        let pool = pool(|builder| builder.name(name));
        assert_eq!(pool.name(), name);
        let worker = pool.spawn(|| std::thread::current().name().map(str::to_owned)).unwrap().join().unwrap();
        assert_eq!(worker, Some(format!("{name}-worker-1")));
    }
    let registry = registry();
    registry.before_join("a\0hook", || ()).unwrap();
    let hold = registry.hold("a\0hold").unwrap();
    drop(hold);
    assert_eq!(registry.shutdown().hooks()[0].name(), "a\0hook");
}

#[test]
fn numbers_may_be_as_large_as_they_come() {
    let _tidy = tidy();
    let pool = pool(|builder| builder.max_threads(usize::MAX).min_threads(usize::MAX));
    assert_eq!(pool.spawn(|| 5).unwrap().join().unwrap(), 5);
    assert_eq!(pool.shutdown().stats().peak_threads, 1);
}

#[test]
fn a_stack_that_no_system_grants_is_no_thread_and_the_closure_comes_back() {
    let _tidy = tidy();
    for size in [isize::MAX as usize / 2, isize::MAX as usize] {
        let pool = pool(|builder| builder.stack_size(size));
        let ballast = Arc::new(());
        let captured = ballast.clone();
        let refused = pool.spawn(move || Arc::strong_count(&captured)).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::NoThread);
        assert_eq!(refused.into_inner()(), 2);
        assert_eq!(Arc::strong_count(&ballast), 1);
        let stats = pool.stats();
        assert_eq!((stats.accepted, stats.queued, stats.threads, stats.rejected), (0, 0, 0, 1));
        pool.wait_idle();
        assert!(pool.shutdown().is_clean());
    }
    assert_eq!(pool(|builder| builder.stack_size(0)).spawn(|| 5).unwrap().join().unwrap(), 5);
}

#[test]
fn a_stack_size_that_overflows_is_no_thread_and_no_panic() {
    let _tidy = tidy();
    for size in [usize::MAX, usize::MAX - 4096] {
        let refused = pool(|builder| builder.stack_size(size)).spawn(|| 5).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::NoThread);
    }
}

/// Durations near the end of what fits, where adding them to a moment overflows, or nearly.
const LONG: [Duration; 3] =
    [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_secs(i64::MAX as u64 - (1 << 40))];

#[test]
fn the_longest_durations_wait_for_as_long_as_it_takes() {
    let _tidy = tidy();
    within(|| LONG.into_iter().for_each(assert_waits));
}

fn assert_waits(long: Duration) {
    let registry = registry();
    let pool = Pool::builder().registry(&registry).max_threads(1).keep_alive(long).build().unwrap();
    let (open, blocked) = block(&pool);
    let (token, waits) = (
        registry.token(),
        std::thread::spawn({
            let token = registry.token();
            move || token.wait_timeout(long)
        }),
    );
    assert!(!token.wait_timeout(Duration::ZERO));
    // What they wait for comes when they sleep.
    let (about_to, is_about_to) = channel();
    let joins = submitter("joins", &about_to, move || blocked.join_timeout(long));
    let other = pool.clone();
    let idle = submitter("waits-idle", &about_to, move || other.wait_idle_timeout(long));
    await_sleepers(&is_about_to, 2);
    drop(open);
    joins.join().unwrap().expect("it waits").unwrap();
    assert!(idle.join().unwrap());
    registry.set_deadline(Some(long));
    let (open, blocked) = block(&pool);
    let other = pool.clone();
    let shutdown = submitter("shuts-down", &about_to, move || other.shutdown_timeout(long));
    await_sleepers(&is_about_to, 1);
    drop(open);
    assert!(shutdown.join().unwrap().is_clean());
    blocked.join().unwrap();
    assert!(registry.shutdown_timeout(long).is_clean());
    assert!(waits.join().unwrap() && token.wait_timeout(long));
}

#[test]
fn zero_durations_wait_for_nothing_and_take_what_is_ready() {
    let _tidy = tidy();
    let pool = pool(|builder| builder.keep_alive(Duration::ZERO));
    assert!(pool.wait_idle_timeout(Duration::ZERO), "nothing has been submitted");
    let (open, blocked) = block(&pool);
    assert!(!pool.wait_idle_timeout(Duration::ZERO));
    let blocked = blocked.join_timeout(Duration::ZERO).unwrap_err();
    drop(open);
    pool.wait_idle();
    assert!(pool.wait_idle_timeout(Duration::ZERO));
    assert!(blocked.join_timeout(Duration::ZERO).unwrap().is_ok());
    assert!(pool.shutdown_timeout(Duration::ZERO).is_clean());
    assert!(pool.registry().shutdown_timeout(Duration::ZERO).is_clean());
    assert!(pool.registry().token().wait_timeout(Duration::ZERO));
}

#[test]
fn a_deadline_of_zero_abandons_what_runs_and_cancels_what_does_not() {
    let _tidy = tidy();
    let pool = pool(|builder| builder);
    pool.registry().after_join("after", || ()).unwrap();
    let (open, blocked) = block(&pool);
    let queued = pool.spawn(|| ()).unwrap();
    pool.registry().set_deadline(Some(Duration::ZERO));
    let report = pool.registry().shutdown();
    assert!(!report.is_clean());
    assert_eq!((report.totals().abandoned, report.totals().cancelled), (1, 1));
    assert!(blocked.join().unwrap_err().is_abandoned());
    assert!(queued.join().unwrap_err().is_cancelled());
    assert_eq!(*report.hooks()[0].outcome(), HookOutcome::Skipped);
    drop(open);
}

#[test]
fn a_closed_pool_says_that_it_is_closed_and_gives_the_closure_back() {
    let _tidy = tidy();
    let pool = pool(|builder| builder);
    pool.close();
    pool.close();
    let ballast = String::from("ballast");
    let refused = pool.spawn(move || ballast).unwrap_err();
    assert_eq!(refused.reason(), RejectReason::Closed);
    assert!(refused.to_string().contains("build a new one"), "{refused}");
    assert_eq!(refused.into_inner()(), "ballast");
    assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Closed);
    assert_eq!((pool.stats().rejected, pool.stats().accepted), (2, 0));
    assert!(pool.is_closed() && pool.shutdown().is_clean());
}

#[test]
fn a_registry_that_has_shut_down_refuses_everything_with_a_remedy() {
    let _tidy = tidy();
    let registry = registry();
    let pool = Pool::builder().registry(&registry).build().unwrap();
    let hook = registry.after_join("after", || ()).unwrap();
    assert!(registry.shutdown().is_clean());

    assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::ShuttingDown);
    let late: Box<dyn FnOnce() + Send> = Box::new(|| ());
    let refused = registry.before_join("late", late).unwrap_err();
    assert_eq!(refused.reason(), RejectReason::ShuttingDown);
    let refused = registry.after_join("late", refused.into_inner()).unwrap_err();
    assert_eq!(refused.reason(), RejectReason::ShuttingDown);
    assert!(refused.to_string().contains("shutdown has begun"), "{refused}");
    refused.into_inner()();
    assert!(registry.hold("late").unwrap_err().to_string().contains("shutdown has begun"));
    let error = Pool::builder().registry(&registry).build().unwrap_err();
    assert_eq!(error, BuildError::ShuttingDown);
    assert!(error.to_string().contains("before shutdown begins"), "{error}");
    assert!(!registry.remove(hook));
    registry.request_shutdown();
    registry.set_deadline(Some(Duration::ZERO));
    assert!(registry.shutdown().is_clean() && registry.wait_finished().is_clean());
}

#[test]
fn a_hook_of_one_registry_is_unknown_to_another() {
    let _tidy = tidy();
    let (one, other) = (registry(), registry());
    let hook = one.before_join("hook", || ()).unwrap();
    other.before_join("hook", || ()).unwrap();
    assert!(!other.remove(hook) && !Registry::global().remove(hook));
    assert!(one.remove(hook) && !one.remove(hook));
    assert_eq!((one.shutdown().hooks().len(), other.shutdown().hooks().len()), (0, 1));
}

#[test]
fn a_refusal_goes_through_the_question_mark_whatever_the_closure_holds() {
    let _tidy = tidy();
    fn submit(pool: &Pool) -> Result<(), Box<dyn Error + Send + Sync>> {
        let not_sync = std::cell::Cell::new(1);
        pool.execute(move || not_sync.set(2))?;
        Ok(())
    }
    let pool = pool(|builder| builder);
    submit(&pool).unwrap();
    pool.close();
    let error = submit(&pool).unwrap_err();
    assert!(error.to_string().contains("closed"));
    assert!(format!("{error:?}").contains("Closed"));
}

#[test]
fn every_error_is_an_error_that_any_thread_may_hold() {
    let _tidy = tidy();
    fn is_error<E: Error + Send + Sync + 'static>() {}
    is_error::<BuildError>();
    is_error::<JoinError>();
    is_error::<ShuttingDown>();
    is_error::<Rejected<fn()>>();
    is_error::<Rejected<Box<dyn FnOnce() + Send>>>();
    is_error::<Rejected<std::cell::Cell<u8>>>();
    assert!(std::mem::size_of::<BuildError>() == 1 && std::mem::size_of::<RejectReason>() == 1);
}

#[test]
fn every_reason_tells_what_to_do() {
    let _tidy = tidy();
    let remedies = [
        (RejectReason::Closed, "build a new one"),
        (RejectReason::ShuttingDown, "finish or hand back"),
        (RejectReason::NoThread, "raise the limit"),
        (RejectReason::Forked, "build a new pool"),
        (RejectReason::Broken, "mend the callback"),
    ];
    for (reason, remedy) in remedies {
        assert!(reason.to_string().contains(remedy), "{reason}");
    }
}

#[test]
fn a_join_error_names_the_place_and_keeps_what_is_not_a_panic() {
    let _tidy = tidy();
    let pool = pool(|builder| builder);
    let (open, blocked) = block(&pool);
    let queued = pool.spawn(|| ()).unwrap();
    assert!(queued.cancel() && queued.cancel());
    let error = queued.join().unwrap_err();
    assert_eq!(error.kind(), JoinErrorKind::Cancelled);
    assert!(error.to_string().contains(file!()) && error.to_string().contains("cancelled"), "{error}");
    let error = error.try_into_panic().unwrap_err();
    assert!(error.is_cancelled() && !error.is_panic() && !error.is_abandoned());
    drop(open);
    blocked.join().unwrap();

    let error = pool.spawn(|| std::panic::resume_unwind(Box::new(5_u8))).unwrap().join().unwrap_err();
    let error: JoinError = Result::<(), _>::unwrap_err(Err(error));
    assert!(error.is_panic() && error.to_string().contains("without a message"), "{error}");
    assert_eq!(*error.into_panic().downcast::<u8>().unwrap(), 5);
}
