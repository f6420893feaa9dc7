//! What [shuttle](https://docs.rs/shuttle) lacks: waits that time out, a clock, parked threads that sleep until they are woken, and
//! a system that is out of threads.
//!
//! Time stands still but for two things: whoever reads it finds it a microsecond later, so that loops which wait for a
//! moment come to an end, and a model calls [`pass`], which moves it on to the next moment that somebody waits for. Only the
//! latter ends a wait, so a time-out is an event between any two steps of the other threads. Where a model lets no time
//! pass, a wait that only its time-out would end is a deadlock, and is found.
//!
//! All threads of an execution are coroutines on one thread of the system: what is below is never entered twice at once,
//! and switches happen in shuttle's operations only.

#![allow(unsafe_code)]

use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::thread::{self, JoinHandle, ThreadId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::ops::{Add, Deref, DerefMut, Sub};
use std::rc::Rc;
use std::sync::{Arc, LockResult, PoisonError};
use std::time::Duration;

/// A moment: nanoseconds since the execution began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Instant(u64);

std::thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static TIMED: RefCell<Vec<(Instant, Sleeper)>> = const { RefCell::new(Vec::new()) };
    static TOKENS: RefCell<HashMap<ThreadId, Rc<Token>>> = RefCell::default();
    /// Whether waits may end without a reason, as the system's may.
    static SPURIOUS: Cell<bool> = const { Cell::new(false) };
    /// Whether the system has no more threads.
    static IS_EXHAUSTED: Cell<bool> = const { Cell::new(false) };
}

/// To be called first in each execution.
pub(crate) fn reset(spurious: bool) {
    NOW.set(0);
    TIMED.take();
    TOKENS.take();
    SPURIOUS.set(spurious);
    IS_EXHAUSTED.set(false);
}

/// From now on the system has no threads to give, or has again.
pub(crate) fn exhaust_threads(is_exhausted: bool) {
    IS_EXHAUSTED.set(is_exhausted);
}

/// Moves time on to the next moment that somebody waits for, and wakes them. Says whether there was one.
pub(crate) fn pass() -> bool {
    let next = TIMED.with_borrow_mut(|timed| {
        let next = (0..timed.len()).min_by_key(|&index| timed[index].0)?;
        Some(timed.swap_remove(next))
    });
    let Some((at, sleeper)) = next else { return false };
    NOW.set(NOW.get().max(at.0));
    match sleeper {
        Sleeper::Waits(waiter) => waiter.end(End::Late),
        Sleeper::Parks(thread) => thread.unpark(),
    }
    true
}

/// How many threads wait for a moment.
pub(crate) fn waits() -> usize {
    TIMED.with_borrow(Vec::len)
}

enum Sleeper {
    Waits(Arc<Waiter>),
    Parks(Thread),
}

impl Instant {
    pub(crate) fn now() -> Instant {
        const TICK: Duration = Duration::from_micros(1);
        NOW.set(NOW.get() + TICK.as_nanos() as u64);
        Instant(NOW.get())
    }

    pub(crate) fn checked_add(self, duration: Duration) -> Option<Instant> {
        self.0.checked_add(u64::try_from(duration.as_nanos()).ok()?).map(Instant)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Instant::now() - self
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        self.checked_add(duration).expect("a moment that clocks reach")
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0 - duration.as_nanos() as u64)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// As shuttle's, but that the guard knows its lock, to which a wait has to come back.
#[derive(Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    guard: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(MutexGuard { lock: self, guard })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A lock under which nobody waits: what parking_lot's is in an ordinary build.
#[derive(Default)]
pub(crate) struct LeafMutex<T>(Mutex<T>);

impl<T> LeafMutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread in one wait.
struct Waiter {
    /// Gets a permit when the wait is over, which keeps it: the thread may not have fallen asleep yet.
    over: BatchSemaphore,
    end: Cell<End>,
}

// SAFETY: the threads of an execution are coroutines on one thread of the system.
unsafe impl Send for Waiter {}
// SAFETY: as above.
unsafe impl Sync for Waiter {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    NotYet,
    Notified,
    Late,
}

impl Waiter {
    fn end(&self, end: End) {
        if self.end.replace(end) == End::NotYet {
            self.over.release(1);
        }
    }
}

/// A condition variable whose waits can time out. A notification goes to any of those that wait, as drawn.
#[derive(Default)]
pub(crate) struct Condvar(RefCell<Vec<Arc<Waiter>>>);

// SAFETY: as for `Waiter`.
unsafe impl Send for Condvar {}
// SAFETY: as for `Waiter`.
unsafe impl Sync for Condvar {}

pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn notify_one(&self) {
        // Before it is seen who waits: they come and go until the step is taken.
        thread::sleep(Duration::ZERO);
        let waiter = {
            let mut waiting = self.0.borrow_mut();
            match waiting.len() {
                0 => return,
                several => waiting.swap_remove(draw(several)),
            }
        };
        waiter.end(End::Notified);
    }

    pub(crate) fn notify_all(&self) {
        // As above: a lock that was given back just before may be taken in between.
        thread::sleep(Duration::ZERO);
        let waiting = self.0.take();
        waiting.iter().for_each(|waiter| waiter.end(End::Notified));
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        Ok(self.wait_for(guard, None).0)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (guard, is_late) = self.wait_for(guard, Instant::now().checked_add(timeout));
        Ok((guard, WaitTimeoutResult(is_late)))
    }

    fn wait_for<'a, T>(
        &self,
        MutexGuard { lock, guard }: MutexGuard<'a, T>,
        until: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        // Other threads may come before this step, which gives the lock back, and none between it and the next: to wait is
        // one step with it.
        drop(guard);
        let over = BatchSemaphore::new(0, Fairness::Unfair);
        let waiter = Arc::new(Waiter { over, end: Cell::new(End::NotYet) });
        self.0.borrow_mut().push(waiter.clone());
        if let Some(until) = until {
            TIMED.with_borrow_mut(|timed| timed.push((until, Sleeper::Waits(waiter.clone()))));
        }
        if !(SPURIOUS.get() && draw(8) == 0) {
            let _ = waiter.over.acquire_blocking(1);
        }
        let is_me = |other: &Arc<Waiter>| Arc::ptr_eq(other, &waiter);
        self.0.borrow_mut().retain(|other| !is_me(other));
        TIMED.with_borrow_mut(|timed| {
            timed.retain(|(_, sleeper)| !matches!(sleeper, Sleeper::Waits(other) if is_me(other)));
        });
        let is_late = waiter.end.get() == End::Late;
        (lock.lock().unwrap_or_else(PoisonError::into_inner), is_late)
    }
}

/// A number below `bound`, which the scheduler draws, so that a schedule can be played again.
fn draw(bound: usize) -> usize {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..bound)
}

/// Shuttle's, but that a parked thread does not wake without a reason, which would hide that nobody has woken it, unless waits
/// may end so.
#[derive(Clone)]
pub(crate) struct Thread(thread::Thread);

pub(crate) fn current() -> Thread {
    Thread(thread::current())
}

/// What a thread is given by whoever unparks it, and takes when it parks.
struct Token {
    given: BatchSemaphore,
    is_there: Cell<bool>,
}

impl Thread {
    pub(crate) fn id(&self) -> ThreadId {
        self.0.id()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.0.name()
    }

    fn token(&self) -> Rc<Token> {
        let new =
            || Rc::new(Token { given: BatchSemaphore::new(0, Fairness::Unfair), is_there: Cell::new(false) });
        TOKENS.with_borrow_mut(|tokens| tokens.entry(self.id()).or_insert_with(new).clone())
    }

    pub(crate) fn unpark(&self) {
        let token = self.token();
        if !token.is_there.replace(true) {
            token.given.release(1);
        }
    }
}

pub(crate) fn park() {
    let token = current().token();
    if SPURIOUS.get() && draw(8) == 0 {
        return;
    }
    let _ = token.given.acquire_blocking(1);
    token.is_there.set(false);
}

pub(crate) fn park_timeout(timeout: Duration) {
    let me = current();
    if let Some(until) = Instant::now().checked_add(timeout) {
        TIMED.with_borrow_mut(|timed| timed.push((until, Sleeper::Parks(me.clone()))));
    }
    park();
    TIMED.with_borrow_mut(|timed| {
        timed.retain(|(_, sleeper)| !matches!(sleeper, Sleeper::Parks(other) if other.id() == me.id()));
    });
}

/// As shuttle's, but that the system may have no thread to give.
pub(crate) struct Builder(thread::Builder);

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder(thread::Builder::new())
    }

    pub(crate) fn name(self, name: String) -> Builder {
        Builder(self.0.name(name))
    }

    pub(crate) fn stack_size(self, size: usize) -> Builder {
        Builder(self.0.stack_size(size))
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        match IS_EXHAUSTED.get() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => self.0.spawn(|| {
                let result = f();
                let at_exit = AT_EXIT.with(RefCell::take);
                at_exit.into_iter().rev().for_each(|f| f());
                result
            }),
        }
    }
}

shuttle::thread_local! {
    static AT_EXIT: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// Has `f` run at the end of the current thread, as the destructor of a thread-local does that was not used before. (Shuttle
/// destroys the one first that was used first: the system's other way round.)
pub(crate) fn at_thread_exit(f: impl FnOnce() + 'static) {
    AT_EXIT.with(|at_exit| at_exit.borrow_mut().push(Box::new(f)));
}
