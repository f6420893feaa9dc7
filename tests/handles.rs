//! Handles: waiting, results, panics, cancelling, and what becomes of captures.

mod common;

use common::full::{await_sleepers, submitter};
use common::{listen, meet, registry, tidy, within};
use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::{catch_unwind, panic_any, resume_unwind, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{as_completed, join_all, join_any};
use winddown::{CancelOnDrop, Canceller, JoinError, JoinErrorKind, JoinHandle, Pool, Rejected};

fn pool(max_threads: usize) -> Pool {
    Pool::builder().registry(&registry()).max_threads(max_threads).build().unwrap()
}

/// Keeps the only thread of a pool busy until what this returns is dropped.
fn occupy(pool: &Pool) -> (Sender<()>, JoinHandle<u32>) {
    let (go, wait) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let task = move || {
        started.send(()).unwrap();
        let _ = wait.recv();
        5
    };
    let handle = pool.spawn(task).unwrap();
    has_started.recv().unwrap();
    (go, handle)
}

/// Counts its drops.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Bomb {
    fn touch(&self) {}
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a bomb was dropped");
        }
    }
}

struct Unpark(thread::Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, SeqCst);
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current(), AtomicUsize::new(0))));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

const fn is_handle<T: Send + Sync + Unpin + UnwindSafe + std::fmt::Debug>() {}
const fn is_error<T: Error + Send + Sync + 'static>() {}
const fn is_pool<T: Clone + Send + Sync + UnwindSafe + RefUnwindSafe + std::fmt::Debug>() {}
const _: () = is_handle::<JoinHandle<std::cell::Cell<u8>>>();
const _: () = is_handle::<CancelOnDrop<std::cell::Cell<u8>>>();
const _: () = is_handle::<Canceller>();
const _: () = is_error::<JoinError>();
const _: () = is_error::<Rejected<Box<dyn FnOnce() + Send>>>();
const _: () = is_pool::<Pool>();

#[test]
fn a_timed_wait_answers_by_state() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let zero = Duration::ZERO;
        let (go, running) = occupy(&pool);
        let pending = pool.spawn(|| 6).unwrap();
        let cancelled = pool.spawn(|| 7).unwrap();
        assert!(cancelled.cancel());
        let running = running.join_timeout(zero).unwrap_err();
        let pending = pending.join_timeout(zero).unwrap_err();
        assert!(!running.is_finished() && !pending.is_finished() && cancelled.is_finished());
        assert!(cancelled.join_timeout(zero).unwrap().unwrap_err().is_cancelled());
        let panicked = pool.spawn(|| panic!("no luck")).unwrap();
        drop(go);
        pool.wait_idle();
        // What is ready beats a deadline that has passed.
        assert_eq!(running.join_timeout(zero).unwrap().unwrap(), 5);
        assert_eq!(pending.join_timeout(zero).unwrap().unwrap(), 6);
        assert!(panicked.join_timeout(zero).unwrap().unwrap_err().is_panic());
    });
}

#[test]
fn a_timed_wait_is_never_early_and_gives_the_handle_back() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ((go, wait), (started, has_started)) = (mpsc::channel::<()>(), mpsc::channel());
        let task = move || {
            started.send(()).unwrap();
            let _ = wait.recv();
            winddown::task::is_cancelled()
        };
        let mut handle = pool.spawn(task).unwrap();
        has_started.recv().unwrap();
        // Wake-ups that are for nobody, all the time.
        let (waiter, is_over) = (thread::current(), Arc::new(AtomicBool::new(false)));
        let until = is_over.clone();
        let noise = thread::spawn(move || {
            while !until.load(SeqCst) {
                waiter.unpark();
                thread::yield_now();
            }
        });
        for millis in [1, 5, 20] {
            let start = Instant::now();
            handle = handle.join_timeout(Duration::from_millis(millis)).unwrap_err();
            assert!(start.elapsed() >= Duration::from_millis(millis));
        }
        drop(go);
        let is_told_to_stop = handle.join_timeout(Duration::MAX).unwrap().unwrap();
        assert!(!is_told_to_stop, "a wait that is over cancels nothing");
        is_over.store(true, SeqCst);
        noise.join().unwrap();
    });
}

#[test]
fn a_finished_task_is_always_ready() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        for n in 0..100_000 {
            let handle = pool.spawn(move || n).unwrap();
            // It is to be seen the moment it ends; on one core, somebody else has to end it.
            while !(0..50).any(|_| handle.is_finished()) {
                thread::yield_now();
            }
            assert_eq!(handle.join_timeout(Duration::ZERO).unwrap().unwrap(), n);
        }
    });
}

#[test]
fn results_of_every_shape_come_back() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        pool.spawn(|| ()).unwrap().join().unwrap();
        assert_eq!(pool.spawn(|| vec![7_u8; 1 << 20]).unwrap().join().unwrap().len(), 1 << 20);
        assert_eq!(pool.spawn(|| [7_u64; 512]).unwrap().join().unwrap(), [7; 512]);
        let boxed = pool.spawn(|| Box::new(|| 3_u8) as Box<dyn FnOnce() -> u8 + Send>).unwrap();
        assert_eq!(boxed.join().unwrap()(), 3);
        assert_eq!(pool.spawn(|| std::cell::Cell::new(4)).unwrap().join().unwrap().get(), 4);
    });
}

#[test]
fn a_task_whose_handle_is_dropped_still_runs() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ((go, wait), (started, has_started)) = (mpsc::channel::<()>(), mpsc::channel());
        let (ran, has_run) = mpsc::channel();
        let of_queued = ran.clone();
        let running = move || {
            started.send(()).unwrap();
            let _ = wait.recv();
            ran.send(winddown::task::is_cancelled()).unwrap();
        };
        let running = pool.spawn(running).unwrap();
        has_started.recv().unwrap();
        drop(pool.spawn(move || of_queued.send(winddown::task::is_cancelled()).unwrap()).unwrap());
        drop(running);
        drop(go);
        assert!(has_run.into_iter().eq([false, false]), "nobody told them to stop");
        pool.wait_idle();
        assert_eq!(pool.stats().completed, 2);
    });
}

#[test]
fn captures_are_dropped_once_and_before_the_handle_resolves_on_every_path() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let drops = Arc::new(AtomicUsize::new(0));
        let capture = || Dropped(drops.clone());
        let count = |expected: usize| {
            assert_eq!(drops.swap(0, SeqCst), expected);
            assert_eq!(Arc::strong_count(&drops), 1);
        };
        let held = capture();
        pool.spawn(move || drop(held.0.clone())).unwrap().join().unwrap();
        count(1);
        let held = capture();
        assert!(pool.spawn(move || panic!("{}", Arc::strong_count(&held.0))).unwrap().join().is_err());
        count(1);
        let held = capture();
        block_on(pool.spawn(move || drop(held.0.clone())).unwrap()).unwrap();
        count(1);
        let (go, running) = occupy(&pool);
        let held = capture();
        let cancelled = pool.spawn(move || drop(held)).unwrap();
        assert!(cancelled.cancel());
        count(1);
        let (held, cancelled_by_drop) = (capture(), Dropped(drops.clone()));
        drop(pool.spawn(move || drop((held, cancelled_by_drop))).unwrap().cancel_on_drop());
        count(2);
        drop(go);
        running.join().unwrap();
        assert!(cancelled.join().unwrap_err().is_cancelled());
        pool.close();
        let held = capture();
        drop(pool.spawn(move || drop(held)).unwrap_err());
        let held = capture();
        drop(pool.execute(move || drop(held)).unwrap_err());
        count(2);
        // A result that nobody takes, of a task that ended before or after its handle was dropped.
        let pool = self::pool(1);
        let result = capture();
        drop(pool.spawn(move || result).unwrap());
        pool.shutdown();
        count(1);
    });
}

#[test]
fn an_idle_worker_keeps_nothing_of_its_last_task() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let shared = Arc::new(());
        let (capture, result) = (shared.clone(), shared.clone());
        let handle = pool.spawn(move || (capture, result).1).unwrap();
        drop(handle.join().unwrap());
        assert_eq!(Arc::strong_count(&shared), 1);
        let capture = shared.clone();
        pool.execute(move || drop(capture)).unwrap();
        pool.wait_idle();
        assert_eq!(Arc::strong_count(&shared), 1);
    });
}

#[test]
fn a_panic_comes_back_with_its_own_payload_and_message() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let luck = String::from("luck");
        let line = line!() + 1;
        let error = pool.spawn(move || panic!("no {luck}")).unwrap().join().unwrap_err();
        assert_eq!(error.kind(), JoinErrorKind::Panicked);
        assert!(error.is_panic() && !error.is_cancelled() && !error.is_abandoned());
        let at = format!("{}:{line}", file!());
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains("no luck") && text.contains(&at), "{text}");
        }
        assert_eq!(error.into_panic().downcast_ref::<String>().unwrap(), "no luck");

        let error = pool.spawn(|| panic!("plain")).unwrap().join().unwrap_err();
        assert!(error.to_string().contains("plain"));
        assert_eq!(error.try_into_panic().unwrap().downcast_ref(), Some(&"plain"));

        let payload = Arc::new(7);
        let sent = payload.clone();
        let error = pool.spawn(move || panic_any(sent)).unwrap().join().unwrap_err();
        assert!(error.to_string().ends_with("panicked: a panic without a message"), "{error}");
        let back = error.into_panic().downcast::<Arc<i32>>().unwrap();
        assert!(Arc::ptr_eq(&back, &payload));

        // The very box, which may be thrown on.
        let payload: Box<dyn Any + Send> = Box::new([7; 9]);
        let address = |payload: &(dyn Any + Send)| std::ptr::from_ref(payload).cast::<()>() as usize;
        let thrown_at = address(&*payload);
        let error = pool.spawn(move || resume_unwind(payload)).unwrap().join().unwrap_err();
        let thrown = catch_unwind(AssertUnwindSafe(|| resume_unwind(error.into_panic()))).unwrap_err();
        assert_eq!(address(&*thrown), thrown_at);
        assert_eq!(thrown.downcast_ref(), Some(&[7; 9]));
    });
}

#[test]
fn what_did_not_panic_has_no_panic() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (_go, _running) = occupy(&pool);
        let handles = [pool.spawn(|| ()).unwrap(), pool.spawn(|| ()).unwrap()];
        let [one, other] = handles.map(|handle| {
            assert!(handle.cancel());
            handle.join().unwrap_err()
        });
        let error = one.try_into_panic().unwrap_err();
        assert_eq!(error.kind(), JoinErrorKind::Cancelled);
        assert!(error.to_string().contains("cancelled") && error.to_string().contains(file!()));
        std::panic::catch_unwind(AssertUnwindSafe(|| other.into_panic())).unwrap_err();
    });
}

#[test]
fn workers_survive_panics_and_their_waiters_wake() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let waiting: Vec<_> = (0..20).map(|_| pool.spawn(|| panic!("again")).unwrap()).collect();
        for handle in waiting {
            assert!(handle.join().unwrap_err().is_panic());
        }
        let meeting = Arc::new(Barrier::new(2));
        let handles = [0, 1].map(|_| {
            let meeting = meeting.clone();
            pool.spawn(move || meet(&meeting)).unwrap()
        });
        for handle in handles {
            handle.join().unwrap();
        }
        let stats = pool.stats();
        assert_eq!((stats.panicked, stats.completed, stats.running), (20, 2, 0));
        assert_eq!(stats.peak_threads, 2);
    });
}

#[test]
fn whoever_sleeps_in_a_wait_for_a_task_that_panics_wakes() {
    let _tidy = tidy();
    type Wait = fn(JoinHandle<()>) -> Result<(), JoinError>;
    let waits: [Wait; 7] = [
        |handle| handle.join(),
        |handle| handle.join_timeout(Duration::MAX).unwrap(),
        |handle| handle.cancel_on_drop().join(),
        |handle| block_on(handle),
        |handle| join_all([handle]).remove(0),
        |handle| as_completed([handle]).next_timeout(Duration::MAX).unwrap().unwrap(),
        |handle| join_any([handle]).unwrap(),
    ];
    for wait in waits {
        within(move || {
            let pool = pool(1);
            let (go, gate) = mpsc::channel::<()>();
            let task = move || {
                let _ = gate.recv();
                panic!("after a while");
            };
            let handle = pool.spawn(task).unwrap();
            let (about_to, who_is) = mpsc::channel();
            let waiter = submitter("waiter", &about_to, move || wait(handle));
            let of_idleness = pool.clone();
            let other = submitter("other waiter", &about_to, move || of_idleness.wait_idle());
            await_sleepers(&who_is, 2);
            drop(go);
            assert!(waiter.join().unwrap().unwrap_err().is_panic());
            other.join().unwrap();
        });
    }
}

#[test]
fn drops_that_panic_do_no_harm() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let thread = pool.spawn(|| thread::current().id()).unwrap().join().unwrap();
        // A payload, thrown away with and without a handle.
        drop(pool.spawn(|| panic_any(Bomb)).unwrap().join());
        drop(pool.spawn(|| panic_any(Bomb)).unwrap());
        pool.execute(|| panic_any(Bomb)).unwrap();
        // A result that nobody takes.
        let (go, running) = occupy(&pool);
        drop(pool.spawn(|| Bomb).unwrap());
        // A capture, of a task that ran and of one that was cancelled.
        let bomb = Bomb;
        let ran = pool.spawn(move || std::hint::black_box(&bomb).touch()).unwrap();
        let bomb = Bomb;
        let cancelled = pool.spawn(move || drop(bomb)).unwrap();
        let bomb = Bomb;
        pool.execute(move || std::hint::black_box(&bomb).touch()).unwrap();
        assert!(cancelled.cancel());
        assert!(cancelled.join().unwrap_err().is_cancelled());
        drop(go);
        running.join().unwrap();
        let error = ran.join().unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("a bomb was dropped"), "{error}");
        pool.wait_idle();
        assert_eq!(
            pool.spawn(|| thread::current().id()).unwrap().join().unwrap(),
            thread,
            "the worker lives on"
        );
        assert!(pool.shutdown().is_clean());
    });
}

/// Submits a task when it is dropped, waits for it, and tells whether it ran.
struct Submits(Pool, Sender<bool>);

impl Drop for Submits {
    fn drop(&mut self) {
        let (ran, has_run) = mpsc::channel();
        self.0.execute(move || ran.send(()).unwrap()).unwrap();
        drop((self.0.stats(), self.0.running()));
        self.1.send(has_run.recv_timeout(Duration::from_secs(20)).is_ok()).unwrap();
    }
}

fn assert_a_drop_may_submit(path: fn(&Pool, Submits)) {
    within(move || {
        let pool = pool(2);
        let (ran, has_run) = mpsc::channel();
        path(&pool, Submits(pool.clone(), ran));
        assert!(has_run.recv().unwrap(), "no other worker ran it");
        pool.wait_idle();
        let stats = pool.stats();
        assert_eq!(stats.completed + stats.panicked + stats.cancelled, stats.accepted);
        assert!(pool.shutdown().is_clean());
    });
}

#[test]
fn the_drop_of_a_capture_may_submit_to_its_pool_and_wait() {
    let _tidy = tidy();
    assert_a_drop_may_submit(|pool, capture| {
        let task = move || {
            let _capture = capture;
        };
        pool.spawn(task).unwrap().join().unwrap();
    });
    assert_a_drop_may_submit(|pool, capture| {
        let busy = [occupy(pool), occupy(pool)];
        let queued = pool.spawn(move || drop(capture)).unwrap();
        drop(busy);
        // Whichever comes first: it is cancelled here, or it runs there.
        queued.cancel();
    });
}

#[test]
fn the_drop_of_a_result_may_submit_to_its_pool_and_wait() {
    let _tidy = tidy();
    assert_a_drop_may_submit(|pool, result| drop(pool.spawn(move || result).unwrap().join().unwrap()));
    assert_a_drop_may_submit(|pool, result| drop(pool.spawn(move || result).unwrap()));
}

#[test]
fn the_drop_of_a_payload_may_submit_to_its_pool_and_wait() {
    let _tidy = tidy();
    assert_a_drop_may_submit(|pool, payload| pool.execute(move || panic_any(payload)).unwrap());
    assert_a_drop_may_submit(|pool, payload| drop(pool.spawn(move || panic_any(payload)).unwrap()));
}

#[test]
fn cancel_says_whether_the_task_will_never_run_however_often_it_is_asked() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, running) = occupy(&pool);
        assert!(!running.cancel(), "it runs");
        let queued = pool.spawn(|| unreachable!()).unwrap();
        let canceller = queued.canceller();
        assert!(queued.cancel() && queued.cancel() && canceller.cancel() && canceller.clone().cancel());
        assert!(queued.join().unwrap_err().is_cancelled());
        assert!(canceller.cancel(), "it still never runs when its handle is gone");
        let dropped = pool.spawn(|| unreachable!()).unwrap();
        let canceller = dropped.canceller();
        drop(dropped);
        assert!(canceller.cancel() && canceller.cancel());
        drop(go);
        let canceller = running.canceller();
        pool.wait_idle();
        assert!(!running.cancel() && !canceller.cancel(), "it has ended");
        assert_eq!(running.join().unwrap(), 5);
        assert!(!canceller.cancel());
        let report = pool.shutdown();
        let stats = report.stats();
        assert_eq!((stats.cancelled, stats.completed, stats.panicked), (2, 1, 0));
    });
}

#[test]
fn a_cancelled_waiter_wakes_at_once_and_a_running_task_is_told() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (started, has_started) = mpsc::channel();
        let polite = pool
            .spawn(move || {
                started.send(()).unwrap();
                while !winddown::task::is_cancelled() {
                    thread::yield_now();
                }
                assert!(!winddown::task::is_cancelled() || Pool::current().is_some());
            })
            .unwrap();
        has_started.recv().unwrap();
        let queued = pool.spawn(|| unreachable!()).unwrap();
        let canceller = queued.canceller();
        let waiter = thread::spawn(move || queued.join().unwrap_err().is_cancelled());
        assert!(canceller.cancel());
        assert!(waiter.join().unwrap(), "though the only worker is busy");
        assert!(!polite.cancel());
        polite.join().unwrap();
        // The flag was that task's alone.
        assert!(!pool.spawn(winddown::task::is_cancelled).unwrap().join().unwrap());
        assert!(!winddown::task::is_cancelled());
    });
}

#[test]
fn a_running_task_that_is_cancelled_ends_as_it_likes() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (started, has_started) = mpsc::channel();
        let cancelled = |end: fn() -> u32| {
            let started = started.clone();
            let task = move || {
                started.send(thread::current().id()).unwrap();
                while !winddown::task::is_cancelled() {
                    thread::yield_now();
                }
                end()
            };
            let handle = pool.spawn(task).unwrap();
            let thread = has_started.recv().unwrap();
            assert!(!handle.cancel() && !handle.canceller().cancel());
            (thread, handle.join())
        };
        let (thread, returned) = cancelled(|| 7);
        assert_eq!(returned.unwrap(), 7);
        let (same, panicked) = cancelled(|| panic!("no luck"));
        assert!(panicked.unwrap_err().is_panic());
        assert_eq!((same, pool.spawn(|| thread::current().id()).unwrap().join().unwrap()), (thread, thread));
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, stats.panicked, stats.cancelled), (2, 1, 0));
    });
}

#[test]
fn a_task_that_cancels_itself_goes_on() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (give, take) = mpsc::channel::<Canceller>();
        let task = move || {
            let own = take.recv().unwrap();
            (own.cancel(), winddown::task::is_cancelled())
        };
        let handle = pool.spawn(task).unwrap();
        give.send(handle.canceller()).unwrap();
        assert_eq!(handle.join().unwrap(), (false, true));
    });
}

#[test]
fn cancel_on_drop_cancels_when_dropped_and_only_then() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        assert_eq!(pool.spawn(|| 1).unwrap().cancel_on_drop().join().unwrap(), 1);
        assert_eq!(block_on(pool.spawn(|| 2).unwrap().cancel_on_drop()).unwrap(), 2);
        let (go, running) = occupy(&pool);
        drop(pool.spawn(|| unreachable!()).unwrap().cancel_on_drop());
        assert_eq!(pool.stats().cancelled, 1);
        drop(running.cancel_on_drop());
        drop(go);
        assert!(pool.shutdown().is_clean());
        assert_eq!(pool.stats().completed, 3);
    });
}

#[test]
fn a_handle_is_a_future_that_wakes_the_last_waker() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        assert_eq!(block_on(pool.spawn(|| 1).unwrap()).unwrap(), 1);
        let (go, mut running) = occupy(&pool);
        let wakers = [0, 1].map(|_| Arc::new(Unpark(thread::current(), AtomicUsize::new(0))));
        for waker in &wakers {
            let waker = Waker::from(waker.clone());
            assert!(pin!(&mut running).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(Arc::strong_count(&wakers[0]), 1, "the waker that was replaced is gone");
        drop(go);
        pool.wait_idle();
        assert_eq!(block_on(running).unwrap(), 5);
        pool.shutdown();
        assert_eq!(wakers.each_ref().map(|waker| waker.1.load(SeqCst)), [0, 1]);
        assert_eq!(Arc::strong_count(&wakers[1]), 1);
    });
}

#[test]
fn a_waker_that_panics_and_a_future_that_is_dropped_harm_nobody() {
    let _tidy = tidy();
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker panics");
        }
    }
    within(|| {
        let pool = pool(1);
        let (go, mut running) = occupy(&pool);
        let waker = Waker::from(Arc::new(Panics));
        assert!(pin!(&mut running).poll(&mut Context::from_waker(&waker)).is_pending());
        let mut polled = pool.spawn(|| 1).unwrap();
        let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
        assert!(pin!(&mut polled).poll(&mut Context::from_waker(&Waker::from(unpark.clone()))).is_pending());
        drop(polled);
        assert_eq!(Arc::strong_count(&unpark), 1, "it leaves nothing behind");
        drop(go);
        assert_eq!(running.join().unwrap(), 5);
        assert_eq!(pool.spawn(|| 2).unwrap().join().unwrap(), 2);
    });
}

#[test]
fn handles_and_errors_show_their_state_without_blocking() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, running) = occupy(&pool);
        assert!(format!("{running:?}").contains("is_finished: false"));
        assert!(format!("{:?}", running.canceller()).contains("Canceller"));
        drop(go);
        pool.wait_idle();
        assert!(format!("{running:?}").contains("is_finished: true"));
        assert!(format!("{:?}", running.cancel_on_drop()).contains("CancelOnDrop"));
    });
}

#[test]
fn a_panic_that_no_handle_receives_is_logged_with_its_location() {
    let _tidy = tidy();
    within(|| {
        let lines = listen();
        let pool = pool(1);
        let (go, _running) = occupy(&pool);
        let bare = line!() + 1;
        pool.execute(|| panic!("unheard of")).unwrap();
        let detached = line!() + 1;
        drop(pool.spawn(|| panic!("unheard of")).unwrap());
        let late = line!() + 1;
        let dropped_late = pool.spawn(|| panic!("unheard of")).unwrap();
        let heard = pool.spawn(|| panic!("heard of")).unwrap();
        drop(go);
        assert!(heard.join().is_err());
        pool.shutdown();
        drop(dropped_late);
        let lines: Vec<_> = lines.try_iter().filter(|line| line.contains("heard of")).collect();
        for (line, at) in lines.iter().zip([bare, detached, late]) {
            assert!(
                line.starts_with("ERROR ")
                    && line.contains("unheard of")
                    && line.contains(&format!("{}:{at}", file!())),
                "{line}"
            );
        }
        assert_eq!(lines.len(), 3, "{lines:?}");
    });
}
