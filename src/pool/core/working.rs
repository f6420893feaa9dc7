//! The workers' side: what a worker does next, when it sleeps, and when it leaves.

use super::submit::Way;
use super::{Callbacks, Core, State};
use crate::pool::worker::WorkerCx;
use crate::queue::deque::OwnEnd;
use crate::queue::injector::Injector;
use crate::queue::job::Job;
use crate::queue::{Intake, Supply, BATCH, GATE};
use crate::registry::ended::{self, EndedThread};
use crate::sync::thread;
use crate::sync::Instant;
use crate::sync::{MutexGuard, IS_MODEL};
use crate::task::slot::Slot;
use std::sync::Arc;
use std::time::Duration;

/// After how many tasks of its own queue a worker looks beyond that.
const TURNS: u32 = if IS_MODEL { 2 } else { 127 };
/// For how many spins, half a microsecond or so, it lets tasks gather outside.
const BREATH: u32 = 16;

/// The moment at which a worker came to help.
struct Woken {
    at: Instant,
    /// Tasks accepted until then.
    accepted: u64,
}

impl Woken {
    fn now(state: &State, injector: &Injector<Job<Slot>>) -> Woken {
        Woken { at: Instant::now(), accepted: state.queue.accepted(injector) }
    }

    /// Whether, now that nothing is queued, the others have shown that they keep up by themselves: very many tasks went
    /// by in no time. To come for the next ones again and again would cost them, and whoever submits, more than it
    /// gives.
    fn was_needless(self, state: &State, injector: &Injector<Job<Slot>>) -> bool {
        let others = state.active() - state.queue.asleep() - 1;
        // A push that comes upon the gate of its worker's queue is counted for a moment, and then not.
        let accepted = state.queue.accepted(injector).saturating_sub(self.accepted);
        others > 0 && accepted >= STREAM && self.at.elapsed() < BRIEF
    }
}

/// So many tasks in so short a time are a stream of small ones.
const STREAM: u64 = 64;
const BRIEF: Duration = Duration::from_micros(200);
/// For how long a worker that such a stream does not need looks away.
const DOZE: Duration = Duration::from_micros(100);

/// What a worker does next.
pub(super) enum Next {
    Run(Job<Slot>),
    Leave {
        /// It ran something since it last signalled.
        has_news: bool,
    },
}

impl Core {
    /// Runs tasks until there is a reason to leave.
    ///
    /// Says whether those who wait for the pool have still to be told what it did.
    pub(in crate::pool) fn work(self: &Arc<Core>, cx: &WorkerCx, own: &OwnEnd<Job<Slot>>) -> bool {
        let mut woken = None;
        while !self.is_stale() {
            let mut turns = TURNS;
            let mut has_run = false;
            while turns > 0 {
                turns -= u32::from(own.has_pushed());
                cx.slot.reach();
                match Job::run_next(own, &cx.slot, |job| self.make_way(job, &cx.slot)) {
                    Some(true) => has_run = true,
                    Some(false) => self.state.lock().queue.hollowed(-1),
                    None => break,
                }
                if self.is_stale() {
                    return false;
                }
            }
            cx.slot.look_on();
            // With turns left it is the own queue that has run out.
            if turns > 0 && has_run && self.injector.len() < BATCH {
                // Right behind a producer, one would take each task from the cache in which it is being written. In so
                // short a time it writes some more.
                (0..BREATH).for_each(|_| std::hint::spin_loop());
            }
            match self.next(cx.id, &cx.slot, own, &mut woken) {
                Next::Run(job) => self.run(job, &cx.slot),
                Next::Leave { has_news } => return has_news,
            }
        }
        false
    }

    /// Spins for some microseconds until there is something to look at: in a stream of small tasks, and between a result
    /// and the task that answers it, that costs less than to sleep and be woken.
    fn linger(&self) {
        crate::sync::linger(|| {
            self.injector.is_stirring() || self.rest.is_awaited() || self.registry.event().is_awaited()
        });
    }

    /// Waits for the next task, or for a reason to leave; a worker that is told to leave has left the crew.
    fn next(
        self: &Arc<Core>,
        id: usize,
        slot: &Slot,
        own: &OwnEnd<Job<Slot>>,
        woken: &mut Option<Woken>,
    ) -> Next {
        let mut state = self.state.lock();
        let mut has_news = true;
        let mut has_lingered = false;
        loop {
            let Some(worker) = state.crew.get_mut(&id) else { return Next::Leave { has_news } };
            worker.is_starting = false;
            // Reason 1: its tasks were abandoned, and with them the worker. Reason 2: it stood in for one that was
            // blocked, and there are enough again.
            if worker.given_up.is_some() || state.active() > self.config.max_threads {
                self.leave(state, id);
                return Next::Leave { has_news };
            }
            slot.reach();
            if let Some(supply) = self.take(&mut state, own) {
                if state.queue.is_bounded() {
                    // What is under way is in no count, and there would seem to be room for that much more.
                    let (taken, _) = supply.unload(own);
                    let job;
                    (state, job) = self.let_in(state, taken, Some(slot));
                    // What others took, or a deadline, is not there any more: look again.
                    let Some(job) = job else {
                        slot.look_on();
                        continue;
                    };
                    let called = state.settle(&self.injector);
                    self.notify(state, called);
                    return Next::Run(job);
                }
                let called = state.queue.settle_with(&self.injector, supply.has_more());
                self.wake(state, called);
                let (job, has_bell) = supply.unload(own);
                if has_bell {
                    // Not logged if it fails: the logger is code of others, and a deadline waits for this thread to
                    // show the job in its hand. Each submission tries again, and says so.
                    let _ = self.call_worker(self.state.lock(), Way::Deque(own.deque()));
                }
                return Next::Run(job);
            }
            slot.look_on();
            self.close_if_drained(&mut state);
            // Reason 3: nothing is left and nothing will come.
            if state.queue.intake() == Intake::Closed {
                self.leave(state, id);
                return Next::Leave { has_news };
            }
            slot.rest();
            if woken.take().is_some_and(|woken| woken.was_needless(&state, &self.injector)) {
                if state.queue.look_out(id) {
                    self.signal();
                    let bed = state.crew[&id].bed.clone();
                    (state, _) = bed.wait(state, crate::sync::deadline(DOZE));
                    state.queue.answer(id);
                    *woken = Some(Woken::now(&state, &self.injector));
                    continue;
                }
            } else if !has_lingered && state.queue.look_out(id) {
                has_lingered = true;
                drop(state);
                self.linger();
                state = self.state.lock();
                state.queue.answer(id);
                continue;
            }
            if !state.queue.lie_down(&self.injector, id) {
                // A task has come meanwhile, or is on its way in.
                drop(state);
                thread::yield_now();
                state = self.state.lock();
                continue;
            }
            let bed = state.crew[&id].bed.clone();
            // Whoever waits for the pool to be idle, or quiet, looks now.
            self.signal();
            has_news = false;
            let mut until = match state.threads > self.config.min_threads {
                true => crate::sync::deadline(self.config.keep_alive),
                false => None,
            };
            loop {
                if state.queue.answer(id) {
                    *woken = Some(Woken::now(&state, &self.injector));
                    break;
                }
                if state.queue.intake() == Intake::Closed {
                    state.queue.get_up(id);
                    break;
                }
                let timed_out;
                (state, timed_out) = bed.wait(state, until);
                if !timed_out {
                    continue;
                }
                #[cfg(test)]
                let may_look = {
                    drop(state);
                    let may_look = self.config.on_timeout.as_ref().map_or(true, |on_timeout| on_timeout());
                    state = self.state.lock();
                    may_look
                };
                #[cfg(not(test))]
                let may_look = true;
                // Called between the time-out and the lock: somebody counts on this worker.
                if may_look && state.queue.answer(id) {
                    break;
                }
                if state.threads <= self.config.min_threads {
                    until = None;
                    continue;
                }
                state.queue.get_up(id);
                // A task that came since this one lay down, whose submitter waits for the lock.
                if may_look && state.threads == 1 && !state.queue.gate_if_empty(&self.injector) {
                    break;
                }
                // Reason 4: nobody needed it for as long as idle workers are kept.
                self.leave(state, id);
                return Next::Leave { has_news };
            }
        }
    }

    /// The next task for a worker that has come for the lock: because its own queue is empty, or because it has run
    /// enough of that for now.
    fn take(&self, state: &mut State, own: &OwnEnd<Job<Slot>>) -> Option<Supply<'_, Job<Slot>>> {
        if let Some(held) = state.held.pop_front() {
            return Some(Supply::One(held));
        }
        if own.deque().len() == 0 {
            return state.queue.refill(&self.injector, own);
        }
        // What tasks here submit one after the other must not keep others waiting for ever.
        let oldest = match own.has_batch() {
            true => own.pop_front(),
            false => state.queue.take_elsewhere(&self.injector, own),
        };
        oldest.or_else(|| own.pop()).map(Supply::One)
    }

    /// Takes a worker out of the count of threads, in the critical section in which it decided to end.
    #[cold]
    fn leave(&self, mut state: MutexGuard<'_, State>, id: usize) {
        let deque = state.change(id, |worker| {
            worker.is_leaving = true;
            worker.deque.take()
        });
        state.threads -= 1;
        if let Some(deque) = deque.flatten() {
            state.queue.remove_worker(&deque);
        }
        if state.threads == 0 {
            self.injector.set(GATE);
        }
        if state.queue.intake() != Intake::Closed {
            state.queue.set_bells(&self.injector);
        }
        // What it ran last may have been the last task of all. The others sleep, and have looked before that ended.
        self.close_if_drained(&mut state);
        // It may have been on its way to a task, or leave some, which are somebody else's then.
        state.queue.answer(id);
        let called = state.settle(&self.injector);
        self.wake(state, called);
    }

    /// Takes a thread out of the crew, for good: nothing is left of it to run but thread-local destructors, if it was a
    /// worker.
    ///
    /// It `has_news` where those who wait for the pool have not been told of what it did.
    pub(in crate::pool) fn sign_off(&self, id: usize, has_news: bool) {
        let mut state = self.state.lock();
        if let Some(worker) = state.crew.remove(&id) {
            let ended = worker.ended();
            state.past.completed += ended.completed;
            state.past.panicked += ended.panicked;
            if let Some((thread, mark)) = worker.thread {
                state.ended_threads.push(EndedThread::new(thread, mark));
            }
        }
        // While a shutdown is under way it joins them all; until then those that are gone are not kept.
        let gone = match state.winders {
            0 => ended::take_gone(&mut state.ended_threads),
            _ => Vec::new(),
        };
        state.joined += gone.len();
        // Whoever waits for the threads' end waits for the last one; one that is stuck signals when that changes.
        let is_last = !state.crew.values().any(|worker| worker.thread.is_some() && !worker.is_unreliable());
        drop(state);
        ended::join_all(gone);
        if is_last || has_news {
            self.signal();
        }
        self.retire_if_done();
    }

    pub(in crate::pool) fn callbacks(&self) -> Callbacks {
        self.callbacks.lock().clone()
    }

    /// Takes the callbacks, if there is no thread left to call them and never will be: neither a worker that has not left
    /// nor one that runs a task for once, which may panic. (Those that have left have got their last callback.)
    pub(in crate::pool) fn callbacks_if_last(&self) -> Option<Callbacks> {
        let state = self.state.lock();
        let has_guests = state.crew.values().any(|worker| worker.thread.is_none());
        let is_last = state.queue.intake() == Intake::Closed && state.threads == 0 && !has_guests;
        drop(state);
        is_last.then(|| std::mem::take(&mut *self.callbacks.lock()))
    }
}
