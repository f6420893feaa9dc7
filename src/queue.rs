//! What producers and workers share: the tasks in their order, and who may still add to them.
//!
//! This is data without a lock; its owner keeps it behind one, together with the counts of its threads. That one lock
//! is what makes accepting and closing one step each (see [`Intake`]), and a faster queue has to keep that promise.

pub(crate) mod job;

use job::{Doom, Job};
use std::collections::VecDeque;

/// Who may add tasks.
///
/// It only moves downwards; every change and every acceptance happen under the lock of the queue's owner.
///
/// | to | by | allows | why not back |
/// |---|---|---|---|
/// | `Open` | construction | everyone | |
/// | `Registry` | the registry's shutdown | tasks of the registry's non-daemon pools | a refusal was handed out |
/// | `Own` | `close`, or the drop of the last handle | the pool's own tasks | the same |
/// | `Closed` | the end of the drain, a deadline, a broken worker | nobody | workers have left |
///
/// **No accepted task is missed.** A submission looks at this and adds its task in one critical section. Whatever
/// closes the queue does so in another one of the same lock. If the submission came first, its task is in the queue
/// when the queue is closed, and workers leave only a queue that is both closed and empty, which they see under the
/// lock as well. If it came second, it is refused and its closure goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Intake {
    Open,
    Registry,
    Own,
    Closed,
}

/// Tasks in the order in which they were accepted.
pub(crate) struct Queue<C: 'static> {
    jobs: VecDeque<Job<C>>,
    pub(crate) intake: Intake,
    /// Tasks ever taken on.
    accepted: u64,
    /// Jobs in `jobs` whose task was cancelled or run elsewhere. Below zero for a moment where a worker comes upon
    /// such a job before it was counted.
    hollow: i64,
}

impl<C> Queue<C> {
    pub(crate) fn new() -> Queue<C> {
        Queue { jobs: VecDeque::new(), intake: Intake::Open, accepted: 0, hollow: 0 }
    }

    pub(crate) fn push(&mut self, job: Job<C>) {
        self.accepted += 1;
        self.jobs.push_back(job);
    }

    pub(crate) fn pop(&mut self) -> Option<Job<C>> {
        self.jobs.pop_front()
    }

    /// Jobs, hollow ones included: while there are any, somebody has to look at them.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Tasks that wait to be started.
    pub(crate) fn waiting(&self) -> u64 {
        (self.jobs.len() as i64 - self.hollow).max(0) as u64
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Counts a job whose task was claimed in its place.
    pub(crate) fn hollowed(&mut self) {
        self.hollow += 1;
    }

    /// Counts a hollow job that a worker has taken out.
    pub(crate) fn hollow_taken(&mut self) {
        self.hollow -= 1;
    }

    /// Takes everything out and claims it for cancellation. The hollow jobs among it come along: dropping a job may
    /// run code that is not ours.
    pub(crate) fn doom_all(&mut self) -> (VecDeque<Job<C>>, Vec<Doom>) {
        let mut jobs = std::mem::take(&mut self.jobs);
        let dooms: Vec<Doom> = jobs.iter_mut().map(Job::doom).collect();
        self.hollow -= dooms.iter().filter(|doom| matches!(doom, Doom::Gone)).count() as i64;
        (jobs, dooms)
    }
}
