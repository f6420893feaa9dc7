//! Scopes: tasks borrow, and none outlives its scope, whatever ends it.

mod common;

use common::ground::Ground;
use common::{assert_adds_up, occupy_with, pool_in, registry, tidy, within};
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use winddown::{Pool, PoolBuilder, Scope, ScopedJoinHandle, WhenFull};

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
