//! The count of a scope's tasks, which keeps the scope from ending before them. What [`borrowed`](super::borrowed) does
//! relies on it.

use crate::context::Sleeper;
use crate::os::Generation;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::event::Event;
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

impl Sleeper for Tasks {
    fn rouse(&self) {
        self.event.signal();
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

    pub(super) fn is_past(&self) -> bool {
        self.0.is_past()
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
