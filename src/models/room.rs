//! Who waits for room in a full queue gets it, or is told why not: against close, time-outs and cancels.

use super::*;
use crate::{JoinHandle as Handle, RejectReason, WhenFull};
use shuttle::future::block_on;
use std::future::Future;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

/// A pool of one thread with room for one task.
fn narrow() -> (Registry, Pool) {
    let registry = Registry::root();
    let pool = builder(&registry, 1).queue_capacity(1).when_full(WhenFull::Block).build().unwrap();
    (registry, pool)
}

/// One task that runs until it is let go, and one that fills the queue behind it.
fn fill(pool: &Pool, trace: &Trace) -> (shuttle::sync::mpsc::Sender<()>, Handle<()>) {
    let (go, wait) = shuttle::sync::mpsc::channel::<()>();
    let (started, has_started) = shuttle::sync::mpsc::channel();
    let blocker = move || {
        started.send(()).unwrap();
        let _ = wait.recv();
    };
    pool.execute(blocker).unwrap();
    has_started.recv().unwrap();
    (go, pool.spawn(trace.task()).unwrap())
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
        let opener = thread::spawn(move || drop(go));
        pool.close();
        let accepted = waiting.map(|waiting| match waiting.join().unwrap() {
            Ok(()) => 1,
            Err(reason) => {
                assert_eq!(reason, RejectReason::Closed);
                0
            }
        });
        opener.join().unwrap();
        filler.join().unwrap();
        pool.shutdown();
        assert_eq!(trace.ran(), 1 + accepted.iter().sum::<usize>());
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
        let _time = Time::jumps(2);
        let timed = {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute_timeout(task, Duration::from_secs(1)).is_ok())
        };
        let patient = {
            let task = trace.task();
            in_background(&pool, move |pool| pool.execute(task).unwrap())
        };
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
    explore(|| {
        let registry = Registry::root();
        let narrow = builder(&registry, 1).queue_capacity(1).build().unwrap();
        let feeder = builder(&registry, 1).build().unwrap();
        let trace = Trace::default();
        for _ in 0..2 {
            let (narrow, inner) = (narrow.clone(), trace.clone());
            let feed = move || (0..2).for_each(|_| narrow.execute(inner.task()).unwrap());
            feeder.execute(feed).unwrap();
        }
        let report = registry.shutdown();
        assert!(report.is_clean());
        assert_eq!((trace.ran(), report.totals().completed), (4, 6));
        drop((narrow, feeder));
        trace.assert_no_captures();
    });
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
