//! Who runs a pool's tasks, and what a thread that is blocked in a wait means for those who wait for the pool.

use crate::context::Wait;
use crate::queue::deque::Deque;
use crate::queue::job::Job;
use crate::registry::ended::Mark;
use crate::registry::member::Circle;
use crate::sync::atomic::Ordering;
use crate::sync::thread::JoinHandle;
use crate::sync::Condvar;
use crate::task::slot::{Ended, Slot};
use std::sync::Arc;

pub(in crate::pool) struct Worker {
    pub(super) slot: Arc<Slot>,
    /// None for a thread that is not the pool's own.
    pub(super) thread: Option<(JoinHandle<()>, Mark)>,
    /// It has not looked at the queue yet: it runs the pool's first callback.
    pub(super) is_starting: bool,
    /// It will look at the queue no more: it runs the pool's last callback, and is not among `State::threads`.
    pub(super) is_leaving: bool,
    /// The waits that the thread is blocked in, one within another.
    pub(super) blocked: Vec<Blocked>,
    /// Its own queue, until it leaves; none for a thread that is not the pool's own.
    pub(super) deque: Option<Arc<Deque<Job<Slot>>>>,
    /// It sleeps on it.
    pub(super) bed: Arc<Condvar>,
    /// Its tasks were abandoned; the counts of tasks without a handle stand still from then on.
    pub(super) given_up: Option<Ended>,
}

pub(super) struct Blocked {
    pub(super) wait: Wait,
    /// The tasks on the thread's stack, which count as finished.
    pub(super) depth: usize,
}

impl Worker {
    pub(super) fn ended(&self) -> Ended {
        let bare = self.slot.ended_bare();
        // A task that was abandoned ends some day and is counted by its thread; it is settled already.
        let bare = match self.given_up {
            Some(then) => Ended {
                completed: bare.completed.min(then.completed),
                panicked: bare.panicked.min(then.panicked),
            },
            None => bare,
        };
        let cells = self.slot.ended_cells();
        Ended { completed: bare.completed + cells.completed, panicked: bare.panicked + cells.panicked }
    }

    /// Whether the thread may have a job in hand that is neither in the queue nor to be seen in the slot. None but a few
    /// of our own instructions lie on either way, so this may be waited out. It must be, before tasks are abandoned: the
    /// job would be missed.
    pub(super) fn is_between_queue_and_task(&self) -> bool {
        // What was given up is not counted when it ends, and its thread may be in anyone's code then.
        self.given_up.is_none() && self.slot.is_reaching()
    }

    /// The tasks of this thread that count as finished because it is blocked in a wait that `counts`.
    pub(super) fn blocked_tasks(&self, counts: impl Fn(&Wait) -> bool) -> u64 {
        if self.given_up.is_some() {
            return 0;
        }
        let depths = self.blocked.iter().filter(|blocked| counts(&blocked.wait)).map(|blocked| blocked.depth);
        depths.max().unwrap_or(0) as u64
    }

    /// Whether this is a worker thread that will not look at the queue again by itself.
    pub(super) fn is_stuck(&self) -> bool {
        self.thread.is_some() && !self.is_leaving && self.is_unreliable()
    }

    /// Whether the thread may not end by itself.
    pub(super) fn is_unreliable(&self) -> bool {
        !self.blocked.is_empty() || self.given_up.is_some()
    }

    /// Whether the thread is blocked in a wait for an end.
    pub(super) fn is_waiting(&self) -> bool {
        self.blocked.iter().any(|blocked| for_an_end(&blocked.wait))
    }

    /// Whether a shutdown that joins the thread might wait for ever, or for itself. That of a registry can rely on the
    /// shutdown of a single pool to end, since such a one waits for nobody who waits.
    pub(super) fn cannot_be_joined(&self, by: Circle) -> bool {
        let hopeless = |wait: &Wait| match wait {
            Wait::End { ends: true, .. } if by == Circle::Registry => false,
            wait => for_an_end(wait),
        };
        self.given_up.is_some() || self.blocked.iter().any(|blocked| hopeless(&blocked.wait))
    }
}

/// Waits for an end, the thread's tasks count as finished for every drain; when it is over, they run again.
pub(super) fn for_an_end(wait: &Wait) -> bool {
    match wait {
        Wait::End { over, .. } => !over.load(Ordering::Acquire),
        Wait::Idle(_) | Wait::Join(_) => false,
    }
}
