//! Limits: at most so many tasks of a kind at once, in the order of their submission, and no worker waits for a permit.
//!
//! A task for which there is a permit is queued like any other. One for which there is none waits in its limit's backlog,
//! counted as queued, and comes to the end of the queue when a permit is given back: so the tasks of several limits take
//! turns. The permit travels in the task's closure and is given back when that has run or was dropped, wherever that is.
//!
//! A task that waits until its pool has nothing left to run lends its permit for that time: who waits for the permit is
//! waited for. It takes it back without a wait of its own, though there may be one too many out then; that one is not
//! given to anybody when it comes back.

use super::{Core, State};
use crate::context;
use crate::os::Generation;
use crate::pool::core::submit::Way;
use crate::pool::worker::WorkerCx;
use crate::queue::job::Job;
use crate::rejected::RejectReason;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::MutexGuard;
use crate::task::cell::{AnyTask, Place};
use crate::task::slot::Slot;
use crate::task::{InPlace, Owner};
use std::collections::VecDeque;
use std::sync::Arc;

/// What one limit has out, and who waits.
#[derive(Default)]
pub(super) struct Backlog {
    permits_out: usize,
    waiting: VecDeque<(Arc<Ticket>, Job<Slot>)>,
}

/// One task of a limit.
pub(in crate::pool) struct Ticket {
    core: Arc<Core>,
    limit: u64,
    /// How many permits the limit has.
    permits: usize,
    /// A [`Stage`], behind the pool's lock.
    stage: AtomicU8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// It has no permit.
    Waiting,
    Permitted,
    /// It has a permit, and lends it.
    Lending,
    /// It was cancelled, or ran on the permit of a task that waited for it: it needs none.
    Over,
}

/// Gives the permit back when it is dropped, if there is one.
pub(in crate::pool) struct Permit(Arc<Ticket>);

impl Ticket {
    pub(in crate::pool) fn new(core: &Arc<Core>, limit: u64, permits: usize) -> Arc<Ticket> {
        Arc::new(Ticket { core: core.clone(), limit, permits, stage: AtomicU8::new(Stage::Waiting as u8) })
    }

    pub(in crate::pool) fn limit(&self) -> u64 {
        self.limit
    }

    /// Lends the permit to others of the limit until it is [taken back](Ticket::take_again). Says whether there is one.
    pub(in crate::pool) fn lend(&self) -> bool {
        self.core.give_back(self, Stage::Lending)
    }

    pub(in crate::pool) fn take_again(&self) {
        if self.core.is_stale() {
            return;
        }
        let mut state = self.core.state.lock();
        if self.is(Stage::Lending) {
            self.set(Stage::Permitted);
            state.limits.entry(self.limit).or_default().permits_out += 1;
        }
    }

    fn is(&self, stage: Stage) -> bool {
        // Relaxed: read and written under the pool's lock.
        self.stage.load(Ordering::Relaxed) == stage as u8
    }

    fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

impl Permit {
    pub(in crate::pool) fn new(ticket: Arc<Ticket>) -> Permit {
        Permit(ticket)
    }

    /// Runs the task, which shares its permit with those of the same limit that it waits for.
    pub(in crate::pool) fn run<R>(self, task: impl FnOnce() -> R) -> R {
        /// Also where the task panics.
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                context::with_host(|cx: Option<&WorkerCx>| cx.and_then(|cx| cx.tickets.borrow_mut().pop()));
            }
        }
        let has_host = context::with_host(|cx: Option<&WorkerCx>| {
            cx.map(|cx| cx.tickets.borrow_mut().push(self.0.clone())).is_some()
        });
        let _leave = has_host.then_some(Leave);
        task()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.core.give_back(&self.0, Stage::Over);
    }
}

impl State {
    /// All that waits for permits. No permit is given any more.
    pub(super) fn take_backlogs(&mut self) -> Vec<Job<Slot>> {
        let waiting = std::mem::take(&mut self.limits).into_values().flat_map(|backlog| backlog.waiting);
        let jobs: Vec<_> = waiting.map(|(_, job)| job).collect();
        jobs.iter().for_each(|_| self.queue.leave_aside());
        jobs
    }
}

impl Core {
    /// Queues a task of a limit, or puts it into the backlog, in the critical section that was entered for it.
    pub(in crate::pool) fn add_limited(
        self: &Arc<Core>,
        mut state: MutexGuard<'_, State>,
        is_first: bool,
        ticket: Arc<Ticket>,
        job: Job<Slot>,
    ) {
        let backlog = state.limits.entry(ticket.limit).or_default();
        if backlog.permits_out < ticket.permits {
            backlog.permits_out += 1;
            ticket.set(Stage::Permitted);
            self.add(state, job, is_first);
        } else {
            backlog.waiting.push_back((ticket, job));
            state.queue.set_aside();
            self.wake(state, None);
        }
    }

    /// A task of a limit has run, or was dropped, and is `Over`, or is `Lending` from now on. Says whether it gave a permit.
    fn give_back(self: &Arc<Core>, ticket: &Ticket, then: Stage) -> bool {
        if self.is_stale() {
            return false;
        }
        let mut state = self.state.lock();
        let had_permit = ticket.is(Stage::Permitted);
        if had_permit || then == Stage::Over {
            ticket.set(then);
        }
        if !had_permit {
            return false;
        }
        let mut hollow = Vec::new();
        let next = loop {
            // Once the pool is closed for good there are no backlogs.
            let Some(backlog) = state.limits.get_mut(&ticket.limit) else { break None };
            // One too many is out where one that was lent was taken back.
            let is_free = backlog.permits_out <= ticket.permits;
            match is_free.then(|| backlog.waiting.pop_front()).flatten() {
                Some((ticket, job)) if ticket.is(Stage::Over) => {
                    state.queue.leave_aside();
                    state.queue.hollowed(-1);
                    hollow.push(job);
                }
                Some(next) => break Some(next),
                None => {
                    backlog.permits_out -= 1;
                    if backlog.permits_out == 0 {
                        state.limits.remove(&ticket.limit);
                    }
                    break None;
                }
            }
        };
        match next {
            Some((ticket, job)) => {
                ticket.set(Stage::Permitted);
                state.queue.enter(&self.injector, job);
                self.call_worker(state, Way::Gate).unwrap_or_else(|error| self.log_no_thread(&error));
            }
            None => self.wake(state, None),
        }
        drop(hollow);
        true
    }
}

impl Owner for Ticket {
    fn born(&self) -> Generation {
        self.core.born
    }

    fn count_cancelled(&self, place: &dyn Fn() -> Place) {
        self.core.count_cancelled(place);
    }

    fn run_in_place(&self, task: &dyn Fn() -> Arc<dyn AnyTask>) -> InPlace {
        self.core.run_where_inside(task, |cx, _| {
            let is_shared = cx.tickets.borrow().iter().any(|ticket| ticket.limit == self.limit);
            match self.is(Stage::Waiting) && !is_shared {
                true => InPlace::NotYet,
                false => InPlace::Settled,
            }
        })
    }
}

impl Core {
    /// Asks for a task of a limit to be taken on: the critical section to add it in, and whether the pool's first thread was
    /// started for it.
    pub(in crate::pool) fn enter_limited<'a>(
        self: &'a Arc<Core>,
        if_full: super::IfFull,
    ) -> Result<(MutexGuard<'a, State>, bool), RejectReason> {
        if self.is_stale() {
            return Err(RejectReason::Forked);
        }
        // On its submitter's thread it would need a permit all the same.
        let if_full = match if_full {
            super::IfFull::AsBuilt if self.config.when_full == crate::WhenFull::CallerRuns => {
                super::IfFull::Wait
            }
            other => other,
        };
        match self.enter(if_full)? {
            super::submit::Entry::Queue(state) => self.with_thread(state),
            super::submit::Entry::RunHere(_) => unreachable!("nobody asked for that"),
        }
    }
}
