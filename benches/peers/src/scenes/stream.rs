//! Many tiny tasks from one producer, and from four.

use super::{each, each_since};
use crate::peer::Peer;
use crate::task::{counted, tick, wait_for, words};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// The main thread submits `tasks`; until all have run.
pub(crate) fn burst<P: Peer>(pool: &'static P, tasks: u64) -> f64 {
    let target = counted() + tasks;
    let start = Instant::now();
    submit(pool, tasks);
    wait_for(target);
    each_since(start, tasks)
}

/// Four threads submit a quarter of `tasks` each; until all have run.
pub(crate) fn multi<P: Peer>(pool: &'static P, tasks: u64) -> f64 {
    const PRODUCERS: u64 = 4;
    let target = counted() + tasks / PRODUCERS * PRODUCERS;
    let ready = Barrier::new(PRODUCERS as usize + 1);
    let time = thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                ready.wait();
                submit(pool, tasks / PRODUCERS);
            });
        }
        ready.wait();
        let start = Instant::now();
        wait_for(target);
        start.elapsed()
    });
    each(time, tasks)
}

fn submit<P: Peer>(pool: &'static P, tasks: u64) {
    for n in 0..tasks {
        let words = words(n);
        pool.execute(move || tick(words));
    }
}
