//! Captures, results and callbacks: each is dropped once, no lock is held meanwhile, and nothing is kept that is over.

mod common;

use common::{eventually, occupy_with, pool_in, registry, tidy, within, Tracked};
use std::future::Future;
use std::panic::{panic_any, resume_unwind};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier, Mutex, Weak};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;
use winddown::{join_any, Pool, PoolBuilder, Registry, RejectReason};

const HOUR: Duration = Duration::from_secs(3600);

/// A task that has started and goes on until what this returns is dropped.
fn occupy(pool: &Pool) -> Sender<()> {
    occupy_with(|task| pool.execute(task).unwrap()).0
}

/// Whether a future is, and is woken never.
fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Nobody)))).is_pending()
}

/// Counts how often each of its values was dropped.
#[derive(Clone, Default, Debug)]
struct Ledger(Arc<Mutex<Vec<usize>>>);

/// A value of the ledger, by its number.
#[derive(Debug)]
struct Entry(Ledger, usize);

impl Ledger {
    fn entry(&self) -> Entry {
        let mut counts = self.0.lock().unwrap();
        counts.push(0);
        Entry(self.clone(), counts.len() - 1)
    }

    /// Something that captures an entry and returns another.
    fn task(&self) -> impl FnOnce() -> Entry + Send + 'static {
        let (capture, result) = (self.entry(), self.entry());
        move || {
            let _capture = capture;
            result
        }
    }

    /// Each was dropped once, or will be in a moment.
    #[track_caller]
    fn assert_settled(&self, entries: usize, path: &str) {
        let counts = || self.0.lock().unwrap().clone();
        assert_eq!(counts().len(), entries, "{path}");
        eventually(path, || counts().iter().all(|count| *count >= 1));
        assert!(counts().iter().all(|count| *count == 1), "{path}: {:?}", counts());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0 .0.lock().unwrap()[self.1] += 1;
    }
}

type Path = (&'static str, fn(&Ledger, &Pool));

/// Each leaves two entries behind, the capture and the result of one task, on a pool of one thread and two places.
const PATHS: &[Path] = &[
    ("the result is taken", |ledger, pool| drop(pool.spawn(ledger.task()).unwrap().join().unwrap())),
    ("it ends before its handle is dropped", |ledger, pool| {
        let handle = pool.spawn(ledger.task()).unwrap();
        pool.wait_idle();
        drop(handle);
    }),
    ("it ends after its handle is dropped", |ledger, pool| {
        let go = occupy(pool);
        drop(pool.spawn(ledger.task()).unwrap());
        drop(go);
        pool.wait_idle();
    }),
    ("it panics", |ledger, pool| {
        let (capture, payload) = (ledger.entry(), ledger.entry());
        let task = move || {
            let _capture = capture;
            resume_unwind(Box::new(Mutex::new(payload)));
        };
        assert!(pool.spawn(task).unwrap().join().unwrap_err().is_panic());
    }),
    ("it panics and nobody hears of it", |ledger, pool| {
        let (capture, payload) = (ledger.entry(), ledger.entry());
        let task = move || {
            let _capture = capture;
            resume_unwind(Box::new(Mutex::new(payload)));
        };
        pool.execute(task).unwrap();
        pool.wait_idle();
    }),
    ("it is cancelled", |ledger, pool| {
        let go = occupy(pool);
        let handle = pool.spawn(ledger.task()).unwrap();
        assert!(handle.cancel() && handle.canceller().cancel());
        drop(go);
        assert!(handle.join().is_err());
    }),
    ("its handle cancels it when that is dropped", |ledger, pool| {
        let _go = occupy(pool);
        drop(pool.spawn(ledger.task()).unwrap().cancel_on_drop());
    }),
    ("the success of another cancels it", |ledger, pool| {
        let success = pool.spawn(|| ()).unwrap();
        pool.wait_idle();
        let _go = occupy(pool);
        let task = ledger.task();
        join_any([success, pool.spawn(move || drop(task())).unwrap()]).unwrap().unwrap();
    }),
    ("there is no room for it", |ledger, pool| {
        let _go = occupy(pool);
        (0..2).for_each(|_| pool.execute(|| ()).unwrap());
        let refused = pool.try_spawn(ledger.task()).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::Full);
    }),
    ("its wait for room is over, and it is run all the same", |ledger, pool| {
        let _go = occupy(pool);
        (0..2).for_each(|_| pool.execute(|| ()).unwrap());
        let refused = pool.spawn_timeout(ledger.task(), Duration::ZERO).unwrap_err();
        drop(refused.into_inner()());
    }),
    ("its submission is dropped while it waits for room", |ledger, pool| {
        let _go = occupy(pool);
        (0..2).for_each(|_| pool.execute(|| ()).unwrap());
        assert!(is_pending(pin!(pool.spawn_async(ledger.task()))));
    }),
    ("its pool is closed", |ledger, pool| {
        pool.close();
        drop(pool.spawn(ledger.task()).unwrap_err());
    }),
    ("it is handed back and run", |ledger, pool| {
        let (handle, unstarted) = hand_back(ledger, pool);
        unstarted.run();
        drop(handle.join().unwrap());
    }),
    ("it is handed back and dropped", |ledger, pool| {
        let (handle, unstarted) = hand_back(ledger, pool);
        drop(unstarted);
        assert!(handle.join().is_err());
    }),
    ("it is handed back and cancelled", |ledger, pool| {
        let (handle, unstarted) = hand_back(ledger, pool);
        assert!(handle.cancel());
        unstarted.run();
    }),
    ("a deadline cancels it", |ledger, pool| {
        let _go = occupy(pool);
        let handle = pool.spawn(ledger.task()).unwrap();
        assert_eq!(pool.shutdown_timeout(Duration::ZERO).stats().cancelled, 1);
        assert!(handle.join().unwrap_err().is_cancelled());
    }),
    ("the deadline of the registry cancels it, and it has no handle", |ledger, pool| {
        let _go = occupy(pool);
        let task = ledger.task();
        pool.execute(move || drop(task())).unwrap();
        assert_eq!(pool.registry().shutdown_timeout(Duration::ZERO).totals().cancelled, 1);
    }),
    ("a deadline abandons it, and it ends later", |ledger, pool| {
        let task = ledger.task();
        let (go, handle) = occupy_with(|wait| {
            let task = move || {
                wait();
                task()
            };
            pool.spawn(task).unwrap()
        });
        assert_eq!(pool.shutdown_timeout(Duration::ZERO).stats().abandoned, 1);
        assert!(handle.join().unwrap_err().is_abandoned());
        drop(go);
    }),
    ("it is not due when its pool closes", |ledger, pool| {
        let handle = pool.spawn_after(HOUR, ledger.task()).unwrap();
        pool.close();
        assert!(handle.join().unwrap_err().is_cancelled());
    }),
    ("it is cancelled before it is due", |ledger, pool| {
        assert!(pool.spawn_after(HOUR, ledger.task()).unwrap().cancel());
    }),
    ("it is cancelled while it waits for a permit", |ledger, pool| {
        let limit = pool.limit(1);
        let (_go, ()) = occupy_with(|task| limit.execute(task).unwrap());
        assert!(limit.spawn(ledger.task()).unwrap().cancel());
    }),
    ("its map is dropped", |ledger, pool| {
        let task = Mutex::new(Some(ledger.task()));
        let mut map = pool.map([()], move |()| task.lock().unwrap().take().map(|task| task()));
        drop(map.next());
    }),
];

/// A task that was queued and is handed back, of a pool that has ended.
fn hand_back(ledger: &Ledger, pool: &Pool) -> (winddown::JoinHandle<Entry>, winddown::UnstartedTask) {
    let (started, has_started) = mpsc::channel();
    let task = move || {
        started.send(()).unwrap();
        while !winddown::task::is_cancelled() {
            thread::yield_now();
        }
    };
    pool.execute(task).unwrap();
    has_started.recv().unwrap();
    let handle = pool.spawn(ledger.task()).unwrap();
    let (_, mut unstarted) = pool.shutdown_now();
    (handle, unstarted.pop().unwrap())
}

#[test]
fn every_capture_result_and_payload_is_dropped_once_on_every_path() {
    let _tidy = tidy();
    for (name, path) in PATHS {
        within(move || {
            let registry = registry();
            let pool = Pool::builder().registry(&registry).max_threads(1).queue_capacity(2).build().unwrap();
            let ledger = Ledger::default();
            path(&ledger, &pool);
            drop(pool);
            ledger.assert_settled(2, name);
            registry.shutdown();
        });
    }
}

#[test]
fn what_a_deadline_discards_is_dropped_once_whatever_else_cancels_it_meanwhile() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..50 {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let gos = [occupy(&pool), occupy(&pool)];
            let ledger = Ledger::default();
            let handles: Vec<_> = (0..40).map(|_| pool.spawn(ledger.task()).unwrap()).collect();
            let start = Arc::new(Barrier::new(3));
            let (ends, cancels) = (start.clone(), start.clone());
            let ending = registry.clone();
            let ender = thread::spawn(move || {
                ends.wait();
                ending.shutdown_timeout(Duration::from_micros(50));
            });
            let canceller = thread::spawn(move || {
                cancels.wait();
                handles.into_iter().for_each(|handle| {
                    handle.cancel();
                    drop(handle.join());
                });
            });
            start.wait();
            drop(gos);
            ender.join().unwrap();
            canceller.join().unwrap();
            drop(pool);
            ledger.assert_settled(80, "some are cancelled, some discarded, some run");
        }
    });
}

/// Says that it is dropped, which then takes until the sender is dropped.
struct Slow(Sender<()>, mpsc::Receiver<()>);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
        let _ = self.1.recv();
    }
}

#[test]
fn no_handle_resolves_while_its_captures_are_being_dropped() {
    let _tidy = tidy();
    for (is_cancelled, panics) in [(true, false), (false, false), (false, true)] {
        within(move || {
            let pool = pool_in(&registry(), 1);
            let go = occupy(&pool);
            let (dropping, is_dropping) = mpsc::channel();
            let (end, wait) = mpsc::channel::<()>();
            let slow = Slow(dropping, wait);
            let task = move || {
                let _slow = &slow;
                if panics {
                    resume_unwind(Box::new("without a message"));
                }
            };
            let handle = pool.spawn(task).unwrap();
            let canceller = handle.canceller();
            let canceller = thread::spawn(move || is_cancelled && canceller.cancel());
            if !is_cancelled {
                drop(go);
            }
            is_dropping.recv().unwrap();
            let handle =
                handle.join_timeout(Duration::from_millis(20)).expect_err("its capture is still there");
            assert!(!handle.is_finished());
            drop(end);
            assert_eq!(
                handle.join().map_err(|error| error.is_cancelled()).err(),
                match (is_cancelled, panics) {
                    (true, _) => Some(true),
                    (false, true) => Some(false),
                    (false, false) => None,
                }
            );
            assert_eq!(canceller.join().unwrap(), is_cancelled);
        });
    }
}

/// Callbacks that share a value, and something to see whether they are still there.
fn watched(builder: PoolBuilder) -> (PoolBuilder, Weak<Tracked<()>>) {
    let shared = Arc::new(Tracked::new(()));
    let there = Arc::downgrade(&shared);
    let [start, stop, panic, state] = [0; 4].map(|_| shared.clone());
    let builder = builder
        .on_thread_start(move || _ = &start)
        .on_thread_stop(move || _ = &stop)
        .on_task_panic(move |_, _| _ = &panic)
        .worker_state(move || state.clone());
    (builder, there)
}

#[test]
fn a_pool_that_is_over_keeps_nothing_of_what_it_was_given() {
    let _tidy = tidy();
    type End = (&'static str, fn(&Registry, Pool));
    let ends: [End; 8] = [
        ("never used", |_, pool| drop(pool)),
        ("dropped", |_, pool| {
            pool.execute(|| ()).unwrap();
            drop(pool);
        }),
        ("dropped with a handle that is left", |_, pool| {
            let handle = pool.spawn(|| panic_any(())).unwrap();
            drop(pool);
            assert!(handle.join().is_err());
        }),
        ("shut down", |_, pool| {
            pool.execute(|| resume_unwind(Box::new(()))).unwrap();
            assert!(pool.shutdown().is_clean());
        }),
        ("shut down now", |_, pool| {
            pool.execute(|| ()).unwrap();
            drop(pool.shutdown_now());
        }),
        ("abandoned", |_, pool| {
            let go = occupy(&pool);
            assert_eq!(pool.shutdown_timeout(Duration::ZERO).stats().abandoned, 1);
            drop(go);
        }),
        ("by its registry", |registry, pool| {
            pool.execute(|| ()).unwrap();
            assert!(registry.shutdown().is_clean());
            drop(pool);
        }),
        ("by its registry, which abandons a task", |registry, pool| {
            let go = occupy(&pool);
            assert_eq!(registry.shutdown_timeout(Duration::ZERO).totals().abandoned, 1);
            drop((go, pool));
        }),
    ];
    let silent = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    for (name, end) in ends {
        within(move || {
            let registry = registry();
            let builder = Pool::builder().registry(&registry).max_threads(2).keep_alive(Duration::MAX);
            let (builder, there) = watched(builder);
            end(&registry, builder.build().unwrap());
            eventually(name, || there.upgrade().is_none());
            eventually(name, || registry.stats().is_empty());
        });
    }
    std::panic::set_hook(silent);
}

#[test]
fn a_pool_leaves_its_registry_when_it_has_ended() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (pool, daemon) = (
            pool_in(&registry, 1),
            Pool::builder().registry(&registry).max_threads(1).daemon().build().unwrap(),
        );
        for pool in [&pool, &daemon] {
            pool.execute(|| ()).unwrap();
        }
        assert_eq!(registry.stats().len(), 2, "a daemon pool is in it, too: it is wound down last");
        // Its handle is still there, and it answers.
        pool.shutdown();
        eventually("it is gone", || registry.stats().len() == 1);
        assert_eq!(pool.stats().completed, 1);
        drop(daemon);
        eventually("so is the other", || registry.stats().is_empty());
        assert!(registry.shutdown().pools().is_empty());
    });
}

/// Pool, queue, task, pool: an end of whatever kind breaks the circle.
#[test]
fn queued_tasks_that_own_their_pool_do_not_keep_it_for_ever() {
    let _tidy = tidy();
    type End = (&'static str, fn(&Registry, &Pool, Sender<()>));
    let ends: [End; 5] = [
        ("the registry drains it", |registry, _, go| {
            drop(go);
            assert!(registry.shutdown().is_clean());
        }),
        ("a deadline cancels them", |registry, _, go| {
            assert_eq!(registry.shutdown_timeout(Duration::ZERO).totals().cancelled, 10);
            drop(go);
        }),
        ("they are handed back, and dropped", |_, pool, go| {
            let ender = pool.clone();
            let ender = thread::spawn(move || ender.shutdown_now().1.len());
            eventually("the queue is handed back", || pool.stats().queued == 0);
            drop(go);
            assert_eq!(ender.join().unwrap(), 10);
        }),
        ("they run", |_, pool, go| {
            drop(go);
            pool.wait_idle();
        }),
        ("their pool is closed", |_, pool, go| {
            pool.close();
            drop(go);
        }),
    ];
    for (name, end) in ends {
        within(move || {
            let registry = registry();
            let (builder, there) = watched(Pool::builder().registry(&registry).max_threads(1));
            let pool = builder.build().unwrap();
            let go = occupy(&pool);
            for _ in 0..10 {
                let owned = Tracked::new(pool.clone());
                pool.execute(move || drop(owned)).unwrap();
            }
            end(&registry, &pool, go);
            drop(pool);
            eventually(name, || there.upgrade().is_none() && registry.stats().is_empty());
        });
    }
}

/// Uses everything when it is dropped, and says when it has.
struct Uses {
    pool: Pool,
    /// A task of a pool that does nothing else.
    other: winddown::JoinHandle<()>,
    used: Sender<()>,
}

impl Drop for Uses {
    fn drop(&mut self) {
        let (pool, registry) = (&self.pool, self.pool.registry());
        drop((pool.stats(), pool.running(), pool.is_closed(), format!("{pool:?} {registry:?}")));
        drop((registry.stats(), registry.progress(), registry.phase(), registry.token().is_triggered()));
        if let Ok(hook) = registry.after_join("from a drop", || ()) {
            assert!(registry.remove(hook));
        }
        drop(registry.hold("from a drop"));
        drop(pool.try_execute(|| ()));
        drop(pool.spawn_after(HOUR, || ()).map(|handle| handle.cancel()));
        self.other.cancel();
        drop(Pool::builder().registry(registry).max_threads(1).build().map(|pool| pool.execute(|| ())));
        assert!(!pool.wait_idle_timeout(Duration::ZERO) || pool.stats().queued == 0);
        pool.close();
        self.used.send(()).unwrap();
    }
}

#[test]
fn no_lock_is_held_while_a_capture_is_dropped() {
    let _tidy = tidy();
    type Drops = (&'static str, fn(&Registry, &Pool, Uses));
    let paths: [Drops; 14] = [
        ("it has run", |_, pool, uses| pool.execute(move || _ = &uses).unwrap()),
        ("it is cancelled", |_, pool, uses| {
            let _go = occupy(pool);
            assert!(pool.spawn(move || drop(uses)).unwrap().cancel());
        }),
        ("it is cancelled before it is due", |_, pool, uses| {
            assert!(pool.spawn_after(HOUR, move || drop(uses)).unwrap().cancel());
        }),
        ("it is not due when the pool closes", |_, pool, uses| {
            drop(pool.spawn_after(HOUR, move || drop(uses)).unwrap());
            pool.close();
        }),
        ("it is cancelled in the backlog of a limit", |_, pool, uses| {
            let limit = pool.limit(1);
            let _go = occupy_with(|task| limit.execute(task).unwrap());
            assert!(limit.spawn(move || drop(uses)).unwrap().cancel());
        }),
        ("it is refused for want of room", |_, pool, uses| {
            let _go = occupy(pool);
            pool.execute(|| ()).unwrap();
            drop(pool.try_execute(move || drop(uses)).unwrap_err());
        }),
        ("its wait for room is over", |_, pool, uses| {
            let _go = occupy(pool);
            pool.execute(|| ()).unwrap();
            drop(pool.execute_timeout(move || drop(uses), Duration::ZERO).unwrap_err());
        }),
        ("its submission is dropped in the line", |_, pool, uses| {
            let _go = occupy(pool);
            pool.execute(|| ()).unwrap();
            assert!(is_pending(pin!(pool.spawn_async(move || drop(uses)))));
        }),
        ("it is refused, since the pool is closed", |_, pool, uses| {
            pool.close();
            drop(pool.spawn(move || drop(uses)).unwrap_err());
        }),
        ("the pool's deadline cancels it", |_, pool, uses| {
            let _go = occupy(pool);
            pool.execute(move || drop(uses)).unwrap();
            pool.shutdown_timeout(Duration::from_millis(50));
        }),
        ("the registry's deadline cancels it", |registry, pool, uses| {
            let _go = occupy(pool);
            drop(pool.spawn(move || drop(uses)).unwrap());
            registry.shutdown_timeout(Duration::from_millis(50));
        }),
        ("a hook is removed", |registry, _, uses| {
            let hook = registry.before_join("removed", move || drop(uses)).unwrap();
            assert!(registry.remove(hook));
        }),
        ("a hook is refused", |registry, _, uses| {
            registry.shutdown();
            drop(registry.after_join("late", move || drop(uses)).unwrap_err());
        }),
        ("a hook is skipped", |registry, _, uses| {
            registry.after_join("skipped", move || drop(uses)).unwrap();
            registry.shutdown_timeout(Duration::ZERO);
        }),
    ];
    for (name, path) in paths {
        within(move || {
            let (registry, elsewhere) = (registry(), common::registry());
            let builder = Pool::builder().registry(&registry).max_threads(1).queue_capacity(1);
            let pool = builder.build().unwrap();
            let quiet = pool_in(&elsewhere, 1);
            let other = quiet.spawn_after(HOUR, || ()).unwrap();
            let (used, was_used) = mpsc::channel();
            path(&registry, &pool, Uses { pool: pool.clone(), other, used });
            was_used.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("{name}: it hangs"));
            registry.shutdown();
        });
    }
}

#[test]
fn whatever_keeps_a_pool_open_may_be_dropped_last_inside_its_own_task() {
    let _tidy = tidy();
    type Keep = fn(Pool) -> Box<dyn std::any::Any + Send>;
    let keeps: [Keep; 4] = [
        |pool| Box::new(pool),
        |pool| Box::new(pool.limit(1)),
        |pool| Box::new(pool.map(0..3, |n| n)),
        |pool| Box::new(pool.map_unordered(0..3, |n| n)),
    ];
    within(move || {
        for keep in keeps {
            let registry = registry();
            let pool = Pool::builder().registry(&registry).max_threads(1).keep_alive(Duration::MAX);
            let pool = pool.build().unwrap();
            let (give, take) = mpsc::channel::<Box<dyn std::any::Any + Send>>();
            let last = pool.spawn(move || {
                drop(take.recv().unwrap());
                Pool::current().unwrap().is_closed()
            });
            let last = last.unwrap();
            give.send(keep(pool)).unwrap();
            assert!(last.join().unwrap(), "it was the last one");
            eventually("its thread ends and it leaves its registry", || registry.stats().is_empty());
        }
    });
}

#[test]
fn the_threads_are_those_of_before_after_every_end() {
    let _tidy = tidy();
    let ends: [fn(Pool); 5] = [
        drop,
        |pool| drop(pool.shutdown()),
        |pool| drop(pool.registry().shutdown()),
        |pool| pool.close(),
        |pool| drop(pool.registry().shutdown_timeout(Duration::ZERO)),
    ];
    let ran = Arc::new(AtomicUsize::new(0));
    for end in ends {
        for _ in 0..20 {
            let pool = Pool::builder().registry(&registry()).max_threads(3).keep_alive(Duration::MAX);
            let pool = pool.build().unwrap();
            let all = Arc::new(Barrier::new(4));
            for _ in 0..3 {
                let (all, ran) = (all.clone(), ran.clone());
                let task = move || {
                    all.wait();
                    ran.fetch_add(1, SeqCst);
                };
                pool.execute(task).unwrap();
            }
            all.wait();
            end(pool);
        }
        _tidy.expect_nothing();
    }
    assert_eq!(ran.load(SeqCst), 300);
}
