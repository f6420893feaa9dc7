//! One task at a time, and its result.

use crate::peer::Peer;
use crate::task::words;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Calls before the clock runs, so that the block does not measure what the peer before it left behind.
const UNTIMED: u64 = 10;

/// Back to back.
pub(crate) fn hot<P: Peer>(pool: &'static P, samples: u64) -> Vec<f64> {
    let mut call = pool.caller();
    for n in 0..UNTIMED {
        black_box(call(words(n)));
    }
    (0..samples).map(|n| time(&mut call, n)).collect()
}

/// With a millisecond of nothing before each.
pub(crate) fn cold<P: Peer>(pool: &'static P, samples: u64) -> Vec<f64> {
    let mut call = pool.caller();
    black_box(call(words(0))); // A pool whose threads have ended in the meantime starts one again.
    let idle_then_call = |n| {
        thread::sleep(Duration::from_millis(1));
        time(&mut call, n)
    };
    (0..samples).map(idle_then_call).collect()
}

fn time(call: &mut impl FnMut([u64; 3]) -> u64, n: u64) -> f64 {
    let words = words(n);
    let start = Instant::now();
    black_box(call(words));
    start.elapsed().as_nanos() as f64
}
