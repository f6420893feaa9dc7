//! How long does a shutdown take for each task that is still queued?
//!
//! `cargo bench --bench drain` queues tasks while all workers stand at gates. The clock starts before these open, and
//! stops after the shutdown.

mod common;

use common::{hold_workers, submit, WIDTHS};
use divan::counter::ItemsCount;
use divan::Bencher;
use winddown::Pool;

const TASKS: usize = 200_000;

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, sample_count = 100, sample_size = 1)]
fn shutdown(bencher: Bencher, workers: usize) {
    let queue = || {
        let pool = Pool::new(workers);
        let gates = hold_workers(&pool, workers);
        submit(&pool, TASKS);
        (pool, gates)
    };
    bencher.counter(ItemsCount::new(TASKS)).with_inputs(queue).bench_local_values(|(pool, gates)| {
        drop(gates);
        let report = pool.shutdown();
        assert_eq!(report.stats().completed, (TASKS + workers) as u64);
        pool // Dropped when the clock has stopped.
    });
}
