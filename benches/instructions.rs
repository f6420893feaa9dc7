//! The program whose instructions `.ci/instructions` counts.
//!
//! `instructions SCENE TASKS` plays a scene with so many tasks, under callgrind, for two numbers of tasks: what the run
//! with more of them executes beyond the other is what these tasks cost.
//!
//! Which instructions threads execute depends on who runs when. So in every scene one thread works while all others
//! sleep: tasks are queued while the worker stands at a gate, and run while whoever submitted them waits. That leaves out
//! what threads cost one another; the other benches measure that.

mod common;

use common::{captures, hold_a_worker, submit, work, Gate};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use winddown::Pool;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [scene, tasks] = &arguments[..] else { return usage() };
    let Ok(tasks) = tasks.parse() else { return usage() };
    match scene.as_str() {
        "execute" => execute(tasks),
        "follow-up" => follow_up(tasks),
        "spawn-join" => spawn_join(tasks),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("instructions execute|follow-up|spawn-join TASKS, which .ci/instructions runs");
    ExitCode::FAILURE
}

/// Tasks from outside, of which no result is awaited.
fn execute(tasks: usize) {
    let pool = Pool::new(1);
    let gate = hold_a_worker(&pool);
    submit(&pool, tasks);
    drop(gate);
    assert_eq!(pool.shutdown().stats().completed, tasks as u64 + 1);
}

/// Tasks from within tasks: a binary tree, which one of the two workers runs while the other stands at the gate. The last
/// task opens that.
fn follow_up(tasks: usize) {
    // A task then reaches its pool at no cost.
    let pool: &'static Pool = Box::leak(Box::new(Pool::new(2)));
    let of_one = hold_a_worker(pool);
    let of_another = hold_a_worker(pool);
    LEFT.store(tasks, Ordering::Relaxed);
    *LAST_GATE.lock().expect("nobody panicked") = Some(of_another);
    pool.execute(move || node(pool, tasks, 1)).expect("an open pool takes tasks");
    drop(of_one);
    assert_eq!(pool.shutdown().stats().completed, tasks as u64 + 2);
}

/// Nodes of the tree that have not run.
static LEFT: AtomicUsize = AtomicUsize::new(0);
static LAST_GATE: Mutex<Option<Gate>> = Mutex::new(None);

/// A node of the tree, by its number: they are numbered level by level, up to `last`.
fn node(pool: &'static Pool, last: usize, number: usize) {
    for child in [2 * number, 2 * number + 1] {
        if child <= last {
            pool.execute(move || node(pool, last, child)).expect("a task may submit tasks");
        }
    }
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        *LAST_GATE.lock().expect("nobody panicked") = None;
    }
}

/// Tasks from outside whose handles are joined, after all have run.
fn spawn_join(tasks: usize) {
    let pool = Pool::new(1);
    let gate = hold_a_worker(&pool);
    let spawn = |n| {
        let captured = captures(n);
        pool.spawn(move || work(captured)).expect("an open pool takes tasks")
    };
    let handles: Vec<_> = (0..tasks).map(spawn).collect();
    let last = spawn(tasks);
    drop(gate);
    last.join().expect("no task panics");
    for handle in handles {
        handle.join().expect("no task panics");
    }
}
