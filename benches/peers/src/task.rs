//! The tasks, and how their end is noticed.
//!
//! A shared counter in each task would be what the pools are measured by. So every thread counts on a cache line of its
//! own with a plain load and store, and the thread that waits adds these up now and then, sleeping in between.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What a task captures.
pub(crate) type Words = [u64; 3];

/// How long the waiting thread sleeps before it looks again.
const NAP: Duration = Duration::from_micros(50);

/// Captures that the compiler knows nothing of. Each word by itself: an array would go through memory in pieces of one
/// width and out of it in pieces of another, and the processor's stall over that would be the larger part of a scene.
#[inline]
pub(crate) fn words(n: u64) -> Words {
    [n, n + 1, n + 2].map(black_box)
}

/// A task with a result.
#[inline]
pub(crate) fn compute(words: Words) -> u64 {
    words.map(black_box)[0]
}

/// A task without a result.
#[inline]
pub(crate) fn tick(words: Words) {
    let _ = words.map(black_box);
    count();
}

/// One thread's count. Two lines of 64 bytes, as processors fetch them in pairs.
#[repr(align(128))]
struct Stripe(AtomicU64);

struct Stripes {
    all: Vec<&'static Stripe>,
    /// Those whose thread has ended; the next thread goes on counting there.
    free: Vec<&'static Stripe>,
}

static STRIPES: Mutex<Stripes> = Mutex::new(Stripes { all: Vec::new(), free: Vec::new() });

/// Gives a thread's stripe back.
struct Lease(&'static Stripe);

impl Drop for Lease {
    fn drop(&mut self) {
        stripes().free.push(self.0);
    }
}

thread_local! {
    // Without a destructor, so that reaching it is one load; the lease has the destructor.
    static STRIPE: Cell<Option<&'static Stripe>> = const { Cell::new(None) };
    static LEASE: Cell<Option<Lease>> = const { Cell::new(None) };
}

fn stripes() -> MutexGuard<'static, Stripes> {
    STRIPES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts one task as run.
#[inline]
pub(crate) fn count() {
    let stripe = STRIPE.get().unwrap_or_else(lease);
    // Only this thread writes here.
    stripe.0.store(stripe.0.load(Ordering::Relaxed) + 1, Ordering::Release);
}

#[cold]
fn lease() -> &'static Stripe {
    let mut stripes = stripes();
    let stripe = stripes.free.pop().unwrap_or_else(|| {
        let stripe: &'static Stripe = Box::leak(Box::new(Stripe(AtomicU64::new(0))));
        stripes.all.push(stripe);
        stripe
    });
    drop(stripes);
    STRIPE.set(Some(stripe));
    LEASE.set(Some(Lease(stripe)));
    stripe
}

/// How many tasks have been counted so far.
pub(crate) fn counted() -> u64 {
    stripes().all.iter().map(|stripe| stripe.0.load(Ordering::Acquire)).sum()
}

/// Waits until `target` tasks have been counted.
pub(crate) fn wait_for(target: u64) {
    while counted() < target {
        thread::sleep(NAP);
    }
}

/// Holds the tasks that pass through it until it is opened.
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    waiting: usize,
    is_open: bool,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { state: Mutex::default(), changed: Condvar::new() }
    }

    /// What a task does that keeps its worker busy until the gate opens.
    pub(crate) fn pass(&self) {
        let mut state = self.lock();
        state.waiting += 1;
        self.changed.notify_all();
        let _open =
            self.changed.wait_while(state, |state| !state.is_open).unwrap_or_else(PoisonError::into_inner);
    }

    /// Waits until `tasks` tasks stand at the gate.
    pub(crate) fn await_waiting(&self, tasks: usize) {
        let _all = self
            .changed
            .wait_while(self.lock(), |state| state.waiting < tasks)
            .unwrap_or_else(PoisonError::into_inner);
    }

    pub(crate) fn open(&self) {
        self.lock().is_open = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
