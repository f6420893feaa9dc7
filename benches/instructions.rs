//! The program whose instructions `.ci/instructions` counts.
//!
//! `instructions SCENE TASKS` plays a scene with so many tasks, under callgrind, for two numbers of tasks: what the run
//! with more of them executes beyond the other is what these tasks cost.
//!
//! Which instructions threads execute depends on who runs when. So in every scene one thread works while all others
//! sleep: tasks are queued while the worker stands at a gate, and run while whoever submitted them waits. That leaves out
//! what threads cost one another; the other benches measure that.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, sync_channel, Sender};
use std::sync::{Mutex, OnceLock};
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
fn execute(tasks: u64) {
    let pool = Pool::new(1);
    let gate = hold_a_worker(&pool);
    for n in 0..tasks {
        let captured = captures(n);
        pool.execute(move || work(captured)).expect("an open pool takes tasks");
    }
    drop(gate);
    assert_eq!(pool.shutdown().stats().completed, tasks + 1);
}

/// Tasks from within tasks: a binary tree, which one of the two workers runs while the other stands at the gate. The last
/// task opens that.
fn follow_up(tasks: u64) {
    let pool = POOL.get_or_init(|| Pool::new(2));
    let of_one = hold_a_worker(pool);
    let of_another = hold_a_worker(pool);
    LEFT.store(tasks, Ordering::Relaxed);
    *LAST_GATE.lock().expect("nobody panicked") = Some(of_another);
    pool.execute(move || node(1, tasks)).expect("an open pool takes tasks");
    drop(of_one);
    assert_eq!(pool.shutdown().stats().completed, tasks + 2);
}

static POOL: OnceLock<Pool> = OnceLock::new();
/// Nodes of the tree that have not run.
static LEFT: AtomicU64 = AtomicU64::new(0);
static LAST_GATE: Mutex<Option<Gate>> = Mutex::new(None);

fn node(n: u64, tasks: u64) {
    let pool = POOL.get().expect("this is one of its tasks");
    for child in [2 * n, 2 * n + 1] {
        if child <= tasks {
            pool.execute(move || node(child, tasks)).expect("a task may submit tasks");
        }
    }
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        *LAST_GATE.lock().expect("nobody panicked") = None;
    }
}

/// Tasks from outside whose handles are joined, after all have run.
fn spawn_join(tasks: u64) {
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

fn captures(n: u64) -> (u64, u64, u64) {
    black_box((n, n + 1, n + 2))
}

/// A task that captures three words and does next to nothing with them.
fn work(captured: (u64, u64, u64)) {
    let _ = black_box(captured);
}

/// What a worker stands at until this is dropped.
type Gate = Sender<()>;

/// Has a worker stand at a gate. It is there when this returns.
fn hold_a_worker(pool: &Pool) -> Gate {
    let (gate, opened) = channel();
    let (arrived, has_arrived) = sync_channel(1);
    let stand = move || {
        let _ = arrived.send(());
        let _ = opened.recv();
    };
    pool.execute(stand).expect("an open pool takes tasks");
    has_arrived.recv().expect("a worker stands there");
    gate
}
