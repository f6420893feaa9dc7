//! How long does it take to make a pool, use it, and shut it down?
//!
//! `cargo bench --bench create` does so with one task for each worker, all of which start; and, to compare, with as many
//! threads of the standard library. A pool that is not used has no threads.

mod common;

use common::WIDTHS;
use std::sync::{Arc, Barrier};
use std::thread;
use winddown::Pool;

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, sample_count = 300, sample_size = 1)]
fn pool(workers: usize) {
    let pool = Pool::new(workers);
    for meet in meetings(workers) {
        pool.execute(meet).expect("an open pool takes tasks");
    }
    assert_eq!(pool.shutdown().workers_joined(), workers);
}

#[divan::bench(args = WIDTHS, sample_count = 300, sample_size = 1)]
fn threads(count: usize) {
    let threads: Vec<_> = meetings(count).map(thread::spawn).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
}

/// Tasks that end when each of them runs, which takes as many threads.
fn meetings(count: usize) -> impl Iterator<Item = impl FnOnce() + Send + 'static> {
    let all_there = Arc::new(Barrier::new(count));
    (0..count).map(move |_| {
        let all_there = all_there.clone();
        move || {
            all_there.wait();
        }
    })
}

#[divan::bench]
fn unused_pool() {
    assert!(Pool::new(1).shutdown().is_clean());
}
