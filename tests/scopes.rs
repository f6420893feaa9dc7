//! Scopes: tasks borrow, and none outlives its scope, whatever ends it.

mod common;

use common::{assert_adds_up, listen, meet, occupy_with, pool_in, registry, tidy, within};
use std::fmt::Debug;
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use winddown::{task, FollowUps, Pool, PoolBuilder, Scope, ScopedJoinHandle, WhenFull};

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

fn pool(max_threads: usize) -> Pool {
    builder(max_threads).build().unwrap()
}

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> Sender<()> {
    occupy_with(|task| pool.execute(task).unwrap()).0
}

/// Something to borrow, on the heap, where a use after its end is found by AddressSanitizer. When it ends, nothing may borrow
/// from it.
struct Ground {
    loans: Box<AtomicUsize>,
    /// Loans that have ended.
    ended: Arc<AtomicUsize>,
}

impl Ground {
    fn new() -> Ground {
        Ground { loans: Box::default(), ended: Arc::default() }
    }

    fn loan(&self) -> Loan<'_> {
        self.loans.fetch_add(1, SeqCst);
        Loan(self)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let loans = self.loans.swap(usize::MAX, SeqCst);
        assert_eq!(loans, 0, "something borrows what is gone");
    }
}

struct Loan<'a>(&'a Ground);

impl Loan<'_> {
    fn touch(&self) {
        assert!(self.0.loans.load(SeqCst) != usize::MAX);
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.touch();
        self.0.ended.fetch_add(1, SeqCst);
        self.0.loans.fetch_sub(1, SeqCst);
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a bomb was dropped");
        }
    }
}

fn message(result: thread::Result<impl Debug>) -> &'static str {
    result.unwrap_err().downcast_ref::<&'static str>().copied().unwrap_or("something else")
}

/// What came of a call that may panic.
fn caught<R>(f: impl FnOnce() -> R) -> thread::Result<R> {
    catch_unwind(AssertUnwindSafe(f))
}

fn fib(pool: &Pool, n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    pool.scope(|s| {
        let one = s.spawn(|| fib(pool, n - 1));
        let other = fib(pool, n - 2);
        one.join().unwrap() + other
    })
}

const fn is_handle<T: Send + Sync + Debug>() {}
const fn is_scope<T: Send + Sync + Debug>() {}
const _: () = is_handle::<ScopedJoinHandle<'static, std::cell::Cell<u8>>>();
const _: () = is_scope::<Scope<'static, 'static>>();

// ---- borrowing and results ----

#[test]
fn tasks_borrow_what_lives_outside_and_change_it() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        let mut numbers = vec![1_u64; 1000];
        let factor = 3;
        pool.scope(|s| {
            for chunk in numbers.chunks_mut(10) {
                s.spawn(move || chunk.iter_mut().for_each(|n| *n *= factor));
            }
        });
        assert_eq!(numbers.iter().sum::<u64>(), 3000);
        // Who has come to the end of the scope finds its tasks in the counts.
        let stats = pool.stats();
        assert_eq!((stats.completed, stats.running, stats.queued), (100, 0, 0));
        assert_adds_up(&stats);
    });
}

#[test]
fn a_scope_returns_what_its_closure_returns_and_starts_no_thread_for_nothing() {
    let _tidy = tidy();
    let pool = pool(1);
    let text = String::from("outside");
    let borrowed: &str = pool.scope(|_| text.as_str());
    assert_eq!(borrowed, "outside");
    assert_eq!(pool.stats().threads, 0);
}

#[test]
fn results_may_borrow() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let words = String::from("one three five");
        let longest: Option<&str> =
            pool.scope(|s| s.spawn(|| words.split(' ').max_by_key(|word| word.len())).join().unwrap());
        assert_eq!(longest, Some("three"));
    });
}

#[test]
fn a_handle_says_whether_its_task_has_ended_and_prints() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, wait) = mpsc::channel::<()>();
        pool.scope(|s| {
            let handle = s.spawn(move || wait.recv().is_err());
            assert!(!handle.is_finished());
            assert_eq!(format!("{handle:?}"), "ScopedJoinHandle { is_finished: false }");
            assert!(format!("{s:?}").contains("pool-"), "{s:?}");
            let second = s.spawn(|| 5);
            drop(go);
            assert_eq!(second.join().unwrap(), 5);
            assert!(handle.is_finished());
            assert!(handle.join().unwrap());
        });
    });
}

#[test]
fn tasks_submit_through_the_scope_and_take_handles_of_others_along() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let ground = Ground::new();
        let total = AtomicUsize::new(0);
        pool.scope(|s| {
            let first = s.spawn(|| (ground.loan(), 5).1);
            let (ground, total) = (&ground, &total);
            s.spawn(move || {
                let second = s.spawn(move || (ground.loan(), first.join().unwrap() + 1).1);
                s.spawn(move || total.fetch_add(second.join().unwrap(), SeqCst));
            });
        });
        assert_eq!(total.into_inner(), 6);
        assert_eq!(ground.ended.load(SeqCst), 2);
    });
}

#[test]
fn other_threads_may_submit_through_the_scope() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let count = AtomicUsize::new(0);
        pool.scope(|s| {
            thread::scope(|threads| {
                for _ in 0..4 {
                    threads.spawn(|| {
                        for _ in 0..100 {
                            s.spawn(|| count.fetch_add(1, SeqCst));
                        }
                    });
                }
            });
        });
        assert_eq!(count.into_inner(), 400);
    });
}

#[test]
fn a_result_that_nobody_takes_is_dropped_once_and_before_the_scope_ends() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        for round in 0..1000 {
            let ground = Ground::new();
            pool.scope(|s| {
                let handle = s.spawn(|| ground.loan());
                if round % 2 == 0 {
                    drop(handle); // before the task has ended, or after
                } else {
                    let ground = &ground;
                    s.spawn(move || (ground.loan(), handle)); // a result that has a result
                }
            });
            assert_eq!(ground.ended.load(SeqCst), 1 + round % 2);
        }
    });
}

#[test]
fn a_handle_that_is_forgotten_hangs_nothing() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        pool.scope(|s| std::mem::forget(s.spawn(|| 5)));
        assert_eq!(pool.stats().completed, 1);
    });
}

// ---- inside tasks ----

#[test]
fn scopes_lie_within_scopes_on_pools_of_any_size() {
    let _tidy = tidy();
    for threads in [1, 2, 4] {
        within(move || {
            let pool = pool(threads);
            assert_eq!(fib(&pool, 12), 144); // from outside
            let inner = pool.clone();
            assert_eq!(pool.spawn(move || fib(&inner, 12)).unwrap().join().unwrap(), 144);
            pool.wait_idle();
            assert_adds_up(&pool.stats());
        });
    }
}

#[test]
fn a_task_uses_scopes_on_a_pool_of_one_thread() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let order = pool.spawn(|| {
            let pool = Pool::current().unwrap();
            let order = Mutex::new(Vec::new());
            pool.scope(|s| {
                for n in 0..3 {
                    let order = &order;
                    s.spawn(move || {
                        order.lock().unwrap().push(10 * n);
                        s.spawn(move || order.lock().unwrap().push(10 * n + 1));
                        Pool::current()
                            .unwrap()
                            .scope(|t| drop(t.spawn(|| order.lock().unwrap().push(10 * n + 2))));
                    });
                }
            });
            order.into_inner().unwrap()
        });
        // Each waits for its own scope in its place; what they submit comes last, as on a pool of one thread.
        assert_eq!(order.unwrap().join().unwrap(), [0, 2, 10, 12, 20, 22, 1, 11, 21]);
    });
}

#[test]
fn a_join_in_a_scope_runs_a_queued_task_in_place() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let inner = pool.clone();
        let joined = pool.spawn(move || {
            inner.scope(|s| {
                let handles: Vec<_> =
                    (0..100).map(|n| s.spawn(move || (n, thread::current().id()))).collect();
                handles.into_iter().map(|handle| handle.join().unwrap()).collect::<Vec<_>>()
            })
        });
        let joined = joined.unwrap().join().unwrap();
        assert_eq!(joined.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(joined.iter().all(|(_, thread)| *thread == joined[0].1));
    });
}

/// The other worker's task waits for one that it has submitted through the scope, which nobody but the owner of the scope
/// can run.
#[test]
fn the_owner_of_a_scope_runs_what_its_tasks_submit_while_it_waits() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let inner = pool.clone();
        let outer = pool.spawn(move || {
            let owner = thread::current().id();
            inner.scope(|s| {
                let (started, has_started) = mpsc::channel();
                s.spawn(move || {
                    started.send(()).unwrap();
                    let (done, is_done) = mpsc::channel();
                    for _ in 0..50 {
                        let done = done.clone();
                        s.spawn(move || done.send(thread::current().id()).unwrap());
                        assert_eq!(is_done.recv().unwrap(), owner);
                    }
                });
                has_started.recv().unwrap(); // on the other worker: this one waits
            });
        });
        outer.unwrap().join().unwrap();
    });
}

#[test]
fn a_task_of_another_pool_uses_a_scope() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (one, other) = (pool_in(&registry, 1), pool_in(&registry, 1));
        let sum = one.spawn(move || {
            let numbers = [1, 2, 3];
            other.scope(|s| {
                let handles = numbers.each_ref().map(|n| s.spawn(move || 10 * n));
                handles.into_iter().map(|handle| handle.join().unwrap()).sum::<i32>()
            })
        });
        assert_eq!(sum.unwrap().join().unwrap(), 60);
        assert!(registry.shutdown().is_clean());
    });
}

/// Where a full pool has its submitter run the task, that may be a worker of the pool that the task needs.
#[test]
fn a_scope_in_a_task_that_runs_within_one_of_its_pool_hangs_nothing() {
    let _tidy = tidy();
    for joins in [false, true] {
        within(move || {
            let one = pool(1);
            let full = builder(1).queue_capacity(1).when_full(WhenFull::CallerRuns).build().unwrap();
            let go = occupy(&full);
            full.try_execute(|| ()).unwrap();
            let inner = one.clone();
            let outer = one.spawn(move || {
                let here = thread::current().id();
                let count = Arc::new(AtomicUsize::new(0));
                let seen = count.clone();
                let task = move || {
                    assert_eq!(thread::current().id(), here);
                    inner.scope(|s| {
                        let handle = s.spawn(|| seen.fetch_add(1, SeqCst));
                        if joins {
                            handle.join().unwrap();
                        }
                    });
                    inner.spawn(|| ()).unwrap().join().unwrap();
                };
                full.spawn(task).unwrap().join().unwrap();
                count.load(SeqCst)
            });
            assert_eq!(outer.unwrap().join().unwrap(), 1);
            drop(go);
        });
    }
}

#[test]
fn hooks_use_scopes() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let count = Arc::new(AtomicUsize::new(0));
        let hook = |pool: Pool, count: Arc<AtomicUsize>| {
            move || {
                let here = thread::current().id();
                let is_open = !pool.is_closed();
                pool.scope(|s| {
                    let count = &count;
                    s.spawn(move || {
                        count.fetch_add(1, SeqCst);
                        assert_eq!(thread::current().id() != here, is_open);
                    });
                });
            }
        };
        registry.before_join("before", hook(pool.clone(), count.clone())).unwrap();
        registry.after_join("after", hook(pool.clone(), count.clone())).unwrap();
        assert!(registry.shutdown().is_clean());
        assert_eq!(count.load(SeqCst), 2);
    });
}

#[test]
fn callbacks_of_a_pools_own_threads_use_scopes() {
    let _tidy = tidy();
    within(|| {
        let place = Arc::new(Mutex::new(None::<Pool>));
        let count = Arc::new(AtomicUsize::new(0));
        let callback = || {
            let (place, count) = (place.clone(), count.clone());
            move || {
                let Some(pool) = place.lock().unwrap().clone() else { return };
                let value = pool.scope(|s| {
                    s.spawn(|| count.fetch_add(1, SeqCst));
                    s.spawn(|| 5).join().unwrap()
                });
                assert_eq!(value, 5);
            }
        };
        let pool = builder(1).on_thread_start(callback()).on_thread_stop(callback()).build().unwrap();
        *place.lock().unwrap() = Some(pool.clone());
        assert_eq!(pool.scope(|s| s.spawn(|| 1).join().unwrap()), 1);
        assert!(pool.shutdown().is_clean());
        place.lock().unwrap().take();
        assert_eq!(count.load(SeqCst), 2);
    });
}

#[test]
fn a_scoped_task_shuts_its_pool_down() {
    let _tidy = tidy();
    for threads in [1, 2] {
        within(move || {
            let pool = pool(threads);
            let ended = AtomicUsize::new(0);
            let report = pool.scope(|s| {
                let down = s.spawn(|| pool.shutdown());
                s.spawn(|| ended.fetch_add(1, SeqCst));
                down.join().unwrap()
            });
            assert!(report.is_clean());
            assert_eq!(ended.into_inner(), 1);
        });
    }
}

// ---- panics ----

#[test]
fn a_panic_that_is_joined_stays_with_its_handle() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let ground = Ground::new();
        let value = pool.scope(|s| {
            let loan = ground.loan();
            let line = line!() + 1;
            let handle = s.spawn(move || {
                loan.touch();
                panic!("no luck")
            });
            let error = handle.join().map(|()| unreachable!()).unwrap_err();
            assert!(
                error.to_string().ends_with(&format!("tests/scopes.rs:{line}:28 panicked: no luck")),
                "{error}"
            );
            assert_eq!(error.into_panic().downcast_ref(), Some(&"no luck"));
            7
        });
        assert_eq!(value, 7);
        assert_eq!((pool.stats().panicked, pool.stats().completed), (1, 0));
        assert_eq!(pool.scope(|s| s.spawn(|| 3).join()).unwrap(), 3);
    });
}

#[test]
fn a_panic_that_nobody_joins_comes_out_of_the_scope_when_all_tasks_have_ended() {
    let _tidy = tidy();
    within(|| {
        let log = listen();
        let pool = pool(1);
        let ground = Ground::new();
        let result = caught(|| {
            pool.scope(|s| {
                let kept = s.spawn(|| panic!("the first, whose handle is dropped last"));
                s.spawn(|| panic!("the second"));
                for _ in 0..10 {
                    let loan = ground.loan();
                    s.spawn(move || loan.touch());
                }
                s.spawn(|| ()).join().unwrap();
                drop::<ScopedJoinHandle<'_, ()>>(kept);
            })
        });
        assert_eq!(ground.ended.load(SeqCst), 10);
        assert_eq!(message(result), "the first, whose handle is dropped last");
        assert_eq!(pool.stats().panicked, 2);
        let logged: Vec<_> = log.try_iter().filter(|line| line.contains("scopes.rs")).collect();
        assert!(logged
            .iter()
            .any(|line| line.starts_with("ERROR") && line.ends_with("panicked: the second")));
        assert!(!logged.iter().any(|line| line.contains("the first, whose")), "{logged:?}");
    });
}

#[test]
fn a_panic_of_the_closure_comes_first_and_still_waits_for_all() {
    let _tidy = tidy();
    within(|| {
        let log = listen();
        let pool = pool(2);
        let ground = Ground::new();
        let (go, wait) = mpsc::channel::<()>();
        let result = caught(|| {
            pool.scope(|s| {
                let loan = ground.loan();
                s.spawn(move || {
                    let _ = wait.recv();
                    loan.touch();
                    panic!("of a task that waits for the closure");
                });
                let _go = go;
                if pool.name() != "" {
                    panic!("of the closure");
                }
            })
        });
        assert_eq!(message(result), "of the closure");
        assert_eq!(ground.ended.load(SeqCst), 1);
        assert!(log.try_iter().any(|line| line.ends_with("panicked: of a task that waits for the closure")));
    });
}

#[test]
fn a_panic_in_a_scope_within_a_task_is_that_task_s_own() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let inner = pool.clone();
        let outer = pool.spawn(move || inner.scope(|s| drop(s.spawn(|| panic!("of the inner task")))));
        let payload = outer.unwrap().join().unwrap_err().into_panic();
        assert_eq!(payload.downcast_ref(), Some(&"of the inner task"));
        assert_eq!(pool.stats().panicked, 2);
        assert_eq!(pool.spawn(|| 1).unwrap().join().unwrap(), 1);
    });
}

#[test]
fn captures_results_and_payloads_whose_drop_panics_do_no_harm() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        pool.scope(|s| {
            s.spawn(|| Bomb); // a result that nobody takes
            let (bomb, loan) = (Bomb, ground.loan());
            let captured = s.spawn(move || {
                let _captured = (&bomb, &loan);
                5
            });
            // Like a panic in the closure, which it is a part of.
            assert!(captured.join().unwrap_err().is_panic());
            drop(s.spawn(|| panic_any(Bomb)).join().unwrap_err());
        });
        assert_eq!(ground.ended.load(SeqCst), 1);
        let go = occupy(&pool);
        pool.scope(|s| {
            for _ in 0..3 {
                let (loan, bomb) = (ground.loan(), Bomb);
                s.spawn(move || drop((loan, bomb)));
            }
            let report = pool.shutdown_timeout(Duration::ZERO);
            assert_eq!((report.stats().cancelled, report.stats().abandoned), (3, 1));
        });
        drop(go);
        assert_eq!(ground.ended.load(SeqCst), 4);
    });
}

// ---- the end of the pool ----

#[test]
fn a_deadline_drops_queued_tasks_before_the_scope_ends() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let go = occupy(&pool);
        let ran = AtomicBool::new(false);
        pool.scope(|s| {
            let task = || {
                let (loan, ran) = (ground.loan(), &ran);
                move || {
                    loan.touch();
                    ran.store(true, SeqCst);
                }
            };
            let handles: Vec<_> = (0..100).map(|_| s.spawn(task())).collect();
            let report = pool.shutdown_timeout(Duration::from_millis(10));
            assert!(!report.is_clean());
            assert_eq!(
                (report.stats().cancelled, report.stats().abandoned, report.stats().returned),
                (100, 1, 0)
            );
            for handle in handles.into_iter().take(50) {
                assert!(handle.join().unwrap_err().is_cancelled());
            }
        });
        assert_eq!(ground.ended.load(SeqCst), 100);
        assert!(!ran.into_inner());
        drop(go);
        assert_adds_up(&pool.stats());
    });
}

/// A capture whose drop takes its time, and uses what it borrows at its end.
struct Slow<'a>(Loan<'a>, Sender<()>, Receiver<()>);

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
        let _ = self.2.recv();
        self.0.touch();
    }
}

#[test]
fn a_capture_that_is_being_dropped_after_a_deadline_holds_the_scope() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let busy = occupy(&pool);
        let (dropping, is_dropping) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        pool.scope(|s| {
            let slow = Slow(ground.loan(), dropping, wait);
            let handle = s.spawn(move || slow.0.touch());
            pool.shutdown_timeout(Duration::from_millis(1));
            // Its handle has resolved, while somebody who was left behind is at the captures.
            assert!(handle.join().unwrap_err().is_cancelled());
            is_dropping.recv().unwrap();
            assert_eq!(ground.ended.load(SeqCst), 0);
            // Long enough for a scope that does not wait to be over: not waited for by anything else.
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                go.send(()).unwrap();
            });
        });
        assert_eq!(ground.ended.load(SeqCst), 1);
        drop(busy);
    });
}

#[test]
fn a_task_that_a_deadline_abandons_holds_its_scope() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let (go, wait) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let result = caught(|| {
            pool.scope(|s| {
                let loan = ground.loan();
                let handle = s.spawn(move || {
                    started.send(()).unwrap();
                    let _ = wait.recv();
                    assert!(task::is_cancelled());
                    loan.touch();
                    panic!("long after the deadline");
                });
                has_started.recv().unwrap();
                let report = pool.shutdown_timeout(Duration::from_millis(1));
                assert_eq!(report.abandoned().len(), 1);
                assert_eq!(report.abandoned()[0].location().file(), file!());
                assert!(handle.join().unwrap_err().is_abandoned());
                assert_eq!(ground.ended.load(SeqCst), 0);
                drop(go); // from here on it ends, while the scope waits
            })
        });
        assert_eq!(ground.ended.load(SeqCst), 1);
        // Nobody has received that.
        assert_eq!(message(result), "long after the deadline");
        let stats = pool.stats();
        assert_eq!((stats.abandoned, stats.completed, stats.panicked), (1, 0, 0));
        assert_adds_up(&stats);
    });
}

#[test]
fn shutdown_now_cancels_scoped_tasks_and_gives_none_back() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ground = Ground::new();
        let (started, has_started) = mpsc::channel();
        pool.scope(|s| {
            let loan = ground.loan();
            let running = s.spawn(move || {
                started.send(()).unwrap();
                while !task::is_cancelled() {
                    thread::yield_now();
                }
                loan.touch();
                5
            });
            has_started.recv().unwrap();
            let queued: Vec<_> = (0..20)
                .map(|_| {
                    let loan = ground.loan();
                    s.spawn(move || loan.touch())
                })
                .collect();
            pool.execute(|| ()).unwrap();
            let (report, unstarted) = pool.shutdown_now();
            assert!(report.is_clean());
            assert_eq!(unstarted.len(), 1);
            let stats = report.stats();
            assert_eq!((stats.returned, stats.cancelled, stats.completed), (1, 20, 1));
            assert_eq!(ground.ended.load(SeqCst), 21);
            assert_eq!(running.join().unwrap(), 5);
            assert!(queued.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));
        });
        assert_adds_up(&pool.stats());
    });
}

/// Whatever ends the pool, at whatever moment: each task has ended when its scope has, and was run or cancelled once.
#[test]
fn no_task_outlives_its_scope_whatever_ends_the_pool_meanwhile() {
    let _tidy = tidy();
    within(|| {
        let rounds = if cfg!(debug_assertions) { 400 } else { 2000 };
        for round in 0..rounds {
            let pool = pool(1 + round % 3);
            let meeting = Arc::new(Barrier::new(2));
            let (other, met) = (pool.clone(), meeting.clone());
            let end = thread::spawn(move || {
                meet(&met);
                (0..round % 50).for_each(|_| std::hint::spin_loop());
                match round % 4 {
                    0 => drop(other.shutdown_now()),
                    1 => drop(other.shutdown_timeout(Duration::from_micros(round as u64 % 200))),
                    2 => other.close(),
                    _ => drop(other.shutdown_timeout(Duration::ZERO)),
                }
            });
            let ground = Ground::new();
            let ran = AtomicUsize::new(0);
            let scope = |pool: &Pool| {
                pool.scope(|s| {
                    let (ground, ran) = (&ground, &ran);
                    for n in 0..20 {
                        if n == 5 {
                            meet(&meeting);
                        }
                        let loan = ground.loan();
                        let handle = s.spawn(move || {
                            ran.fetch_add(1, SeqCst);
                            let inner = ground.loan();
                            s.spawn(move || inner.touch());
                            loan.touch();
                            ground.loan()
                        });
                        if n % 7 == 0 {
                            drop(handle.join());
                        }
                    }
                })
            };
            if round % 5 == 0 {
                // Its own task borrows the same things, so it runs in a scope itself.
                pool.scope(|s| drop(s.spawn(|| scope(&pool))));
            } else {
                scope(&pool);
            }
            assert!(ground.ended.load(SeqCst) >= 20);
            drop(ground);
            end.join().unwrap();
            pool.shutdown();
            assert_adds_up(&pool.stats());
        }
    });
}

#[test]
fn what_a_closed_pool_refuses_the_caller_runs() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        pool.close();
        let here = thread::current().id();
        let mut order = Vec::new();
        let result = caught(|| {
            pool.scope(|s| {
                for n in 0..3 {
                    let handle = s.spawn(move || (n, thread::current().id()));
                    assert!(handle.is_finished());
                    order.push(handle.join().unwrap());
                }
                let nested = s.spawn(|| s.spawn(|| thread::current().id()).join().unwrap());
                assert_eq!(nested.join().unwrap(), here);
                assert!(s.spawn(|| panic!("joined")).join().unwrap_err().is_panic());
                s.spawn(|| panic!("not joined"));
                order.push((3, here));
            })
        });
        assert_eq!(message(result), "not joined");
        assert_eq!(order, (0..4).map(|n| (n, here)).collect::<Vec<_>>());
        let stats = pool.stats();
        assert_eq!((stats.accepted, stats.rejected), (0, 7));
    });
}

#[test]
fn a_scope_goes_on_while_its_pool_closes() {
    let _tidy = tidy();
    for follow_ups in [FollowUps::Accept, FollowUps::Reject] {
        within(move || {
            let pool = builder(2).follow_ups(follow_ups).build().unwrap();
            let count = AtomicUsize::new(0);
            pool.scope(|s| {
                for n in 0..100 {
                    if n == 50 {
                        pool.close();
                    }
                    s.spawn(|| {
                        count.fetch_add(1, SeqCst);
                        s.spawn(|| count.fetch_add(1, SeqCst));
                    });
                }
            });
            assert_eq!(count.into_inner(), 200);
            assert!(pool.shutdown().is_clean());
        });
    }
}

// ---- full queues ----

#[test]
fn full_queues_block_or_have_the_caller_run() {
    let _tidy = tidy();
    for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
        for threads in [1, 2] {
            within(move || {
                let pool = builder(threads).queue_capacity(2).when_full(when_full).build().unwrap();
                let ground = Ground::new();
                let here = thread::current().id();
                let (count, count_here) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let run = || {
                    pool.scope(|s| {
                        for _ in 0..500 {
                            let loan = ground.loan();
                            s.spawn(|| {
                                loan.touch();
                                drop(loan);
                                count.fetch_add(1, SeqCst);
                                count_here.fetch_add(usize::from(thread::current().id() == here), SeqCst);
                            });
                        }
                    });
                };
                run();
                pool.scope(|s| drop(s.spawn(run))); // over the bound
                assert_eq!((count.into_inner(), ground.ended.load(SeqCst)), (1000, 1000));
                assert!(when_full != WhenFull::Block || count_here.load(SeqCst) == 0);
                let stats = pool.stats();
                assert!(when_full == WhenFull::Reject || stats.rejected == 0);
                assert_eq!(stats.completed + stats.rejected, 1001);
                assert_adds_up(&stats);
            });
        }
    }
}

#[test]
fn what_a_full_pool_refuses_the_caller_runs_before_spawn_returns() {
    let _tidy = tidy();
    for when_full in [WhenFull::Reject, WhenFull::CallerRuns] {
        within(move || {
            let pool = builder(1).queue_capacity(1).when_full(when_full).build().unwrap();
            let go = occupy(&pool);
            let here = thread::current().id();
            pool.scope(|s| {
                let queued = s.spawn(|| thread::current().id());
                let full = s.spawn(|| thread::current().id());
                assert!(!queued.is_finished() && full.is_finished());
                assert_eq!(full.join().unwrap(), here);
                drop(go);
                assert_ne!(queued.join().unwrap(), here);
            });
        });
    }
}

// ---- many ----

#[test]
fn very_many_tasks_in_one_scope() {
    let _tidy = tidy();
    within(|| {
        let tasks = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
        for threads in [1, 4] {
            let pool = pool(threads);
            let count = AtomicUsize::new(0);
            pool.scope(|s| (0..tasks).for_each(|_| drop(s.spawn(|| count.fetch_add(1, SeqCst)))));
            assert_eq!(count.swap(0, SeqCst), tasks);
            let of_task = || {
                pool.scope(|s| (0..tasks).for_each(|_| drop(s.spawn(|| count.fetch_add(1, SeqCst)))));
            };
            pool.scope(|s| drop(s.spawn(of_task)));
            assert_eq!(count.into_inner(), tasks);
            assert_eq!(pool.stats().completed, 2 * tasks as u64 + 1);
            assert_adds_up(&pool.shutdown().stats().clone());
        }
    });
}

#[test]
fn many_scopes_of_many_threads_share_a_pool() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for n in 0..200 {
                        let mut numbers = [0; 8];
                        pool.scope(|s| {
                            for number in &mut numbers {
                                s.spawn(move || *number = n);
                            }
                        });
                        assert_eq!(numbers, [n; 8]);
                    }
                });
            }
        });
        pool.wait_idle();
        assert_eq!(pool.stats().completed, 4 * 200 * 8);
    });
}

/// The scope's own closure waits on the queue of the pool, and what unblocks it comes from elsewhere.
#[test]
fn a_submitter_that_is_blocked_in_a_scope_goes_on_when_the_pool_closes() {
    let _tidy = tidy();
    within(|| {
        let pool = builder(1).queue_capacity(1).build().unwrap();
        let go = occupy(&pool);
        let (at, is_at): (Sender<()>, Receiver<()>) = mpsc::channel();
        let other = pool.clone();
        let closer = thread::spawn(move || {
            is_at.recv().unwrap();
            other.close();
        });
        let here = thread::current().id();
        let ran = pool.scope(|s| {
            let queued = s.spawn(|| thread::current().id());
            at.send(()).unwrap();
            // Blocks until the pool refuses it, or is refused at once.
            let refused = s.spawn(|| thread::current().id());
            drop(go);
            (queued.join().unwrap() == here, refused.join().unwrap() == here)
        });
        assert_eq!(ran, (false, true));
        closer.join().unwrap();
    });
}
