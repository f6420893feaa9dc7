//! Tasks that a pool has given back.

use crate::queue::job::Job;
use crate::task::slot::Slot;
use std::fmt;
use std::panic::Location;

/// A task that [`Pool::shutdown_now`](crate::Pool::shutdown_now) has given back, unstarted.
///
/// The task's handle, if it has one, stays pending until this is run or dropped: a drop resolves it as cancelled. So does
/// its `cancel`, and so does a task of the pool that joins it, by running it; then running this does nothing.
#[must_use = "dropping this cancels the task: run it, or say so"]
pub struct UnstartedTask {
    job: Job<Slot>,
}

impl UnstartedTask {
    pub(super) fn new(job: Job<Slot>) -> UnstartedTask {
        UnstartedTask { job }
    }

    /// Runs the task on the current thread. Its handle resolves with its value.
    ///
    /// It is no task of a pool any more: [`Pool::current`](crate::Pool::current) is `None` in it, a limit does not hold for
    /// it, and it is in no pool's counts but as returned. A panic goes to its handle; without one it is logged.
    pub fn run(self) {
        let slot = Slot::new("nobody".into());
        self.job.run(&slot);
    }

    /// Where it was submitted.
    pub fn location(&self) -> &'static Location<'static> {
        self.job.location()
    }
}

impl fmt::Debug for UnstartedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnstartedTask").field("location", &self.location()).finish_non_exhaustive()
    }
}
