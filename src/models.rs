//! Whole pools and registries, every step of every thread in an order that is drawn.
//!
//! `cargo test --profile models -p models --features shuttle` runs the crate itself, queue
//! included, on [shuttle](https://docs.rs/shuttle): threads are coroutines, and at each operation on a lock, an atomic or a
//! thread the scheduler draws who takes the next step. The queue's blocks and deques are small, so that they wrap. A
//! lost wake-up is a deadlock, which shuttle finds; a lost or doubled task is a wrong count; a leak is a [`Trace`] too many;
//! a loop that waits for nobody exceeds the number of steps.
//!
//! Time stands still, but where a model lets it [pass](Time): then a time-out comes between any two steps.
//!
//! Half of the orders are drawn step by step, which varies most; half by
//! [PCT](https://www.microsoft.com/en-us/research/publication/a-randomized-scheduler-with-probabilistic-guarantees-of-finding-bugs/),
//! which lets threads wait for very long at few places. A failure prints its schedule: `WINDDOWN_SCHEDULE=… cargo test … NAME`
//! plays it again. `WINDDOWN_ORDERS=N` draws so many orders for each model instead of 4,000.
//!
//! Memory is one here, as if every access were `SeqCst`. What rests on weaker orders is the queue and the eventcount, and those have
//! models of their own in [loom](https://docs.rs/loom): `queue::model`, `sync::event`. The rest changes under locks, or is
//! read as a hint. `tests/mutations/run` breaks the protocols one at a time, and expects a model to fail.

#![allow(clippy::incompatible_msrv)] // Shuttle needs a newer Rust than the crate does, too.

mod accept;
mod cancel;
mod crew;
mod delays;
mod ends;
mod exhausted;
mod expiry;
mod handles;
mod inside;
mod limits;
mod registry;
mod room;
mod sleep;
mod soup;
mod waits;

use crate::sync::modelled;
use crate::{Pool, PoolBuilder, PoolStats, Registry};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

/// Plays a model in many orders.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_with(false, model);
}

/// The same, where waits may also end without a reason, as those of the system may.
fn explore_spurious(model: impl Fn() + Send + Sync + 'static) {
    explore_with(true, model);
}

fn explore_with(spurious: bool, model: impl Fn() + Send + Sync + 'static) {
    let orders = std::env::var("WINDDOWN_ORDERS").map_or(4_000, |orders| orders.parse().expect("a number"));
    let model = Arc::new(move || {
        modelled::reset(spurious);
        model();
    });
    if let Ok(schedule) = std::env::var("WINDDOWN_SCHEDULE") {
        return run(ReplayScheduler::new_from_encoded(&schedule), model);
    }
    run(RandomScheduler::new(orders / 2), model.clone());
    run(PctScheduler::new(3, orders / 2), model);
}

fn run(scheduler: impl Scheduler + 'static, model: Arc<impl Fn() + Send + Sync + 'static>) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.failure_persistence = FailurePersistence::Print;
    config.max_steps = MaxSteps::FailAfter(200_000);
    config.silence_warnings = true; // Of what this module says at its top.
    Runner::new(scheduler, config).run(move || model());
}

/// Lets time pass while it is there.
struct Time {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Time {
    /// So many times at most, it jumps to the next moment that somebody waits for.
    fn jumps(times: usize) -> Time {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let thread = thread::spawn(move || {
            for _ in 0..times {
                thread::yield_now();
                if until.load(Ordering::Relaxed) {
                    return;
                }
                modelled::pass();
            }
        });
        Time { is_over, thread: Some(thread) }
    }

    /// As often as there is such a moment.
    fn passes() -> Time {
        Time::jumps(usize::MAX)
    }
}

impl Drop for Time {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What tasks leave behind: how many have run, and how many of their captures are still there.
#[derive(Clone, Default)]
struct Trace {
    ran: Arc<AtomicUsize>,
    captured: Arc<()>,
}

impl Trace {
    /// A task that says that it has run.
    fn task(&self) -> impl FnOnce() + Send + 'static {
        let trace = self.clone();
        move || trace.leave()
    }

    /// One that says that it has run, and once more when the destructors of its thread run.
    fn task_to_the_last(&self) -> impl FnOnce() + Send + 'static {
        let trace = self.clone();
        move || {
            let last = trace.clone();
            modelled::at_thread_exit(move || {
                thread::yield_now();
                last.leave();
            });
            trace.leave();
        }
    }

    fn leave(&self) {
        self.ran.fetch_add(1, Ordering::Relaxed);
    }

    fn ran(&self) -> usize {
        self.ran.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn assert_no_captures(&self) {
        assert_eq!(Arc::strong_count(&self.captured), 1, "captures are left");
    }
}

fn builder(registry: &Registry, max_threads: usize) -> PoolBuilder {
    Pool::builder().name("model").registry(registry).max_threads(max_threads)
}

fn pool(max_threads: usize) -> (Registry, Pool) {
    let registry = Registry::root();
    let pool = builder(&registry, max_threads).build().unwrap();
    (registry, pool)
}

/// The identity of the counts, which holds at rest.
#[track_caller]
fn assert_adds_up(s: &PoolStats) {
    let settled = s.completed + s.panicked + s.cancelled + s.returned + s.abandoned;
    assert_eq!(s.accepted, settled + s.queued + s.delayed + s.running, "{s:?}");
}
