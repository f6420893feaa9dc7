//! Where tasks that are waited for together say that they are done, in the order in which they are.
//!
//! Each of them has a ticket, which comes once: the lock of the task's cell decides whether the one who waits finds it done
//! when it asks to be told (see `Awaited::watch`), or whoever ends the task finds whom to tell. No wake-up is lost: the one
//! who waits says so under the line's lock, having seen nothing in it, and whoever adds a ticket takes that, and is told.
//!
//! The line's lock is taken under a cell's, and none under it.

use crate::context::Sleeper;
use crate::os::Generation;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::Instant;
use crate::sync::{Condvar, Mutex};
use std::collections::VecDeque;

pub(crate) struct Arrivals {
    born: Generation,
    /// Whether the line has any, for whoever looks some microseconds longer before it sleeps: a hint.
    has_any: AtomicBool,
    line: Mutex<Line>,
    bell: Condvar,
}

#[derive(Default)]
struct Line {
    tickets: VecDeque<u32>,
    /// Somebody sleeps until a ticket comes. There is one at most.
    is_awaited: bool,
    /// Whoever waits without a limit is to look for something else to do.
    is_roused: bool,
}

impl Arrivals {
    pub(crate) fn new() -> Arrivals {
        Arrivals {
            born: Generation::now(),
            has_any: AtomicBool::new(false),
            line: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    /// Whether those who would come are in a process of which this is a forked child. One of them may have held the lock
    /// then, so this is asked before any of the rest.
    pub(crate) fn is_past(&self) -> bool {
        self.born.is_past()
    }

    /// A task is done. Says whether the one who waits is to be [woken](Arrivals::ring).
    #[must_use]
    pub(crate) fn come(&self, ticket: u32) -> bool {
        let mut line = self.line.lock();
        line.tickets.push_back(ticket);
        self.has_any.store(true, Ordering::Relaxed);
        std::mem::take(&mut line.is_awaited)
    }

    /// A task turns out to be done when it is added by the one who waits, who does not sleep then.
    pub(crate) fn add(&self, ticket: u32) {
        let is_asleep = self.come(ticket);
        debug_assert!(!is_asleep);
    }

    /// Wakes the one who waits. Not needed for each ticket: this is a system call, whether anybody sleeps or not.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(crate) fn has_any(&self) -> bool {
        self.has_any.load(Ordering::Relaxed)
    }

    /// Moves all that came to `tickets`, which is empty. Waits for one until `until` (`None`: for ever) where there is
    /// none, or, without a limit, until the one who waits is roused. Says whether there was any.
    pub(crate) fn take(&self, tickets: &mut VecDeque<u32>, until: Option<Instant>) -> bool {
        let mut line = self.line.lock();
        let mut is_late = false;
        while line.tickets.is_empty() && !is_late && !(line.is_roused && until.is_none()) {
            line.is_awaited = true;
            (line, is_late) = self.bell.wait(line, until);
        }
        line.is_awaited = false;
        line.is_roused = false;
        // Two buffers that take turns: neither is allocated anew.
        std::mem::swap(&mut line.tickets, tickets);
        self.has_any.store(false, Ordering::Relaxed);
        !tickets.is_empty()
    }
}

impl Sleeper for Arrivals {
    fn rouse(&self) {
        // Under the line's lock, and kept: the one who waits may not sleep yet.
        self.line.lock().is_roused = true;
        self.ring();
    }
}
