//! Tasks of about five microseconds: what is left of the threads once a pool has taken its share.

use crate::peer::Peer;
use crate::task::{counted, tick, wait_for, words};
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const TASK: Duration = Duration::from_micros(5);

/// How many times faster the pool runs `tasks` than the main thread alone does, which has just done so.
pub(crate) fn mixed<P: Peer>(pool: &'static P, tasks: u64) -> f64 {
    let steps = calibrated_steps();
    let start = Instant::now();
    for n in 0..tasks {
        work(steps);
        tick(words(n));
    }
    let serial = start.elapsed();

    let target = counted() + tasks;
    let start = Instant::now();
    for n in 0..tasks {
        let [n, _, _] = words(n);
        let captured = [n, steps, n];
        pool.execute(move || {
            work(captured[1]);
            tick(captured);
        });
    }
    wait_for(target);
    serial.as_secs_f64() / start.elapsed().as_secs_f64()
}

/// Steps of [`work`] that take as long as a task is to take. The fastest of some trials counts, as the others were
/// interrupted.
fn calibrated_steps() -> u64 {
    static STEPS: OnceLock<u64> = OnceLock::new();
    const TRIAL: u64 = 100_000;
    *STEPS.get_or_init(|| {
        let trial = || {
            let start = Instant::now();
            work(TRIAL);
            start.elapsed()
        };
        let fastest = (0..20).map(|_| trial()).min().expect("there are trials");
        (TRIAL as f64 * TASK.as_secs_f64() / fastest.as_secs_f64()).ceil() as u64
    })
}

/// A chain in which each step needs the one before.
fn work(steps: u64) {
    let mut x = black_box(0x9E37_79B9_7F4A_7C15_u64);
    for _ in 0..steps {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
}
