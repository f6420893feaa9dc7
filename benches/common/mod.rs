//! What the benches share: tiny tasks, pools with all their threads, and gates at which workers stand.
#![allow(dead_code, unreachable_pub)] // Each bench uses its part, and is a crate of its own.

use std::hint::black_box;
use std::sync::mpsc::{channel, sync_channel, Sender};
use winddown::Pool;

/// The numbers of workers that are compared.
pub const WIDTHS: [usize; 4] = [1, 2, 4, 16];

/// Three words that the compiler knows nothing about.
pub fn captures(n: usize) -> (usize, usize, usize) {
    black_box((n, n + 1, n + 2))
}

/// A task that captures three words and does next to nothing with them.
pub fn work(captured: (usize, usize, usize)) {
    black_box(captured);
}

/// Submits tiny tasks of which no result is awaited.
pub fn submit(pool: &Pool, tasks: usize) {
    for n in 0..tasks {
        let captured = captures(n);
        pool.execute(move || work(captured)).expect("an open pool takes tasks");
    }
}

/// A pool whose threads are all there: none starts while the clock runs.
pub fn pool_of(workers: usize) -> Pool {
    let pool = Pool::new(workers);
    drop(hold_workers(&pool, workers));
    pool.wait_idle();
    pool
}

/// What a worker stands at until this is dropped.
pub type Gate = Sender<()>;

/// Has so many workers stand at gates. They are there when this returns.
pub fn hold_workers(pool: &Pool, workers: usize) -> Vec<Gate> {
    (0..workers).map(|_| hold_a_worker(pool)).collect()
}

/// Has a worker stand at a gate. It is there when this returns.
pub fn hold_a_worker(pool: &Pool) -> Gate {
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
