//! Which threads a pool starts, and what it does when the system refuses one.
//!
//! This program has a `pthread_create` of its own, which counts the threads with a stack of one odd size, those of the pools
//! here, and refuses some.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)] // A function of C.

mod common;

use common::{assert_adds_up, eventually, occupy_with, registry, tidy, within, Tracked};
use std::ffi::{c_int, c_void};
use std::future::Future;
use std::mem::{transmute, MaybeUninit};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use winddown::{Pool, PoolBuilder, Registry, RejectReason};

/// The stack of the threads that may be refused, which no others have.
const STACK: usize = (1 << 20) + 3 * 4096;

/// How many were asked for.
static ASKED: AtomicUsize = AtomicUsize::new(0);
/// Every how many are refused; none for zero.
static EVERY: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

type Create = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    extern "C" fn(*mut c_void) -> *mut c_void,
    *mut c_void,
) -> c_int;

/// Takes the place of C's for this whole program.
///
/// # Safety
///
/// As C's.
#[no_mangle]
pub unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> c_int {
    let mut stack = MaybeUninit::new(0);
    if !attributes.is_null() {
        // SAFETY: the caller has initialised the attributes, and the other pointer is valid for a write.
        unsafe { libc::pthread_attr_getstacksize(attributes, stack.as_mut_ptr()) };
    }
    // SAFETY: it was initialised above.
    if unsafe { stack.assume_init() } == STACK {
        let number = ASKED.fetch_add(1, SeqCst) + 1;
        let every = EVERY.load(SeqCst);
        if every > 0 && number % every == 0 {
            REFUSED.fetch_add(1, SeqCst);
            return libc::EAGAIN;
        }
    }
    // SAFETY: the name ends with a NUL.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
    assert!(!next.is_null(), "there is a C library");
    // SAFETY: the name is that of a function of this type, to which the caller's arguments go on.
    unsafe { transmute::<*mut c_void, Create>(next)(thread, attributes, start, argument) }
}

/// While it lives, every so many threads are refused, beginning with the first if it is every one.
struct Refusing;

impl Refusing {
    fn every(count: usize) -> Refusing {
        EVERY.store(count, SeqCst);
        Refusing
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        EVERY.store(0, SeqCst);
    }
}

fn builder(registry: &Registry, max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(registry).stack_size(STACK).max_threads(max_threads)
}

// ---- refused ----

/// Must be dropped by whoever made it, and by nobody else.
struct Bomb(Tracked<u32>);

impl Bomb {
    fn defuse(mut self) {
        self.0 .0 = 0;
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.0 .0 == 0, "the pool has dropped what it refused");
    }
}

struct Ignore;

impl Wake for Ignore {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_pool_that_gets_no_first_thread_gives_every_closure_back_and_is_as_before() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry, 2).queue_capacity(100).build().unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let task = || {
            let (bomb, ran) = (Bomb(Tracked::new(1)), ran.clone());
            move || {
                bomb.defuse();
                ran.fetch_add(1, SeqCst);
            }
        };
        let limit = pool.limit(1);
        let refusing = Refusing::every(1);
        // Each way of submitting, and its closure again once the system is kind.
        macro_rules! refused {
            ($submission:expr) => {{
                let refused = $submission.map(drop).unwrap_err();
                assert_eq!(refused.reason(), RejectReason::NoThread);
                refused.into_inner()
            }};
        }
        let second = Duration::from_secs(1);
        let executed = refused!(pool.execute(task()));
        let spawned = refused!(pool.spawn(task()));
        let tried = refused!(pool.try_execute(task()));
        let tried_with_handle = refused!(pool.try_spawn(task()));
        let waited = refused!(pool.execute_timeout(task(), second));
        let waited_with_handle = refused!(pool.spawn_timeout(task(), second));
        let limited = refused!(limit.execute(task()));
        let limited_with_handle = refused!(limit.spawn(task()));
        let awaited = {
            let waker = Waker::from(Arc::new(Ignore));
            match pin!(pool.spawn_async(task())).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => refused!(result),
                Poll::Pending => panic!("there is room"),
            }
        };
        let stats = pool.stats();
        assert_eq!((stats.accepted, stats.queued, stats.running, stats.rejected), (0, 0, 0, 9));
        assert_eq!((stats.threads, stats.idle, stats.peak_threads), (0, 0, 0));
        pool.wait_idle();
        assert_eq!(
            pool.scope(|s| s.spawn(|| thread::current().id()).join().unwrap()),
            thread::current().id()
        );
        drop(refusing);

        pool.execute(executed).unwrap();
        pool.spawn(spawned).unwrap().join().unwrap();
        pool.try_execute(tried).unwrap();
        pool.try_spawn(tried_with_handle).unwrap().join().unwrap();
        pool.execute_timeout(waited, second).unwrap();
        pool.spawn_timeout(waited_with_handle, second).unwrap().join().unwrap();
        limit.execute(limited).unwrap();
        limit.spawn(limited_with_handle).unwrap().join().unwrap();
        pool.spawn(awaited).unwrap().join().unwrap();
        pool.wait_idle();
        assert_eq!(ran.load(SeqCst), 9, "each runs once");
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        assert_adds_up(&report.totals());
    });
}

/// Submits a task, which submits others. Says whether it was accepted.
fn submit(pool: &Pool, follow_ups: u32, ran: &Arc<AtomicUsize>) -> bool {
    let (inner, count) = (pool.clone(), ran.clone());
    let task = move || {
        count.fetch_add(1, SeqCst);
        if follow_ups > 0 {
            assert!(submit(&inner, follow_ups - 1, &count), "there is a worker: this one");
        }
    };
    match pool.execute(task) {
        Ok(()) => true,
        Err(refused) => {
            assert_eq!(refused.reason(), RejectReason::NoThread);
            false
        }
    }
}

#[test]
fn all_that_was_accepted_runs_where_every_so_many_threads_are_refused() {
    let _tidy = tidy();
    const SUBMITTERS: usize = 3;
    const EACH: usize = 300;
    within(|| {
        for keep_alive in [Duration::ZERO, Duration::from_micros(50), Duration::MAX] {
            for every in 1..=4 {
                let registry = registry();
                let pool = builder(&registry, 4).keep_alive(keep_alive).build().unwrap();
                let (ran, refused) = (Arc::new(AtomicUsize::new(0)), REFUSED.load(SeqCst));
                let refusing = Refusing::every(every);
                let start = Arc::new(Barrier::new(SUBMITTERS));
                let submitters = [(); SUBMITTERS].map(|()| {
                    let (pool, ran, start) = (pool.clone(), ran.clone(), start.clone());
                    thread::spawn(move || {
                        start.wait();
                        let submit = |n: &usize| {
                            let is_accepted = submit(&pool, (n % 2) as u32, &ran);
                            if n % 10 == 0 {
                                pool.wait_idle(); // so that workers leave
                            }
                            is_accepted
                        };
                        (0..EACH).filter(submit).map(|n| 1 + n % 2).sum::<usize>()
                    })
                });
                let accepted: usize = submitters.into_iter().map(|it| it.join().unwrap()).sum();
                let report = registry.shutdown();
                drop(refusing);
                let context = format!("every {every}, {keep_alive:?}: {report}");
                assert!(report.is_clean(), "{context}");
                assert_eq!(ran.load(SeqCst), accepted, "{context}");
                assert_eq!(accepted == 0, every == 1, "{context}");
                let stats = pool.stats();
                assert_adds_up(&stats);
                assert_eq!(
                    (stats.completed, stats.threads, stats.running),
                    (accepted as u64, 0, 0),
                    "{context}"
                );
                if every == 1 || keep_alive == Duration::ZERO {
                    assert!(REFUSED.load(SeqCst) > refused, "nothing was tested: {context}");
                }
            }
        }
    });
}

/// Its one worker leaves at about the moment of each submission, and no other can be had.
#[test]
fn a_submission_to_a_worker_that_leaves_for_good_runs_or_comes_back() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry, 1).keep_alive(Duration::from_micros(100)).build().unwrap();
        let (mut ran, mut came_back) = (0, 0);
        for round in 0..2_000 {
            pool.spawn(|| ()).unwrap().join().unwrap();
            let _refusing = Refusing::every(1);
            // Long enough for some, too short for others.
            (0..round % 200 * 50).for_each(|_| std::hint::spin_loop());
            match pool.spawn(|| 7) {
                Ok(handle) => {
                    assert_eq!(handle.join().unwrap(), 7);
                    ran += 1;
                }
                Err(refused) => {
                    assert_eq!((refused.reason(), refused.into_inner()()), (RejectReason::NoThread, 7));
                    came_back += 1;
                }
            }
        }
        println!("{ran} ran, {came_back} came back");
        let stats = pool.shutdown().stats().clone();
        assert_eq!((stats.completed, stats.rejected), (2_000 + ran, came_back));
        assert_adds_up(&stats);
    });
}

/// The one worker is blocked in what only a second one could end, until the system is kind.
#[test]
fn a_queued_task_gets_its_thread_when_there_is_one_again() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry, 2).build().unwrap();
        let (go, running) = occupy_with(|task| pool.spawn(task).unwrap());
        let refusing = Refusing::every(1);
        let queued = pool.spawn(move || drop(go)).unwrap();
        assert_eq!((pool.stats().queued, pool.stats().threads), (1, 1));
        drop(refusing);
        // Whoever submits next asks again.
        let next = pool.spawn(|| ()).unwrap();
        running.join().unwrap();
        queued.join().unwrap();
        next.join().unwrap();
        assert_eq!(pool.stats().peak_threads, 2);
    });
}

// ---- no more than needed ----

/// How many threads `f` has made pools start.
fn started(f: impl FnOnce()) -> usize {
    let before = ASKED.load(SeqCst);
    f();
    ASKED.load(SeqCst) - before
}

#[test]
fn a_task_that_takes_long_and_delays_that_are_far_away_start_no_thread_upon_thread() {
    let _tidy = tidy();
    within(|| {
        for keep_alive in [Duration::ZERO, Duration::from_millis(1)] {
            let registry = registry();
            let pool = builder(&registry, 4).keep_alive(keep_alive).build().unwrap();
            let delayed = pool.spawn_after(Duration::MAX, || ()).unwrap();
            let mut gate = None;
            let count = started(|| {
                gate = Some(occupy_with(|task| pool.spawn(task).unwrap()));
                thread::sleep(Duration::from_millis(200)); // what is measured: nothing can happen
            });
            assert_eq!((count, pool.stats().threads), (1, 1), "a task, a thread");
            // What runs beside it needs one more each time, at most.
            let count = started(|| (0..50).for_each(|_| pool.spawn(|| ()).unwrap().join().unwrap()));
            assert!((1..=50).contains(&count), "{count} threads for 50 tasks");
            let (go, running) = gate.unwrap();
            drop(go);
            running.join().unwrap();
            eventually("all have left", || pool.stats().threads == 0);
            assert_eq!(started(|| thread::sleep(Duration::from_millis(100))), 0, "nothing is to be done");
            assert!(delayed.cancel());
        }
    });
}

#[test]
fn a_thread_that_rests_is_used_before_another_one_is_started() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = builder(&registry, 64).keep_alive(Duration::MAX).build().unwrap();
        let (go, running) = occupy_with(|task| pool.spawn(task).unwrap());
        pool.spawn(|| ()).unwrap().join().unwrap();
        for _ in 0..100 {
            eventually("the second one rests", || pool.stats().idle == 1);
            assert_eq!(started(|| pool.spawn(|| ()).unwrap().join().unwrap()), 0);
        }
        drop(go);
        running.join().unwrap();
        assert_eq!(pool.shutdown().workers_joined(), 2);
    });
}
