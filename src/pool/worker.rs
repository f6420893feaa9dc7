//! A worker thread: its life, and what code that runs on it can reach.

use super::core::{Callbacks, Core, Ticket};
use crate::contain;
use crate::context::{self, Standing, State, TaskHost, Wait};
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
    /// The tickets of the limited tasks on the thread's stack, outermost first.
    pub(super) tickets: RefCell<Vec<Arc<Ticket>>>,
    /// What the builder's `worker_state` has made on this thread.
    state: State,
}

impl WorkerCx {
    /// To be called on the thread itself, which the state never leaves.
    pub(super) fn new(
        core: Arc<Core>,
        slot: Arc<Slot>,
        id: usize,
        own: Option<OwnEnd<Job<Slot>>>,
    ) -> WorkerCx {
        WorkerCx { core, slot, id, own, tickets: RefCell::default(), state: State::default() }
    }

    /// Makes the state, if the pool has its threads keep one. Says whether that did not panic.
    fn make_state(&self, make: Option<&dyn Fn() -> Box<dyn Any>>) -> bool {
        let Some(make) = make else { return true };
        let state = call(&self.core, "worker_state", make);
        let is_made = state.is_some();
        // Not borrowed while it is made: what makes it is no task, but it may ask for the state and find none.
        self.state.replace(state);
        is_made
    }
}

/// The life of a worker thread.
pub(super) fn run(cx: WorkerCx) {
    let core = cx.core.clone();
    let has_news = context::enter_worker(&cx, || {
        // Its own, from the first: another worker that leaves may take the pool's.
        let Callbacks { on_start, make_state, on_stop, on_panic: _ } = core.callbacks();
        let has_started =
            on_start.as_deref().map_or(true, |start| call(&core, "on_thread_start", start).is_some())
                && cx.make_state(make_state.as_deref().map(|make| make as _));
        contain::drop_quietly((on_start, make_state));
        if !has_started && !core.is_stale() {
            core.break_down();
        }
        let mut has_news = cx.own.as_ref().is_some_and(|own| core.work(&cx, own));
        if core.is_stale() {
            // A forked child that came out of the task in which it was forked: nothing here is its own. The state, too, is
            // the parent's: a connection that is dropped here says goodbye there.
            std::mem::forget(cx.state.take());
            return false;
        }
        if has_news && core.has_callbacks {
            // These may take their time.
            core.signal();
            has_news = false;
        }
        contain::drop_quietly(cx.state.take());
        if let Some(stop) = on_stop {
            call(&core, "on_thread_stop", &*stop);
            contain::drop_quietly(stop);
        }
        // While this thread can still say that it is blocked: what the callbacks captured is dropped, which is code of
        // others and may wait for the very shutdown that joins this thread.
        contain::drop_quietly(core.callbacks_if_last());
        has_news
    });
    if !core.is_stale() {
        core.sign_off(cx.id, has_news);
    }
}

/// Calls a callback of the pool. `None` if it panicked, which is logged.
fn call<R>(core: &Core, name: &str, callback: impl FnOnce() -> R) -> Option<R> {
    match contain::run(callback) {
        Ok(result) => Some(result),
        Err(payload) => {
            let message = contain::message(&*payload);
            contain::log(log::Level::Error, format_args!("{name} of pool {} panicked: {message}", core.name));
            contain::drop_quietly(payload);
            None
        }
    }
}

impl TaskHost for WorkerCx {
    fn block(&self, wait: Wait) -> Box<dyn Any> {
        struct Unblock {
            core: Arc<Core>,
            id: usize,
            lent: Vec<Arc<Ticket>>,
        }
        impl Drop for Unblock {
            fn drop(&mut self) {
                self.lent.iter().for_each(|ticket| ticket.take_again());
                self.core.unblock(self.id);
            }
        }
        let has_to_run_dry = wait.is_for(self.core.id, self.core.registry.id());
        self.core.block(self.id, wait);
        let mut lent = Vec::new();
        if has_to_run_dry {
            // Those who wait for the permits are waited for.
            let tickets = self.tickets.borrow().clone();
            lent = tickets.into_iter().filter(|ticket| ticket.lend()).collect();
        }
        Box::new(Unblock { core: self.core.clone(), id: self.id, lent })
    }

    fn help(&self) -> bool {
        self.core.help()
    }

    fn is_in_task(&self) -> bool {
        self.slot.depth() > 0
    }

    fn standing(&self) -> Option<Standing> {
        self.is_in_task().then(|| Standing {
            pool: self.core.id,
            limits: self.tickets.borrow().iter().map(|ticket| ticket.limit()).collect(),
        })
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

    fn tell_panic(&self, payload: &(dyn Any + Send)) {
        let Some(on_panic) = self.core.callbacks().on_panic else { return };
        if let Some(task) = self.core.innermost(&self.slot) {
            call(&self.core, "on_task_panic", || on_panic(&task, payload));
        }
        contain::drop_quietly(on_panic);
    }

    fn pool(&self) -> u64 {
        self.core.id
    }

    fn state(&self) -> Option<&State> {
        self.own.is_some().then_some(&self.state)
    }
}
