//! The primitives of which everything here is made, chosen in this one place.
//!
//! Everything a thread may *park* on is the standard library's: a lock there is one futex word of its own. parking_lot
//! keeps the queues of all parked threads in one process-wide table, and a fork can copy that table while some other
//! thread holds a bucket of it, which hangs whoever parks in the child
//! (<https://github.com/Amanieu/parking_lot/issues/515>). Pools that are built in a forked child have to work, so
//! parking_lot guards only what the threads of one shutdown tell each other: a few words, locked for a few instructions
//! by two threads at most, so that nobody parks.
//!
//! Two other choices are for the models, which run the crate itself (`tests/models/Cargo.toml` says how):
//!
//! * `winddown_loom`: [loom](https://docs.rs/loom)'s atomics and locks, which show every value that memory
//!   may show. For the protocols without a lock: [`queue::model`](crate::queue), [`event`].
//! * `winddown_shuttle`: [shuttle](https://docs.rs/shuttle)'s, with threads and thread-locals, for whole pools and
//!   registries: every step of every thread, in orders drawn at random, but as if memory were one. Time is a number that a
//!   model moves on (see `modelled`), so that each time-out is an event which may come between any two steps. See `models`.
//!
//! What is in a `static`, and is never waited for, is the standard library's in all three.

pub(crate) mod event;
#[cfg(winddown_shuttle)]
pub(crate) mod modelled;

#[cfg(not(any(winddown_loom, winddown_shuttle)))]
mod chosen {
    pub(crate) use crossbeam_channel::{unbounded, Sender};
    pub(crate) use parking_lot::Mutex as LeafMutex;
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::{atomic, Condvar, Mutex, MutexGuard};
    pub(crate) use std::time::Instant;
    pub(crate) use std::{thread, thread_local};
}

#[cfg(winddown_loom)]
mod chosen {
    pub(crate) use crossbeam_channel::{unbounded, Sender};
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::{atomic, Condvar, Mutex, MutexGuard};
    pub(crate) use parking_lot::Mutex as LeafMutex;
    pub(crate) use std::thread_local;
    pub(crate) use std::time::Instant;

    /// What has no model needs no model's threads.
    pub(crate) mod thread {
        pub(crate) use loom::thread::yield_now;
        pub(crate) use std::thread::{current, park, park_timeout, Builder, JoinHandle, Thread, ThreadId};
    }
}

#[cfg(winddown_shuttle)]
mod chosen {
    pub(crate) use super::modelled::{Condvar, Instant, LeafMutex, Mutex, MutexGuard};
    pub(crate) use shuttle::hint::spin_loop;
    pub(crate) use shuttle::sync::atomic;
    pub(crate) use shuttle::sync::mpsc::{channel as unbounded, Sender};
    pub(crate) use shuttle::thread_local;

    pub(crate) mod thread {
        pub(crate) use crate::sync::modelled::{current, park, park_timeout, Builder, Thread};
        pub(crate) use shuttle::thread::{yield_now, JoinHandle, ThreadId};
    }
}

pub(crate) use chosen::{
    atomic, spin_loop, thread, thread_local, unbounded, Instant, LeafMutex, MutexGuard, Sender,
};

use crate::os;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

/// Whether this is built for a model: what is large is small there, and what spins yields.
pub(crate) const IS_MODEL: bool = cfg!(any(winddown_loom, winddown_shuttle));

#[cfg(winddown_loom)]
pub(crate) use loom::cell::UnsafeCell;

/// std's, with the interface of loom's, which can tell when two accesses overlap.
#[cfg(not(winddown_loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(winddown_loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Keeps what it holds on cache lines of its own, two at a time, as processors prefetch them.
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// Waits for another thread that is within a few instructions of being done: it may have lost its core, though, so
/// this soon offers it ours.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    const SPINS: u32 = 4;

    pub(crate) fn wait(&mut self) {
        if IS_MODEL || self.0 >= Patience::SPINS {
            thread::yield_now();
        } else {
            (0..1 << self.0).for_each(|_| spin_loop());
            self.0 += 1;
        }
    }
}

/// A lock that does not poison: no user code runs under it, so a panic cannot leave its data half changed.
#[derive(Default)]
pub(crate) struct Mutex<T>(chosen::Mutex<T>);

impl<T> Mutex<T> {
    #[cfg(not(winddown_loom))]
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(chosen::Mutex::new(value))
    }

    #[cfg(winddown_loom)]
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(chosen::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        unpoisoned(self.0.lock())
    }
}

#[derive(Default)]
pub(crate) struct Condvar(chosen::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(chosen::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification, at most until `until` (`None`: for ever). Says whether the time ran out.
    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        until: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        let Some(until) = until else { return (unpoisoned(self.0.wait(guard)), false) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (guard, true);
        }
        let (guard, result) = unpoisoned(self.0.wait_timeout(guard, left));
        (guard, result.timed_out())
    }
}

fn unpoisoned<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// Waits for something that may come within microseconds, which is less than it takes to sleep and be woken. Says whether
/// it came.
///
/// After a few looks it offers its core to others between two looks, which costs next to nothing where nobody wants it. Where
/// other programs do, it is gone for milliseconds, and what was waited for has long come: once that has happened, no thread
/// of the process offers it for a while, longer than it lost.
pub(crate) fn linger(has_come: impl Fn() -> bool) -> bool {
    /// Looks at growing distance, some microseconds in all.
    const SPINS: u32 = 4;
    /// Then looks that let other threads have the core. A model tries what they may find, once.
    const YIELDS: u32 = if IS_MODEL { 1 } else { 16 };
    /// What an offer that nobody takes stays far below.
    const DEAR: Duration = Duration::from_micros(200);
    const PAUSE: Duration = Duration::from_millis(10);
    /// Until when nobody offers, as `os::now` counts. Relaxed: a hint.
    static NOT_UNTIL: AtomicU64 = AtomicU64::new(0);
    for look in 0..SPINS {
        if has_come() {
            return true;
        }
        (0..1 << look).for_each(|_| spin_loop());
    }
    if os::now() < NOT_UNTIL.load(Ordering::Relaxed) {
        return has_come();
    }
    let mut before = Instant::now();
    for _ in 0..YIELDS {
        if has_come() {
            return true;
        }
        thread::yield_now();
        let after = Instant::now();
        if after - before > DEAR {
            NOT_UNTIL.store(os::now() + PAUSE.as_nanos() as u64, Ordering::Relaxed);
            break;
        }
        before = after;
    }
    has_come()
}

/// The moment that lies `duration` from now, or `None` where that is for ever: `Instant + Duration::MAX` panics.
pub(crate) fn deadline(duration: Duration) -> Option<Instant> {
    Instant::now().checked_add(duration)
}

/// The nearer of two moments, where `None` is for ever.
pub(crate) fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
