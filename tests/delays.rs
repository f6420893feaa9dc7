//! Delays: never early, in order, and gone without a trace when the pool closes.

mod common;

use common::delayed::{doomed, millis, HOUR};
use common::{assert_adds_up, eventually, meet, occupy_with, pool_in, registry, tidy, within, Outcome};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{JoinHandle, Pool, RejectReason};

fn pool(max_threads: usize) -> Pool {
    pool_in(&registry(), max_threads)
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> (Sender<()>, JoinHandle<()>) {
    occupy_with(|task| pool.spawn(task).unwrap())
}

fn run(case: &str) -> Outcome {
    let outcome = common::run(case);
    outcome.assert_code(0).assert_silent();
    outcome
}

// ---- when they are due ----

#[test]
fn a_delayed_task_runs_never_before_its_time() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        for delay in [Duration::from_nanos(1), Duration::from_micros(300), millis(1), millis(7), millis(40)] {
            let start = Instant::now();
            let handle = pool.spawn_after(delay, Instant::now).unwrap();
            assert!(handle.join().unwrap() >= start + delay, "{delay:?}");
        }
        assert_eq!((pool.stats().completed, pool.stats().delayed), (5, 0));
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn delays_come_due_in_the_order_of_their_times() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut handles = Vec::new();
        for delay in [30, 10, 50, 20, 40, 1].map(millis) {
            let order = order.clone();
            // Between these two moments it is due: a busy machine may stop this thread anywhere.
            let earliest = Instant::now() + delay;
            let task = move |latest| order.lock().unwrap().push((earliest, latest));
            let (tell, told) = mpsc::channel();
            handles.push(pool.spawn_after(delay, move || task(told.recv().unwrap())).unwrap());
            tell.send(Instant::now() + delay).unwrap();
        }
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        let order = order.lock().unwrap();
        assert_eq!(order.len(), 6);
        for (n, (earliest, _)) in order.iter().enumerate() {
            for (_, latest) in &order[n + 1..] {
                assert!(earliest < latest, "a task ran before one that was due before it");
            }
        }
    });
}

#[test]
fn equal_delays_come_due_in_the_order_of_their_submission() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (tell, told) = mpsc::channel();
        for n in 0..2_000 {
            let tell = tell.clone();
            drop(pool.spawn_after(millis(20), move || tell.send(n)).unwrap());
        }
        drop(tell);
        assert!(told.iter().eq(0..2_000));
    });
}

#[test]
fn a_delay_of_zero_is_queued_at_once_even_over_the_bound() {
    let _tidy = tidy();
    within(|| {
        let pool = Pool::builder().registry(&registry()).max_threads(1).queue_capacity(1).build().unwrap();
        let (go, _) = occupy(&pool);
        pool.execute(|| ()).unwrap();
        let (tell, told) = mpsc::channel();
        for n in 0..3 {
            let tell = tell.clone();
            drop(pool.spawn_after(Duration::ZERO, move || tell.send(n)).unwrap());
        }
        assert_eq!((pool.stats().queued, pool.stats().delayed), (4, 0));
        drop((go, tell));
        assert!(told.iter().eq(0..3));
    });
}

#[test]
fn what_comes_due_goes_over_the_bound_of_a_full_queue() {
    let _tidy = tidy();
    within(|| {
        let pool = Pool::builder().registry(&registry()).max_threads(1).queue_capacity(1).build().unwrap();
        let (go, _) = occupy(&pool);
        pool.execute(|| ()).unwrap();
        let delayed: Vec<_> = (0..3).map(|n| pool.spawn_after(millis(1), move || n).unwrap()).collect();
        eventually("all are due", || pool.stats().queued == 4);
        assert_eq!(pool.stats().delayed, 0);
        assert_eq!(pool.try_execute(|| ()).unwrap_err().reason(), RejectReason::Full);
        drop(go);
        for (n, handle) in delayed.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), n);
        }
    });
}

#[test]
fn a_delay_that_no_clock_can_count_never_ends_and_can_be_cancelled() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let years = Duration::from_secs(600 * 366 * 24 * 3600);
        let handles = [Duration::MAX, years, Duration::MAX].map(|delay| {
            let (task, drops) = doomed();
            (pool.spawn_after(delay, task).unwrap(), drops)
        });
        // Others come and go beside them.
        assert_eq!(pool.spawn_after(millis(1), || 5).unwrap().join().unwrap(), 5);
        assert_eq!(pool.stats().delayed, 3);
        let [(first, drops), rest @ ..] = handles;
        assert!(first.cancel());
        assert_eq!(drops.load(SeqCst), 1);
        pool.close();
        for (handle, drops) in rest {
            assert!(handle.join().unwrap_err().is_cancelled());
            assert_eq!(drops.load(SeqCst), 1);
        }
    });
}

#[test]
fn a_nearer_delay_is_not_kept_waiting_by_a_farther_one() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pools = [pool_in(&registry, 1), pool_in(&registry, 1)];
        let far: Vec<_> = pools.iter().map(|pool| pool.spawn_after(HOUR, || ()).unwrap()).collect();
        for pool in &pools {
            for delay in [millis(30), millis(1)] {
                pool.spawn_after(delay, || ()).unwrap().join().unwrap();
            }
        }
        // The first of all is cancelled: the next one is due in its time.
        let first = pools[0].spawn_after(millis(50), || ()).unwrap();
        let second = pools[0].spawn_after(millis(60), || 6).unwrap();
        assert!(first.cancel());
        assert_eq!(second.join().unwrap(), 6);
        assert!(far.iter().all(|handle| !handle.is_finished()));
    });
}

#[test]
fn a_task_may_delay_itself_again_and_again() {
    let _tidy = tidy();
    within(|| {
        fn tick(left: u32, done: Sender<()>) {
            if left == 0 {
                done.send(()).unwrap();
            } else {
                let again = move || tick(left - 1, done);
                drop(Pool::current().unwrap().spawn_after(Duration::from_micros(200), again).unwrap());
            }
        }
        let pool = pool(2);
        let (done, all_done) = mpsc::channel();
        pool.execute(move || tick(200, done)).unwrap();
        all_done.recv().unwrap();
        assert_eq!(pool.shutdown().stats().completed, 201);
    });
}

// ---- a delayed task is a task like any other ----

#[test]
fn the_panic_of_a_delayed_task_goes_to_its_handle_and_is_counted() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let error = pool.spawn_after(millis(1), || panic!("no luck")).unwrap().join().unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("no luck"));
        assert!(error.to_string().contains(file!()), "{error}");
        assert_eq!(pool.spawn_after(millis(1), || 5).unwrap().join().unwrap(), 5);
        assert_eq!((pool.stats().panicked, pool.stats().completed), (1, 1));
    });
}

#[test]
fn a_delay_takes_no_worker_and_does_not_keep_others_from_one() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let delayed = pool.spawn_after(HOUR, || ()).unwrap();
        assert_eq!((pool.stats().threads, pool.stats().delayed, pool.stats().queued), (0, 1, 0));
        assert_eq!(pool.spawn(|| 5).unwrap().join().unwrap(), 5);
        assert!(!delayed.is_finished());
    });
}

#[test]
fn wait_idle_does_not_wait_for_delays() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let delayed = pool.spawn_after(HOUR, || ()).unwrap();
        pool.wait_idle();
        assert!(pool.wait_idle_timeout(Duration::ZERO));
        let (go, _) = occupy(&pool);
        assert!(!pool.wait_idle_timeout(millis(1)));
        let inner = pool.clone();
        let waiter = pool.spawn(move || inner.wait_idle_timeout(millis(1))).unwrap();
        assert!(!waiter.join().unwrap());
        drop(go);
        pool.wait_idle();
        assert!(!delayed.is_finished());
        // Due, it is waited for.
        let (go, wait) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let due = pool.spawn_after(millis(1), move || (started.send(()), wait.recv())).unwrap();
        has_started.recv().unwrap();
        assert!(!pool.wait_idle_timeout(millis(1)));
        drop(go);
        pool.wait_idle();
        assert!(due.is_finished());
    });
}

#[test]
fn a_task_of_the_only_thread_may_join_a_delayed_one() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let inner = pool.clone();
        let sum = pool.spawn(move || {
            let delayed = inner.spawn_after(millis(20), || 5).unwrap();
            // By way of a nested one, too.
            let nested = inner.clone();
            let other = inner.spawn_after(millis(10), move || {
                nested.spawn_after(millis(10), || 6).unwrap().join().unwrap()
            });
            delayed.join().unwrap() + other.unwrap().join().unwrap()
        });
        assert_eq!(sum.unwrap().join().unwrap(), 11);
        // The substitutes go again.
        eventually("one thread is left", || pool.stats().threads <= 1);
        assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
        assert!(pool.shutdown().is_clean());
    });
}

#[test]
fn tasks_that_wait_for_each_other_leave_a_thread_for_what_comes_due() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let (inner, meeting) = (pool.clone(), Arc::new(Barrier::new(2)));
        let both_run = meeting.clone();
        let one = pool.spawn(move || {
            meet(&both_run);
            inner.spawn_after(millis(20), || 5).unwrap().join().unwrap()
        });
        let one = one.unwrap();
        let other = pool.spawn(move || {
            meet(&meeting);
            one.join().unwrap() + 1
        });
        assert_eq!(other.unwrap().join().unwrap(), 6);
    });
}

#[test]
fn a_joined_delay_that_is_cancelled_ends_the_join() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let inner = pool.clone();
        let (tell, told) = mpsc::channel();
        let joiner = pool.spawn(move || {
            let delayed = inner.spawn_after(HOUR, || ()).unwrap();
            tell.send(delayed.canceller()).unwrap();
            delayed.join().unwrap_err().is_cancelled()
        });
        let joiner = joiner.unwrap();
        assert!(told.recv().unwrap().cancel());
        assert!(joiner.join().unwrap());
        // The same by a shutdown, which has to wait for the task that joins.
        let (inner, started) = (pool.clone(), Arc::new(Barrier::new(2)));
        let meeting = started.clone();
        let joiner = pool.spawn(move || {
            let delayed = inner.spawn_after(HOUR, || ()).unwrap();
            meet(&meeting);
            delayed.join().unwrap_err().is_cancelled()
        });
        meet(&started);
        assert!(pool.shutdown().is_clean());
        assert!(joiner.unwrap().join().unwrap());
    });
}

#[test]
fn a_delay_can_be_awaited() {
    let _tidy = tidy();
    use std::future::Future;
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    within(|| {
        let pool = pool(1);
        let mut handle = pool.spawn_after(millis(20), || 5).unwrap();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let value = loop {
            match std::pin::Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => break value,
                Poll::Pending => thread::park(),
            }
        };
        assert_eq!(value.unwrap(), 5);
    });
}

#[test]
fn limits_hold_for_what_delayed_tasks_submit_and_not_for_delays() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let limited = pool.limit(1);
        let (go, wait) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let holder = limited.spawn(move || (started.send(()), wait.recv())).unwrap();
        has_started.recv().unwrap();
        // The limit's permit is out, the delayed task needs none; what it submits there waits in the backlog.
        let inner = limited.clone();
        let waiting =
            pool.spawn_after(millis(1), move || inner.spawn(|| 5).unwrap()).unwrap().join().unwrap();
        assert!(!waiting.is_finished());
        assert_eq!(pool.stats().queued, 1);
        assert!(!pool.wait_idle_timeout(Duration::ZERO));
        drop(go);
        assert_eq!(waiting.join().unwrap(), 5);
        assert!(holder.join().is_ok());
        // A task of the limit that delays another one has to give its permit to nobody.
        let inner = pool.clone();
        let nested = limited.spawn(move || inner.spawn_after(millis(1), || 6).unwrap().join().unwrap());
        assert_eq!(nested.unwrap().join().unwrap(), 6);
        pool.wait_idle();
        assert_adds_up(&pool.stats());
    });
}

// ---- cancelling one ----

#[test]
fn cancelling_a_delay_frees_its_captures_at_once() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (task, drops) = doomed();
        let handle = pool.spawn_after(HOUR, task).unwrap();
        assert_eq!(pool.stats().delayed, 1);
        assert!(handle.cancel());
        assert_eq!(drops.load(SeqCst), 1);
        assert!(handle.is_finished() && handle.cancel());
        assert!(handle.join().unwrap_err().is_cancelled());
        let stats = pool.stats();
        assert_eq!((stats.delayed, stats.cancelled, stats.accepted), (0, 1, 1));
        let (task, drops) = doomed();
        drop(pool.spawn_after(HOUR, task).unwrap().cancel_on_drop());
        assert_eq!(drops.load(SeqCst), 1);
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn a_dropped_handle_detaches_its_delay() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (tell, told) = mpsc::channel();
        drop(pool.spawn_after(millis(5), move || tell.send(5)).unwrap());
        assert_eq!(told.recv(), Ok(5));
    });
}

#[test]
fn a_delay_is_run_or_cancelled_and_never_both() {
    let _tidy = tidy();
    within(|| {
        const COUNT: usize = 3_000;
        let pool = pool(2);
        let runs: Arc<Vec<AtomicUsize>> = Arc::new((0..COUNT).map(|_| AtomicUsize::new(0)).collect());
        let mut handles = Vec::new();
        for n in 0..COUNT {
            let runs = runs.clone();
            let delay = Duration::from_micros(50 * (n as u64 % 40));
            handles.push(pool.spawn_after(delay, move || runs[n].fetch_add(1, SeqCst)).unwrap());
        }
        // From both sides, while they come due.
        let cancellers: Vec<_> = handles.iter().map(JoinHandle::canceller).collect();
        let (front, back) = cancellers.split_at(COUNT / 2);
        let cancelled: Vec<bool> = thread::scope(|scope| {
            let of = |part: &'static str, cancellers| (part, cancellers);
            let threads = [of("front", front), of("back", back)].map(|(_, cancellers)| {
                scope.spawn(move || {
                    cancellers.iter().map(|it: &winddown::Canceller| it.cancel()).collect::<Vec<_>>()
                })
            });
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        for ((handle, was_cancelled), runs) in handles.into_iter().zip(&cancelled).zip(&*runs) {
            assert_eq!(handle.join().is_err_and(|error| error.is_cancelled()), *was_cancelled);
            assert_eq!(runs.load(SeqCst), usize::from(!was_cancelled));
        }
        pool.wait_idle();
        let stats = pool.stats();
        let count = cancelled.iter().filter(|was_cancelled| **was_cancelled).count() as u64;
        assert_eq!((stats.accepted, stats.cancelled, stats.delayed), (COUNT as u64, count, 0));
        assert_adds_up(&stats);
    });
}

// ---- programs ----

#[test]
fn a_million_delays_cost_at_most_100_bytes_each_and_cancelled_ones_nothing() {
    let _tidy = tidy();
    run("delays_cost");
}

#[test]
fn pools_that_had_delays_leave_nothing_behind() {
    let _tidy = tidy();
    run("delays_leak");
}

#[test]
#[cfg(target_os = "linux")]
fn one_thread_of_a_registry_waits_for_all_delays_and_only_while_there_are_any() {
    let _tidy = tidy();
    run("delays_thread");
}

#[test]
#[cfg(target_os = "linux")]
fn exit_cancels_delays_and_leaves_no_timer() {
    let _tidy = tidy();
    let outcome = run("delays_at_exit");
    let lines = ["due in a hook", "the pool's was dropped", "0 timers"];
    lines.iter().for_each(|line| assert_eq!(outcome.count(line), 1, "{outcome:#?}"));
    assert_eq!(outcome.count("a delayed task ran"), 0, "{outcome:#?}");
    assert!(outcome.position(lines[0]) < outcome.position(lines[1]), "{outcome:#?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_delay_for_which_no_timer_can_be_had_is_refused() {
    let _tidy = tidy();
    let outcome = common::run("delays_without_timer");
    outcome.assert_code(0);
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_due_waits_for_a_worker_where_none_can_be_had() {
    let _tidy = tidy();
    run("delays_without_worker");
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_due_and_has_no_worker_at_exit_is_cancelled_and_the_process_ends() {
    let _tidy = tidy();
    let outcome = common::run("delays_without_worker_at_exit");
    outcome.assert_code(3).assert_silent();
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[0] == "dropped", "{outcome:#?}");
    assert!(lines[1].ends_with("was cancelled before it started, 1 cancelled, 0 left"), "{outcome:#?}");
}

#[test]
#[cfg(unix)]
fn a_forked_child_has_no_delays_but_its_own() {
    let _tidy = tidy();
    run("delays_in_fork");
}
