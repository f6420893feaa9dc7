//! How long does a task take that a task has submitted?
//!
//! `cargo bench --bench fan_out` has pools of several sizes run a binary tree, in which every task submits its two
//! children.

mod common;

use common::{pool_of, WIDTHS};
use divan::counter::ItemsCount;
use divan::Bencher;
use std::hint::black_box;
use winddown::Pool;

const DEPTH: u32 = 16;
const TASKS: usize = (1 << (DEPTH + 1)) - 1;

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, sample_count = 100, sample_size = 1)]
fn tree(bencher: Bencher, workers: usize) {
    // A task then reaches its pool at no cost.
    let pool: &'static Pool = Box::leak(Box::new(pool_of(workers)));
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        pool.execute(move || node(pool, DEPTH, 1)).expect("an open pool takes tasks");
        pool.wait_idle();
    });
}

/// A node of the tree, by its number, and how many levels are below it.
fn node(pool: &'static Pool, below: u32, number: usize) {
    if below > 0 {
        for child in [2 * number, 2 * number + 1] {
            pool.execute(move || node(pool, below - 1, child)).expect("a task may submit tasks");
        }
    }
    black_box(number);
}
