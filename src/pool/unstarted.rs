//! Tasks that a pool has given back.

use crate::context::{self, Standing, State, TaskHost, Wait};
use crate::queue::job::Job;
use crate::task::slot::Slot;
use std::any::Any;
use std::borrow::Cow;
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
    /// it, and it is in no pool's counts but as returned. A panic goes to its handle; without one it is logged. In it
    /// [`task::is_cancelled`](crate::task::is_cancelled) says whether it was cancelled through its handle.
    pub fn run(self) {
        let nobody = Nobody { slot: Slot::new("nobody".into()) };
        context::enter_worker(&nobody, || self.job.run(&nobody.slot));
    }

    /// Where it was submitted.
    pub fn location(&self) -> &'static Location<'static> {
        self.job.location()
    }
}

/// The host of a task that has no pool any more. It hides the task that runs this one, if there is one: what this one asks is
/// not asked by that.
struct Nobody {
    slot: Slot,
}

impl TaskHost for Nobody {
    fn block(&self, _: Wait) -> Box<dyn Any> {
        Box::new(()) // Nobody waits for it.
    }

    fn help(&self) -> bool {
        false
    }

    fn is_in_task(&self) -> bool {
        self.slot.depth() > 0
    }

    fn is_cancelled(&self) -> bool {
        self.slot.current().is_some_and(|task| task.is_flagged())
    }

    fn set_label(&self, label: Cow<'static, str>) {
        self.slot.label(label);
    }

    fn standing(&self) -> Option<Standing> {
        None
    }

    fn tell_panic(&self, _: &(dyn Any + Send)) {}

    fn pool(&self) -> u64 {
        0 // No pool has it.
    }

    fn state(&self) -> Option<&State> {
        None
    }
}

impl fmt::Debug for UnstartedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnstartedTask").field("location", &self.location()).finish_non_exhaustive()
    }
}
