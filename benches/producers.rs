//! How long does a small task take when several threads submit at once?
//!
//! `cargo bench --bench producers` has four threads submit to pools of several sizes.

mod common;

use common::{pool_of, submit, WIDTHS};
use divan::counter::ItemsCount;
use divan::Bencher;
use std::thread;

const PRODUCERS: usize = 4;
const TASKS: usize = 100_000;

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, sample_count = 100, sample_size = 1)]
fn four(bencher: Bencher, workers: usize) {
    let pool = pool_of(workers);
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        // The threads take some ten microseconds each, and the tasks a thousand times that.
        thread::scope(|scope| {
            for _ in 0..PRODUCERS {
                scope.spawn(|| submit(&pool, TASKS / PRODUCERS));
            }
        });
        pool.wait_idle();
    });
}
