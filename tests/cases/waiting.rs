#![allow(unsafe_code)] // C's own `atexit`.

use super::resources::live;
use crate::{Case, Ended};
use std::ffi::c_int;
use std::sync::mpsc::{channel, Sender};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use winddown::{as_completed, JoinHandle, Pool};

pub const CASES: &[Case] = &[
    ("waits_in_vain", waits_in_vain),
    ("handles_are_dropped_before_exit", handles_are_dropped_before_exit),
    ("exit_handlers_join_tasks", exit_handlers_join_tasks),
];

/// Timed waits for a task that does not end, and iterators that are dropped early.
fn waits_in_vain() -> Ended {
    let pool = Pool::new(1);
    let (go, wait) = channel::<()>();
    let blocked = pool.spawn(move || wait.recv().is_err())?;
    let wait = |mut blocked: JoinHandle<bool>, times| {
        for _ in 0..times {
            blocked = blocked.join_timeout(Duration::from_micros(1)).expect_err("it is blocked");
        }
        (live(), blocked)
    };
    let (few, blocked) = wait(blocked, 1_000);
    let (many, blocked) = wait(blocked, 9_000);
    println!("{few} bytes after 1,000 waits, {many} after 10,000");
    assert!(many < few + 1024, "{few} bytes, then {many}");

    let mut results = as_completed((0..10).map(|_| pool.spawn(|| ()).expect("it is open")));
    let mut wait = |times| {
        for _ in 0..times {
            results.next_timeout(Duration::from_micros(1)).expect_err("they are queued");
        }
        live()
    };
    let (few, many) = (wait(1_000), wait(9_000));
    println!("{few} bytes after 1,000 waits for several, {many} after 10,000");
    assert!(many < few + 1024, "{few} bytes, then {many}");
    drop(results);

    // What is dropped early is taken off the tasks, though these stay queued.
    let mut handles: Vec<_> = (0..1_000).map(|_| pool.spawn(|| ()).expect("it is open")).collect();
    let before = live();
    for _ in 0..handles.len() {
        let mut results = as_completed(handles.pop());
        results.next_timeout(Duration::ZERO).expect_err("it is queued");
    }
    let after = live();
    println!("{before} bytes, {after} after 1,000 waits that were given up");
    assert!(after <= before, "{before} bytes, then {after}");
    drop(go);
    assert!(blocked.join()?);
    Ok(())
}

fn handles_are_dropped_before_exit() -> Ended {
    let pool = Pool::new(2);
    for n in 0..50 {
        drop(pool.spawn(move || {
            thread::sleep(Duration::from_millis(2)); // the work
            println!("task {n}");
        })?);
    }
    Ok(())
}

/// A handle of a task that runs until it is told to end, and then takes a while.
type Running = (Sender<()>, JoinHandle<u32>);

static TASKS: Mutex<Vec<Running>> = Mutex::new(Vec::new());

/// Tells the next task to end, and waits for it.
fn join_next(who: &str) {
    let (go, running) = TASKS.lock().expect("nobody panics").pop().expect("there is one for each");
    drop(go);
    println!("{who}: {}", running.join().expect("it does not panic"));
}

fn exit_handlers_join_tasks() -> Ended {
    extern "C" {
        fn atexit(handler: extern "C" fn()) -> c_int;
    }
    extern "C" fn before() {
        join_next("a handler before the drain");
    }
    extern "C" fn after() {
        join_next("a handler after the drain");
    }
    let at_exit = |handler| {
        // SAFETY: the handler lives as long as the program.
        assert_eq!(unsafe { atexit(handler) }, 0);
    };
    at_exit(after);
    let pool = Pool::new(4);
    at_exit(before);
    for n in (1..=4).rev() {
        let (go, wait) = channel::<()>();
        let (started, has_started) = channel();
        let handle = pool.spawn(move || {
            started.send(()).expect("main listens");
            // Nobody lets those end that are joined after the drain.
            if n <= 2 {
                let _ = wait.recv();
                thread::sleep(Duration::from_millis(50)); // the work
            }
            n
        })?;
        has_started.recv()?;
        TASKS.lock().expect("nobody panics").push((go, handle));
    }
    winddown::before_join("joins", || join_next("a pre-join hook"))?;
    winddown::after_join("joins", || join_next("a post-join hook"))?;
    Ok(())
}
