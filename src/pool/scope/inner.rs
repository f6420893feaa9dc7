//! How a scope is waited for.
//!
//! # Nobody waits for a task that nobody runs
//!
//! Whoever waits at the end of a scope may be the last worker. If it is inside a task of the same pool, the scope keeps a
//! list of its tasks, and its owner runs in place what is queued there, as a join does. It looks for more when a task was
//! added: a task is added to the list when it is in the queue, and the owner is signalled after that. A task that the list
//! has lost is not queued any more: it was run, is being run, or is cancelled, and so somebody is at it. Whoever runs it may
//! come to wait for a task that no other thread is left to run, so while the owner sleeps, its thread counts as blocked.

use super::outcome::Panics;
use super::tasks::Tasks;
use crate::context::{self, Blocked, Wait};
use crate::pool::core::Core;
use crate::sync::Mutex;
use crate::task::cell::AnyTask;
use crate::task::{InPlace, Owner};
use std::collections::VecDeque;
use std::sync::Arc;

/// What of a scope has nothing to do with lifetimes.
pub(super) struct Inner {
    pub(super) core: Arc<Core>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) panics: Arc<Panics>,
    /// Whether tasks run on the thread that submits them: in a callback of the pool's threads, where there may be no other
    /// thread to run them, and this one runs none.
    is_inline: bool,
    /// What may have to be run in place; none where that cannot be.
    queued: Option<Mutex<Queued>>,
}

impl Inner {
    pub(super) fn new(core: &Arc<Core>) -> Inner {
        Inner {
            core: core.clone(),
            tasks: Tasks::new(),
            panics: Arc::new(Panics::new()),
            is_inline: core.is_in_callback(),
            queued: core.is_on_stack().then(|| Mutex::new(Queued::new(core.config.max_threads == 1))),
        }
    }

    /// Whether a task is to be run at once by who submits it. So it is in a forked child: the count of tasks is that of its
    /// parent.
    pub(super) fn is_inline(&self) -> bool {
        self.is_inline || self.tasks.is_past()
    }

    /// Notes a task that was queued.
    pub(super) fn list(&self, task: Arc<dyn AnyTask>) {
        if let Some(queued) = &self.queued {
            let done = queued.lock().push(task);
            drop(done);
            self.tasks.event().signal();
        }
    }

    /// The next task for the owner, if one is queued.
    fn next(&self) -> Option<Arc<dyn AnyTask>> {
        loop {
            let task = self.queued.as_ref()?.lock().pop()?;
            if task.is_queued() {
                return Some(task);
            }
        }
    }

    /// Waits until no task is left, and runs meanwhile what only this thread may be left to run.
    pub(super) fn wait(&self) {
        let mut blocked = None;
        // In a forked child none is left, and the lock of the list may be held for ever.
        while !self.tasks.none_left() {
            let mut next = None;
            let mut look = || {
                next = if blocked.is_none() { self.next() } else { None };
                next.is_some() || self.tasks.none_left()
            };
            if !look() && !crate::sync::linger(|| self.tasks.none_left()) {
                let is_inside = self.queued.is_some();
                let _blocked = (is_inside && blocked.is_none()).then(|| self.block());
                self.tasks.event().wait(|| None, || look() || (is_inside && context::help()));
            }
            if next.is_some_and(|task| self.core.run_in_place(&|| task.clone()) == InPlace::NotYet) {
                blocked = Some(self.block());
            }
        }
    }

    fn block(&self) -> Blocked {
        context::block(Wait::Join(self.tasks.clone()))
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
