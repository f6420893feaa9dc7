//! Who waits for room in a full queue gets it, or is told why not: against close, time-outs and cancels.

use super::*;
use crate::{JoinHandle as Handle, Phase, RejectReason, WhenFull};
use shuttle::future::block_on;
use shuttle::sync::mpsc::{channel, Receiver, Sender};
use std::future::Future;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

/// A pool of one thread with room for one task.
fn narrow() -> (Registry, Pool) {
    let registry = Registry::root();
    let pool = builder(&registry, 1).queue_capacity(1).when_full(WhenFull::Block).build().unwrap();
    (registry, pool)
}

/// A task that runs until it is let go, and says when it has started.
fn held() -> (impl FnOnce() + Send + 'static, Sender<()>, Receiver<()>) {
    let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
    let task = move || {
        started.send(()).unwrap();
        let _ = wait.recv();
    };
    (task, go, has_started)
}

/// One task that runs until it is let go, and one that fills the queue behind it.
fn fill(pool: &Pool, trace: &Trace) -> (Sender<()>, Handle<()>) {
    let (blocker, go, has_started) = held();
    pool.execute(blocker).unwrap();
    has_started.recv().unwrap();
    (go, pool.spawn(trace.task()).unwrap())
}

/// Returns when so many submitters wait for room.
fn until_in_line(pool: &Pool, submitters: usize) {
    while pool.submitters_in_line() < submitters {
        thread::yield_now();
    }
}

fn in_background<R: Send + 'static>(
    pool: &Pool,
    f: impl FnOnce(Pool) -> R + Send + 'static,
) -> JoinHandle<R> {
    let pool = pool.clone();
    thread::spawn(move || f(pool))
}

#[test]
fn who_waits_for_room_goes_on_when_there_is_some() {
    explore(|| {
        let (_registry, pool) = narrow();
        let trace = Trace::default();
        let submitters = [(); 3].map(|()| {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute(task).unwrap())
        });
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        let stats = pool.shutdown().stats().clone();
        assert_eq!((trace.ran(), stats.completed, stats.rejected), (3, 3, 0));
        assert_adds_up(&stats);
    });
}

#[test]
fn a_task_that_is_taken_without_the_lock_leaves_its_room_to_whoever_waits() {
    explore(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 1).queue_capacity(2).when_full(WhenFull::Block).build().unwrap();
        let trace = Trace::default();
        let [(first, go_first, first_runs), (second, go_second, second_runs), (third, go_third, _runs)] =
            [(); 3].map(|()| held());
        // In a model two tasks fill a block of the queue: the second and the third are to be in one.
        pool.spawn(|| ()).unwrap().join().unwrap();
        pool.execute(first).unwrap();
        first_runs.recv().unwrap();
        pool.execute(second).unwrap();
        pool.execute(third).unwrap();
        drop(go_first);
        second_runs.recv().unwrap();
        // The third is in the worker's own queue by now, and this one outside.
        pool.execute(trace.task()).unwrap();
        let waiting = {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute(task).unwrap())
        };
        drop(go_second);
        // The third goes on for as long as the other waits: no more room is made.
        waiting.join().unwrap();
        drop(go_third);
        assert_eq!((pool.shutdown().stats().completed, trace.ran()), (6, 2));
    });
}

#[test]
fn who_waits_for_room_when_the_pool_closes_is_told_at_once() {
    explore(|| {
        let (_registry, pool) = narrow();
        let trace = Trace::default();
        let (go, filler) = fill(&pool, &trace);
        let waiting = [(); 2].map(|()| {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute(task).map_err(|refused| refused.reason()))
        });
        pool.close();
        // No room is made meanwhile.
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), Err(RejectReason::Closed));
        }
        drop(go);
        filler.join().unwrap();
        pool.shutdown();
        drop(pool);
        trace.assert_no_captures();
    });
}

#[test]
fn who_waits_for_room_when_the_pool_closes_gets_in_or_the_task_back() {
    explore(|| {
        let (_registry, pool) = narrow();
        let trace = Trace::default();
        let (go, filler) = fill(&pool, &trace);
        let waiting = [(); 2].map(|()| {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute(task).map_err(|refused| refused.reason()))
        });
        until_in_line(&pool, 2);
        let is_closed = Arc::new(AtomicBool::new(false));
        let opener = {
            let is_closed = is_closed.clone();
            thread::spawn(move || {
                let was_closed = is_closed.load(Ordering::Relaxed);
                drop(go);
                was_closed
            })
        };
        pool.close();
        is_closed.store(true, Ordering::Relaxed);
        let accepted = waiting.map(|waiting| match waiting.join().unwrap() {
            Ok(()) => 1,
            Err(reason) => {
                assert_eq!(reason, RejectReason::Closed);
                0
            }
        });
        let accepted = accepted.iter().sum::<usize>();
        if opener.join().unwrap() {
            assert_eq!(accepted, 0, "room that is made later is for nobody");
        }
        filler.join().unwrap();
        pool.shutdown();
        assert_eq!(trace.ran(), 1 + accepted);
        drop(pool);
        trace.assert_no_captures();
    });
}

#[test]
fn room_is_not_lost_with_one_whose_time_is_up() {
    explore(|| {
        let (_registry, pool) = narrow();
        let trace = Trace::default();
        let (go, filler) = fill(&pool, &trace);
        let timed = {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute_timeout(task, Duration::from_secs(1)).is_ok())
        };
        until_in_line(&pool, 1);
        let patient = {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute(task).unwrap())
        };
        until_in_line(&pool, 2);
        let _time = Time::passes();
        drop(go);
        // Whether or not the first got room before its time was up, the second does.
        patient.join().unwrap();
        let accepted = usize::from(timed.join().unwrap());
        filler.join().unwrap();
        let stats = pool.shutdown().stats().clone();
        assert_eq!(trace.ran(), 2 + accepted);
        assert_eq!(stats.rejected as usize, 1 - accepted);
        trace.assert_no_captures();
    });
}

#[test]
fn a_cancelled_task_leaves_its_room_to_whoever_waits() {
    explore(|| {
        let (_registry, pool) = narrow();
        let trace = Trace::default();
        let (go, filler) = fill(&pool, &trace);
        let waiting = {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute(task).unwrap())
        };
        assert!(filler.cancel());
        // The only worker is still busy: the room is the cancelled task's.
        waiting.join().unwrap();
        drop(go);
        assert!(filler.join().unwrap_err().is_cancelled());
        let stats = pool.shutdown().stats().clone();
        assert_eq!((trace.ran(), stats.cancelled), (1, 1));
        trace.assert_no_captures();
    });
}

#[test]
fn room_is_not_lost_with_a_future_that_is_dropped() {
    explore(|| {
        let (_registry, pool) = narrow();
        let trace = Trace::default();
        let (go, filler) = fill(&pool, &trace);
        let dropper = {
            let task = trace.task();
            in_background(&pool, move |pool| {
                let mut future = Box::pin(pool.spawn_async(task));
                let mut cx = Context::from_waker(std::task::Waker::noop());
                let polled = future.as_mut().poll(&mut cx).map(|result| drop(result.unwrap()));
                usize::from(polled.is_ready())
            })
        };
        let waiting = {
            let task = trace.task();
            in_background(&pool, move |pool| block_on(pool.spawn_async(task)).unwrap().join().unwrap())
        };
        drop(go);
        waiting.join().unwrap();
        filler.join().unwrap();
        let accepted = dropper.join().unwrap();
        pool.shutdown();
        assert_eq!(trace.ran(), 2 + accepted);
        trace.assert_no_captures();
    });
}

#[test]
fn tasks_that_wait_for_room_elsewhere_are_served_while_everything_drains() {
    // Pools close and drain, newest first: the one that is fed before the one that feeds it, or after that.
    for is_fed_newest in [true, false] {
        explore(move || {
            let registry = Registry::root();
            let older = builder(&registry, 1).queue_capacity(1).build().unwrap();
            let newer = builder(&registry, 1).queue_capacity(1).build().unwrap();
            let (narrow, feeder) = if is_fed_newest { (newer, older) } else { (older, newer) };
            let trace = Trace::default();
            let (go, filler) = fill(&narrow, &trace);
            for _ in 0..2 {
                let (narrow, inner) = (narrow.clone(), trace.clone());
                let feed = move || (0..2).for_each(|_| narrow.execute(inner.task()).unwrap());
                feeder.execute(feed).unwrap();
            }
            until_in_line(&narrow, 1);
            let opener = {
                let registry = registry.clone();
                thread::spawn(move || {
                    while registry.phase() < Phase::Draining {
                        thread::yield_now();
                    }
                    drop(go);
                })
            };
            let report = registry.shutdown();
            opener.join().unwrap();
            assert!(report.is_clean());
            assert_eq!((trace.ran(), report.totals().completed), (5, 8));
            drop((narrow, feeder, filler));
            trace.assert_no_captures();
        });
    }
}

/// A waker that waits for the pool before it wakes anybody.
struct WaitsForThePool {
    pool: Pool,
    is_woken: AtomicBool,
    sleeper: thread::Thread,
}

impl Wake for WaitsForThePool {
    fn wake(self: Arc<Self>) {
        self.pool.wait_idle();
        self.is_woken.store(true, Ordering::Relaxed);
        self.sleeper.unpark();
    }
}

/// A worker that has made room puts its task down while it wakes a future, which is code of others and may wait for that task.
#[test]
fn a_task_that_is_put_down_for_a_waker_is_run_by_a_worker_that_sleeps() {
    explore(|| {
        let registry = Registry::root();
        let pool = builder(&registry, 2).queue_capacity(1).keep_alive(Duration::MAX).build().unwrap();
        let both = Arc::new(shuttle::sync::Barrier::new(2));
        for _ in 0..2 {
            let both = both.clone();
            pool.execute(move || _ = both.wait()).unwrap();
        }
        pool.wait_idle();
        let trace = Trace::default();
        pool.execute(trace.task()).unwrap();
        let sleeper = thread::current();
        let waker =
            Arc::new(WaitsForThePool { pool: pool.clone(), is_woken: AtomicBool::new(false), sleeper });
        let mut future = Box::pin(pool.spawn_async(trace.task()));
        let as_waker = waker.clone().into();
        let handle = loop {
            match future.as_mut().poll(&mut Context::from_waker(&as_waker)) {
                Poll::Ready(accepted) => break accepted.unwrap(),
                Poll::Pending => {
                    while !waker.is_woken.swap(false, Ordering::Relaxed) {
                        thread::park();
                    }
                }
            }
        };
        handle.join().unwrap();
        pool.shutdown();
        assert_eq!(trace.ran(), 2);
    });
}
