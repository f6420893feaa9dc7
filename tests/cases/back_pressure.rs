//! Programs that end while somebody waits for room in a full queue.

use crate::{Case, Ended};
use std::process::exit;
use std::sync::mpsc::{channel, Sender};
use std::thread;
use std::time::Duration;
use winddown::{Pool, Rejected};

pub const CASES: &[Case] = &[
    ("blocked_submitter_and_main_returns", || blocked_submitter(|| ())),
    ("blocked_submitter_and_process_exits", || blocked_submitter(|| exit(3))),
    ("blocked_submitter_and_winddown_exits", || blocked_submitter(|| winddown::exit(7))),
    ("hook_fills_a_full_queue", hook_fills_a_full_queue),
];

/// A pool of one thread, which runs `first`, and a queue of one place, which is taken.
fn full(first: impl FnOnce() + Send + 'static) -> Result<Pool, Box<dyn std::error::Error>> {
    let pool = Pool::builder().max_threads(1).queue_capacity(1).build()?;
    let (started, has_started) = channel();
    pool.execute(move || {
        started.send(()).unwrap();
        first();
        println!("task first");
    })?;
    has_started.recv()?;
    pool.execute(|| println!("task queued"))?;
    Ok(pool)
}

/// A thread is blocked in a submission when the process ends, which it is told at last.
fn blocked_submitter(end: fn()) -> Ended {
    let pool = full(wait_until_closed)?;
    let (answers, answer) = channel();
    let (about_to, is_about_to) = channel();
    let submitter = thread::Builder::new().name("submitter".into());
    submitter.spawn(move || submit(&pool, &about_to, &answers))?;
    is_about_to.recv()?;
    #[cfg(target_os = "linux")]
    crate::resources::threads::await_sleep("submitter");
    winddown::after_join("answer", move || println!("{}", answer.recv().unwrap()))?;
    end();
    Ok(())
}

fn submit(pool: &Pool, about_to: &Sender<()>, answers: &Sender<String>) {
    let timed = pool.execute_timeout(|| println!("task too much"), Duration::ZERO).map_err(reason);
    assert_eq!(timed, Err("Timeout".into()), "the queue is full");
    about_to.send(()).unwrap();
    let blocked = pool.execute(|| println!("task too much")).map_err(reason);
    answers.send(format!("submitting: {blocked:?}")).unwrap();
}

fn reason<F>(refused: Rejected<F>) -> String {
    format!("{:?}", refused.reason())
}

/// Until then the queue stays full.
fn wait_until_closed() {
    while !Pool::current().unwrap().is_closed() {
        thread::yield_now();
    }
}

/// Each of the hook's tasks waits for room: the drain has not begun, and the worker has.
fn hook_fills_a_full_queue() -> Ended {
    let pool = full(|| winddown::token().wait())?;
    winddown::before_join("submits", move || {
        for n in 0..20 {
            pool.execute(move || println!("task {n}")).unwrap();
        }
        println!("the hook is done");
    })?;
    if !cfg!(feature = "exit-hook") {
        winddown::shutdown();
    }
    Ok(())
}
