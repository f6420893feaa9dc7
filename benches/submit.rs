//! How long does a small task take that is submitted from outside, from its submission to its end?
//!
//! `cargo bench --bench submit` says so for pools of several sizes, and for the plainest hand-over there is: boxed
//! closures through a standard channel to one thread.

mod common;

use common::{captures, pool_of, submit, work, WIDTHS};
use divan::counter::ItemsCount;
use divan::Bencher;
use std::sync::mpsc;
use std::thread;

const TASKS: usize = 100_000;

fn main() {
    divan::main();
}

#[divan::bench(args = WIDTHS, sample_count = 100, sample_size = 1)]
fn pool(bencher: Bencher, workers: usize) {
    let pool = pool_of(workers);
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        submit(&pool, TASKS);
        pool.wait_idle();
    });
}

#[divan::bench(sample_count = 100, sample_size = 1)]
fn channel(bencher: Bencher) {
    bencher.counter(ItemsCount::new(TASKS)).bench_local(|| {
        let (sender, tasks) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let worker = thread::spawn(move || tasks.into_iter().for_each(|task| task()));
        for n in 0..TASKS {
            let captured = captures(n);
            sender.send(Box::new(move || work(captured))).expect("the worker lives");
        }
        drop(sender);
        worker.join().expect("no task panics");
    });
}
