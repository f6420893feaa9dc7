//! Panics in a scope: each comes out where it belongs, when all tasks have ended.

mod common;

use common::ground::{caught, message, Bomb, Ground};
use common::{listen, occupy_with, registry, tidy, within};
use std::panic::panic_any;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;
use winddown::{Pool, PoolBuilder, ScopedJoinHandle};

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
                error.to_string().ends_with(&format!("{}:{line}:28 panicked: no luck", file!())),
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
        let logged: Vec<_> = log.try_iter().filter(|line| line.contains(file!())).collect();
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
