//! A library with a pool of its own, which one of the programs loads and unloads.
#![allow(unsafe_code)] // A function that is found by its name.

use winddown::Pool;

/// Queues 50 tasks, which do not start before a shutdown does.
#[no_mangle]
pub extern "C" fn queue_fifty() {
    let pool = Pool::new(1);
    pool.execute(|| winddown::token().wait()).expect("a new pool is open");
    for n in 0..50 {
        pool.execute(move || println!("task {n}")).expect("a new pool is open");
    }
}
