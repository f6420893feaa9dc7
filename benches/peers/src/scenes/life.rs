//! The beginning and the end of a pool.

use super::{each, each_since};
use crate::peer::{Drains, Ends, Peer};
use crate::task::{compute, counted, tick, wait_for, words, Gate};
use std::hint::black_box;
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Instant;

/// A pool is made, runs one task, whose message is waited for, and is ended; per pool.
pub(crate) fn create<P: Ends>(width: usize, pools: u64) -> f64 {
    let start = Instant::now();
    for n in 0..pools {
        let pool = P::start(width);
        let words = words(n);
        let (sender, result) = mpsc::channel();
        pool.execute(move || sender.send(compute(words)).expect("the main thread waits"));
        black_box(result.recv().expect("the task sends"));
        pool.end();
    }
    each_since(start, pools)
}

/// The same with nothing but a thread.
pub(crate) fn create_thread(threads: u64) -> f64 {
    let start = Instant::now();
    for n in 0..threads {
        let words = words(n);
        let (sender, result) = mpsc::channel();
        let thread = thread::spawn(move || sender.send(compute(words)).expect("the main thread waits"));
        black_box(result.recv().expect("the thread sends"));
        thread.join().expect("the thread does not panic");
    }
    each_since(start, threads)
}

/// `tasks` are queued behind a gate at which every worker stands. Then the gate opens and the pool is ended.
///
/// Two figures per task: from the opening to the end of the shutdown, and from the first submission to there. The pool
/// is a new one, and making it and bringing its workers to the gate is in neither.
pub(crate) fn drain<P: Drains>(width: usize, tasks: u64) -> Vec<f64> {
    let pool = P::start(width);
    let target = counted() + tasks;
    let gate = gated(&pool, width);
    let start = Instant::now();
    for n in 0..tasks {
        let words = words(n);
        pool.execute(move || tick(words));
    }
    let opened = Instant::now();
    gate.open();
    pool.end();
    let ended = Instant::now();
    wait_for(target); // Returns at once, or this pool does not belong here.
    vec![each(ended - opened, tasks), each(ended - start, tasks)]
}

/// Brings every worker of the pool to a gate.
pub(crate) fn gated<P: Peer>(pool: &P, width: usize) -> Arc<Gate> {
    let gate = Arc::new(Gate::new());
    for _ in 0..width {
        let gate = gate.clone();
        pool.execute(move || gate.pass());
    }
    gate.await_waiting(width);
    gate
}
