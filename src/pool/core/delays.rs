//! Delays: tasks that are queued when their time has come.
//!
//! # The protocol
//!
//! A delayed task is an ordinary one with a handle, which lies in a heap behind the pool's lock until it is due. The
//! registry's [timer](crate::registry::timer) knows one moment of each pool: when to call [`Core::bring_due`].
//!
//! **No call is missed.** The timer is told under the pool's lock. So whenever that is free, and a task is delayed, the timer
//! will call at the latest when the first one is due, or has set out to and waits for the lock; at its end such a call says
//! when to come next. It may come too early, where the first task was cancelled.
//!
//! **Who counts a delayed task.** Accepted, it is one of `State::delayed`, and in no count of the queue. It leaves in one of
//! three ways, each under the lock:
//!
//! * It is due, and moves into the queue, and so from the one count to the other. If it is cancelled between the look whether
//!   it is queued and the move, it is a hollow task in the queue like any other.
//! * Its handle cancels it. That claims the cell first and counts later, under the lock, where it asks for the task's
//!   [`Place`]. Who comes upon it in between, because it is due or the pool closes, finds that it is not queued any more,
//!   and only drops the entry.
//! * The pool leaves `Open`: it is claimed and counted as cancelled, and buried by whoever closes.
//!
//! **Memory.** Each takes one entry of 24 bytes beside its cell, whose captures are gone once it is cancelled; cells and
//! entries of those follow as others are cancelled, a few at a time.
//!
//! **Order.** Tasks are due at whole nanoseconds since the pool's first delay, and no two delays begin at the same one: so of
//! equal delays, the first accepted is the first due.

mod heap;

use self::heap::Heap;
use super::winding::DoomedTasks;
use super::{Core, State};
use crate::contain;
use crate::queue::job::Order;
use crate::queue::Intake;
use crate::rejected::RejectReason;
use crate::sync::Instant;
use crate::task::cell::{AnyTask, Place};
use crate::task::work::Spawned;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Due at no time: some 584 years after the first delay.
const NEVER: u64 = u64::MAX;

/// For how long a pool that can have no thread is left alone.
const NO_THREAD: Duration = Duration::from_millis(10);

/// Behind the pool's lock. Moments are nanoseconds since the first delay.
pub(super) struct Delays {
    heap: Heap<Arc<dyn AnyTask>>,
    began: Option<Instant>,
    /// When the latest delay began.
    latest: u64,
    /// When the timer calls.
    call: u64,
    /// When there was last no thread for what was due; zero once there is.
    stranded: u64,
}

impl Default for Delays {
    fn default() -> Delays {
        Delays { heap: Heap::new(), began: None, latest: 0, call: NEVER, stranded: 0 }
    }
}

impl Delays {
    fn now(&mut self) -> u64 {
        nanos(self.began.get_or_insert_with(Instant::now).elapsed())
    }

    /// When a delay is over that begins now.
    fn due_after(&mut self, delay: Duration) -> u64 {
        self.latest = self.now().max(self.latest + 1);
        self.latest.saturating_add(nanos(delay))
    }

    fn first_due(&self) -> u64 {
        self.heap.first().map_or(NEVER, |(due, _)| *due)
    }

    fn instant(&self, moment: u64) -> Option<Instant> {
        let began = self.began.filter(|_| moment < NEVER)?;
        began.checked_add(Duration::from_nanos(moment))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

impl Core {
    /// Takes on a task that is to be queued when `delay` has passed.
    pub(in crate::pool) fn delay(
        self: &Arc<Core>,
        delay: Duration,
        task: Arc<dyn AnyTask>,
    ) -> Result<(), RejectReason> {
        if self.is_stale() {
            return Err(RejectReason::Forked);
        }
        let mut state = self.state.lock();
        if state.queue.intake() != Intake::Open {
            let refusal = state.refusal;
            return Err(self.turn_away(state, None, refusal));
        }
        if delay.is_zero() {
            let location = task.location();
            let added = self.add_at_gate(state, Order { work: Spawned(task), location });
            return added.map_err(|(_, reason)| reason);
        }
        let due = state.delays.due_after(delay);
        if due < state.delays.call {
            if let Err(error) = self.call_at(&mut state, due) {
                let reason = self.turn_away(state, None, RejectReason::NoThread);
                contain::log(
                    log::Level::Warn,
                    format_args!("no timer thread for pool {}: {error}", self.name),
                );
                return Err(reason);
            }
        }
        state.delayed += 1;
        state.queue.accept_elsewhere();
        task.set_place(Place::Delays);
        state.delays.heap.push(due, task);
        Ok(())
    }

    /// Has the timer call at `moment`, and not when it was told before. Fails only if it has no thread yet and can have none.
    fn call_at(&self, state: &mut State, moment: u64) -> io::Result<()> {
        let delays = &mut state.delays;
        let (before, at) = (delays.instant(delays.call), delays.instant(moment));
        if before.is_some() || at.is_some() {
            self.registry.call_member_at(self.key, before, at)?;
        }
        delays.call = moment;
        Ok(())
    }

    /// Queues what is due by now, `most` tasks at most, over the bound if need be, and tells the timer when to come next.
    pub(in crate::pool) fn bring_due(self: &Arc<Core>, most: usize) {
        let mut state = self.state.lock();
        if state.delays.heap.len() == 0 {
            return;
        }
        let now = state.delays.now();
        let mut refused = None;
        for _ in 0..most {
            let is_queued = match state.delays.heap.first() {
                Some((due, task)) if *due <= now => task.is_queued(),
                _ => break,
            };
            let is_first = is_queued && state.threads == 0;
            if is_first {
                // Before the task is moved: if no thread can be had, it stays where it is.
                refused = self.start_worker(&mut state).err();
            }
            if refused.is_some() {
                break;
            }
            let Some(task) = state.delays.heap.pop() else { break };
            if is_queued {
                state.delayed -= 1;
                state.queue.recount();
                task.set_place(Place::Queue);
                let location = task.location();
                self.add(state, Order { work: Spawned(task), location }, is_first);
                if self.is_stale() {
                    // Whoever was told that no thread could be had forked, and this is the child.
                    return;
                }
            } else {
                // Whoever has claimed it counts it.
                drop(state);
                drop(task);
            }
            state = self.state.lock();
        }
        let next = match refused {
            Some(_) => now.saturating_add(nanos(NO_THREAD)),
            None => state.delays.first_due(),
        };
        let was_stranded = state.delays.stranded > 0;
        state.delays.stranded = if refused.is_some() { now } else { 0 };
        // The timer has its thread, as it has something to wait for, or calls this just now.
        let told = self.call_at(&mut state, next);
        drop(state);
        if let Some(error) = told.err().or(refused.filter(|_| !was_stranded)) {
            let name = &self.name;
            contain::log(
                log::Level::Warn,
                format_args!("no thread for tasks of pool {name} that are due, they wait for one: {error}"),
            );
        }
    }

    /// A delayed task was cancelled, and counted. Returns what is to be dropped when the lock is free.
    pub(super) fn sweep_delays(&self, state: &mut State) -> Vec<Arc<dyn AnyTask>> {
        if state.delayed > 0 {
            return state.delays.heap.sweep(state.delayed as usize, |task| task.is_finished());
        }
        self.take_delays(state).map(|(_, task)| task).collect()
    }

    /// Claims all delayed tasks for cancellation, and counts them: the pool takes no tasks from outside any more.
    pub(super) fn doom_delays(&self, state: &mut State, doomed: &mut DoomedTasks) {
        let stranded = state.delays.stranded;
        for (due, task) in self.take_delays(state) {
            if task.doom() {
                state.delayed -= 1;
                state.cancelled += 1;
                // That it was due and found no thread is no fault of whoever delayed it.
                state.lost += u64::from(due <= stranded);
                doomed.delays.push(task);
            } else {
                doomed.claimed.push(task);
            }
        }
    }

    /// Takes all entries out, in no particular order, and has the timer forget the pool.
    fn take_delays(&self, state: &mut State) -> impl Iterator<Item = (u64, Arc<dyn AnyTask>)> {
        let told = self.call_at(state, NEVER);
        debug_assert!(told.is_ok(), "it takes no thread to be called by none");
        state.delays.heap.take().into_iter()
    }
}
