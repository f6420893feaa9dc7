use crate::{Case, Ended};
use std::time::Duration;
use winddown::Pool;

pub const CASES: &[Case] = &[("main_returns", main_returns)];

/// Queues 50 tasks that each print a line, on two workers.
fn fifty(pool: &Pool) {
    for n in 0..50 {
        pool.execute(move || {
            std::thread::sleep(Duration::from_millis(2)); // the work
            println!("task {n}");
        })
        .expect("an open pool takes tasks");
    }
}

fn main_returns() -> Ended {
    fifty(&Pool::new(2));
    Ok(())
}
