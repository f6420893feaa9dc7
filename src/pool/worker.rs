//! A worker thread: its life, and what code that runs on it can reach.

use super::core::{Core, Next};
use crate::contain;
use crate::context::{self, Frame, TaskHost, Wait};
use crate::task::slot::Slot;
use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

/// A thread that runs tasks of a pool.
pub(crate) struct WorkerCx {
    pub(crate) core: Arc<Core>,
    pub(crate) slot: Arc<Slot>,
    pub(super) id: usize,
}

/// The life of a worker thread.
pub(super) fn run(cx: WorkerCx) {
    let core = cx.core.clone();
    context::enter(&Frame::Worker(&cx), || {
        let config = &core.config;
        if let Some(Err(payload)) =
            config.on_thread_start.as_ref().map(|callback| contain::run(|| callback()))
        {
            let message = contain::message(&*payload).to_owned();
            contain::drop_quietly(payload);
            contain::log(
                log::Level::Error,
                format_args!("pool {} is broken, on_thread_start panicked: {message}", core.name),
            );
            core.break_down();
        }
        while let Next::Run(job) = core.next(cx.id) {
            core.run(job, &cx.slot);
        }
        if core.is_stale() {
            // A forked child that came out of the task in which it was forked: nothing here is its own.
            return;
        }
        if let Some(Err(payload)) = config.on_thread_stop.as_ref().map(|callback| contain::run(|| callback()))
        {
            let message = contain::message(&*payload).to_owned();
            contain::drop_quietly(payload);
            contain::log(
                log::Level::Error,
                format_args!("on_thread_stop of pool {} panicked: {message}", core.name),
            );
        }
    });
    if !core.is_stale() {
        core.sign_off(cx.id);
    }
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

    fn is_cancelled(&self) -> bool {
        self.is_in_task()
            && (self.core.told_to_stop() || self.slot.current().is_some_and(|task| task.is_flagged()))
    }

    fn set_label(&self, label: Cow<'static, str>) {
        if self.is_in_task() {
            self.slot.label(label);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
