//! A batch of tasks with handles: all are spawned, then all are joined.

use super::each_since;
use crate::peer::Handles;
use crate::task::words;
use std::hint::black_box;
use std::time::Instant;

/// Per task.
pub(crate) fn spawn_join<P: Handles>(pool: &'static P, tasks: u64) -> f64 {
    let start = Instant::now();
    let handles = (0..tasks).map(|n| pool.spawn(words(n))).collect();
    black_box(pool.join(handles));
    each_since(start, tasks)
}
