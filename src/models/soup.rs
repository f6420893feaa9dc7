//! Everything against everything: each thread, and some of the tasks, do what is drawn for them.

use super::*;
use crate::WhenFull;
use shuttle::rand::{thread_rng, Rng};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// What the threads of one programme share.
#[derive(Clone)]
struct Kitchen {
    pools: [Pool; 2],
    registry: Registry,
    trace: Trace,
    /// Whether time passes.
    has_time: bool,
}

fn draw(bound: usize) -> usize {
    thread_rng().gen_range(0..bound)
}

impl Kitchen {
    /// A task that may do something itself. It has no handle that keeps its own pool open for longer than it runs.
    fn task(&self, depth: usize) -> impl FnOnce() + Send + 'static {
        let kitchen = self.clone();
        move || {
            if depth > 0 {
                kitchen.step(depth - 1);
            }
            kitchen.trace.leave();
        }
    }

    /// One operation. At `depth` zero, one that waits for nothing.
    fn step(&self, depth: usize) {
        let pool = &self.pools[draw(2)];
        let waits = draw(2) == 0;
        match draw(12) {
            0 | 1 => drop(pool.execute(self.task(depth))),
            2 => match pool.spawn(self.task(depth)) {
                Ok(handle) if draw(2) == 0 => drop(handle.cancel()),
                // Not of another pool inside a task: tasks that join each other's pools may wait in a circle.
                Ok(handle) if waits && !self.is_inside() => drop(handle.join()),
                _ => {}
            },
            3 => drop(pool.try_execute(self.task(depth))),
            4 => {
                let delay = if self.has_time { SECOND } else { Duration::ZERO };
                if let Ok(handle) = pool.spawn_after(delay, self.task(depth)) {
                    if draw(2) == 0 {
                        handle.cancel();
                    }
                }
            }
            5 => {
                // Its tasks wait for nothing: one that waits for another pool keeps its permit, for which a task may wait that
                // the other pool waits for.
                let limited = pool.limit(1);
                for _ in 0..2 {
                    drop(limited.try_execute(self.task(0)));
                }
            }
            6 if !self.is_inside() => {
                let n = AtomicUsize::new(0);
                pool.scope(|s| {
                    for _ in 0..2 {
                        s.spawn(|| _ = n.fetch_add(1, Ordering::Relaxed));
                    }
                });
                assert!(n.load(Ordering::Relaxed) <= 2);
            }
            7 if !self.is_inside() => {
                let mut map = pool.map_unordered(0..2, |n| n);
                map.next();
            }
            8 if waits => pool.wait_idle(),
            9 if waits => pool.close(),
            10 if waits => drop(pool.shutdown()),
            11 if waits => drop(pool.shutdown_now()),
            _ => drop(pool.execute(self.task(depth))),
        }
    }

    fn is_inside(&self) -> bool {
        Pool::current().is_some()
    }
}

fn play(has_time: bool) {
    let registry = Registry::root();
    let trace = Trace::default();
    let keep_alive = if has_time { SECOND } else { Duration::MAX };
    let pools = [1, 2].map(|max_threads| {
        let builder = builder(&registry, max_threads).keep_alive(keep_alive);
        let builder =
            if draw(3) == 0 { builder.queue_capacity(1).when_full(WhenFull::CallerRuns) } else { builder };
        builder.build().unwrap()
    });
    let kitchen = Kitchen { pools, registry: registry.clone(), trace: trace.clone(), has_time };
    let time = has_time.then(|| Time::jumps(6));
    let cooks = [(); 2].map(|()| {
        let kitchen = kitchen.clone();
        thread::spawn(move || (0..2).for_each(|_| kitchen.step(1)))
    });
    kitchen.step(1);
    if draw(2) == 0 {
        kitchen.registry.shutdown();
    }
    cooks.into_iter().for_each(|cook| cook.join().unwrap());
    let pools = kitchen.pools.clone();
    drop(kitchen);
    assert!(registry.shutdown().is_clean());
    for pool in &pools {
        while pool.stats().threads > 0 {
            thread::yield_now();
        }
        let stats = pool.stats();
        assert_adds_up(&stats);
        assert_eq!((stats.queued, stats.running, stats.delayed, stats.abandoned), (0, 0, 0, 0), "{stats:?}");
        assert_eq!(stats.panicked, 0);
    }
    drop(time);
    drop(pools);
    while Arc::strong_count(&trace.captured) > 1 {
        thread::yield_now();
    }
}

#[test]
fn random_programmes_come_to_their_end() {
    explore(|| play(false));
}

#[test]
fn random_programmes_come_to_their_end_while_time_passes() {
    explore(|| play(true));
}
