//! Faults that were found once, each shown to be gone. What they broke stands in the name.

mod common;

use common::{eventually, meet, pool_in, registry, tidy, within};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;
use winddown::{JoinHandle, Pool, Registry, ShutdownToken};

type Tested = Result<(), Box<dyn Error>>;

/// A task that runs until the returned sender is dropped; it runs when this returns.
fn gate(pool: &Pool) -> Sender<()> {
    let (open, closed) = channel::<()>();
    let (begun, has_begun) = channel();
    pool.execute(move || {
        begun.send(()).unwrap();
        let _ = closed.recv();
    })
    .unwrap();
    has_begun.recv().unwrap();
    open
}

/// Cancelling took the cell's lock and then the pool's, a deadline the pool's and then the cell's.
#[test]
fn cancelling_does_not_deadlock_with_a_deadline() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..300 {
            let registry = registry();
            let pool = pool_in(&registry, 1);
            let gate = gate(&pool);
            let handles: Vec<_> = (0..50).map(|_| pool.spawn(|| ()).unwrap()).collect();
            let start = Arc::new(Barrier::new(2));
            let canceller = thread::spawn({
                let start = start.clone();
                move || {
                    start.wait();
                    handles.iter().filter(|handle| handle.cancel()).count()
                }
            });
            start.wait();
            let report = pool.shutdown_timeout(Duration::ZERO);
            assert_eq!(canceller.join().unwrap(), 50);
            assert_eq!(report.abandoned().len(), 1);
            assert_eq!(pool.stats().cancelled, 50);
            drop(gate);
        }
    });
}

/// With two workers idle, the third of three tasks that wait for one another got neither a worker nor a thread.
#[test]
fn each_task_of_a_burst_gets_a_thread_while_there_may_be_more() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..200 {
            let registry = registry();
            let pool = pool_in(&registry, 8);
            for tasks in 2..=8 {
                let meeting = Arc::new(Barrier::new(tasks));
                for _ in 0..tasks {
                    let meeting = meeting.clone();
                    pool.execute(move || meet(&meeting)).unwrap();
                }
                pool.wait_idle();
            }
        }
    });
}

/// A worker that looked as if it came for the next task ran a destructor that waited for that task.
#[test]
fn a_task_gets_a_thread_while_a_worker_drops_what_nobody_wants() {
    let _tidy = tidy();
    struct Waits(Pool);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.spawn(|| ()).unwrap().join().unwrap();
        }
    }
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 4);
        let gate = gate(&pool);
        drop(pool.spawn({
            let pool = pool.clone();
            move || Waits(pool)
        }));
        drop(pool.spawn({
            let pool = pool.clone();
            move || std::panic::panic_any(Mutex::new(Waits(pool)))
        }));
        drop(gate);
        pool.wait_idle();
    });
}

/// Threads that one shutdown had taken to join, and had no time for, were counted as left for ever.
#[test]
fn a_shutdown_returns_after_one_that_ran_out_of_time() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool =
            Pool::builder().registry(&registry).max_threads(2).keep_alive(Duration::ZERO).build().unwrap();
        let gate = gate(&pool);
        pool.spawn(|| ()).unwrap().join().unwrap(); // on a second worker, which then expires
        let report = pool.shutdown_timeout(Duration::ZERO);
        assert_eq!(report.abandoned().len(), 1);
        drop(gate);
        assert!(pool.shutdown().workers_joined() >= 1); // the one that was not given up
        registry.shutdown();
    });
}

/// The report of the whole was clean while work of a registry below it was lost.
#[test]
fn what_a_registry_below_lost_is_in_the_report_of_the_whole() {
    let _tidy = tidy();
    let outcome = common::run("loss_in_a_registry_below");
    outcome.assert_code(1).assert_silent();
    assert_eq!(outcome.stdout, "1 abandoned\n");
}

/// A worker's last callback that waited for a shutdown was itself waited for.
#[test]
fn the_last_callback_of_a_worker_may_wait_for_a_shutdown() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (seen, reports) = channel();
        let seen = Mutex::new(seen);
        let pool = Pool::builder()
            .registry(&registry)
            .max_threads(1)
            .on_thread_stop({
                let registry = registry.clone();
                move || seen.lock().unwrap().send(registry.shutdown()).unwrap()
            })
            .build()
            .unwrap();
        pool.execute(|| ()).unwrap();
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        assert_eq!(reports.recv().unwrap().elapsed(), report.elapsed());
    });
}

/// The handles of a broken pool hung behind a destructor that hung, whatever the deadline.
#[test]
fn the_handles_of_a_broken_pool_resolve_at_the_deadline() {
    let _tidy = tidy();
    struct Hangs(Receiver<()>);
    impl Drop for Hangs {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }
    within(|| {
        let registry = registry();
        let (may_start, start) = channel::<()>();
        let start = Mutex::new(start);
        let pool = Pool::builder()
            .registry(&registry)
            .max_threads(1)
            .on_thread_start(move || {
                let _ = start.lock().unwrap().recv();
                panic!("no start today");
            })
            .build()
            .unwrap();
        let (go_on, hung) = channel();
        let hangs = Hangs(hung);
        let handles = [pool.spawn(move || drop(hangs)).unwrap(), pool.spawn(|| ()).unwrap()];
        drop(may_start);
        let report = registry.shutdown_timeout(Duration::from_millis(200));
        assert!(!report.is_clean());
        for handle in handles {
            assert!(handle.join().unwrap_err().is_cancelled());
        }
        drop(go_on);
    });
}

/// A waker was cloned under the token's lock.
#[test]
fn a_waker_may_ask_the_token_while_it_is_cloned() {
    let _tidy = tidy();
    static ASKED: AtomicBool = AtomicBool::new(false);
    thread_local!(static TOKEN: std::cell::RefCell<Option<ShutdownToken>> = const { std::cell::RefCell::new(None) });
    const TABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
    fn clone(data: *const ()) -> RawWaker {
        TOKEN.with_borrow(|token| ASKED.store(!token.as_ref().unwrap().is_triggered(), SeqCst));
        RawWaker::new(data, &TABLE)
    }
    within(|| {
        let registry = registry();
        let mut token = registry.token();
        TOKEN.with_borrow_mut(|place| *place = Some(registry.token()));
        #[allow(unsafe_code)]
        // SAFETY: the table's functions touch nothing but a thread-local, for any data.
        let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) };
        let poll =
            std::future::Future::poll(std::pin::Pin::new(&mut token), &mut Context::from_waker(&waker));
        assert_eq!(poll, Poll::Pending);
        assert!(ASKED.load(SeqCst));
    });
}

/// The wakers of tokens and handles are code of others: they may do anything, also shut down.
#[test]
fn a_waker_may_wait_for_the_shutdown_that_wakes_it() {
    let _tidy = tidy();
    struct Asks(Registry);
    impl Wake for Asks {
        fn wake(self: Arc<Self>) {
            self.0.request_shutdown();
            let _ = self.0.stats();
        }
    }
    within(|| {
        let registry = registry();
        let waker = Waker::from(Arc::new(Asks(registry.clone())));
        let mut cx = Context::from_waker(&waker);
        let (mut token, mut finished) = (registry.token(), registry.finished());
        assert!(std::future::Future::poll(std::pin::Pin::new(&mut token), &mut cx).is_pending());
        assert!(std::future::Future::poll(std::pin::Pin::new(&mut finished), &mut cx).is_pending());
        assert!(registry.shutdown().is_clean());
    });
}

/// A task that was cancelled said so only until its handle had been joined.
#[test]
fn a_cancelled_task_stays_cancelled_for_whoever_asks() -> Tested {
    let _tidy = tidy();
    let registry = registry();
    let pool = pool_in(&registry, 1);
    let gate = gate(&pool);
    let handle = pool.spawn(|| ())?;
    let canceller = handle.canceller();
    assert!(canceller.cancel());
    assert!(handle.join().unwrap_err().is_cancelled());
    assert!(canceller.cancel());
    drop(gate);
    Ok(())
}

/// A task that had been abandoned returned, and while its result was dropped the next deadline was waited past.
#[test]
fn a_deadline_does_not_wait_for_the_late_result_of_an_abandoned_task() {
    let _tidy = tidy();
    struct Hangs(Sender<()>, Receiver<()>);
    impl Drop for Hangs {
        fn drop(&mut self) {
            let _ = self.0.send(());
            let _ = self.1.recv();
        }
    }
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let (drops, is_dropped) = channel();
        let (go_on, hung) = channel();
        let result = Hangs(drops, hung);
        let (end, may_end) = channel::<()>();
        let (begun, has_begun) = channel();
        let handle = pool.spawn(move || {
            begun.send(()).unwrap();
            let _ = may_end.recv();
            result
        });
        has_begun.recv().unwrap();
        assert_eq!(pool.shutdown_timeout(Duration::ZERO).abandoned().len(), 1);
        drop(end);
        is_dropped.recv().unwrap();
        let other = pool_in(&registry, 1);
        let gate = gate(&other);
        assert_eq!(other.shutdown_timeout(Duration::ZERO).abandoned().len(), 1);
        assert!(!registry.shutdown_timeout(Duration::ZERO).is_clean());
        assert!(handle.unwrap().join().is_err_and(|error| error.is_abandoned()));
        drop((gate, go_on));
    });
}

/// What a pool's callbacks captured was dropped by the shutdown before anyone had its report.
#[test]
fn the_captures_of_callbacks_may_do_anything_when_they_are_dropped() {
    let _tidy = tidy();
    struct Bomb(Registry);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.shutdown();
            panic!("the drop of a capture panics");
        }
    }
    within(|| {
        let registry = registry();
        let bomb = Bomb(registry.clone());
        let pool = Pool::builder()
            .registry(&registry)
            .on_thread_stop(move || {
                let _ = &bomb;
            })
            .build()
            .unwrap();
        let gate = gate(&pool);
        registry.before_join("let go of the pool", move || drop((pool, gate))).unwrap();
        assert!(registry.shutdown().is_clean());
    });
}

/// Ending the process in a worker's first callback started thread upon thread, each of which did the same.
#[test]
fn the_process_may_end_in_the_first_callback_of_a_worker() {
    let _tidy = tidy();
    common::run("exit_in_the_first_callback").assert_code(6);
}

/// A registry that a hook made was not drained before the report of the whole.
#[test]
fn a_registry_made_in_a_hook_is_drained_with_the_rest() {
    let _tidy = tidy();
    let outcome = common::run("registry_made_in_a_hook");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "its task\nclean: true\n");
}

/// The panic came out of `remove`, which said nothing then.
#[test]
fn a_removed_hook_whose_capture_panics_when_it_is_dropped_was_there() {
    let _tidy = tidy();
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the drop of a capture panics");
        }
    }
    let registry = registry();
    let bomb = Bomb;
    let id = registry.before_join("never", move || drop(bomb)).unwrap();
    assert!(registry.remove(id));
    assert!(!registry.remove(id));
}

/// The thread that waited at the end of the scope did not count as blocked when all of its tasks had been started.
#[test]
fn a_task_in_a_scope_may_wait_for_one_that_needs_another_thread() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 2);
        let (inner, limited) = (pool.clone(), pool.limit(1));
        let outer = move || {
            let has_started = Barrier::new(2);
            inner.scope(|s| {
                s.spawn(|| {
                    has_started.wait();
                    // The second has to wait for the permit of the first, which no thread but a third is left to run.
                    let [first, second] = [1, 2].map(|n| limited.spawn(move || n).unwrap());
                    assert_eq!([second, first].map(|handle| handle.join().unwrap()), [2, 1]);
                });
                has_started.wait();
            });
        };
        pool.spawn(outer).unwrap().join().unwrap();
    });
}

/// A capture whose drop takes as long as its owner wants.
struct Slow {
    begun: Sender<()>,
    may_end: Receiver<()>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.begun.send(());
        let _ = self.may_end.recv();
    }
}

/// Cancels a task of a pool that is dropped, and whose threads go, before what the task has captured is gone.
fn cancel_last(registry: &Registry, submit: impl FnOnce(&Pool, Slow) -> JoinHandle<()>) {
    let pool = Pool::builder()
        .registry(registry)
        .max_threads(1)
        .keep_alive(Duration::from_millis(1))
        .build()
        .unwrap();
    let ((begun, has_begun), (end, may_end)) = (channel(), channel());
    let gate = gate(&pool);
    let handle = submit(&pool, Slow { begun, may_end });
    let canceller = thread::spawn(move || handle.cancel());
    has_begun.recv().unwrap();
    drop((gate, pool));
    eventually("its thread has gone", || registry.stats().iter().all(|pool| pool.threads == 0));
    drop(end);
    assert!(canceller.join().unwrap());
    eventually("the pool has left its registry", || registry.stats().is_empty());
}

#[test]
fn a_pool_leaves_its_registry_though_its_last_task_is_cancelled_when_its_threads_have_gone() {
    let _tidy = tidy();
    let registry = registry();
    cancel_last(&registry, |pool, slow| pool.spawn(move || drop(slow)).unwrap());
    let late = Duration::from_secs(3600);
    cancel_last(&registry, |pool, slow| pool.spawn_after(late, move || drop(slow)).unwrap());
}
