//! The primitives that threads wait on, chosen in this one place.
//!
//! Everything a thread may *park* on is the standard library's: a lock there is one futex word of its own. parking_lot
//! keeps the queues of all parked threads in one process-wide table, and a fork can copy that table while some other
//! thread holds a bucket of it, which hangs whoever parks in the child
//! (<https://github.com/Amanieu/parking_lot/issues/515>). Pools that are built in a forked child have to work, so
//! parking_lot guards only what the threads of one shutdown tell each other: a few words, locked for a few instructions
//! by two threads at most, so that nobody parks.

use crate::os::Generation;
use std::sync::atomic::{fence, AtomicUsize, Ordering};
use std::sync::{LockResult, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use std::sync::MutexGuard;

/// What the queue is made of. Built with `--cfg winddown_model` these are loom's, which explores every order in which
/// threads may see them (see `queue::model`).
pub(crate) mod shared {
    #[cfg(winddown_model)]
    pub(crate) use loom::{
        cell::UnsafeCell,
        hint::spin_loop,
        sync::atomic::{AtomicBool, AtomicPtr, AtomicU64},
        thread::yield_now,
    };
    #[cfg(not(winddown_model))]
    pub(crate) use std::{
        hint::spin_loop,
        sync::atomic::{AtomicBool, AtomicPtr, AtomicU64},
        thread::yield_now,
    };

    pub(crate) use std::sync::atomic::Ordering;

    /// std's, with the interface of loom's, which can tell when two accesses overlap.
    #[cfg(not(winddown_model))]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    #[cfg(not(winddown_model))]
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
            if cfg!(winddown_model) || self.0 >= Patience::SPINS {
                yield_now();
            } else {
                (0..1 << self.0).for_each(|_| spin_loop());
                self.0 += 1;
            }
        }
    }
}

/// A lock that does not poison: no user code runs under it, so a panic cannot leave its data half changed.
#[derive(Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        unpoisoned(self.0.lock())
    }
}

#[derive(Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Condvar {
        Condvar(std::sync::Condvar::new())
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
pub(crate) fn linger(has_come: impl Fn() -> bool) -> bool {
    /// Looks at growing distance, some microseconds in all.
    const SPINS: u32 = 4;
    /// Then looks that let other threads have the core.
    const YIELDS: u32 = 16;
    for look in 0..SPINS + YIELDS {
        if has_come() {
            return true;
        }
        if look < SPINS {
            (0..1 << look).for_each(|_| std::hint::spin_loop());
        } else {
            std::thread::yield_now();
        }
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

/// Lets threads wait until a condition holds that other threads bring about: an eventcount.
///
/// Whoever changes something a waiter may look at calls [`signal`](Event::signal) *after* the change.
///
/// No wake-up is lost. A waiter announces itself, fences, notes the epoch, and only then looks at the condition; a
/// signaller changes the condition, fences, and only then looks for waiters. Of the two fences one comes first in
/// their total order. If it is the waiter's, the signaller sees the waiter and moves the epoch on: either after the
/// waiter noted it, so that the waiter does not sleep, or before, and then the epoch's lock has made the change
/// visible to the look that follows. If it is the signaller's, the waiter's look sees the change.
pub(crate) struct Event {
    born: Generation,
    waiters: AtomicUsize,
    epoch: Mutex<u64>,
    moved: Condvar,
}

impl Default for Event {
    fn default() -> Event {
        Event {
            born: Generation::now(),
            waiters: AtomicUsize::new(0),
            epoch: Mutex::default(),
            moved: Condvar::default(),
        }
    }
}

impl Event {
    /// Whether its waiters are in a process of which this is a forked child.
    pub(crate) fn is_past(&self) -> bool {
        self.born.is_past()
    }

    /// Whether somebody waits, as far as can be told without a fence: a hint.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0
    }

    /// Wakes every waiter to look at its condition again; a fence and a load where nobody waits.
    pub(crate) fn signal(&self) {
        fence(Ordering::SeqCst); // pairs with the fence in `wait`
        if self.waiters.load(Ordering::Relaxed) == 0 {
            return;
        }
        *self.epoch.lock() += 1;
        self.moved.notify_all();
    }

    /// Waits until `ready` holds, or until the moment that `until` names has come; `until` is asked again at each
    /// signal, since deadlines move. Returns what `ready` said last: what is ready beats a deadline that has passed.
    pub(crate) fn wait(
        &self,
        mut until: impl FnMut() -> Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) -> bool {
        let _announced = Announced::new(&self.waiters);
        fence(Ordering::SeqCst); // pairs with the fence in `signal`
        loop {
            let seen = *self.epoch.lock();
            if ready() {
                return true;
            }
            let until = until();
            let mut epoch = self.epoch.lock();
            while *epoch == seen {
                let late;
                (epoch, late) = self.moved.wait(epoch, until);
                if late {
                    drop(epoch);
                    return ready();
                }
            }
        }
    }
}

/// One waiter in the count, taken out again however the wait ends.
struct Announced<'a>(&'a AtomicUsize);

impl<'a> Announced<'a> {
    fn new(waiters: &'a AtomicUsize) -> Announced<'a> {
        waiters.fetch_add(1, Ordering::Relaxed);
        Announced(waiters)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
