//! How long does it take to hand a task over and to have its result?
//!
//! `cargo bench --bench round_trip` does so back to back, when the worker has hardly had the time to sleep, and after a
//! millisecond, when it sleeps.

mod common;

use common::{pool_of, WIDTHS};
use divan::Bencher;
use std::thread;
use std::time::Duration;
use winddown::Pool;

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, sample_count = 2_000, sample_size = 1)]
fn back_to_back(bencher: Bencher, workers: usize) {
    let pool = pool_of(workers);
    bencher.bench_local(|| there_and_back(&pool));
}

#[divan::bench(args = WIDTHS, sample_count = 300, sample_size = 1)]
fn after_a_millisecond(bencher: Bencher, workers: usize) {
    let pool = pool_of(workers);
    let sleep = || thread::sleep(Duration::from_millis(1)); // Not timed.
    bencher.with_inputs(sleep).bench_local_values(|()| there_and_back(&pool));
}

fn there_and_back(pool: &Pool) -> u32 {
    let task = pool.spawn(|| 5).expect("an open pool takes tasks");
    task.join().expect("it does not panic")
}
