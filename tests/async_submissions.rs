//! Submissions that wait for room without blocking, and the wakers that are told of it.

mod common;

use common::full::{await_sleepers, builder, full, occupy, submitter};
use common::{assert_adds_up, tidy, within};
use std::future::Future;
use std::pin::{pin, Pin};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use winddown::{Pool, RejectReason, WhenFull};

struct Flag(Sender<()>);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

fn flag() -> (Waker, Receiver<()>) {
    let (woken, is_woken) = mpsc::channel();
    (Waker::from(Arc::new(Flag(woken))), is_woken)
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

#[test]
fn an_async_submission_waits_without_blocking_and_is_woken_by_room() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1).when_full(WhenFull::Reject), 1);
        let (waker, is_woken) = flag();
        let mut submission = pin!(pool.spawn_async(|| 5));
        assert!(poll(submission.as_mut(), &waker).is_pending());
        assert!(poll(submission.as_mut(), &waker).is_pending());
        assert_eq!(pool.stats().accepted, 2);
        drop(go);
        is_woken.recv().unwrap();
        let Poll::Ready(handle) = poll(submission.as_mut(), &waker) else { panic!("there is room") };
        assert_eq!(handle.unwrap().join().unwrap(), 5);
    });
}

#[test]
fn an_async_submission_that_is_dropped_submits_nothing_and_passes_its_place_on() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let (waker, is_woken) = flag();
        let (second_waker, second_is_woken) = flag();
        let mut first = Box::pin(pool.spawn_async(|| unreachable!("it is dropped")));
        let mut second = Box::pin(pool.spawn_async(|| 2));
        let mut third = Box::pin(pool.spawn_async(|| unreachable!("it is dropped, too")));
        assert!(poll(first.as_mut(), &waker).is_pending());
        assert!(poll(second.as_mut(), &second_waker).is_pending());
        assert!(poll(third.as_mut(), &waker).is_pending());
        drop(third);
        drop(go);
        is_woken.recv().unwrap();
        drop(first);
        second_is_woken.recv().unwrap();
        let Poll::Ready(handle) = poll(second.as_mut(), &second_waker) else { panic!("there is room") };
        assert_eq!(handle.unwrap().join().unwrap(), 2);
        drop(pool.spawn_async(|| unreachable!("it is never polled")));
        assert_eq!(pool.shutdown().stats().accepted, 3);
    });
}

#[test]
fn an_async_submission_is_refused_when_the_pool_closes() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let (waker, is_woken) = flag();
        let mut submission = pin!(pool.spawn_async(|| 5));
        assert!(poll(submission.as_mut(), &waker).is_pending());
        pool.close();
        is_woken.recv().unwrap();
        let Poll::Ready(Err(refused)) = poll(submission.as_mut(), &waker) else { panic!("it is closed") };
        assert_eq!((refused.reason(), refused.into_inner()()), (RejectReason::Closed, 5));
        drop(go);
    });
}

#[test]
fn threads_and_futures_wait_in_one_line() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |n| {
            let order = order.clone();
            move || order.lock().unwrap().push(n)
        };
        let (about_to, is_about_to) = mpsc::channel();
        let (waker, is_woken) = flag();
        let mut first = Box::pin(pool.spawn_async(note(0)));
        assert!(poll(first.as_mut(), &waker).is_pending());
        let (other, task) = (pool.clone(), note(1));
        let thread = submitter("second", &about_to, move || other.execute(task).is_ok());
        await_sleepers(&is_about_to, 1);
        drop(go);
        is_woken.recv().unwrap();
        let Poll::Ready(handle) = poll(first.as_mut(), &waker) else { panic!("there is room") };
        handle.unwrap().join().unwrap();
        assert!(thread.join().unwrap());
        pool.shutdown();
        assert_eq!(*order.lock().unwrap(), [0, 1]);
    });
}

#[test]
fn who_comes_too_late_for_its_place_is_called_again() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..20 {
            let pool = builder(2, 1).build().unwrap();
            let hold = occupy(&pool);
            let go = occupy(&pool);
            let (end, wait) = mpsc::channel::<()>();
            let inner = pool.clone();
            let takes_the_place = move || {
                inner.execute(|| ()).unwrap();
                let _ = wait.recv();
            };
            pool.execute(takes_the_place).unwrap();
            let (about_to, is_about_to) = mpsc::channel();
            let other = pool.clone();
            let late = submitter("comes-late", &about_to, move || other.execute(|| ()).is_ok());
            await_sleepers(&is_about_to, 1);
            drop(go);
            // Called, and asleep again: mostly the follow-up is there before it.
            thread::sleep(Duration::from_millis(5));
            drop(end);
            assert!(late.join().unwrap());
            drop(hold);
            assert_eq!(pool.shutdown().stats().completed, 5);
        }
    });
}

#[test]
fn a_waker_that_submits_does_not_wait_on_a_worker_of_the_pool() {
    let _tidy = tidy();
    struct Resubmit(Pool, Sender<()>);
    impl Wake for Resubmit {
        fn wake(self: Arc<Self>) {
            let woken = self.1.clone();
            self.0.execute(move || woken.send(()).unwrap()).unwrap();
        }
    }
    within(|| {
        for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
            let (pool, go) = full(builder(1, 1).when_full(when_full), 0);
            let inner = pool.clone();
            let mut handle = pool.spawn(move || inner.execute(|| ()).unwrap()).unwrap();
            let (woken, is_woken) = mpsc::channel();
            let waker = Waker::from(Arc::new(Resubmit(pool.clone(), woken)));
            assert!(poll(Pin::new(&mut handle), &waker).is_pending());
            drop((go, waker));
            is_woken.recv().unwrap();
            assert!(poll(Pin::new(&mut handle), Waker::noop()).is_ready());
        }
    });
}

#[test]
fn no_lock_is_held_while_a_waker_is_dropped() {
    let _tidy = tidy();
    use std::task::{RawWaker, RawWakerVTable};
    static VTABLE: RawWakerVTable =
        RawWakerVTable::new(|pool| RawWaker::new(pool, &VTABLE), look, look, look);
    fn look(pool: *const ()) {
        // SAFETY: it was made of a pool that outlives every waker.
        #[allow(unsafe_code)]
        let pool = unsafe { &*pool.cast::<Pool>() };
        pool.stats();
    }
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let pool = Box::into_raw(Box::new(pool));
        {
            // SAFETY: it is given back below, when all wakers are gone.
            #[allow(unsafe_code)]
            let pool = unsafe { &*pool };
            // SAFETY: the functions of the table do as they must, from whatever thread.
            #[allow(unsafe_code)]
            let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(pool).cast(), &VTABLE)) };
            let mut submission = pin!(pool.spawn_async(|| 5));
            assert!(poll(submission.as_mut(), &waker).is_pending());
            let mut refused = pin!(pool.spawn_async(|| 5));
            assert!(poll(refused.as_mut(), &waker).is_pending());
            let mut dropped = Box::pin(pool.spawn_async(|| 5));
            assert!(poll(dropped.as_mut(), &waker).is_pending());
            drop(dropped);
            drop(go);
            pool.wait_idle();
            let Poll::Ready(handle) = poll(submission.as_mut(), &waker) else { panic!("there is room") };
            assert_eq!(handle.unwrap().join().unwrap(), 5);
            pool.close();
            assert!(poll(refused.as_mut(), &waker).is_ready());
            pool.shutdown();
        }
        // SAFETY: the wakers went with the block, and the worker, which may have had one, is joined.
        #[allow(unsafe_code)]
        drop(unsafe { Box::from_raw(pool) });
    });
}

/// Calls something when it is woken.
struct OnWake<F>(F);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        self.0();
    }
}

#[test]
fn a_waker_that_hangs_keeps_no_task_from_a_deadline() {
    let _tidy = tidy();
    within(|| {
        let (pool, go) = full(builder(1, 1), 1);
        let (woken, is_woken) = mpsc::channel();
        let (end, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let hang = move || {
            woken.send(()).unwrap();
            let _ = wait.lock().unwrap().recv();
        };
        let mut submission = Box::pin(pool.spawn_async(|| ()));
        assert!(poll(submission.as_mut(), &Waker::from(Arc::new(OnWake(hang)))).is_pending());
        drop(go);
        is_woken.recv().unwrap();
        let report = pool.shutdown_timeout(Duration::from_millis(50));
        assert_eq!((report.stats().completed, report.stats().cancelled), (1, 1));
        assert_adds_up(report.stats());
        drop(end);
    });
}

#[test]
fn a_waker_may_wait_for_the_pool_on_its_worker() {
    let _tidy = tidy();
    within(|| {
        for threads in [1, 2] {
            let pool = builder(threads, 3).build().unwrap();
            let gos: Vec<_> = (0..threads).map(|_| occupy(&pool)).collect();
            (0..3).for_each(|_| pool.execute(|| ()).unwrap());
            let (waited, has_waited) = mpsc::channel();
            let mut submissions: Vec<_> = (0..3)
                .map(|_| {
                    let (inner, waited) = (pool.clone(), waited.clone());
                    let waker = OnWake(move || {
                        inner.wait_idle();
                        waited.send(()).unwrap();
                    });
                    let mut submission = Box::pin(pool.spawn_async(|| ()));
                    assert!(poll(submission.as_mut(), &Waker::from(Arc::new(waker))).is_pending());
                    submission
                })
                .collect();
            drop(gos);
            (0..3).for_each(|_| has_waited.recv().unwrap());
            assert_eq!(pool.stats().completed, threads as u64 + 3);
            submissions.clear();
            assert_eq!(pool.spawn(|| 5).unwrap().join().unwrap(), 5);
            pool.shutdown();
            assert_adds_up(&pool.stats());
        }
    });
}
