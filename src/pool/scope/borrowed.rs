//! The closure of a scoped task without its lifetime, and the count that keeps its scope from ending before it.
//!
//! # Why nothing borrowed is used too late
//!
//! A pool's queue holds what lives for ever, so the closure of a scoped task has its lifetime erased. Three facts make that
//! sound, and the code that they rest on is in this file:
//!
//! 1. Everything of a task that may borrow is in its closure: what the user's closure captured, and the place for its result.
//!    What is left of the task elsewhere, in the queue, in a worker's slot, in a handle, borrows nothing.
//! 2. Each [`Borrowed`] has a [`Guard`], which it drops after the closure, whatever becomes of it: after it has run, or
//!    after it was dropped unrun, because it was cancelled, refused, or forgotten in a queue.
//! 3. [`Tasks::none_left`] is false while there is a guard, and a scope ends, by a return or by a panic, only when it is true.
//!    Guards are made by the closure of the scope and by its tasks, and both count as long as they may make one: so when
//!    the closure is over and there is none, there will be none.
//!
//! A forked child has no other threads, so the tasks of its parent end for it when it comes to the end of the scope, and
//! nothing waits for them there. What is left of them in queues must be neither run nor dropped after that, and is not.
#![allow(unsafe_code)]

use crate::contain;
use crate::os::Generation;
use crate::sync::Event;
use crate::task::cell::{Call, Called};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// How many tasks of a scope have not ended.
pub(super) struct Tasks {
    born: Generation,
    left: AtomicUsize,
    /// Signalled when none is left, and when the owner of the scope may find something else to do.
    event: Event,
}

impl Tasks {
    pub(super) fn new() -> Arc<Tasks> {
        Arc::new(Tasks { born: Generation::now(), left: AtomicUsize::new(0), event: Event::default() })
    }

    /// Whether this is a child of the process that the scope belongs to.
    pub(super) fn is_past(&self) -> bool {
        self.born.is_past()
    }

    /// Whether no task is left that could use what it borrows.
    pub(super) fn none_left(&self) -> bool {
        // Acquire: pairs with the Release of each guard's drop, as all of them change the count by one step from the one
        // before. What the tasks did to what they borrowed is seen by whoever goes on from here.
        self.is_past() || self.left.load(Ordering::Acquire) == 0
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }
}

/// A task that has not ended.
pub(super) struct Guard(Arc<Tasks>);

impl Guard {
    pub(super) fn new(tasks: &Arc<Tasks>) -> Guard {
        // Relaxed: who waits for the end is either this thread or finds this one's own guard in the count.
        tasks.left.fetch_add(1, Ordering::Relaxed);
        Guard(tasks.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The count is the parent's in a forked child. Release: see `none_left`.
        if !self.0.is_past() && self.0.left.fetch_sub(1, Ordering::Release) == 1 {
            self.0.event.signal();
        }
    }
}

/// The closure of a scoped task, which says whether it has panicked, and lets no panic out.
pub(super) struct Borrowed {
    /// There until it is run or dropped.
    closure: Option<Box<dyn FnOnce() -> bool + Send>>,
    guard: Option<Guard>,
}

impl Borrowed {
    /// # Safety
    ///
    /// What the closure borrows stays as it is, whatever happens, until [`none_left`](Tasks::none_left) is true for the
    /// tasks of `guard`.
    pub(super) unsafe fn new<'scope>(
        closure: impl FnOnce() -> bool + Send + 'scope,
        guard: Guard,
    ) -> Borrowed {
        let closure: Box<dyn FnOnce() -> bool + Send + 'scope> = Box::new(closure);
        // SAFETY: the two types differ in the lifetime alone. The closure is called or dropped before its guard is
        // dropped, or never, and until then what it borrows is there, says the caller.
        let closure = unsafe {
            std::mem::transmute::<
                Box<dyn FnOnce() -> bool + Send + 'scope>,
                Box<dyn FnOnce() -> bool + Send + 'static>,
            >(closure)
        };
        Borrowed { closure: Some(closure), guard: Some(guard) }
    }

    /// Takes the closure out, where it may still be used.
    fn take(&mut self) -> Option<Box<dyn FnOnce() -> bool + Send>> {
        let closure = self.closure.take()?;
        if self.guard.as_ref().is_some_and(|guard| guard.0.is_past()) {
            std::mem::forget(closure);
            return None;
        }
        Some(closure)
    }
}

impl Call<()> for Borrowed {
    /// Dropped last, so that whoever finds the scope ended finds its tasks in the counts of the pool.
    type Rest = Option<Guard>;

    fn call(mut self) -> Called<(), Option<Guard>> {
        let has_panicked = self.take().is_some_and(|closure| closure());
        Called { result: Ok(()), has_panicked, rest: self.guard.take() }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // The guard is dropped after this, as fields are.
        contain::drop_quietly(self.take());
    }
}

/// Runs `wait`, which must not unwind: that would end the scope before its tasks.
pub(super) fn without_unwinding(wait: impl FnOnce()) {
    struct Abort;
    impl Drop for Abort {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    let abort = Abort;
    wait();
    std::mem::forget(abort);
}
