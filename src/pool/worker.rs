//! A worker thread: its life, and what code that runs on it can reach.

use super::core::{Callback, Callbacks, Core};
use crate::contain;
use crate::context::{self, Standing, TaskHost, Wait};
use crate::queue::deque::OwnEnd;
use crate::queue::job::Job;
use crate::task::slot::Slot;
use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

/// A thread that runs tasks of a pool.
pub(crate) struct WorkerCx {
    pub(crate) core: Arc<Core>,
    pub(crate) slot: Arc<Slot>,
    pub(super) id: usize,
    /// Its own queue; none for a thread that runs a task for once.
    pub(super) own: Option<OwnEnd<Job<Slot>>>,
    /// The limits whose permits the tasks on the thread's stack have, outermost first.
    pub(super) limits: RefCell<Vec<u64>>,
}

/// The life of a worker thread.
pub(super) fn run(cx: WorkerCx) {
    let core = cx.core.clone();
    let has_news = context::enter_worker(&cx, || {
        // Its own, from the first: another worker that leaves may take the pool's.
        let Callbacks { on_start, on_stop } = core.callbacks();
        if !call(&core, "on_thread_start", on_start) {
            core.break_down();
        }
        let mut has_news = cx.own.as_ref().is_some_and(|own| core.work(&cx, own));
        if core.is_stale() {
            // A forked child that came out of the task in which it was forked: nothing here is its own.
            return false;
        }
        if has_news && core.has_callbacks {
            // These may take their time.
            core.signal();
            has_news = false;
        }
        call(&core, "on_thread_stop", on_stop);
        // While this thread can still say that it is blocked: what the callbacks captured is dropped, which is code of
        // others and may wait for the very shutdown that joins this thread.
        contain::drop_quietly(core.callbacks_if_last());
        has_news
    });
    if !core.is_stale() {
        core.sign_off(cx.id, has_news);
    }
}

/// Calls a callback of the pool, if it has it. Says whether it did not panic.
fn call(core: &Core, name: &str, callback: Option<Callback>) -> bool {
    let Some(callback) = callback else { return true };
    let result = contain::run(|| callback());
    if let Err(payload) = &result {
        let message = contain::message(&**payload);
        contain::log(log::Level::Error, format_args!("{name} of pool {} panicked: {message}", core.name));
    }
    let is_ok = result.is_ok();
    contain::drop_quietly((callback, result));
    is_ok
}

impl TaskHost for WorkerCx {
    fn block(&self, wait: Wait) -> Box<dyn Any> {
        struct Unblock(Arc<Core>, usize);
        impl Drop for Unblock {
            fn drop(&mut self) {
                self.0.unblock(self.1);
            }
        }
        self.core.block(self.id, wait);
        Box::new(Unblock(self.core.clone(), self.id))
    }

    fn help(&self) -> bool {
        self.core.help()
    }

    fn is_in_task(&self) -> bool {
        self.slot.depth() > 0
    }

    fn standing(&self) -> Option<Standing> {
        self.is_in_task().then(|| Standing { pool: self.core.id, limits: self.limits.borrow().clone() })
    }

    fn is_cancelled(&self) -> bool {
        self.is_in_task()
            && (self.core.told_to_stop() || self.slot.current().is_some_and(|task| task.is_flagged()))
    }

    fn set_label(&self, label: Cow<'static, str>) {
        if self.is_in_task() {
            self.slot.label(label);
        }
    }
}
