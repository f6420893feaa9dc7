//! What a long queue costs.

use super::{each_since, life::gated};
use crate::peer::Peer;
use crate::pools::Winddown;
use crate::task::{counted, tick, wait_for, words};
use std::time::Instant;

/// Live bytes for each of `tasks` that wait in the queue. Buffers that the queue has not filled yet count as well.
pub(crate) fn bytes<P: Peer>(pool: &'static P, width: usize, tasks: u64, live: fn() -> usize) -> f64 {
    let target = counted() + tasks;
    let gate = gated(pool, width);
    let before = live();
    for n in 0..tasks {
        let words = words(n);
        pool.execute(move || tick(words));
    }
    let after = live();
    gate.open();
    wait_for(target);
    after.saturating_sub(before) as f64 / tasks as f64
}

/// `tasks` are queued while every worker stands at a gate, then it opens; from the first submission until the pool is
/// idle, per task.
pub(crate) fn whole_cost(winddown: &'static Winddown, width: usize, tasks: u64) -> f64 {
    let gate = gated(winddown, width);
    let start = Instant::now();
    for n in 0..tasks {
        let words = words(n);
        winddown.execute(move || tick(words));
    }
    gate.open();
    winddown.pool().wait_idle();
    each_since(start, tasks)
}
