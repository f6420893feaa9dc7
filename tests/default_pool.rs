//! The pool that is there without being built.

mod common;

use common::{tidy, within};
use std::panic::Location;
use std::sync::{mpsc, Arc, Barrier};
use std::thread;
use winddown::{default_pool, Pool, Registry};

#[test]
fn it_is_made_once_by_whoever_asks_first() {
    let _tidy = tidy();
    within(|| {
        let all = Arc::new(Barrier::new(8));
        let threads = [(); 8].map(|()| {
            let all = all.clone();
            thread::spawn(move || {
                all.wait();
                let pool = default_pool();
                (pool as *const Pool as usize, winddown::spawn(|| 7).unwrap().join().unwrap())
            })
        });
        let seen = threads.map(|thread| thread.join().unwrap());
        assert!(seen.iter().all(|seen| *seen == seen_by(default_pool())), "{seen:?}");
        let named = Registry::global().stats().into_iter().filter(|stats| stats.name == "default");
        assert_eq!(named.count(), 1, "those that came too late are gone");
        assert!(default_pool().stats().completed >= 8);
    });
}

fn seen_by(pool: &'static Pool) -> (usize, i32) {
    (pool as *const Pool as usize, 7)
}

#[test]
fn it_has_as_many_threads_as_asyncios_default_executor() {
    let _tidy = tidy();
    within(|| {
        let threads = 32.min(thread::available_parallelism().unwrap().get() + 4);
        assert!(
            format!("{:?}", default_pool()).contains(&format!("max_threads: {threads}")),
            "{:?}",
            default_pool()
        );
        // So many tasks can meet, and no more threads than that come to be.
        let meeting = Arc::new(Barrier::new(threads));
        let tasks: Vec<_> = (0..threads)
            .map(|_| {
                let meeting = meeting.clone();
                winddown::spawn(move || meeting.wait().is_leader()).unwrap()
            })
            .collect();
        let leaders = tasks.into_iter().map(|task| task.join().unwrap()).filter(|leads| *leads);
        assert_eq!(leaders.count(), 1);
        assert_eq!(default_pool().stats().peak_threads, threads);
    });
}

#[test]
fn its_tasks_are_named_after_the_line_that_submits_them() {
    let _tidy = tidy();
    within(|| {
        let here = Location::caller().line();
        let error = winddown::spawn(|| panic!("no luck")).unwrap().join().unwrap_err();
        assert!(error.to_string().contains(&format!("{}:{}", file!(), here + 1)), "{error}");
        let (seen, sight) = mpsc::channel();
        winddown::execute(move || {
            let of_this = |task: &winddown::RunningTask| task.worker() == thread::current().name().unwrap();
            let running = default_pool().running().into_iter().find(of_this).unwrap();
            seen.send((running.pool().to_owned(), running.location().line())).unwrap();
        })
        .unwrap();
        assert_eq!(sight.recv().unwrap(), ("default".into(), here + 4));
    });
}

#[test]
fn inside_its_tasks_it_is_the_current_pool() {
    let _tidy = tidy();
    within(|| {
        let name = winddown::spawn(|| Pool::current().unwrap().name().to_owned()).unwrap();
        assert_eq!(name.join().unwrap(), "default");
        assert!(std::ptr::eq(default_pool().registry(), default_pool().registry()));
        assert_eq!(format!("{:?}", default_pool().registry()), format!("{:?}", Registry::global()));
    });
}

#[cfg(feature = "exit-hook")]
#[test]
fn the_process_waits_for_its_tasks_and_what_they_submit() {
    let _tidy = tidy();
    let outcome = common::run("default_pool_at_exit");
    outcome.assert_code(0).assert_silent();
    assert_eq!((outcome.count("a task"), outcome.count("a follow-up")), (1, 1), "{outcome:#?}");
}

#[test]
fn after_a_shutdown_it_refuses_everything() {
    let _tidy = tidy();
    let outcome = common::run("default_pool_after_shutdown");
    outcome.assert_code(0).assert_silent();
    assert!(outcome.stdout.starts_with("4: shutdown has begun"), "{outcome:#?}");
}

#[test]
fn asked_for_when_all_pools_have_drained_it_refuses_everything() {
    let _tidy = tidy();
    let outcome = common::run("default_pool_in_hook");
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "ShuttingDown: 5\nclean: true, pools: 0\n");
}

#[cfg(unix)]
#[test]
fn a_forked_child_has_one_of_its_own() {
    let _tidy = tidy();
    let outcome = common::run("fork_default_pool");
    outcome.assert_code(0).assert_silent();
    for of in ["child", "grandchild", "parent"] {
        assert_eq!(outcome.count(&format!("a task of the {of}")), 1, "{outcome:#?}");
    }
}
