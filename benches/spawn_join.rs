//! How long does a small task take whose handle is joined?
//!
//! `cargo bench --bench spawn_join` spawns a batch of tasks on pools of several sizes, and joins them all.

mod common;

use common::{captures, pool_of, work, WIDTHS};
use divan::counter::ItemsCount;
use divan::Bencher;

const TASKS: usize = 10_000;

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, sample_count = 100, sample_size = 1)]
fn batch(bencher: Bencher, workers: usize) {
    let pool = pool_of(workers);
    let mut handles = Vec::with_capacity(TASKS);
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        for n in 0..TASKS {
            let captured = captures(n);
            handles.push(pool.spawn(move || work(captured)).expect("an open pool takes tasks"));
        }
        for handle in handles.drain(..) {
            handle.join().expect("no task panics");
        }
    });
}
