//! Scopes: tasks that borrow from whoever waits for them.
//!
//! A scoped task is a task with a handle like any other, so it is queued, run in place, cancelled, doomed and abandoned by
//! the same code. Its result and its panic take another way, since they may borrow, or are to be passed on: they lie in a
//! [`Packet`] that it shares with its handle. [`borrowed`] says why nothing is used too late, and [`inner`] why nobody waits
//! for a task that nobody runs.

mod borrowed;
mod inner;
mod outcome;
mod tasks;

pub use self::borrowed::Scope;

use self::borrowed::{enclose, Borrowed};
use self::inner::Inner;
use self::outcome::{Packet, Panic};
use super::core::IfFull;
use super::Pool;
use crate::contain;
use crate::queue::job::{Doom, HandBack, Work};
use crate::task::cell::{Call, Cell};
use crate::task::slot::Slot;
use crate::task::work::Spawned;
use crate::task::{JoinError, JoinHandle};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{resume_unwind, Location};
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
    /// [`spawn`](Scope::spawn) returns; so does everything in a callback of the pool's own threads. Only a [deadline](Pool::shutdown_timeout) or [`shutdown_now`](Pool::shutdown_now)
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
        let inner = Inner::new(&self.core);
        let panics = inner.panics.clone();
        match (enclose(inner, f), panics.take_first()) {
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

impl<'scope> Scope<'scope, '_> {
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
        let packet = Packet::new(&self.inner.panics, location);
        let of_task = packet.clone();
        // The result of a task that nobody waits for is dropped at the end of this, too.
        let task = move || of_task.fill(contain::run(f));
        let handle = if self.inner.is_inline() {
            task();
            None
        } else {
            self.submit(Borrowed::new(self, task), location)
        };
        ScopedJoinHandle { handle, packet, scope: PhantomData }
    }

    /// Queues a task, or runs it here if the pool refuses it.
    fn submit(&self, task: Borrowed, location: &'static Location<'static>) -> Option<JoinHandle<()>> {
        let cell = Cell::new(task, location);
        let work = Kept(Spawned(cell.clone()));
        match self.inner.core.submit(work, location, IfFull::AsBuilt) {
            Ok(()) => {
                self.inner.list(cell.clone());
                Some(JoinHandle::new(cell, self.inner.core.clone()))
            }
            Err(_) => {
                cell.into_closure().expect("a task that was refused has not run").call();
                None
            }
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("pool", &self.inner.core.name).finish_non_exhaustive()
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

/// Programs that must not compile, with whatever compiler; `tests/compile_fail.rs` sees to it that they fail for the right
/// reason.
#[cfg(doctest)]
mod must_not_compile {
    macro_rules! programs {
        ($($name:literal)*) => {
            $(#[doc = concat!("```compile_fail\n", include_str!(concat!("../../tests/compile_fail/", $name, ".rs")), "```\n")])*
            struct Programs;
        };
    }
    programs! {
        "capture_is_not_send"
        "handle_leaves_the_scope"
        "result_is_not_send"
        "scope_leaves_the_scope"
        "task_outlives_the_environment"
        "task_outlives_what_it_borrows"
        "two_tasks_change_one_thing"
    }
}
