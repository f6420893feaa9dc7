//! Scopes: tasks that borrow from whoever waits for them.
//!
//! A scoped task is a task with a handle like any other, so it is queued, run in place, cancelled, doomed and abandoned by
//! the same code. Its result and its panic take another way, since they may borrow, or are to be passed on: they lie in a
//! [`Packet`] that it shares with its handle. [`borrowed`] says why nothing is used too late.
//!
//! # Nobody waits for a task that nobody runs
//!
//! Whoever waits at the end of a scope may be the last worker. If it is inside a task of the same pool, the scope keeps a
//! list of its tasks, and its owner runs in place what is queued there, as a join does. It looks for more when a task was
//! added: a task is added to the list when it is in the queue, and the owner is signalled after that. A task that the list
//! has lost is not queued any more: it was run, is being run, or is cancelled, and so somebody is at it.

mod borrowed;

use self::borrowed::{Borrowed, Guard, Tasks};
use super::core::{Core, IfFull};
use super::Pool;
use crate::contain::{self, Payload};
use crate::context::{self, Wait};
use crate::os::Generation;
use crate::queue::job::{Doom, HandBack, Work};
use crate::sync::Mutex;
use crate::task::cell::{AnyTask, Call, Cell, Spawned};
use crate::task::slot::Slot;
use crate::task::{InPlace, JoinError, JoinHandle, Owner};
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{resume_unwind, Location};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

impl Pool {
    /// Calls `f` with a scope, whose tasks may borrow what lives longer than this call, and returns when all of them have
    /// ended.
    ///
    /// Blocks as long as that takes. Inside a task of the same pool, tasks of the scope that are still queued are run in
    /// place meanwhile, so a task may use scopes on a pool of one thread, one within another. Named after
    /// [`std::thread::scope`] and rayon's `scope`; like those of the former, tasks have results.
    ///
    /// Every task runs. What the pool refuses, since it is closed or full, runs on the thread that submits it, before
    /// [`spawn`](Scope::spawn) returns. Only a [deadline](Pool::shutdown_timeout) or [`shutdown_now`](Pool::shutdown_now)
    /// cancels tasks that have not started, which drops them before the scope ends. A running task holds the scope, even where
    /// a report has called it abandoned; in a forked child no task of the parent does.
    ///
    /// # Panics
    ///
    /// If `f` does, with what it panicked with; or if a task does whose handle was not joined, with what the first of those
    /// panicked with. The others are logged at `error`. In each case all tasks have ended before.
    ///
    /// ```
    /// let pool = winddown::Pool::new(4);
    /// let text = String::from("the quick brown fox");
    /// let mut lengths = [0; 4];
    /// let longest = pool.scope(|s| {
    ///     for (word, length) in text.split(' ').zip(&mut lengths) {
    ///         s.spawn(move || *length = word.len());
    ///     }
    ///     s.spawn(|| text.split(' ').max_by_key(|word| word.len())).join()
    /// });
    /// assert_eq!(lengths, [3, 5, 5, 3]);
    /// assert_eq!(longest?, Some("brown"));
    /// # Ok::<(), winddown::JoinError>(())
    /// ```
    pub fn scope<'env, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        let scope = Scope::new(&self.core);
        let result = contain::run(|| f(&scope));
        // From here to the end of the wait nothing returns or unwinds.
        borrowed::without_unwinding(|| scope.wait());
        let unjoined = scope.panics.take_first();
        match (result, unjoined) {
            (Ok(value), None) => value,
            (Ok(value), Some(unjoined)) => {
                contain::drop_quietly(value);
                resume_unwind(unjoined.payload)
            }
            (Err(payload), unjoined) => {
                unjoined.into_iter().for_each(Panic::log);
                resume_unwind(payload)
            }
        }
    }
}

/// Where tasks are submitted that borrow from outside of [`Pool::scope`].
///
/// `'scope` is the time of the scope: its tasks may borrow what lives that long, itself included, and submit more. `'env`
/// is the time of what they borrow from outside. As with [`std::thread::Scope`] neither is ever written down.
///
/// ```
/// let pool = winddown::Pool::new(2);
/// let numbers: Vec<u64> = (1..=1000).collect();
/// let sum = pool.scope(|s| {
///     let (left, right) = numbers.split_at(500);
///     let left = s.spawn(move || left.iter().sum::<u64>());
///     let right = s.spawn(move || right.iter().sum::<u64>());
///     Ok::<_, winddown::JoinError>(left.join()? + right.join()?)
/// })?;
/// assert_eq!(sum, 500_500);
/// # Ok::<(), winddown::JoinError>(())
/// ```
///
/// A task cannot outlive what it borrows:
///
/// ```compile_fail
/// let pool = winddown::Pool::new(2);
/// pool.scope(|s| {
///     let local = 5; // gone when the closure returns, while the task may still run
///     s.spawn(|| println!("{local}"));
/// });
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    core: Arc<Core>,
    tasks: Arc<Tasks>,
    panics: Arc<Panics>,
    /// What may have to be run in place; none where that cannot be.
    queued: Option<Mutex<Queued>>,
    /// Neither lifetime can be made shorter or longer: a task that borrows for less than the scope would outlive that.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    fn new(core: &Arc<Core>) -> Self {
        Scope {
            core: core.clone(),
            tasks: Tasks::new(),
            panics: Arc::new(Panics::new()),
            queued: core.is_on_stack().then(|| Mutex::new(Queued::new(core.config.max_threads == 1))),
            scope: PhantomData,
            env: PhantomData,
        }
    }

    /// Submits a task that the scope waits for, and returns a handle to its result.
    ///
    /// To drop the handle is to leave it at that. Tasks may submit more tasks through the scope. Blocks where
    /// [`Pool::execute`] does, and where the pool refuses the task, until it has run.
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// let counter = std::sync::atomic::AtomicU32::new(0);
    /// let count = || { counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed); };
    /// pool.scope(|s| {
    ///     s.spawn(move || {
    ///         count();
    ///         s.spawn(count); // a task of the same scope
    ///     });
    /// });
    /// assert_eq!(counter.into_inner(), 2);
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let location = Location::caller();
        let packet = Packet::new(&self.panics, location);
        let of_task = packet.clone();
        // The result of a task that nobody waits for is dropped at the end of this, too.
        let task = move || of_task.fill(contain::run(f));
        let handle = match self.tasks.is_past() {
            // Nothing here is this process's own, and nobody waits for it.
            true => {
                task();
                None
            }
            // SAFETY: `task` borrows what lives for `'scope`, and that lasts until `Pool::scope` is over, which the guard
            // prevents: it waits for `none_left` before it returns or unwinds.
            false => self.submit(unsafe { Borrowed::new(task, Guard::new(&self.tasks)) }, location),
        };
        ScopedJoinHandle { handle, packet, scope: PhantomData }
    }

    /// Queues a task, or runs it here if the pool refuses it.
    fn submit(&self, task: Borrowed, location: &'static Location<'static>) -> Option<JoinHandle<()>> {
        let cell = Cell::new(task, location);
        let work = Kept(Spawned(cell.clone()));
        match self.core.submit(work, location, IfFull::AsBuilt) {
            Ok(()) => {
                self.list(cell.clone());
                Some(JoinHandle::new(cell, self.core.clone()))
            }
            Err(_) => {
                cell.into_closure().expect("a task that was refused has not run").call();
                None
            }
        }
    }

    /// Notes a task that was queued.
    fn list(&self, task: Arc<dyn AnyTask>) {
        if let Some(queued) = &self.queued {
            let done = queued.lock().push(task);
            drop(done);
            self.tasks.event().signal();
        }
    }

    /// The next task for the owner, if one is queued.
    fn next(&self) -> Option<Arc<dyn AnyTask>> {
        loop {
            // In a forked child the lock may be held for ever.
            let queued = self.queued.as_ref().filter(|_| !self.tasks.is_past())?;
            let task = queued.lock().pop()?;
            if task.is_queued() {
                return Some(task);
            }
        }
    }

    /// Waits until no task is left, and runs meanwhile what only this thread may be left to run.
    fn wait(&self) {
        let mut blocked = None;
        while !self.tasks.none_left() {
            let mut next = None;
            let mut look = || {
                next = if blocked.is_none() { self.next() } else { None };
                next.is_some() || self.tasks.none_left()
            };
            if !look() && !crate::sync::linger(|| self.tasks.none_left()) {
                self.tasks.event().wait(|| None, look);
            }
            if next.is_some_and(|task| self.core.run_in_place(&|| task.clone()) == InPlace::NotYet) {
                blocked = Some(context::block(Wait::Join));
            }
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("pool", &self.core.name).finish_non_exhaustive()
    }
}

/// Waits for one task of a [`Scope`] and takes its result.
///
/// Dropping it lets the task run without it; the scope waits all the same, and panics at its end if the task has.
pub struct ScopedJoinHandle<'scope, T> {
    /// None for a task that has run already, on the thread that submitted it.
    handle: Option<JoinHandle<()>>,
    packet: Arc<Packet<T>>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the task and returns its result.
    ///
    /// Blocks the thread. Inside a task of the same pool, a task that is still queued is run in place instead, as by
    /// [`JoinHandle::join`].
    ///
    /// # Errors
    ///
    /// [`JoinError`] if the task panicked, was cancelled by a deadline or by [`shutdown_now`](Pool::shutdown_now), or was
    /// abandoned: the scope waits for it then all the same. A panic that is returned here is not passed on by the scope.
    ///
    /// # Panics
    ///
    /// Inside the task itself, which could never end.
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// let error = pool.scope(|s| s.spawn(|| panic!("no luck")).join()).unwrap_err();
    /// assert!(error.is_panic());
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        if let Some(handle) = self.handle {
            handle.join()?;
        }
        self.packet.take()
    }

    /// Whether the task has ended, so that `join` returns at once.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().map_or(true, JoinHandle::is_finished)
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("is_finished", &self.is_finished()).finish()
    }
}

/// A scoped task on its way to a worker: one that its pool never gives back, since it borrows.
struct Kept(Spawned);

impl Work<Slot> for Kept {
    fn run(self, slot: &Slot, location: &'static Location<'static>) -> bool {
        self.0.run(slot, location)
    }

    fn doom(&mut self) -> Doom {
        self.0.doom()
    }

    fn hand_back(&mut self) -> HandBack {
        HandBack::Never
    }

    fn discard(self) {
        self.0.discard();
    }
}

/// Tasks of a scope that were queued when they were added.
struct Queued {
    tasks: VecDeque<Arc<dyn AnyTask>>,
    /// At this length it is looked through for those that are queued no more, so that a scope of millions of tasks keeps
    /// no more of them than twice as many as are queued.
    full: usize,
    /// The oldest first, in which order the pool's one thread would start them.
    is_serial: bool,
}

impl Queued {
    const LEAST: usize = 64;

    fn new(is_serial: bool) -> Queued {
        Queued { tasks: VecDeque::new(), full: Queued::LEAST, is_serial }
    }

    /// Adds one. Returns those that nobody has to run any more.
    #[must_use]
    fn push(&mut self, task: Arc<dyn AnyTask>) -> VecDeque<Arc<dyn AnyTask>> {
        let mut done = VecDeque::new();
        if self.tasks.len() >= self.full {
            (self.tasks, done) = self.tasks.drain(..).partition(|task| task.is_queued());
            self.full = Queued::LEAST.max(2 * self.tasks.len());
        }
        self.tasks.push_back(task);
        done
    }

    /// Where others take the oldest ones too, the newest is more likely to be there still.
    fn pop(&mut self) -> Option<Arc<dyn AnyTask>> {
        if self.is_serial {
            self.tasks.pop_front()
        } else {
            self.tasks.pop_back()
        }
    }
}

/// What a task and its handle share: the place for its result.
struct Packet<T> {
    location: &'static Location<'static>,
    panics: Arc<Panics>,
    outcome: Mutex<Option<Result<T, Panic>>>,
}

impl<T> Packet<T> {
    fn new(panics: &Arc<Panics>, location: &'static Location<'static>) -> Arc<Packet<T>> {
        Arc::new(Packet { location, panics: panics.clone(), outcome: Mutex::default() })
    }

    /// Puts the outcome in. Says whether it is a panic.
    fn fill(&self, result: Result<T, Payload>) -> bool {
        let outcome = result.map_err(|payload| self.panics.note(payload, self.location));
        let has_panicked = outcome.is_err();
        *self.outcome.lock() = Some(outcome);
        has_panicked
    }

    fn take(&self) -> Result<T, JoinError> {
        let outcome = self.outcome.lock().take();
        let outcome = outcome.expect("a task that has run has left its outcome");
        outcome.map_err(|panic| JoinError::panicked(panic.payload, panic.location))
    }
}

impl<T> Drop for Packet<T> {
    fn drop(&mut self) {
        match self.outcome.lock().take() {
            Some(Err(panic)) => self.panics.add_unjoined(panic),
            value => contain::drop_quietly(value),
        }
    }
}

struct Panic {
    /// Among those of its scope.
    number: u64,
    location: &'static Location<'static>,
    payload: Payload,
}

impl Panic {
    /// For one that nobody receives.
    fn log(self) {
        JoinError::panicked(self.payload, self.location).log_if_panic(self.location);
    }
}

/// The panics of a scope's tasks.
struct Panics {
    born: Generation,
    count: AtomicU64,
    /// Of those whose handles are gone, the one that came first.
    first: Mutex<Option<Panic>>,
}

impl Panics {
    fn new() -> Panics {
        Panics { born: Generation::now(), count: AtomicU64::new(0), first: Mutex::default() }
    }

    fn note(&self, payload: Payload, location: &'static Location<'static>) -> Panic {
        Panic { number: self.count.fetch_add(1, Ordering::Relaxed), location, payload }
    }

    /// Keeps the panic for the end of the scope, or the one before it.
    fn add_unjoined(&self, panic: Panic) {
        if self.born.is_past() {
            // The lock may be held for ever, and the scope may be over.
            return panic.log();
        }
        let mut first = self.first.lock();
        let later = match &mut *first {
            Some(first) if first.number < panic.number => Some(panic),
            first => first.replace(panic),
        };
        drop(first);
        later.into_iter().for_each(Panic::log);
    }

    fn take_first(&self) -> Option<Panic> {
        if self.born.is_past() {
            return None;
        }
        self.first.lock().take()
    }
}
