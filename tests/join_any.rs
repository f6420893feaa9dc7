//! `join_any`: the first success, and the end of the rest.

mod common;

use common::gated::{gated, inside, occupy};
use common::{assert_adds_up, pool_in, registry, tidy, within};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use winddown::{join_any, task, Pool};

fn pool(max_threads: usize) -> Pool {
    pool_in(&registry(), max_threads)
}

#[test]
fn join_any_takes_the_first_success_and_cancels_the_rest() {
    let _tidy = tidy();
    within(|| {
        let (pool, busy) = (pool(3), pool(1));
        let (_go, _running) = occupy(&busy, ());
        let dropped = Arc::new(());
        let capture = dropped.clone();
        let queued = busy
            .spawn(move || {
                drop(capture);
                unreachable!("it is cancelled before it starts")
            })
            .unwrap();
        let (told, is_told) = mpsc::channel();
        let (started, has_started) = mpsc::channel();
        let running = pool
            .spawn(move || {
                started.send(()).unwrap();
                while !task::is_cancelled() {
                    thread::yield_now();
                }
                told.send(()).unwrap();
                1
            })
            .unwrap();
        has_started.recv().unwrap();
        let failed = pool.spawn(|| panic!("no luck")).unwrap();
        while !failed.is_finished() {
            thread::yield_now();
        }
        let (go, success) = gated(&pool, 3);
        let waits = thread::spawn(move || join_any([queued, running, failed, success]));
        drop(go);
        assert_eq!(waits.join().unwrap().unwrap().unwrap(), 3);
        assert_eq!(Arc::strong_count(&dropped), 1, "the captures are gone at once");
        is_told.recv().unwrap();
        assert_eq!(busy.stats().cancelled, 1);
    });
}

#[test]
fn join_any_prefers_a_success_that_is_there_to_failures_before_it() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, _running) = occupy(&pool, ());
        let cancelled = pool.spawn(|| 0).unwrap();
        let failed = pool.spawn(|| panic!("no luck")).unwrap();
        let success = pool.spawn(|| 1).unwrap();
        assert!(cancelled.cancel());
        drop(go);
        pool.wait_idle();
        assert_eq!(join_any([failed, cancelled, success]).unwrap().unwrap(), 1);
    });
}

#[test]
fn join_any_gives_the_last_error_if_all_fail_and_logs_the_panics_before_it() {
    let _tidy = tidy();
    within(|| {
        let lines = common::listen();
        let pool = pool(2);
        let fail = |message: &'static str| {
            let (go, wait) = mpsc::channel::<()>();
            let task = move || -> u8 {
                wait.recv().unwrap_err();
                panic!("{message}")
            };
            (go, pool.spawn(task).unwrap())
        };
        let (early, first) = fail("the panic before the last");
        let (late, last) = fail("the last panic");
        let waits = thread::spawn(move || join_any([first, last]));
        drop(early);
        while pool.stats().panicked == 0 {
            thread::yield_now();
        }
        drop(late);
        let error = waits.join().unwrap().unwrap().unwrap_err();
        assert!(error.to_string().contains("the last panic"), "{error}");
        let is_ours = |line: &String| line.contains("the panic before the last");
        assert_eq!(lines.try_iter().filter(is_ours).count(), 1);
        assert!(join_any::<u8>([]).is_none());
    });
}

#[test]
fn join_any_works_inside_a_task_of_a_pool_of_one_thread() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = order.clone();
        let got = inside(&pool, move |pool| {
            let attempt = |n: u32| {
                let order = order.clone();
                pool.spawn(move || {
                    order.lock().unwrap().push(n);
                    assert_ne!(n, 0, "the first attempt fails");
                    n
                })
                .unwrap()
            };
            join_any([attempt(0), attempt(1), attempt(2)]).unwrap().unwrap()
        });
        assert_eq!(got, 1);
        pool.wait_idle();
        assert_eq!(*seen.lock().unwrap(), [0, 1], "the third is cancelled");
        assert_adds_up(&pool.stats());
    });
}
