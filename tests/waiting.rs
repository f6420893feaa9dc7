//! Waiting: for one task, for several, for a pool; with a time and without, beside others and in code that is called back.

mod common;

use common::{eventually, meet, occupy_with, pool_in, registry, run, tidy, within, Tracked};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{as_completed, join_all, Canceller, JoinHandle, Pool, Registry};

fn pool(max_threads: usize) -> Pool {
    pool_in(&registry(), max_threads)
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> (Sender<()>, JoinHandle<()>) {
    occupy_with(|task| pool.spawn(task).unwrap())
}

#[test]
fn a_task_that_one_thread_sees_finished_is_ready_for_every_other() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (watch, to_watch) = channel::<Arc<JoinHandle<usize>>>();
        let (seen, is_seen) = channel();
        let watcher = thread::spawn(move || {
            for handle in to_watch {
                while !handle.is_finished() {
                    thread::yield_now();
                }
                seen.send(handle).unwrap();
            }
        });
        for n in 0..3_000 {
            let handle = Arc::new(pool.spawn(move || n).unwrap());
            watch.send(handle.clone()).unwrap();
            drop(handle);
            let handle = Arc::into_inner(is_seen.recv().unwrap()).expect("nobody else has it");
            assert_eq!(handle.join_timeout(Duration::ZERO).expect("it is finished").unwrap(), n);
        }
        drop(watch);
        watcher.join().unwrap();
    });
}

/// A task has one handle, and so one waiter; a pool and a token may have many.
#[test]
fn a_timed_waiter_keeps_its_time_beside_those_who_wait_without_limit() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (pool, inside, token) = (pool_in(&registry, 1), pool_in(&registry, 1), registry.token());
        let (go, running) = occupy(&pool);
        let patient = [
            thread::spawn({
                let pool = pool.clone();
                move || pool.wait_idle()
            }),
            thread::spawn({
                let token = token.clone();
                move || token.wait()
            }),
            thread::spawn({
                let registry = registry.clone();
                move || drop(registry.wait_finished())
            }),
        ];
        // What goes on elsewhere in the registry wakes who waits inside a task for nothing, all the time.
        let is_over = Arc::new(AtomicBool::new(false));
        let noise = thread::spawn({
            let (registry, until) = (registry.clone(), is_over.clone());
            move || {
                let other = pool_in(&registry, 1);
                while !until.load(SeqCst) {
                    drop(registry.hold("for a moment").unwrap());
                    other.execute(|| ()).unwrap();
                    other.wait_idle();
                }
            }
        });
        for millis in [1, 5, 20, 50] {
            let time = Duration::from_millis(millis);
            let start = Instant::now();
            assert!(!pool.wait_idle_timeout(time));
            assert!(start.elapsed() >= time);
            let start = Instant::now();
            assert!(!token.wait_timeout(time));
            assert!(start.elapsed() >= time);
            let pool = pool.clone();
            let task = move || {
                let start = Instant::now();
                (pool.wait_idle_timeout(time), start.elapsed() >= time)
            };
            assert_eq!(inside.spawn(task).unwrap().join().unwrap(), (false, true));
        }
        assert!(patient.iter().all(|waiter| !waiter.is_finished()));
        is_over.store(true, SeqCst);
        noise.join().unwrap();
        // Both sorts wake, and the pool is as open as it was.
        let timed = thread::spawn({
            let pool = pool.clone();
            move || pool.wait_idle_timeout(Duration::MAX)
        });
        drop(go);
        assert!(timed.join().unwrap());
        running.join().unwrap();
        assert!(pool.wait_idle_timeout(Duration::ZERO) && !pool.is_closed());
        assert!(registry.shutdown().is_clean());
        assert!(token.wait_timeout(Duration::ZERO));
        patient.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

/// The last handle of a pool, its registry, a task that is queued and one that has ended.
type Used = (Pool, Registry, JoinHandle<()>, JoinHandle<u32>);
/// Whether the queued one was cancelled, the other's result, whether a task was accepted, whether the pool is closed.
type Told = (bool, u32, bool, bool);

/// What a waker uses when it is called, and whom it tells what came of it.
struct Reenters {
    own: Canceller,
    used: Mutex<Option<Used>>,
    told: Mutex<Sender<Told>>,
    ran: Mutex<Sender<()>>,
}

impl Wake for Reenters {
    fn wake(self: Arc<Self>) {
        let Some((pool, registry, queued, done)) = self.used.lock().unwrap().take() else { return };
        // The task that wakes it has ended, or still runs.
        self.own.cancel();
        let cancelled = queued.cancel() && queued.join().is_err();
        let value = done.join_timeout(Duration::ZERO).unwrap().unwrap();
        let ran = self.ran.lock().unwrap().clone();
        let submitted = pool.execute(move || ran.send(()).unwrap()).is_ok();
        drop((format!("{pool:?}"), pool.stats(), pool.running(), pool.wait_idle_timeout(Duration::ZERO)));
        registry.request_shutdown();
        pool.close();
        let is_closed = pool.is_closed();
        drop(pool); // the last handle
        self.told.lock().unwrap().send((cancelled, value, submitted, is_closed)).unwrap();
    }
}

#[test]
fn the_waker_of_a_handle_may_wait_cancel_submit_and_end_its_pool() {
    let _tidy = tidy();
    within(|| {
        for is_on_worker in [false, true] {
            let registry = registry();
            let pool = pool_in(&registry, 1);
            let done = pool.spawn(|| 7).unwrap();
            eventually("it has ended", || done.is_finished());
            let (go, mut running) = occupy(&pool);
            let queued = pool.spawn(|| unreachable!("it is cancelled")).unwrap();
            let ((told, is_told), (ran, has_run)) = (channel(), channel());
            let used = Mutex::new(Some((pool, registry.clone(), queued, done)));
            let own = running.canceller();
            let waker = Reenters { own, used, told: Mutex::new(told), ran: Mutex::new(ran) };
            let waker = Waker::from(Arc::new(waker));
            assert!(Pin::new(&mut running).poll(&mut Context::from_waker(&waker)).is_pending());
            if !is_on_worker {
                waker.wake_by_ref();
            }
            drop(go);
            let told = is_told.recv().unwrap();
            assert_eq!(told, (true, 7, true, true), "{is_on_worker}");
            running.join().unwrap();
            let report = registry.wait_finished();
            assert!(report.is_clean(), "{report}");
            has_run.recv().expect("what the waker submitted was accepted");
        }
    });
}

#[test]
fn the_first_failure_comes_while_others_still_run() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        let (go, blocked) = occupy(&pool);
        let (fail, failing) = occupy_with(|task| {
            pool.spawn(move || {
                task();
                panic!("no luck")
            })
            .unwrap()
        });
        let value = pool.spawn(|| ()).unwrap();
        let mut results = as_completed([blocked, failing, value]);
        results.next().unwrap().unwrap(); // the value
        let waits = thread::spawn(move || (results.find(Result::is_err), results));
        drop(fail);
        let (failure, results) = waits.join().unwrap();
        assert!(failure.unwrap().unwrap_err().is_panic());
        assert_eq!(results.len(), 1, "the blocked one is still waited for");
        // One that has failed before comes at once, and where none fails all are waited for.
        let failed = pool.spawn(|| panic!("no luck")).unwrap();
        eventually("it has ended", || failed.is_finished());
        let (second, blocked) = occupy(&pool);
        let mut mixed = as_completed([blocked, failed]);
        assert!(mixed.next_timeout(Duration::ZERO).unwrap().unwrap().unwrap_err().is_panic());
        drop((go, second));
        assert!(results.chain(mixed).find(Result::is_err).is_none());
    });
}

/// Threads that wait for the tasks of a wave go on when those have ended, though there is always something to do.
#[test]
fn those_who_wait_for_a_wave_go_on_while_the_next_keeps_the_pool_busy() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(4);
        let mut before: Option<(Sender<()>, Sender<()>, thread::JoinHandle<()>)> = None;
        for _ in 0..100 {
            let ((one, first), (other, second)) = (occupy(&pool), occupy(&pool));
            let start = Arc::new(Barrier::new(2));
            let starts = start.clone();
            let waiter = thread::spawn(move || {
                meet(&starts);
                assert!(join_all([first, second]).iter().all(Result::is_ok));
            });
            meet(&start);
            if let Some((one, other, waiter)) = before.replace((one, other, waiter)) {
                drop((one, other));
                waiter.join().unwrap();
                // Somebody who waits for a moment of rest goes on waiting.
                assert!(!pool.wait_idle_timeout(Duration::ZERO));
            }
        }
        let (one, other, waiter) = before.unwrap();
        drop((one, other));
        pool.wait_idle();
        waiter.join().unwrap();
        assert_eq!(pool.stats().completed, 200);
    });
}

#[test]
fn a_map_keeps_no_result_that_it_has_given_away() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let value = Arc::new(Tracked::new(()));
        let items = || (0..10).map(|_| value.clone()).collect::<Vec<_>>();
        let mut map = pool.map_with_lookahead(items(), 1, |item| item);
        let mut unordered = pool.map_unordered(items(), |item| item);
        for left in (1..10).rev() {
            drop(map.next().unwrap().unwrap());
            // The items of the input, those of the other map, and our own.
            assert_eq!(Arc::strong_count(&value), left + 10 + 1);
        }
        drop(map);
        for left in (1..10).rev() {
            drop(unordered.next().unwrap().unwrap());
            assert_eq!(Arc::strong_count(&value), left + 1);
        }
    });
}

#[test]
fn ten_thousand_waits_in_vain_leave_nothing_behind() {
    let _tidy = tidy();
    run("waits_in_vain").assert_code(0).assert_silent();
}

#[cfg(feature = "exit-hook")]
#[test]
fn exit_waits_for_tasks_whose_handles_were_dropped() {
    let _tidy = tidy();
    let outcome = run("handles_are_dropped_before_exit");
    outcome.assert_code(0).assert_silent().assert_prompt();
    assert_eq!(outcome.count("task "), 50, "{outcome:#?}");
}

#[cfg(feature = "exit-hook")]
#[test]
fn hooks_and_exit_handlers_join_running_tasks() {
    let _tidy = tidy();
    let outcome = run("exit_handlers_join_tasks");
    outcome.assert_code(0).assert_silent().assert_prompt();
    let expected = "a handler before the drain: 1\na pre-join hook: 2\na post-join hook: 3\na handler after the drain: 4\n";
    assert_eq!(outcome.stdout, expected);
}
