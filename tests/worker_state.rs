//! The state of a worker: made once on its thread, shared by its tasks, dropped there.

mod common;

use common::{assert_adds_up, meet, pool_in, registry, tidy, within};
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, channel, Sender};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;
use winddown::{task, HookOutcome, Pool, PoolBuilder, Registry, RejectReason, WhenFull};

fn builder(max_threads: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads)
}

/// A pool whose threads count the tasks that look.
fn counting(max_threads: usize) -> Pool {
    builder(max_threads).worker_state(|| 0_u32).build().unwrap()
}

fn count() -> Option<u32> {
    task::with_state(|count: &mut u32| {
        *count += 1;
        *count
    })
}

type Journal = Arc<Mutex<Vec<(ThreadId, &'static str)>>>;

/// Must not leave its thread, and notes where and when it is dropped.
struct Local(Journal, Rc<Cell<u32>>);

impl Drop for Local {
    fn drop(&mut self) {
        note(&self.0, "drop");
    }
}

fn note(journal: &Journal, what: &'static str) {
    journal.lock().unwrap().push((thread::current().id(), what));
}

#[test]
fn each_worker_makes_its_state_once_and_drops_it_between_its_last_task_and_its_last_callback() {
    let _tidy = tidy();
    within(|| {
        let journal = Journal::default();
        let [starts, makes, stops] = [(); 3].map(|()| journal.clone());
        let pool = builder(3)
            .on_thread_start(move || note(&starts, "start"))
            .worker_state(move || {
                note(&makes, "make");
                Local(makes.clone(), Rc::default())
            })
            .on_thread_stop(move || note(&stops, "stop"))
            .build()
            .unwrap();
        let meeting = Arc::new(Barrier::new(3));
        for _ in 0..6 {
            let (meeting, journal) = (meeting.clone(), journal.clone());
            let task = move || {
                meet(&meeting);
                note(&journal, "task");
                task::with_state(|local: &mut Local| local.1.set(local.1.get() + 1)).unwrap();
                meet(&meeting);
            };
            pool.execute(task).unwrap();
        }
        assert_eq!(pool.shutdown().workers_joined(), 3);
        let journal = std::mem::take(&mut *journal.lock().unwrap());
        for (thread, _) in journal.iter().filter(|(_, what)| *what == "make") {
            let life: Vec<_> = journal.iter().filter(|(of, _)| of == thread).map(|(_, what)| *what).collect();
            assert_eq!(life, ["start", "make", "task", "task", "drop", "stop"]);
        }
        assert_eq!(journal.len(), 18);
    });
}

#[test]
fn the_tasks_of_a_worker_find_what_those_before_have_left() {
    let _tidy = tidy();
    within(|| {
        let pool = counting(1);
        let counts: Vec<_> = (0..5).map(|_| pool.spawn(count).unwrap()).collect();
        let counts: Vec<_> = counts.into_iter().map(|count| count.join().unwrap()).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5].map(Some));
    });
}

#[test]
fn there_is_no_state_of_another_type_nor_without_one_nor_outside_of_a_worker() {
    let _tidy = tidy();
    within(|| {
        let pool = counting(1);
        assert_eq!(
            pool.spawn(|| task::with_state::<String, _>(|text| text.len())).unwrap().join().unwrap(),
            None
        );
        assert_eq!(pool.spawn(count).unwrap().join().unwrap(), Some(1), "the other one is still there");
        assert_eq!(pool_in(&registry(), 1).spawn(count).unwrap().join().unwrap(), None);
        assert_eq!(count(), None);
        let plain = pool.spawn(|| thread::spawn(count).join().unwrap());
        assert_eq!(plain.unwrap().join().unwrap(), None, "on a thread that a task has made");
    });
}

#[test]
fn the_callbacks_around_a_state_find_none_and_neither_does_what_makes_and_drops_it() {
    let _tidy = tidy();
    struct Looks(Sender<Option<u32>>);
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.send(count()).unwrap();
        }
    }
    within(|| {
        let (seen, sights) = channel();
        let [start, make, stop] = [(); 3].map(|()| Mutex::new(seen.clone()));
        let look = |seen: &Mutex<Sender<Option<u32>>>| {
            let look = task::with_state(|_: &mut Looks| 1);
            seen.lock().unwrap().send(look.or_else(count)).unwrap();
        };
        let pool = builder(1)
            .on_thread_start(move || look(&start))
            .worker_state(move || {
                look(&make);
                Looks(make.lock().unwrap().clone())
            })
            .on_thread_stop(move || look(&stop))
            .build()
            .unwrap();
        pool.execute(|| assert!(task::with_state(|_: &mut Looks| ()).is_some())).unwrap();
        let report = pool.shutdown();
        assert_eq!(report.stats().panicked, 0);
        drop(seen);
        assert_eq!(sights.try_iter().collect::<Vec<_>>(), [None; 4]);
    });
}

#[test]
fn a_state_that_is_in_use_is_not_given_out_again() {
    let _tidy = tidy();
    within(|| {
        let pool = counting(1);
        let inside = |_: &mut u32| {
            let child = Pool::current().unwrap().spawn(count).unwrap();
            (count(), child.join().unwrap()) // the child runs in place
        };
        let seen = pool.spawn(move || (task::with_state(inside), count())).unwrap().join().unwrap();
        assert_eq!(seen, (Some((None, None)), Some(1)));
    });
}

#[test]
fn a_task_that_is_joined_in_place_finds_the_state_of_its_thread() {
    let _tidy = tidy();
    within(|| {
        let pool = counting(1);
        let parent = || {
            let child = Pool::current().unwrap().spawn(count).unwrap();
            (count(), child.join().unwrap(), count())
        };
        assert_eq!(pool.spawn(parent).unwrap().join().unwrap(), (Some(1), Some(2), Some(3)));
    });
}

#[test]
fn a_panic_in_with_state_goes_on_into_the_task_and_the_state_stays_usable() {
    let _tidy = tidy();
    within(|| {
        let pool = counting(1);
        let fail = |count: &mut u32| {
            *count += 10;
            panic!("half done");
        };
        let error = pool.spawn(move || task::with_state(fail)).unwrap().join().unwrap_err();
        assert_eq!(error.try_into_panic().unwrap().downcast_ref(), Some(&"half done"));
        assert_eq!(pool.spawn(count).unwrap().join().unwrap(), Some(11));
        let caught = move || catch_unwind(AssertUnwindSafe(|| task::with_state(fail))).is_err();
        assert!(pool.spawn(caught).unwrap().join().unwrap());
        assert_eq!(pool.spawn(count).unwrap().join().unwrap(), Some(22));
    });
}

#[test]
fn a_pool_whose_state_cannot_be_made_is_broken() {
    let _tidy = tidy();
    within(|| {
        let log = common::listen();
        let registry = registry();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let make = move || -> u32 {
            let _ = wait.lock().unwrap().recv();
            panic!("no connection");
        };
        let builder = Pool::builder().registry(&registry).max_threads(1).name("unconnected");
        let pool = builder.worker_state(make).build().unwrap();
        let handles: Vec<_> = (0..3).map(|n| pool.spawn(move || n).unwrap()).collect();
        drop(go);
        for handle in handles {
            assert!(handle.join().unwrap_err().is_cancelled());
        }
        let refused = pool.spawn(|| 7).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::Broken);
        assert!(refused.to_string().contains("worker_state"), "{refused}");
        assert_eq!(refused.into_inner()(), 7);
        pool.wait_idle();
        assert_eq!(pool.stats().cancelled, 3);
        assert_adds_up(&pool.stats());
        assert!(!registry.shutdown().is_clean(), "three tasks were lost");
        let line = log.iter().find(|line| line.contains("unconnected")).unwrap();
        assert_eq!(line, "ERROR worker_state of pool unconnected panicked: no connection");
    });
}

#[test]
fn a_second_worker_without_a_state_breaks_the_pool_and_the_first_one_ends_its_task() {
    let _tidy = tidy();
    within(|| {
        let made = AtomicUsize::new(0);
        let make = move || assert_eq!(made.fetch_add(1, SeqCst), 0, "one connection is all there is");
        let pool = builder(2).worker_state(make).build().unwrap();
        let (started, has_started) = channel();
        let (go, wait) = channel::<()>();
        let first = pool.spawn(move || {
            started.send(()).unwrap();
            wait.recv().unwrap_err();
            task::with_state(|(): &mut ()| ()).is_some()
        });
        has_started.recv().unwrap();
        assert!(pool.spawn(|| ()).unwrap().join().unwrap_err().is_cancelled());
        drop(go);
        assert!(first.unwrap().join().unwrap());
        assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Broken);
        let report = pool.shutdown();
        assert_eq!((report.stats().completed, report.stats().cancelled, report.workers_joined()), (1, 1, 2));
    });
}

#[test]
fn a_state_whose_drop_panics_costs_nothing() {
    let _tidy = tidy();
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("not now");
        }
    }
    within(|| {
        let (stopped, has_stopped) = channel();
        let stopped = Mutex::new(stopped);
        let builder = builder(1).worker_state(|| Bomb);
        let pool = builder.on_thread_stop(move || stopped.lock().unwrap().send(()).unwrap()).build().unwrap();
        pool.execute(|| ()).unwrap();
        let report = pool.shutdown();
        assert!(report.is_clean() && report.workers_joined() == 1, "{report}");
        has_stopped.try_recv().expect("the last callback ran");
    });
}

#[test]
fn an_idle_worker_takes_its_state_along_and_the_next_one_makes_its_own() {
    let _tidy = tidy();
    struct Tells(Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    within(|| {
        let (dropped, drops) = channel();
        let dropped = Mutex::new(dropped);
        let builder = builder(1).keep_alive(Duration::from_millis(1));
        let pool = builder.worker_state(move || Tells(dropped.lock().unwrap().clone())).build().unwrap();
        for _ in 0..3 {
            pool.execute(|| ()).unwrap();
            drops.recv().unwrap(); // though the pool is open
        }
        assert!(!pool.is_closed());
    });
}

#[test]
fn a_substitute_makes_a_state_of_its_own() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = Pool::builder().registry(&registry).max_threads(1).worker_state(|| 0_u32).build().unwrap();
        let (go, wait) = channel::<()>();
        let in_task = registry.clone();
        let blocked = pool.spawn(move || {
            wait.recv().unwrap_err();
            assert_eq!(count(), Some(1));
            let report = in_task.shutdown();
            (report.is_clean(), count())
        });
        let behind = pool.spawn(count).unwrap();
        drop(go);
        assert_eq!(behind.join().unwrap(), Some(1));
        assert_eq!(blocked.unwrap().join().unwrap(), (true, Some(2)), "a task keeps its thread's");
    });
}

/// A pool of one thread with three tasks, whose state is made by `make`: then everything ends.
fn make_while_draining(make: impl Fn(&Registry, &Pool) + Send + Sync + 'static) -> (Pool, [bool; 3]) {
    within(move || {
        let registry = registry();
        let of_state = registry.clone();
        let itself = Arc::new(OnceLock::<Pool>::new());
        let all_queued = itself.clone();
        let pool = Pool::builder()
            .registry(&registry)
            .max_threads(1)
            .worker_state(move || {
                let pool = loop {
                    match all_queued.get() {
                        Some(pool) => break pool,
                        None => thread::yield_now(),
                    }
                };
                make(&of_state, pool);
            })
            .build()
            .unwrap();
        let tasks = [0; 3].map(|_| pool.spawn(|| ()).unwrap());
        itself.set(pool.clone()).unwrap();
        let ran = tasks.map(|task| task.join().is_ok());
        registry.shutdown();
        assert_adds_up(&pool.stats());
        (pool, ran)
    })
}

#[test]
fn what_makes_a_state_may_call_shutdown() {
    let _tidy = tidy();
    let (pool, _) = make_while_draining(|registry, _| drop(registry.shutdown()));
    assert_eq!(pool.stats().accepted, 3);
    let (pool, _) = make_while_draining(|_, pool| drop(pool.shutdown()));
    assert_eq!(pool.stats().accepted, 3);
    let (pool, ran) = make_while_draining(|registry, _| registry.request_shutdown());
    assert_eq!((pool.stats().completed, ran), (3, [true; 3]), "which does not wait for anything");
}

#[test]
fn what_makes_a_state_and_waits_for_the_tasks_behind_it_starts_no_thread_upon_thread() {
    let _tidy = tidy();
    let (pool, _) = make_while_draining(|_, pool| pool.wait_idle());
    assert!(pool.stats().peak_threads <= 2, "{:?}", pool.stats());
}

#[test]
fn a_state_may_call_shutdown_when_it_is_dropped() {
    let _tidy = tidy();
    struct Asks(Registry, Option<Pool>);
    impl Drop for Asks {
        fn drop(&mut self) {
            if let Some(pool) = self.1.take() {
                pool.shutdown();
            }
            self.0.shutdown();
        }
    }
    within(|| {
        for with_pool in [false, true] {
            let registry = registry();
            let of_state = registry.clone();
            let builder = Pool::builder().registry(&registry).max_threads(2);
            let pool = builder.worker_state(move || Asks(of_state.clone(), None)).build().unwrap();
            let meeting = Arc::new(Barrier::new(2));
            for _ in 0..2 {
                let (meeting, in_task) = (meeting.clone(), with_pool.then(|| pool.clone()));
                let task = move || {
                    task::with_state(|asks: &mut Asks| asks.1 = in_task).unwrap();
                    meet(&meeting);
                };
                pool.execute(task).unwrap();
            }
            let report = registry.shutdown();
            assert!(report.is_clean() && report.totals().completed == 2, "{report}");
        }
    });
}

#[test]
fn a_shutdown_waits_for_states_to_be_dropped() {
    let _tidy = tidy();
    struct Slow(Arc<AtomicUsize>);
    impl Drop for Slow {
        fn drop(&mut self) {
            (0..100).for_each(|_| thread::yield_now());
            self.0.fetch_add(1, SeqCst);
        }
    }
    within(|| {
        for _ in 0..20 {
            let registry = registry();
            let dropped = Arc::new(AtomicUsize::new(0));
            let of_state = dropped.clone();
            let builder = Pool::builder().registry(&registry).max_threads(2);
            let pool = builder.worker_state(move || Slow(of_state.clone())).build().unwrap();
            let meeting = Arc::new(Barrier::new(2));
            for _ in 0..2 {
                let meeting = meeting.clone();
                pool.execute(move || meet(&meeting)).unwrap();
            }
            let at_the_end = dropped.clone();
            registry.after_join("after", move || assert_eq!(at_the_end.load(SeqCst), 2)).unwrap();
            let report = registry.shutdown();
            assert_eq!(report.hooks()[0].outcome(), &HookOutcome::Ran);
        }
    });
}

#[test]
fn a_task_that_its_submitter_runs_finds_no_state() {
    let _tidy = tidy();
    within(|| {
        let builder = builder(1).queue_capacity(1).when_full(WhenFull::CallerRuns);
        let pool = builder.worker_state(|| 0_u32).build().unwrap();
        let (go, wait) = channel::<()>();
        let (started, has_started) = channel();
        let first = move || {
            started.send(()).unwrap();
            wait.recv().unwrap_err();
        };
        pool.execute(first).unwrap();
        has_started.recv().unwrap();
        pool.execute(|| ()).unwrap();
        let here = thread::current().id();
        let seen = pool.spawn(move || (thread::current().id() == here, count())).unwrap();
        assert_eq!(seen.join().unwrap(), (true, None));
        // Neither does one that a worker of another pool runs: that one's state is not for this pool's tasks.
        let other = counting(1);
        let of_task = pool.clone();
        let there = other.spawn(move || (of_task.spawn(count).unwrap().join().unwrap(), count())).unwrap();
        assert_eq!(there.join().unwrap(), (None, Some(1)));
        drop(go);
    });
}

#[test]
fn a_task_that_was_handed_back_finds_no_state_wherever_it_is_run() {
    let _tidy = tidy();
    within(|| {
        let pool = counting(1);
        let (started, has_started) = channel();
        let first = move || {
            started.send(()).unwrap();
            while !task::is_cancelled() {
                thread::yield_now();
            }
        };
        pool.execute(first).unwrap();
        has_started.recv().unwrap();
        let handles = [0; 2].map(|_| pool.spawn(|| (count(), Pool::current().is_none())).unwrap());
        let (_, mut unstarted) = pool.shutdown_now();
        assert_eq!(unstarted.len(), 2);
        unstarted.pop().unwrap().run();
        let last = unstarted.pop().unwrap();
        counting(1).spawn(move || last.run()).unwrap().join().unwrap();
        for handle in handles {
            assert_eq!(handle.join().unwrap(), (None, true));
        }
    });
}

#[test]
fn the_process_may_end_while_a_state_is_made_or_dropped() {
    let _tidy = tidy();
    common::run("exit_in_worker_state").assert_code(6).assert_silent();
    let outcome = common::run("exit_in_drop_of_worker_state");
    outcome.assert_code(7).assert_silent();
    assert_eq!(outcome.count("task"), 3, "{outcome:#?}");
}

#[cfg(feature = "exit-hook")]
#[test]
fn states_are_dropped_before_the_process_is_gone() {
    let _tidy = tidy();
    let outcome = common::run("worker_state_at_exit");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "task\ndropped\n");
}

#[cfg(unix)]
#[test]
fn a_forked_child_does_not_drop_the_states_of_its_parent() {
    let _tidy = tidy();
    let outcome = common::run("fork_with_worker_state");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "child: code 0\ndropped in parent\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_blocked_worker_lends_its_state_to_what_it_runs_meanwhile() {
    let _tidy = tidy();
    common::run("no_substitute_worker_state").assert_code(0).assert_silent();
}
