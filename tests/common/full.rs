//! Pools whose queue is full, and threads that wait for room in it.

use super::{occupy_with, registry};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{Pool, PoolBuilder};

pub fn builder(max_threads: usize, capacity: usize) -> PoolBuilder {
    Pool::builder().registry(&registry()).max_threads(max_threads).queue_capacity(capacity)
}

/// A task that has started and goes on until what this returns is dropped.
pub fn occupy(pool: &Pool) -> Sender<()> {
    occupy_with(|task| pool.execute(task).unwrap()).0
}

/// A pool of one thread that is busy, with a full queue of `capacity`.
pub fn full(builder: PoolBuilder, capacity: usize) -> (Pool, Sender<()>) {
    let pool = builder.build().unwrap();
    let go = occupy(&pool);
    for _ in 0..capacity {
        pool.try_execute(|| ()).unwrap();
    }
    (pool, go)
}

/// Waits until `count` threads have been seen to sleep in a submission: they say that they are about to, and then the
/// system says that they sleep.
pub fn await_sleepers(about_to: &Receiver<String>, count: usize) {
    let names: Vec<String> = (0..count).map(|_| about_to.recv().unwrap()).collect();
    let start = Instant::now();
    while let Some(states) = states_of(&names) {
        if states.iter().all(|state| *state == 'S') {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{states:?}");
        thread::yield_now();
    }
}

fn states_of(names: &[String]) -> Option<Vec<char>> {
    let mut states = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(')')?;
        if names.iter().any(|name| head.ends_with(&format!("({name}"))) {
            states.extend(tail.trim_start().chars().next());
        }
    }
    Some(states)
}

/// A thread that submits and says so before.
pub fn submitter<R: Send + 'static>(
    name: &str,
    about_to: &Sender<String>,
    submit: impl FnOnce() -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let about_to = about_to.clone();
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        about_to.send(thread::current().name().unwrap().to_owned()).unwrap();
        submit()
    });
    thread.unwrap()
}
