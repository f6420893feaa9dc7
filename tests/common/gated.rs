//! Tasks that end when they are told to, and what became of them.

use std::sync::mpsc::{self, Sender};
use winddown::{JoinError, JoinHandle, Pool};

/// A task that ends with `value` when what comes along is dropped.
pub fn gated<T: Send + 'static>(pool: &Pool, value: T) -> (Sender<()>, JoinHandle<T>) {
    let (go, wait) = mpsc::channel::<()>();
    let task = move || {
        let _ = wait.recv();
        value
    };
    (go, pool.spawn(task).unwrap())
}

/// The same, which has started.
pub fn occupy<T: Send + 'static>(pool: &Pool, value: T) -> (Sender<()>, JoinHandle<T>) {
    let (go, wait) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let task = move || {
        started.send(()).unwrap();
        let _ = wait.recv();
        value
    };
    let handle = pool.spawn(task).unwrap();
    has_started.recv().unwrap();
    (go, handle)
}

/// What became of a task, in a word.
pub fn word<T: ToString>(result: Result<T, JoinError>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

pub fn values<T>(results: impl IntoIterator<Item = Result<T, JoinError>>) -> Vec<T> {
    results.into_iter().map(Result::unwrap).collect()
}

/// Runs `task` on the pool as one of its tasks, and hands on its panic.
pub fn inside<T: Send + 'static>(pool: &Pool, task: impl FnOnce(&Pool) -> T + Send + 'static) -> T {
    let inner = pool.clone();
    pool.spawn(move || task(&inner)).unwrap().join().unwrap()
}
