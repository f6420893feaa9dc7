//! What becomes of the queue while threads of the pool are blocked in waits.

use super::crew::{Blocked, Worker};
use super::submit::Way;
use super::{Core, State};
use crate::contain;
use crate::context::{self, Wait};
use crate::pool::worker::WorkerCx;
use crate::sync::atomic::Ordering;
use crate::sync::{thread, Condvar, MutexGuard};
use crate::task::slot::Slot;
use std::sync::Arc;

impl State {
    /// Has those who are blocked in joins look whether there is something for them to [run](Core::help). After
    /// [`Core::stranded`] was set: who comes to sleep later sees that.
    pub(super) fn rouse_joiners(&self) {
        for blocked in self.crew.values().flat_map(|worker| &worker.blocked) {
            if let Wait::Join(sleeper) = &blocked.wait {
                sleeper.rouse();
            }
        }
    }
}

impl Core {
    /// The current thread, which is the worker `id`, begins a wait. If that leaves nobody to look at the queue, one
    /// thread is started in its place, beyond the maximum; where none can be had, whoever is blocked runs the queue
    /// (see [`Core::help`]).
    pub(in crate::pool) fn block(self: &Arc<Core>, id: usize, wait: Wait) {
        let is_end = matches!(wait, Wait::End { .. });
        let mut state = self.state.lock();
        let mut is_starting = false;
        state.change(id, |worker| {
            let depth = worker.slot.depth();
            worker.blocked.push(Blocked { wait, depth });
            is_starting = worker.is_starting;
        });
        let stuck_at_start =
            state.crew.values().filter(|worker| worker.is_starting && worker.is_stuck()).count();
        if let Some(deque) = state.crew.get(&id).and_then(|worker| worker.deque.clone()) {
            state.queue.clear_out(&deque);
        }
        self.close_if_drained(&mut state);
        if state.active() > 0 || self.is_left_empty(&mut state) {
            self.wake(state, None);
        } else if is_starting && (is_end || stuck_at_start > 1) {
            // What runs first on a thread ends the process, or waits for its end, and would do so on every other one, too; or
            // it waits for what only a started thread could do, and has done so on another one already.
            drop(state);
            self.break_down();
        } else {
            self.call_worker(state, Way::Gate).unwrap_or_else(|error| self.log_no_thread(&error));
        }
        self.signal();
    }

    /// Whether nothing is queued, for a pool of which nobody looks at the queue: if so, whoever submits next calls
    /// somebody.
    fn is_left_empty(&self, state: &mut State) -> bool {
        state.queue.set_bells(&self.injector);
        state.held.is_empty() && state.queue.is_empty(&self.injector)
    }

    pub(in crate::pool) fn unblock(&self, id: usize) {
        if self.is_stale() {
            return;
        }
        let mut state = self.state.lock();
        let blocked = state.change(id, |worker| worker.blocked.pop());
        drop(state);
        drop(blocked); // With it, perhaps, the last of a task.
        self.signal();
    }

    /// Runs one task on the current thread, which is blocked in a wait, if no thread of the pool can. Says whether it
    /// did.
    pub(in crate::pool) fn help(self: &Arc<Core>) -> bool {
        if !self.stranded.load(Ordering::Relaxed) || self.is_stale() {
            return false;
        }
        let mut state = self.state.lock();
        let job = match state.active() {
            0 => state.held.pop_front().or_else(|| state.queue.take_one(&self.injector)),
            _ => None,
        };
        let Some(job) = job else {
            self.stranded.store(false, Ordering::Relaxed);
            return false;
        };
        let (state, job) = self.let_in(state, job, None);
        let Some(job) = job else { return true };
        self.as_guest(state, |slot| self.run(job, slot));
        true
    }

    /// Runs a task of the pool on the current thread, which is none of its workers. Ends the critical section.
    pub(super) fn as_guest(self: &Arc<Core>, mut state: MutexGuard<'_, State>, run: impl FnOnce(&Slot)) {
        let id = state.next_worker;
        state.next_worker += 1;
        let slot = Arc::new(Slot::new(thread::current().name().unwrap_or("a submitter").into()));
        let guest = Worker {
            slot: slot.clone(),
            thread: None,
            is_starting: false,
            is_leaving: false,
            blocked: Vec::new(),
            deque: None,
            bed: Arc::new(Condvar::new()),
            given_up: None,
        };
        guest.slot.reach();
        state.crew.insert(id, guest);
        // A job is in hand, so nobody is called here: see `let_in`.
        self.notify(state, None);
        let cx = WorkerCx::new(self.clone(), slot, id, None);
        context::enter_worker(&cx, || run(&cx.slot));
        if self.is_stale() {
            return;
        }
        // Where the job was hollow, the thread has nothing in hand any more, and is going to wake submitters.
        cx.slot.rest();
        let mut state = self.state.lock();
        self.close_if_drained(&mut state);
        self.wake(state, None);
        self.sign_off(id, true);
        if self.has_callbacks {
            contain::drop_quietly(self.callbacks_if_last());
        }
    }
}

#[cfg(all(test, winddown_shuttle))]
impl crate::Pool {
    /// How many threads are blocked in waits: a model lets others go when they are.
    pub(crate) fn blocked_threads(&self) -> usize {
        self.core.state.lock().stuck
    }
}
