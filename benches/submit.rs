//! How much does a small task cost, from its submission to its end?
//!
//! `cargo bench --bench submit` compares a pool with the plainest hand-over there is: boxed closures through a standard
//! channel to one thread. Both are measured in turn in one run, and the ratio of the medians counts: on a shared
//! machine the times themselves mean little.

use std::hint::black_box;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use winddown::Pool;

const TASKS: u64 = 200_000;
const ROUNDS: usize = 11;

fn main() {
    let (mut plain, mut pool) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(through_a_channel());
        pool.push(through_a_pool());
    }
    let (plain, pool) = (median(plain), median(pool));
    println!(
        "boxed closures through std's channel to one thread: {} ns a task",
        plain.as_nanos() / u128::from(TASKS)
    );
    println!(
        "Pool::execute, one worker:                          {} ns a task",
        pool.as_nanos() / u128::from(TASKS)
    );
    println!("ratio: {:.2}", pool.as_secs_f64() / plain.as_secs_f64());
}

fn through_a_channel() -> Duration {
    let (sender, tasks) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let worker = thread::spawn(move || tasks.into_iter().for_each(|task| task()));
    let start = Instant::now();
    for n in 0..TASKS {
        let captured = (n, n + 1, n + 2);
        sender.send(Box::new(move || work(captured))).expect("the worker lives");
    }
    drop(sender);
    worker.join().expect("no task panics");
    start.elapsed()
}

fn through_a_pool() -> Duration {
    let pool = Pool::new(1);
    pool.execute(|| ()).expect("an open pool takes tasks"); // The thread is there when the clock starts.
    pool.wait_idle();
    let start = Instant::now();
    for n in 0..TASKS {
        let captured = (n, n + 1, n + 2);
        pool.execute(move || work(captured)).expect("an open pool takes tasks");
    }
    pool.wait_idle();
    start.elapsed()
}

/// A task that captures three words and does next to nothing with them.
fn work(captured: (u64, u64, u64)) {
    let _ = black_box(captured);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
