//! A binary tree of tasks, each of which submits its two children to the pool in the `static`.

use super::each_since;
use crate::peer::Peer;
use crate::task::{counted, tick, wait_for, Words};
use std::hint::black_box;
use std::time::Instant;

/// Until all nodes down to `depth` have run; per node.
pub(crate) fn fan_out<P: Peer>(pool: &'static P, depth: u64) -> f64 {
    let nodes = (1 << (depth + 1)) - 1;
    let target = counted() + nodes;
    let start = Instant::now();
    let root = black_box([depth, 0, 1]);
    pool.execute(move || node::<P>(root));
    wait_for(target);
    each_since(start, nodes)
}

/// The words are the levels below, the level itself, and the node's number on it.
fn node<P: Peer>([below, level, number]: Words) {
    if below > 0 {
        for child in [2 * number, 2 * number + 1] {
            let words = black_box([below - 1, level + 1, child]);
            P::resident().execute(move || node::<P>(words));
        }
    }
    tick([below, level, number]);
}
