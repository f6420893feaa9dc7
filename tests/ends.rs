//! A pool that is closed or dropped ends by itself, on whatever thread its last task was.

mod common;

use common::{eventually, occupy_with, pool_in, registry, tidy, within};
use std::sync::mpsc::channel;
use std::time::Duration;
use winddown::Pool;

/// Where a thread was one too many when it had run the last task, it left without a look at whether the pool was to end, and
/// the others slept on.
#[test]
fn a_dropped_pool_ends_though_the_thread_of_its_last_task_is_one_too_many() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let busy = pool_in(&registry, 1);
        let (go, _) = occupy_with(|task| busy.execute(task));
        let pool =
            Pool::builder().registry(&registry).max_threads(1).keep_alive(Duration::MAX).build().unwrap();
        let (waiting, is_waiting) = channel();
        let other = busy.clone();
        let last = pool.spawn(move || {
            waiting.send(()).unwrap();
            other.wait_idle();
        });
        is_waiting.recv().unwrap();
        // A substitute runs this one, and is the one thread that the pool may have idle.
        pool.execute(|| ()).unwrap();
        eventually("the substitute sleeps", || pool.stats().idle == 1);
        drop(pool);
        drop(go);
        last.unwrap().join().unwrap();
        drop(busy);
        eventually("the pools are gone", || registry.stats().is_empty());
    });
}
