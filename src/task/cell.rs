//! A task with a handle: its closure, its state and its result in one allocation.
//!
//! # States
//!
//! ```text
//! Queued --run--> Running --returns, panics--> Done
//!    |               '------abandon----------> Done      (its late result is dropped)
//!    '--cancel, doom--> Cancelling --captures dropped--> Done --handle takes it--> Taken
//! ```
//!
//! A deadline dooms what is queued: the captures are dropped later, by whoever drops the job. Where that takes too long,
//! the handle resolves before, and the captures stay until then.
//!
//! All transitions are made under the cell's lock, and only one thread can win the one out of `Queued` or out of
//! `Running`: a task runs or is cancelled, and settles once. No user code runs under the lock: closures, captures,
//! results and wakers are taken out first.

use super::arrivals::Arrivals;
use super::error::{tell_panic, JoinError};
use super::slot::Slot;
use crate::contain::{self, Payload};
use crate::os::Generation;
use crate::queue::job::Resolve;
use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use crate::sync::thread::Thread;
use crate::sync::{Mutex, IS_MODEL};
use std::mem::size_of;
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

pub(crate) struct Cell<F, T> {
    location: &'static Location<'static>,
    /// A [`Place`], written under the pool's lock.
    place: AtomicU8,
    /// Set when a handle cancelled the task while it ran.
    flag: AtomicBool,
    /// There is a result, or there was: what `inner` says, for whoever looks again and again.
    is_done: AtomicBool,
    /// It was cancelled, and whoever asks again is told so. Behind `inner`; it is here since there it would take up a word.
    is_cancelled: AtomicBool,
    /// No handle is left to take the result. The same.
    is_detached: AtomicBool,
    inner: Mutex<Inner<F, T>>,
}

struct Inner<F, T> {
    stage: Stage<F, T>,
    waiter: Option<Waiter>,
}

/// The closure and a result share their place: a batch of handles is as fast as the memory they take up.
enum Stage<F, T> {
    Queued(F),
    /// Being cancelled, with the captures still here, and whether the handle is resolved all the same.
    Doomed(F, Verdict),
    Running,
    /// Being cancelled; the captures are with whoever drops them.
    Cancelling,
    Done(Result<T, JoinError>),
    Taken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Cancelled,
    Taken,
}

impl<F, T> Stage<F, T> {
    /// Takes the closure out of a task that will not run, if it is there.
    fn take_closure(&mut self, error: impl FnOnce() -> JoinError) -> Option<F> {
        match std::mem::replace(self, Stage::Taken) {
            Stage::Queued(closure) | Stage::Doomed(closure, Verdict::Open) => {
                *self = Stage::Cancelling;
                Some(closure)
            }
            Stage::Doomed(closure, Verdict::Cancelled) => {
                *self = Stage::Done(Err(error()));
                Some(closure)
            }
            Stage::Doomed(closure, Verdict::Taken) => Some(closure),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Where a task is that nobody has started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Place {
    /// In its pool's queue, or on its way there.
    Queue,
    /// Among those that are not due: see `pool::core::delays`.
    Delays,
    /// Given back by its pool, whose counts it is no part of any more.
    Outside,
}

impl Place {
    const ALL: [Place; 3] = [Place::Queue, Place::Delays, Place::Outside];
}

/// Whom to tell when the task is done: its handle has one owner, so there is one at most.
pub(crate) enum Waiter {
    Thread(Thread),
    /// In a box: each task has room for a waiter.
    Task(Box<Waker>),
    /// Where the task is waited for together with others, and its ticket there.
    Member(Arc<Arrivals>, u32),
}

const _: () = assert!(IS_MODEL || size_of::<Option<Waiter>>() <= 2 * size_of::<u64>());

impl Waiter {
    /// Where several tasks are waited for, this one is among those that are done from now on. Gives back whoever is to be
    /// woken.
    fn announce(self) -> Option<Waiter> {
        match self {
            Waiter::Member(arrivals, ticket) => {
                let is_asleep = arrivals.come(ticket);
                is_asleep.then_some(Waiter::Member(arrivals, ticket))
            }
            other => Some(other),
        }
    }

    /// A waker is code that is not ours.
    fn wake(self) {
        match self {
            Waiter::Thread(thread) => thread.unpark(),
            Waiter::Task(waker) => {
                if let Err(payload) = contain::run(move || waker.wake()) {
                    contain::drop_quietly(payload);
                }
            }
            Waiter::Member(arrivals, _) => arrivals.ring(),
        }
    }
}

/// What came of a cancellation through a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cancel {
    /// It was queued, and will not run.
    Now,
    /// It had been cancelled before.
    Before,
    /// It runs, or has: its flag is set.
    TooLate,
}

/// A task with a handle, whatever its closure and its result are.
pub(crate) trait AnyTask: Resolve {
    fn location(&self) -> &'static Location<'static>;

    /// Where it is, or was when it was started or cancelled. Exact under the pool's lock.
    fn place(&self) -> Place;

    /// It is moved; called under the pool's lock.
    fn set_place(&self, place: Place);

    /// Runs it on the thread of `slot`, unless it is not queued any more. Says whether it ran; calls `claimed` before
    /// it does.
    fn run(self: Arc<Self>, slot: &Slot, claimed: &dyn Fn()) -> bool;

    /// Cancels it if it has not started: drops its captures, calls `count`, and resolves the handle. `count` takes the
    /// pool's lock, under which this cell's may be taken, so it is called without that.
    fn cancel(&self, count: &dyn Fn()) -> Cancel;

    /// Claims it for a cancellation that `discard` completes. Says whether it was queued.
    fn doom(&self) -> bool;

    /// Cancels it without counting it: drops its captures and resolves its handle.
    fn discard(&self);

    /// Resolves its handle as abandoned if it is running. Says whether it was.
    fn abandon(&self) -> bool;

    fn is_flagged(&self) -> bool;

    /// Whether nobody has started or cancelled it.
    fn is_queued(&self) -> bool;

    fn is_finished(&self) -> bool;

    /// Has a thread that waits for it look whether it may run it now. Called under the pool's lock.
    fn rouse(&self);

    fn resolver(self: Arc<Self>) -> Arc<dyn Resolve>;
}

/// The handle's side of a task.
pub(crate) trait Awaited<T>: AnyTask {
    /// Takes the result if it is there; leaves `waiter` to be told otherwise.
    fn take(&self, waiter: Option<Waiter>) -> Option<Result<T, JoinError>>;

    /// Has `ticket` come to `arrivals` when the result is there, which may be at once.
    fn watch(&self, arrivals: &Arc<Arrivals>, ticket: u32);

    /// The handle is gone: nobody takes the result.
    fn detach(&self);

    fn erase(self: Arc<Self>) -> Arc<dyn AnyTask>;
}

/// What a cell runs: any closure, or what a scope makes of one.
pub(crate) trait Call<T>: Send + 'static {
    /// Dropped when the outcome is settled and counted, and everybody has been told.
    type Rest;

    /// Runs it, which does not panic.
    fn call(self) -> Called<T, Self::Rest>;
}

/// What came of a [`Call`].
pub(crate) struct Called<T, R> {
    pub(crate) result: Result<T, Payload>,
    /// Whether it counts as a panic, wherever the payload went.
    pub(crate) has_panicked: bool,
    pub(crate) rest: R,
}

impl<F: FnOnce() -> T + Send + 'static, T> Call<T> for F {
    type Rest = ();

    #[inline]
    fn call(self) -> Called<T, ()> {
        let result = contain::run(self);
        Called { has_panicked: result.is_err(), result, rest: () }
    }
}

impl<F, T> Cell<F, T>
where
    F: Call<T>,
    T: Send + 'static,
{
    pub(crate) fn new(closure: F, location: &'static Location<'static>) -> Arc<Cell<F, T>> {
        let inner = Inner { stage: Stage::Queued(closure), waiter: None };
        Arc::new(Cell {
            location,
            place: AtomicU8::new(Place::Queue as u8),
            flag: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            is_detached: AtomicBool::new(false),
            inner: Mutex::new(inner),
        })
    }

    /// Takes the closure back out of a task that was not accepted.
    pub(crate) fn into_closure(self: Arc<Self>) -> Option<F> {
        self.inner.lock().stage.take_closure(|| self.cancelled())
    }

    /// Makes `result` the outcome if the stage is still `from`. Says whether it was; a result that comes too late, or
    /// that nobody will take, is dropped. `count` is called, under the lock, once the outcome is certain and before
    /// anyone can see it; it is told whether none but our own code runs after that.
    fn settle(
        &self,
        from: fn(&Stage<F, T>) -> bool,
        result: Result<T, JoinError>,
        count: impl FnOnce(bool),
    ) -> bool {
        let mut inner = self.inner.lock();
        if !from(&inner.stage) {
            drop(inner);
            contain::drop_quietly(result);
            return false;
        }
        // Before it is counted: who finds it in the counts finds it wherever it is waited for.
        let waiter = inner.waiter.take().and_then(Waiter::announce);
        let is_detached = self.is_detached.load(Ordering::Relaxed);
        count(!is_detached && !matches!(waiter, Some(Waiter::Task(_))));
        let unwanted = match &mut inner.stage {
            Stage::Doomed(_, verdict) => {
                *verdict = if is_detached { Verdict::Taken } else { Verdict::Cancelled };
                Some(result)
            }
            stage if is_detached => {
                *stage = Stage::Taken;
                Some(result)
            }
            stage => {
                *stage = Stage::Done(result);
                None
            }
        };
        drop(inner);
        self.is_done.store(true, Ordering::Release);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        contain::drop_quietly(unwanted);
        true
    }

    /// The closure has panicked. Whether a handle is there to receive that is decided here, while the task is still shown to
    /// run: one that is dropped from now on takes the panic with it, like one that is dropped unjoined.
    #[cold]
    fn panicked(&self, payload: Payload) -> JoinError {
        let inner = self.inner.lock();
        let is_unheard = self.is_detached.load(Ordering::Relaxed);
        drop(inner);
        if is_unheard {
            tell_panic(&payload, self.location);
        }
        JoinError::panicked(payload, self.location)
    }

    fn cancelled(&self) -> JoinError {
        JoinError::cancelled(self.location)
    }
}

impl<F, T> AnyTask for Cell<F, T>
where
    F: Call<T>,
    T: Send + 'static,
{
    fn location(&self) -> &'static Location<'static> {
        self.location
    }

    fn place(&self) -> Place {
        // Relaxed: the lock under which it is written is held where it matters.
        Place::ALL[usize::from(self.place.load(Ordering::Relaxed))]
    }

    fn set_place(&self, place: Place) {
        self.place.store(place as u8, Ordering::Relaxed);
    }

    fn run(self: Arc<Self>, slot: &Slot, claimed: &dyn Fn()) -> bool {
        let mut inner = self.inner.lock();
        let closure = match std::mem::replace(&mut inner.stage, Stage::Running) {
            Stage::Queued(closure) => closure,
            other => {
                inner.stage = other;
                return false;
            }
        };
        // Seen in the slot before anyone can find it not queued any more: a deadline looks there for what it abandons.
        slot.enter(self.clone());
        drop(inner);
        claimed();
        slot.rest();
        let process = Generation::now();
        let Called { result, has_panicked, rest } = closure.call();
        let result = result.map_err(|payload| match process.is_past() {
            true => JoinError::panicked(payload, self.location),
            false => self.panicked(payload),
        });
        if process.is_past() {
            // The closure forked, or whoever was told of its panic, and this is the child: another thread may have held any of
            // the locks.
            contain::drop_quietly(result);
            return true;
        }
        slot.leave();
        // Counted before the handle resolves: who joined a task finds it in the counts.
        self.settle(
            |stage| matches!(stage, Stage::Running),
            result,
            |is_quick| slot.count_cell(has_panicked, is_quick),
        );
        drop(rest);
        true
    }

    fn cancel(&self, count: &dyn Fn()) -> Cancel {
        let mut inner = self.inner.lock();
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Cancel::Before;
        }
        if !matches!(inner.stage, Stage::Queued(_)) {
            self.flag.store(true, Ordering::Relaxed);
            return Cancel::TooLate;
        }
        self.is_cancelled.store(true, Ordering::Relaxed);
        let closure = inner.stage.take_closure(|| self.cancelled());
        drop(inner);
        contain::drop_quietly(closure);
        // Before the handle resolves: who joined it finds it in the counts.
        count();
        self.resolve_cancelled();
        Cancel::Now
    }

    fn doom(&self) -> bool {
        let mut inner = self.inner.lock();
        match std::mem::replace(&mut inner.stage, Stage::Cancelling) {
            Stage::Queued(closure) => {
                inner.stage = Stage::Doomed(closure, Verdict::Open);
                self.is_cancelled.store(true, Ordering::Relaxed);
                true
            }
            other => {
                inner.stage = other;
                false
            }
        }
    }

    fn discard(&self) {
        let mut inner = self.inner.lock();
        // Whoever took the closure resolves the handle, after dropping it.
        let Some(closure) = inner.stage.take_closure(|| self.cancelled()) else { return };
        self.is_cancelled.store(true, Ordering::Relaxed);
        drop(inner);
        contain::drop_quietly(closure);
        self.resolve_cancelled();
    }

    fn abandon(&self) -> bool {
        let error = JoinError::abandoned(self.location);
        self.settle(|stage| matches!(stage, Stage::Running), Err(error), |_| ())
    }

    fn is_flagged(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    fn is_queued(&self) -> bool {
        matches!(self.inner.lock().stage, Stage::Queued(_))
    }

    fn is_finished(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    fn rouse(&self) {
        if let Some(Waiter::Thread(thread)) = &self.inner.lock().waiter {
            thread.unpark();
        }
    }

    fn resolver(self: Arc<Self>) -> Arc<dyn Resolve> {
        self
    }
}

impl<F, T> Resolve for Cell<F, T>
where
    F: Call<T>,
    T: Send + 'static,
{
    fn resolve_cancelled(&self) {
        let is_unresolved =
            |stage: &Stage<F, T>| matches!(stage, Stage::Doomed(_, Verdict::Open) | Stage::Cancelling);
        self.settle(is_unresolved, Err(self.cancelled()), |_| ());
    }
}

impl<F, T> Awaited<T> for Cell<F, T>
where
    F: Call<T>,
    T: Send + 'static,
{
    fn take(&self, waiter: Option<Waiter>) -> Option<Result<T, JoinError>> {
        let mut inner = self.inner.lock();
        match std::mem::replace(&mut inner.stage, Stage::Taken) {
            Stage::Done(result) => Some(result),
            Stage::Doomed(closure, Verdict::Cancelled) => {
                inner.stage = Stage::Doomed(closure, Verdict::Taken);
                Some(Err(self.cancelled()))
            }
            Stage::Taken | Stage::Doomed(_, Verdict::Taken) => {
                panic!("a JoinHandle was polled after it had given its result")
            }
            pending => {
                inner.stage = pending;
                let old = std::mem::replace(&mut inner.waiter, waiter);
                drop(inner);
                drop(old);
                None
            }
        }
    }

    fn watch(&self, arrivals: &Arc<Arrivals>, ticket: u32) {
        let mut inner = self.inner.lock();
        let is_pending = match &inner.stage {
            Stage::Queued(_) | Stage::Doomed(_, Verdict::Open) | Stage::Running | Stage::Cancelling => true,
            Stage::Done(_) | Stage::Taken | Stage::Doomed(_, Verdict::Cancelled | Verdict::Taken) => false,
        };
        let new = is_pending.then(|| Waiter::Member(arrivals.clone(), ticket));
        // Of a handle that was polled before; its waker's drop is code of others.
        let old = std::mem::replace(&mut inner.waiter, new);
        drop(inner);
        contain::drop_quietly(old);
        if !is_pending {
            arrivals.add(ticket);
        }
    }

    fn detach(&self) {
        let mut inner = self.inner.lock();
        self.is_detached.store(true, Ordering::Relaxed);
        let waiter = inner.waiter.take();
        let unwanted = match std::mem::replace(&mut inner.stage, Stage::Taken) {
            Stage::Done(result) => Some(result),
            other => {
                inner.stage = other;
                None
            }
        };
        drop(inner);
        if let Some(Err(error)) = &unwanted {
            error.log_if_panic();
        }
        contain::drop_quietly((waiter, unwanted));
    }

    fn erase(self: Arc<Self>) -> Arc<dyn AnyTask> {
        self
    }
}

#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests {
    use super::*;
    use std::mem::size_of_val;

    /// What a cell takes beside what its closure captures, where the result is nothing.
    fn overhead<F: FnOnce() + Send + 'static>(closure: F) -> usize {
        let captured = size_of_val(&closure);
        size_of_val(&*Cell::new(closure, Location::caller())) - captured
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_task_takes_seven_words_beside_its_closure() {
        const WORD: usize = size_of::<usize>();
        let words = |n: usize| n * WORD;
        assert_eq!(overhead(|| ()), words(7));
        let (one, three, many) = ([1; 1], [1; 3], [1; 20]);
        let capture = [
            overhead(move || assert_eq!(one, [1_usize; 1])),
            overhead(move || assert_eq!(three, [1_usize; 3])),
            overhead(move || assert_eq!(many, [1_usize; 20])),
        ];
        for overhead in capture {
            assert!(overhead <= words(7), "{overhead} bytes");
        }
    }
}
