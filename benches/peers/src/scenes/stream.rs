//! Many tiny tasks from one producer, and from four.

use super::each_since;
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

/// Four threads submit a quarter of `tasks` each; from the first submission until all have run.
pub(crate) fn multi<P: Peer>(pool: &'static P, tasks: u64) -> f64 {
    const PRODUCERS: u64 = 4;
    let target = counted() + tasks / PRODUCERS * PRODUCERS;
    let ready = Barrier::new(PRODUCERS as usize);
    // The producers say when they began: any other thread might be woken late.
    let produce = || {
        ready.wait();
        let start = Instant::now();
        submit(pool, tasks / PRODUCERS);
        start
    };
    thread::scope(|scope| {
        let producers = [(); PRODUCERS as usize].map(|()| scope.spawn(produce));
        let starts = producers.map(|producer| producer.join().expect("a producer does not panic"));
        wait_for(target);
        each_since(starts.into_iter().min().expect("there are producers"), tasks)
    })
}

fn submit<P: Peer>(pool: &'static P, tasks: u64) {
    for n in 0..tasks {
        let words = words(n);
        pool.execute(move || tick(words));
    }
}
