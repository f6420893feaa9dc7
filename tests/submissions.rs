//! What may be submitted, by whom, and when; and that it comes to as many threads as it may.

mod common;

use common::{eventually, meet, occupy_with, registry, run, threads_named, tidy, within, Tracked};
use std::future::Future;
use std::mem::size_of;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Barrier, RwLock};
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::Duration;
use winddown::{BuildError, Pool, PoolBuilder, RejectReason, WhenFull};

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

/// On such a pool the first submission would wait for ever.
#[test]
fn a_queue_without_room_is_refused() {
    let _tidy = tidy();
    let error = builder(1).queue_capacity(0).build().unwrap_err();
    assert_eq!(error, BuildError::ZeroCapacity);
    assert!(error.to_string().contains("queue_capacity"), "{error}");
}

#[test]
fn a_result_of_a_mebibyte_and_one_of_nothing_come_back_by_move() {
    let _tidy = tidy();
    const SIZE: usize = 1 << 20;
    within(|| {
        // Code that is not optimised copies such a value from place to place of the stack.
        let pool = builder(1).stack_size(64 * SIZE).build().unwrap();
        let submitter = thread::Builder::new().stack_size(64 * SIZE).spawn(move || {
            let mut array = pool.spawn(|| [7_u8; SIZE]).unwrap().join().unwrap();
            assert!(array.iter().all(|byte| *byte == 7));
            array[SIZE - 1] = 8;
            // In by capture, and out again.
            let back = pool.spawn(move || array).unwrap().join().unwrap();
            assert_eq!((back[0], back[SIZE - 1]), (7, 8));
            let nothing = pool.spawn(|| Tracked::new(())).unwrap().join().unwrap();
            assert_eq!(size_of::<Tracked<()>>(), 0);
            drop(nothing);
            drop(pool.spawn(|| Tracked::new(())).unwrap());
        });
        submitter.unwrap().join().unwrap();
    });
}

#[test]
fn closures_of_a_mebibyte_go_every_way_and_in_a_box_on_a_small_stack() {
    let _tidy = tidy();
    let outcome = run("large_closures");
    outcome.assert_code(0).assert_silent();
    let each = "execute: 7\nspawn: 7\nlimit: 7\ndelay: 7\nscope: 7\n";
    assert_eq!(outcome.stdout, each.repeat(2) + "map: 7\n");
}

/// The same recursion, on a stack that is too small for it and on one that is not.
#[cfg(unix)]
#[test]
fn a_worker_has_the_stack_that_was_asked_for() {
    let _tidy = tidy();
    use std::os::unix::process::ExitStatusExt;
    let outcome = run("recursion_on_a_large_stack");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "deep: 4096\n");
    let outcome = run("recursion_on_a_small_stack");
    assert!(matches!(outcome.status.signal(), Some(libc::SIGABRT | libc::SIGSEGV)), "{outcome:#?}");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn fifteen_times_as_many_blocked_tasks_as_threads_start_not_one_thread_too_many() {
    let _tidy = tidy();
    within(|| {
        for max_threads in [1, 3, 8] {
            let pool = builder(max_threads).name(format!("full{max_threads}")).build().unwrap();
            let gate = Arc::new(RwLock::new(()));
            let closed = gate.write().unwrap();
            let (started, has_started) = channel();
            let handles: Vec<_> = (0..15 * max_threads)
                .map(|n| {
                    let (gate, started) = (gate.clone(), started.clone());
                    let task = move || {
                        started.send(()).unwrap();
                        drop(gate.read().unwrap());
                        n
                    };
                    pool.spawn(task).unwrap()
                })
                .collect();
            (0..max_threads).for_each(|_| has_started.recv().unwrap());
            let stats = pool.stats();
            assert_eq!((stats.threads, stats.running), (max_threads, max_threads as u64), "{stats:?}");
            assert_eq!(stats.queued, 14 * max_threads as u64, "{stats:?}");
            #[cfg(target_os = "linux")]
            assert_eq!(threads_named(&format!("full{max_threads}-")), max_threads);
            assert!(has_started.try_recv().is_err(), "one more has started");
            drop(closed);
            let got = handles.into_iter().map(|handle| handle.join().unwrap());
            assert!(got.eq(0..15 * max_threads));
            assert_eq!(pool.shutdown().stats().peak_threads, max_threads);
        }
    });
}

/// Says which thread drops it.
struct Captured(Sender<thread::ThreadId>);

impl Drop for Captured {
    fn drop(&mut self) {
        self.0.send(thread::current().id()).unwrap();
    }
}

/// Submits in every way; a closure that comes back is dropped here.
fn refusals(pool: &Pool, dropped: &Sender<thread::ThreadId>) -> Vec<RejectReason> {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Nobody>) {}
    }
    let task = || {
        let captured = Captured(dropped.clone());
        move || drop(captured)
    };
    let (limit, waker) = (pool.limit(1), Arc::new(Nobody).into());
    let Poll::Ready(submitted) = pin!(pool.spawn_async(task())).poll(&mut Context::from_waker(&waker)) else {
        panic!("there is nothing to wait for")
    };
    vec![
        submitted.unwrap_err().reason(),
        pool.execute(task()).unwrap_err().reason(),
        pool.spawn(task()).unwrap_err().reason(),
        pool.try_execute(task()).unwrap_err().reason(),
        pool.try_spawn(task()).unwrap_err().reason(),
        pool.execute_timeout(task(), Duration::MAX).unwrap_err().reason(),
        pool.spawn_timeout(task(), Duration::MAX).unwrap_err().reason(),
        pool.spawn_after(Duration::ZERO, task()).unwrap_err().reason(),
        limit.execute(task()).unwrap_err().reason(),
        limit.spawn(task()).unwrap_err().reason(),
        limit.try_execute(task()).unwrap_err().reason(),
        limit.try_spawn(task()).unwrap_err().reason(),
    ]
}

#[test]
fn after_the_end_every_way_to_submit_gives_the_closure_back_and_starts_no_thread() {
    let _tidy = tidy();
    type End = fn(&Pool);
    let ends: [(RejectReason, End); 4] = [
        (RejectReason::Closed, Pool::close),
        (RejectReason::Closed, |pool| drop(pool.shutdown())),
        (RejectReason::Closed, |pool| drop(pool.shutdown_now())),
        (RejectReason::ShuttingDown, |pool| drop(pool.registry().shutdown())),
    ];
    within(move || {
        for ((reason, end), was_used) in ends.into_iter().flat_map(|end| [(end, false), (end, true)]) {
            let pool = builder(2).name("ended").build().unwrap();
            if was_used {
                pool.spawn(|| ()).unwrap().join().unwrap();
            }
            end(&pool);
            let (dropped, who) = channel();
            assert_eq!(refusals(&pool, &dropped), [reason; 12]);
            drop(dropped);
            assert!(who.into_iter().eq([thread::current().id(); 12]), "dropped here, and not by a worker");
            let stats = pool.shutdown().stats().clone();
            let accepted = u64::from(was_used);
            assert_eq!((stats.accepted, stats.completed, stats.rejected), (accepted, accepted, 12));
            assert_eq!((stats.threads, stats.peak_threads), (0, usize::from(was_used)));
            eventually("its thread is gone", || threads_named("ended") == 0);
        }
    });
}

#[test]
fn a_closure_that_comes_back_may_be_submitted_again_and_again_and_runs_once() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(1).queue_capacity(1).when_full(WhenFull::Reject).build().unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let make = || -> Box<dyn FnOnce() + Send> {
            let (ran, capture) = (ran.clone(), Tracked::new(()));
            Box::new(move || {
                let _capture = capture;
                ran.fetch_add(1, SeqCst);
            })
        };
        let (go, _) = occupy_with(|task| pool.execute(task).unwrap());
        pool.execute(|| ()).unwrap();
        let mut task = make();
        for _ in 0..1000 {
            let refused = pool.execute(task).unwrap_err();
            assert_eq!(refused.reason(), RejectReason::Full);
            task = refused.into_inner();
        }
        assert_eq!(ran.load(SeqCst), 0);
        drop(go);
        // Now with a worker that makes room all the time.
        for _ in 0..1000 {
            while let Err(refused) = pool.execute(task) {
                task = refused.into_inner();
                thread::yield_now();
            }
            task = make();
        }
        drop(task);
        assert_eq!(pool.shutdown().stats().completed, 1002);
        assert_eq!(ran.load(SeqCst), 1000);
    });
}

#[cfg(unix)]
#[test]
fn a_thread_that_std_did_not_start_submits_and_waits() {
    let _tidy = tidy();
    use std::ffi::c_void;
    use std::ptr::{null, null_mut};

    extern "C" fn body(pool: *mut c_void) -> *mut c_void {
        // SAFETY: the pool is borrowed for as long as this thread runs, from whoever joins it.
        #[allow(unsafe_code)]
        let pool = unsafe { &*pool.cast::<Pool>() };
        let mut sum = pool.spawn(|| 1).unwrap().join().unwrap();
        pool.execute(|| ()).unwrap();
        pool.wait_idle();
        sum += pool.scope(|s| s.spawn(|| 2).join().unwrap());
        sum += pool.map(0..3, |n| n).map(Result::unwrap).sum::<usize>();
        assert!(Pool::current().is_none());
        sum as *mut c_void
    }
    within(|| {
        let pool = builder(2).build().unwrap();
        let (mut thread, mut sum) = (std::mem::MaybeUninit::uninit(), null_mut());
        let argument: *const Pool = &pool;
        // SAFETY: the body has the signature that is asked for, the pool outlives the thread, which is joined.
        #[allow(unsafe_code)]
        unsafe {
            assert_eq!(
                libc::pthread_create(thread.as_mut_ptr(), null(), body, argument.cast_mut().cast()),
                0
            );
            assert_eq!(libc::pthread_join(thread.assume_init(), &mut sum), 0);
        }
        assert_eq!(sum as usize, 6);
        assert_eq!(pool.shutdown().stats().completed, 6);
    });
}

#[test]
fn destructors_of_thread_locals_submit_and_wait() {
    let _tidy = tidy();
    let outcome = run("destructors_use_pools");
    outcome.assert_code(0).assert_silent();
    let mut lines: Vec<_> = outcome.stdout.lines().collect();
    lines.sort_unstable();
    let mut expected = vec!["main: 7, 3, 6", "worker: 7, 3, 6"];
    expected.extend(["a thread, last: 7, 3, 6", "a thread, first: 7, 3, 6"]);
    expected.sort_unstable();
    if !cfg!(target_os = "linux") {
        // Elsewhere nothing says that the thread of `main` runs destructors.
        lines.retain(|line| !line.starts_with("main"));
        expected.retain(|line| !line.starts_with("main"));
    }
    assert_eq!(lines, expected, "{outcome:#?}");
}

#[test]
fn destructors_of_the_thread_locals_of_workers_are_refused_at_exit_and_harm_nothing() {
    let _tidy = tidy();
    let outcome = run("destructors_use_pools_at_exit");
    outcome.assert_code(0).assert_silent().assert_prompt();
    assert_eq!(
        outcome.stdout,
        format!("{:?}, 3, 0, true, (Some(7), true)\n", [RejectReason::ShuttingDown; 7])
    );
}

#[test]
fn a_broken_pool_does_not_hold_up_exit() {
    let _tidy = tidy();
    let outcome = run("broken_pool_at_exit");
    outcome.assert_code(0).assert_prompt();
    assert_eq!(outcome.stdout, "Cancelled\n".repeat(3) + "Broken\n");
    assert_eq!(outcome.stderr.matches("no connection").count(), 1, "{outcome:#?}");
}

#[test]
fn two_submitters_share_a_queue_that_has_no_room() {
    let _tidy = tidy();
    const MANY: usize = 10_000;
    within(|| {
        let pool = builder(1).queue_capacity(1).build().unwrap();
        let (start, is_over) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
        let submitters = [(); 2].map(|()| {
            let (pool, start, is_over) = (pool.clone(), start.clone(), is_over.clone());
            thread::spawn(move || {
                meet(&start);
                let mut share = 0;
                while share < MANY && !is_over.load(SeqCst) {
                    pool.execute(|| ()).unwrap();
                    share += 1;
                }
                is_over.store(true, SeqCst);
                share
            })
        });
        let shares = submitters.map(|submitter| submitter.join().unwrap());
        assert!(shares.iter().all(|share| 10 * *share >= shares[0] + shares[1]), "{shares:?}");
        assert_eq!(pool.shutdown().stats().completed as usize, shares[0] + shares[1]);
    });
}
