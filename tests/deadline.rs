//! Promise 6: one deadline for the whole shutdown, spent as the budget says. And 7: the report names what was left.

mod common;

use common::{assert_adds_up, listen, pool_in, registry, tidy, within};
use std::panic::Location;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use winddown::task::{is_cancelled, set_label};
use winddown::{HookOutcome, JoinHandle, Phase, Pool, Registry, RejectReason, Report, Stage};

/// More than any deadline here may be overrun on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What stuck tasks, hooks and destructors are stuck at. It opens when the test is over.
#[derive(Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

struct Key(Arc<(Mutex<bool>, Condvar)>);

impl Key {
    fn wait(&self) {
        let (is_open, opened) = &*self.0;
        drop(opened.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
    }
}

impl Gate {
    fn key(&self) -> Key {
        Key(self.0.clone())
    }

    fn open(&self) {
        *self.0 .0.lock().unwrap() = true;
        self.0 .1.notify_all();
    }

    /// Has a task of the pool run into the gate, and returns when it is there.
    #[track_caller]
    fn stick(&self, pool: &Pool) -> JoinHandle<()> {
        let key = self.key();
        let (started, has_started) = mpsc::channel();
        let task = move || {
            set_label("invoice 4711");
            started.send(()).unwrap();
            key.wait();
        };
        let handle = pool.spawn(task).unwrap();
        has_started.recv().unwrap();
        handle
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// That it took at least `least`, and no more than `deadline` and some slack.
#[track_caller]
fn assert_took(elapsed: Duration, least: Duration, deadline: Duration) {
    assert!(elapsed >= least, "{elapsed:?} is less than {least:?}");
    assert!(elapsed < deadline + SLACK, "{elapsed:?} is more than {deadline:?}");
}

#[track_caller]
fn assert_outcome(report: &Report, name: &str, stage: Stage, outcome: &HookOutcome) {
    let hook = report.hooks().iter().find(|hook| hook.name() == name).unwrap_or_else(|| panic!("{report}"));
    assert_eq!((hook.stage(), hook.outcome()), (stage, outcome), "{report}");
}

/// That hooks which may use what a deadline leaves them ran, unless a busy machine slept through all of it.
#[track_caller]
fn assert_ran_in_time(report: &Report, stage: Stage, names: &[&str], deadline: Duration) {
    for name in names {
        if report.elapsed() < deadline {
            assert_outcome(report, name, stage, &HookOutcome::Ran);
        }
    }
}

#[test]
fn a_stuck_task_is_abandoned_at_the_deadline_and_named() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = Pool::builder().registry(&registry).name("billing").max_threads(2).build().unwrap();
        let gate = Gate::default();
        let (line, handle) = (line!(), gate.stick(&pool));
        let bare = Location::caller();
        let (key, (started, has_started)) = (gate.key(), mpsc::channel());
        let bare_line = line!() + 1;
        pool.execute(move || {
            started.send(()).unwrap();
            key.wait();
        })
        .unwrap();
        has_started.recv().unwrap();

        let report = registry.shutdown_timeout(ms(500));
        assert_took(report.elapsed(), ms(400), ms(500));
        assert!(!report.is_clean());
        assert_eq!(format!("{:?}", ExitCode::from(&report)), format!("{:?}", ExitCode::FAILURE));
        let abandoned = report.pools()[0].abandoned();
        assert_eq!(abandoned.len(), 2, "{report}");
        let labelled = abandoned.iter().find(|task| task.label().is_some()).unwrap();
        assert_eq!((labelled.pool(), labelled.label()), ("billing", Some("invoice 4711")));
        assert!(labelled.worker().starts_with("billing-worker-"), "{labelled}");
        assert_eq!((labelled.location().file(), labelled.location().line()), (file!(), line));
        assert!(labelled.running_for() < ms(500) + SLACK);
        if cfg!(target_os = "linux") {
            assert!(labelled.running_for() >= ms(300), "{labelled}");
        }
        let other = abandoned.iter().find(|task| task.label().is_none()).unwrap();
        assert_eq!((other.location().file(), other.location().line()), (bare.file(), bare_line));
        assert_ne!(other.worker(), labelled.worker());
        let text = report.to_string();
        for part in ["billing", "invoice 4711", &format!("{}:{line}", file!()), labelled.worker()] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(handle.join().unwrap_err().is_abandoned());
        assert_eq!(report.totals().abandoned, 2);
        assert_adds_up(&report.totals());
        gate.open();
        pool.shutdown();
        assert_adds_up(&pool.stats());
        assert_eq!(pool.stats().abandoned, 2, "what a report called abandoned stays so");
    });
}

#[test]
fn a_hung_pre_join_hook_costs_half_of_the_time_and_not_the_drain() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let key = gate.key();
        registry.before_join("older", || ()).unwrap();
        registry.before_join("hung", move || key.wait()).unwrap();
        registry.after_join("last", || ()).unwrap();
        for _ in 0..20 {
            pool.execute(|| thread::sleep(ms(5))).unwrap();
        }
        let report = registry.shutdown_timeout(ms(2000));
        assert_outcome(&report, "hung", Stage::PreJoin, &HookOutcome::TimedOut);
        assert_outcome(&report, "older", Stage::PreJoin, &HookOutcome::Ran);
        assert_ran_in_time(&report, Stage::PostJoin, &["last"], ms(2000));
        assert_took(report.hooks()[0].elapsed(), ms(800), ms(1000));
        assert_took(report.elapsed(), ms(900), ms(2000));
        assert_eq!(report.totals().completed, 20, "{report}");
        assert!(!report.is_clean());
    });
}

#[test]
fn the_thread_of_a_hook_that_was_left_behind_runs_no_other_hook() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let (tell, told) = mpsc::channel();
        for n in 0..20 {
            let tell = tell.clone();
            let hook = move || {
                thread::sleep(ms(1)); // work, during which the other thread is free
                tell.send(thread::current().id()).unwrap();
            };
            registry.before_join(n.to_string(), hook).unwrap();
        }
        let gate = Gate::default();
        let key = gate.key();
        registry.before_join("frees the hung one", move || drop(gate)).unwrap();
        let hung = move || {
            key.wait();
            drop(tell);
        };
        registry.before_join("hung", hung).unwrap();
        let report = registry.shutdown_timeout(ms(2000));
        assert_outcome(&report, "hung", Stage::PreJoin, &HookOutcome::TimedOut);
        assert_eq!(report.hooks().len(), 22, "{report}");
        let threads: Vec<_> = told.iter().collect();
        assert_eq!(threads.len(), 20);
        assert!(threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
    });
}

#[test]
fn a_hung_post_join_hook_is_left_behind_and_the_others_run() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let gate = Gate::default();
        let key = gate.key();
        registry.after_join("older", || ()).unwrap();
        registry.after_join("hung", move || key.wait()).unwrap();
        registry.after_join("newest", || ()).unwrap();
        let report = registry.shutdown_timeout(ms(400));
        assert_outcome(&report, "newest", Stage::PostJoin, &HookOutcome::Ran);
        assert_outcome(&report, "hung", Stage::PostJoin, &HookOutcome::TimedOut);
        assert_ran_in_time(&report, Stage::PostJoin, &["older"], ms(400));
        assert_took(report.elapsed(), ms(100), ms(400));
    });
}

#[test]
fn post_join_hooks_have_time_after_a_stuck_task() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let _stuck = gate.stick(&pool);
        registry.after_join("older", || ()).unwrap();
        registry.after_join("newer", || ()).unwrap();
        let report = registry.shutdown_timeout(ms(3000));
        assert_ran_in_time(&report, Stage::PostJoin, &["newer", "older"], ms(3000));
        assert_eq!(report.totals().abandoned, 1);
        assert_took(report.elapsed(), ms(2400), ms(3000));
    });
}

#[test]
fn a_forgotten_hold_costs_half_of_the_time_and_is_named() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        std::mem::forget(registry.hold("request 7").unwrap());
        std::mem::forget(registry.hold("request 8").unwrap());
        pool.execute(|| ()).unwrap();
        let report = registry.shutdown_timeout(ms(800));
        assert_outcome(&report, "request 7", Stage::PreJoin, &HookOutcome::TimedOut);
        assert_outcome(&report, "request 8", Stage::PreJoin, &HookOutcome::TimedOut);
        assert_eq!((report.totals().completed, report.is_clean()), (1, false), "{report}");
        assert_took(report.elapsed(), ms(300), ms(400));
    });
}

#[test]
fn endless_resubmission_ends_at_the_deadline() {
    let _tidy = tidy();
    fn again(refused: Sender<RejectReason>) {
        let pool = Pool::current().unwrap();
        let next = refused.clone();
        if let Err(error) = pool.execute(move || again(next)) {
            refused.send(error.reason()).unwrap();
        }
    }
    within(|| {
        for own in [false, true] {
            let registry = registry();
            let pool = pool_in(&registry, 2);
            let (refused, is_refused) = mpsc::channel();
            pool.execute(move || again(refused)).unwrap();
            let start = Instant::now();
            let (lost, expected) = if own {
                (!pool.shutdown_timeout(ms(300)).is_clean(), RejectReason::Closed)
            } else {
                (!registry.shutdown_timeout(ms(300)).is_clean(), RejectReason::ShuttingDown)
            };
            assert_took(start.elapsed(), ms(240), ms(300));
            // Either the last one was cancelled in the queue, or it was running and was refused.
            assert!(is_refused.recv().map_or(lost, |reason| reason == expected));
            pool.shutdown();
            assert_adds_up(&pool.stats());
        }
    });
}

#[test]
fn three_stuck_pools_share_one_deadline() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let gate = Gate::default();
        let pools = [0, 1, 2].map(|_| pool_in(&registry, 1));
        let handles = [0, 1, 2].map(|n: usize| gate.stick(&pools[n]));
        let report = registry.shutdown_timeout(ms(1500));
        // Three deadlines after another would take 4.5 s.
        assert!(report.elapsed() >= ms(1200) && report.elapsed() < ms(3500), "{report}");
        assert_eq!(report.totals().abandoned, 3);
        assert!(report.pools().iter().all(|pool| pool.abandoned().len() == 1), "{report}");
        for handle in handles {
            assert!(handle.join().unwrap_err().is_abandoned());
        }
    });
}

#[test]
fn registries_below_another_share_its_deadline() {
    let _tidy = tidy();
    within(|| {
        // The deadline of a registry of its own does not touch its neighbours.
        let gate = Gate::default();
        let registries = [registry(), registry()];
        let pools = [pool_in(&registries[0], 1), pool_in(&registries[1], 1)];
        let _stuck = pools.each_ref().map(|pool| gate.stick(pool));
        let report = registries[0].shutdown_timeout(ms(100));
        assert_eq!(report.pools().len(), 1);
        assert_eq!(registries[1].phase(), Phase::Running);
        assert_eq!(pools[1].stats().running, 1);
        gate.open();
        assert!(registries[1].shutdown().is_clean());
    });
}

#[test]
fn a_zero_deadline_waits_for_nothing() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let stuck = gate.stick(&pool);
        let queued = pool.spawn(|| unreachable!()).unwrap();
        registry.before_join("before", || unreachable!()).unwrap();
        registry.after_join("after", || unreachable!()).unwrap();
        let report = registry.shutdown_timeout(Duration::ZERO);
        assert_took(report.elapsed(), Duration::ZERO, Duration::ZERO);
        assert_outcome(&report, "before", Stage::PreJoin, &HookOutcome::Skipped);
        assert_outcome(&report, "after", Stage::PostJoin, &HookOutcome::Skipped);
        assert!(stuck.join().unwrap_err().is_abandoned());
        assert!(queued.join_timeout(SLACK).unwrap().is_err_and(|error| error.is_cancelled()));
        assert_eq!((report.totals().cancelled, report.totals().abandoned), (1, 1));
        assert_adds_up(&report.totals());
    });
}

#[test]
fn a_zero_deadline_with_nothing_to_do_is_clean() {
    let _tidy = tidy();
    within(|| {
        assert!(registry().shutdown_timeout(Duration::ZERO).is_clean());
        let registry = registry();
        let pool = pool_in(&registry, 1);
        pool.spawn(|| ()).unwrap().join().unwrap();
        assert!(registry.shutdown_timeout(Duration::ZERO).is_clean());
    });
}

#[test]
fn the_longest_deadline_is_none() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        registry.set_deadline(Some(Duration::MAX));
        let pool = pool_in(&registry, 1);
        pool.execute(|| thread::sleep(ms(20))).unwrap();
        registry.before_join("before", || ()).unwrap();
        let report = registry.shutdown_timeout(Duration::MAX);
        assert!(report.is_clean() && report.totals().completed == 1, "{report}");
        assert!(pool.shutdown_timeout(Duration::MAX).is_clean());
    });
}

#[test]
fn what_is_done_before_the_deadline_is_not_waited_for_any_longer() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 2);
        for _ in 0..10 {
            pool.execute(|| ()).unwrap();
        }
        registry.after_join("after", || ()).unwrap();
        let report = registry.shutdown_timeout(Duration::from_secs(50));
        assert!(report.is_clean());
        assert_took(report.elapsed(), Duration::ZERO, ms(500));
        assert_eq!(report.totals().threads, 0);
    });
}

fn begin(registry: &Registry, how: fn(&Registry) -> Report) -> thread::JoinHandle<Report> {
    let other = registry.clone();
    let caller = thread::spawn(move || how(&other));
    registry.token().wait();
    caller
}

#[test]
fn a_later_call_brings_the_deadline_of_a_running_shutdown_nearer() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let _stuck = gate.stick(&pool);
        let first = begin(&registry, Registry::shutdown);
        let second = begin(&registry, |registry| registry.shutdown_timeout(Duration::from_secs(50)));
        let report = registry.shutdown_timeout(ms(200));
        assert_took(report.elapsed(), ms(100), ms(200));
        assert_eq!(first.join().unwrap().elapsed(), report.elapsed());
        assert_eq!(second.join().unwrap().elapsed(), report.elapsed());
    });
}

#[test]
fn a_later_call_does_not_put_the_deadline_off() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let _stuck = gate.stick(&pool);
        let first = begin(&registry, |registry| registry.shutdown_timeout(ms(400)));
        registry.set_deadline(None);
        registry.set_deadline(Some(Duration::from_secs(50)));
        let report = registry.shutdown_timeout(Duration::MAX);
        assert_took(report.elapsed(), ms(300), ms(400));
        assert_eq!(first.join().unwrap().elapsed(), report.elapsed());
    });
}

#[test]
fn set_deadline_reaches_a_running_shutdown_and_its_hung_hook() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let gate = Gate::default();
        let key = gate.key();
        registry.before_join("hung", move || key.wait()).unwrap();
        let first = begin(&registry, Registry::shutdown);
        registry.set_deadline(Some(ms(200)));
        let report = first.join().unwrap();
        assert_outcome(&report, "hung", Stage::PreJoin, &HookOutcome::TimedOut);
        assert_took(report.elapsed(), ms(50), ms(200));
    });
}

#[test]
fn at_the_reserve_queued_tasks_are_cancelled_and_running_ones_told() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let (started, has_started) = mpsc::channel();
        let polite = pool
            .spawn(move || {
                started.send(is_cancelled()).unwrap();
                while !is_cancelled() {
                    thread::sleep(ms(1)); // a step of its work
                }
                Pool::current().unwrap().execute(|| ()).unwrap_err().reason()
            })
            .unwrap();
        assert!(!has_started.recv().unwrap());
        let capture = Arc::new(());
        let held = capture.clone();
        let queued = pool.spawn(move || drop(held)).unwrap();
        let report = registry.shutdown_timeout(ms(1000));
        assert!(queued.join().unwrap_err().is_cancelled());
        assert_eq!(Arc::strong_count(&capture), 1, "captures are dropped before the handle resolves");
        assert_eq!(polite.join().unwrap(), RejectReason::ShuttingDown);
        assert_took(report.elapsed(), ms(700), ms(1000));
        let totals = report.totals();
        assert_eq!((totals.completed, totals.cancelled, totals.abandoned), (1, 1, 0), "{report}");
        assert_eq!(totals.threads, 0);
        assert!(!report.is_clean(), "the deadline cancelled a task");
    });
}

struct Blocking(Key, Sender<()>);

impl Drop for Blocking {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
        self.0.wait();
    }
}

#[test]
fn captures_whose_drop_blocks_for_ever_do_not_hold_up_the_shutdown() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let stuck = gate.stick(&pool);
        let (dropping, is_dropping) = mpsc::channel();
        let blocking = Blocking(gate.key(), dropping);
        let first = pool.spawn(move || drop(blocking)).unwrap();
        let rest: Vec<_> = (0..5).map(|n| pool.spawn(move || n).unwrap()).collect();
        let report = registry.shutdown_timeout(ms(500));
        is_dropping.recv_timeout(SLACK).expect("its captures were to be dropped");
        assert_took(report.elapsed(), ms(400), ms(500));
        assert!(stuck.join().unwrap_err().is_abandoned());
        for handle in rest {
            assert!(handle.join_timeout(SLACK).unwrap().unwrap_err().is_cancelled());
        }
        assert!(!first.join_timeout(SLACK).unwrap().unwrap_err().is_panic());
        assert_eq!((report.totals().cancelled, report.totals().abandoned), (6, 1));
        assert_adds_up(&report.totals());
    });
}

#[test]
fn the_end_of_a_pool_has_a_deadline_too_and_the_registry_goes_on() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let stuck = gate.stick(&pool);
        let queued = pool.spawn(|| ()).unwrap();
        let report = pool.shutdown_timeout(ms(300));
        assert_took(report.elapsed(), ms(240), ms(300));
        assert!(!report.is_clean());
        assert_eq!(report.abandoned()[0].label(), Some("invoice 4711"));
        assert!(stuck.join().unwrap_err().is_abandoned());
        assert!(queued.join().unwrap_err().is_cancelled());
        assert_eq!(registry.phase(), Phase::Running);
        let other = pool_in(&registry, 1);
        other.execute(|| ()).unwrap();
        assert_eq!(pool.shutdown().abandoned().len(), 1, "a second one finds nothing left to wait for");
        let report = registry.shutdown();
        assert_eq!((report.totals().completed, report.is_clean()), (1, false), "{report}");
    });
}

#[test]
fn a_deadline_for_a_pool_ends_the_patient_shutdown_of_another_thread_as_well() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let gate = Gate::default();
        let _stuck = gate.stick(&pool);
        let patient = pool.clone();
        let patient = thread::spawn(move || patient.shutdown());
        let report = pool.shutdown_timeout(ms(100));
        assert_eq!(report.abandoned().len(), 1);
        assert_eq!(patient.join().unwrap().abandoned().len(), 1);
    });
}

#[test]
fn a_destructor_that_outlived_one_deadline_does_not_hang_the_next_shutdown() {
    let _tidy = tidy();
    thread_local!(static SLOW: std::cell::RefCell<Option<Blocking>> = const { std::cell::RefCell::new(None) });
    within(|| {
        for by_pool in [true, false] {
            let registry = registry();
            let pool = pool_in(&registry, 1);
            let gate = Gate::default();
            let (dropping, is_dropping) = mpsc::channel();
            let slow = Blocking(gate.key(), dropping);
            pool.execute(move || SLOW.with(|place| *place.borrow_mut() = Some(slow))).unwrap();
            let report = match by_pool {
                true => pool.shutdown_timeout(ms(300)),
                false => registry.shutdown_timeout(ms(300)).pools()[0].clone(),
            };
            is_dropping.recv().unwrap();
            assert_took(report.elapsed(), ms(200), ms(300));
            assert_eq!((report.stats().completed, report.workers_joined()), (1, 0));
            gate.open();
            assert!(pool.shutdown().is_clean());
            assert!(registry.shutdown().is_clean());
        }
    });
}

#[test]
fn only_losses_make_a_report_unclean() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 1);
        let daemon = Pool::builder().registry(&registry).max_threads(1).daemon().build().unwrap();
        let gate = Gate::default();
        let daemon_task = gate.stick(&daemon);
        let daemon_queued = daemon.spawn(|| ()).unwrap();
        pool.spawn(|| panic!("a task may panic")).unwrap().join().unwrap_err();
        let busy = Gate::default();
        let _running = busy.stick(&pool);
        assert!(pool.spawn(|| ()).unwrap().cancel());
        busy.open();
        pool.wait_idle();
        let closed = pool_in(&registry, 1);
        closed.close();
        closed.execute(|| ()).unwrap_err();
        let report = registry.shutdown();
        assert!(report.is_clean(), "{report}");
        assert_eq!(format!("{:?}", ExitCode::from(&report)), format!("{:?}", ExitCode::SUCCESS));
        let totals = report.totals();
        assert_eq!((totals.panicked, totals.completed, totals.rejected), (1, 1, 1), "{report}");
        assert_eq!(totals.cancelled, 2, "one by its handle, one in the daemon's queue: {report}");
        assert!(daemon_queued.join().unwrap_err().is_cancelled());
        gate.open();
        drop(daemon_task);

        let registry = common::registry();
        registry.before_join("bad", || panic!("no {}", "luck")).unwrap();
        let report = registry.shutdown();
        assert!(!report.is_clean());
        assert_outcome(&report, "bad", Stage::PreJoin, &HookOutcome::Panicked("no luck".into()));
    });
}

#[test]
fn while_it_waits_for_more_than_five_seconds_the_log_names_what_for() {
    let _tidy = tidy();
    within(|| {
        let lines = listen();
        let start = Instant::now();
        let gate = Gate::default();
        let with_task = registry();
        let pool = Pool::builder().registry(&with_task).name("slowpool").max_threads(1).build().unwrap();
        let (line, _stuck) = (line!(), gate.stick(&pool));
        let _behind = pool.spawn(|| ()).unwrap();
        let with_hook = registry();
        let key = gate.key();
        with_hook.before_join("slow hook", move || key.wait()).unwrap();
        let with_hold = registry();
        let hold = with_hold.hold("slow request").unwrap();
        let callers =
            [with_task, with_hook, with_hold].map(|registry| thread::spawn(move || registry.shutdown()));

        let task = format!("{}:{line}", file!());
        let mut expected =
            vec![vec![&*task, "slowpool-worker-1", "invoice 4711"], vec!["slow hook"], vec!["slow request"]];
        while !expected.is_empty() {
            let line = lines.recv_timeout(Duration::from_secs(30)).expect("a warning names each");
            let found = expected.iter().position(|parts| parts.iter().all(|part| line.contains(part)));
            if let Some(found) = found {
                assert!(line.starts_with("WARN "), "{line}");
                assert!(start.elapsed() >= Duration::from_secs(5), "too early: {line}");
                expected.remove(found);
            }
        }
        assert!(start.elapsed() < Duration::from_secs(9), "the first warning comes after five seconds");
        gate.open();
        drop(hold);
        for caller in callers {
            assert!(caller.join().unwrap().is_clean());
        }
    });
}

static TASKS_LEFT: AtomicUsize = AtomicUsize::new(0);

#[test]
fn tasks_that_end_after_they_were_abandoned_are_dropped_with_their_late_results() {
    let _tidy = tidy();
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            TASKS_LEFT.fetch_sub(1, SeqCst);
        }
    }
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 2);
        let gate = Gate::default();
        let (started, has_started) = mpsc::channel();
        for _ in 0..2 {
            let (key, started) = (gate.key(), started.clone());
            TASKS_LEFT.fetch_add(2, SeqCst);
            let (capture, result) = (Counted, Counted);
            let task = move || {
                let _capture = capture;
                started.send(()).unwrap();
                key.wait();
                result
            };
            let handle = pool.spawn(task).unwrap();
            has_started.recv().unwrap();
            thread::spawn(move || assert!(handle.join().is_err_and(|error| error.is_abandoned())));
        }
        assert_eq!(registry.shutdown_timeout(ms(50)).totals().abandoned, 2);
        assert_eq!(TASKS_LEFT.load(SeqCst), 4, "they stay with their threads");
        gate.open();
        pool.shutdown();
        let start = Instant::now();
        while TASKS_LEFT.load(SeqCst) > 0 {
            assert!(start.elapsed() < SLACK, "a late result was not dropped");
            thread::yield_now();
        }
    });
}

/// Each case prints `tidy` when it is ready to end with its code, and has a deadline of 400 ms, of which its stuck task gets
/// 360 ms: the reserve is a fifth, and half of that is for what comes after.
#[track_caller]
fn assert_ends(case: &str, code: i32) {
    let outcome = common::run_within(case, ms(400) + ms(1000));
    outcome.assert_code(code).assert_silent();
    assert_eq!(outcome.count("tidy"), 1, "{outcome:#?}");
    assert!(outcome.elapsed >= ms(350), "{outcome:#?}");
}

#[cfg(feature = "exit-hook")]
#[test]
fn a_process_with_a_stuck_task_ends_with_the_code_of_its_main() {
    let _tidy = tidy();
    assert_ends("stuck_and_main_returns", 0);
    if cfg!(unix) {
        assert_ends("stuck_and_process_exits", 7);
    }
}

#[test]
fn exit_with_a_stuck_task_ends_with_its_code() {
    let _tidy = tidy();
    assert_ends("stuck_and_winddown_exits", 8);
}

#[test]
fn a_stuck_task_that_holds_stdout_does_not_hold_up_the_end() {
    let _tidy = tidy();
    assert_ends("stuck_with_stdout_locked", 9);
}

#[cfg(all(feature = "exit-hook", target_os = "linux"))]
#[test]
fn a_deadline_ends_the_wait_for_a_task_that_calls_process_exit_while_the_process_exits() {
    let _tidy = tidy();
    assert_ends("stuck_in_process_exit", 0);
}

#[cfg(feature = "exit-hook")]
#[test]
fn a_pool_of_a_private_registry_shares_the_deadline_of_the_exit() {
    let _tidy = tidy();
    assert_ends("stuck_in_private_registries", 0);
}

#[test]
fn an_explicit_shutdown_tells_by_its_exit_code_that_tasks_were_lost() {
    let _tidy = tidy();
    assert_ends("stuck_and_main_returns_the_report", 1);
}
