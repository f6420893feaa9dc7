//! A long task that asks whether it should stop does stop in time, wherever it runs.

mod common;

use common::{registry, tidy, within};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread;
use std::time::Duration;
use winddown::{task, Canceller, Pool, Registry, WhenFull};

/// Where a task runs that asks.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Where {
    Worker,
    /// Within another task, which joins it.
    InParent,
    /// On its submitter's thread.
    Submitter,
    /// The same, in a task of another pool.
    SubmitterInTask,
}

const PLACES: [Where; 4] = [Where::Worker, Where::InParent, Where::Submitter, Where::SubmitterInTask];

/// Works until it is told to stop.
fn poll(running: &Sender<()>) {
    task::set_label("polls");
    running.send(()).unwrap();
    while !task::is_cancelled() {
        thread::yield_now();
    }
}

/// Something that polls in a pool of one thread, without a handle: the pool, and a thread that returns when it is over.
fn poll_at(place: Where, registry: &Registry) -> (Pool, thread::JoinHandle<()>) {
    let builder = Pool::builder().registry(registry).max_threads(1);
    let pool = builder.queue_capacity(1).when_full(WhenFull::CallerRuns).build().unwrap();
    let (running, is_running): (Sender<()>, Receiver<()>) = channel();
    let submitter = pool.clone();
    let other = Pool::builder().registry(&common::registry()).max_threads(1).build().unwrap();
    let thread = thread::spawn(move || {
        let pool = submitter;
        let task = {
            let running = running.clone();
            move || poll(&running)
        };
        match place {
            Where::Worker => pool.spawn(task).unwrap().join().unwrap(),
            Where::InParent => {
                let parent = || Pool::current().unwrap().spawn(task).unwrap().join().unwrap();
                pool.spawn(parent).unwrap().join().unwrap();
            }
            Where::Submitter | Where::SubmitterInTask => {
                let (started, has_started) = channel();
                pool.execute(move || poll(&started)).unwrap();
                has_started.recv().unwrap();
                pool.execute(|| ()).unwrap(); // fills the queue
                match place {
                    Where::Submitter => pool.execute(task).unwrap(),
                    _ => {
                        let submit = move || {
                            pool.execute(task).unwrap();
                            assert!(!task::is_cancelled(), "that was another task");
                        };
                        other.spawn(submit).unwrap().join().unwrap();
                    }
                }
            }
        }
    });
    is_running.recv().unwrap();
    (pool, thread)
}

#[test]
fn when_its_handle_is_cancelled() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = common::pool_in(&registry, 1);
        let (running, is_running) = channel();
        let handle = pool.spawn(move || poll(&running)).unwrap();
        is_running.recv().unwrap();
        assert!(!handle.cancel(), "it runs");
        handle.join().unwrap();
        // Within another task, which is not told.
        let (running, is_running) = channel();
        let (give, take) = channel::<Canceller>();
        let parent = pool.spawn(move || {
            let child = Pool::current().unwrap().spawn(move || poll(&running)).unwrap();
            give.send(child.canceller()).unwrap();
            child.join().unwrap();
            task::is_cancelled()
        });
        is_running.recv().unwrap();
        let canceller = take.recv().unwrap();
        assert!(!canceller.cancel() && !canceller.cancel(), "again and again");
        assert!(!parent.unwrap().join().unwrap());
        assert!(
            !pool.spawn(task::is_cancelled).unwrap().join().unwrap(),
            "the next task on that thread is not told"
        );
        assert!(!task::is_cancelled());
    });
}

#[test]
fn when_it_runs_after_it_was_handed_back_and_its_handle_is_cancelled() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = common::pool_in(&registry, 1);
        let ((started, has_started), (running, is_running)) = (channel(), channel());
        let first = pool.spawn(move || poll(&started)).unwrap();
        has_started.recv().unwrap();
        let handle = pool.spawn(move || poll(&running)).unwrap();
        let (_, mut unstarted) = pool.shutdown_now();
        first.join().unwrap();
        let last = unstarted.pop().unwrap();
        let runner = thread::spawn(move || last.run());
        is_running.recv().unwrap();
        assert!(!handle.cancel(), "it runs");
        runner.join().unwrap();
        handle.join().unwrap();
    });
}

#[test]
fn when_its_pool_is_shut_down_now() {
    let _tidy = tidy();
    for place in PLACES {
        within(move || {
            let (pool, ended) = poll_at(place, &registry());
            let (report, unstarted) = pool.shutdown_now();
            ended.join().unwrap();
            assert!(report.is_clean() && report.stats().panicked == 0, "{place:?}: {report}");
            let queued = matches!(place, Where::Submitter | Where::SubmitterInTask);
            assert_eq!((report.stats().returned, unstarted.len()), (u64::from(queued), usize::from(queued)));
            common::assert_adds_up(report.stats());
        });
    }
}

#[test]
fn when_the_reserve_of_a_deadline_begins() {
    let _tidy = tidy();
    // All at once: each takes as long as there is time before the reserve.
    let tests = PLACES.map(|place| {
        thread::spawn(move || {
            within(move || {
                let registry = registry();
                let (_pool, ended) = poll_at(place, &registry);
                // The reserve is a second: half of it is for tasks to stop in.
                let report = registry.shutdown_timeout(Duration::from_secs(5));
                ended.join().unwrap();
                assert_eq!(report.totals().abandoned, 0, "{place:?}: {report}");
                assert!(report.elapsed() >= Duration::from_secs(3), "{place:?}: {report}");
            });
        })
    });
    tests.into_iter().for_each(|test| test.join().unwrap());
}

#[test]
fn when_the_token_of_the_shutdown_fires() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = common::pool_in(&registry, 1);
        let token = registry.token();
        let (running, is_running) = channel();
        let task = pool.spawn(move || {
            running.send(()).unwrap();
            let mut rounds = 0;
            while !token.wait_timeout(Duration::from_secs(3600)) {
                rounds += 1;
            }
            rounds
        });
        is_running.recv().unwrap();
        let report = registry.shutdown();
        assert!(report.is_clean() && report.elapsed() < Duration::from_secs(60), "{report}");
        assert_eq!(task.unwrap().join().unwrap(), 0);
    });
}
