//! The inside of a pool: its queue, its workers, and the one lock that both are behind.
//!
//! # The promise, and why it holds
//!
//! *A task that was accepted is settled.* What decides that is done under [`Core::state`], or by the queue's words:
//!
//! * **Submit against close, and against sleep.** See [`queue`](crate::queue).
//! * **Submit against the end of a worker.** A task is queued only while a worker thread is alive (else the gate is
//!   shut, and the first thread is started under the lock; if that fails the task is refused). A worker decides to end,
//!   and is taken out of the count of threads, in one critical section, in which it has seen the queue empty or knows of
//!   another that looks. So as long as a task is queued there is a worker that has not decided to end, and it looks at
//!   the queue again before it does. Only a worker that is blocked in a wait does not: see [`Core::block`].
//! * **Idle expiry against submit.** The clock of a sleeper may run out and a submitter may call it before it gets the
//!   lock back. It finds that it was called and stays. If it gets the lock first, it ends, and the submitter finds it
//!   gone; the last one ends only if it shuts the gate of an empty queue. `tests::an_expiring_worker_looks_again` stops a
//!   worker in between.
//! * **Cancel against start.** A task with a handle leaves its state `Queued` once, under its cell's lock.
//! * **Start against deadline.** A worker says that it reaches for a task before it takes one from its own queue, without
//!   the lock; a deadline that finds the task gone from there waits until the worker shows it: see [`Slot::reach`].
//!
//! Locks are taken in the order registry, core, then cell, slot or timer; no user code runs under any of them, nothing is joined
//! and nothing is logged.

mod blocking;
mod crew;
mod delays;
mod limits;
mod lobby;
mod submit;
mod winding;
mod working;

use self::crew::{for_an_end, Worker};
use self::delays::Delays;
use self::limits::Backlog;
pub(super) use self::limits::{Permit, Ticket};
use self::lobby::Lobby;
pub(super) use self::lobby::Seat;
pub(super) use self::submit::{Entry, IfFull};
use super::worker::WorkerCx;
use crate::context::{self, Wait};
use crate::os::Generation;
use crate::queue::injector::Injector;
use crate::queue::job::{Job, Resolve};
use crate::queue::{Intake, Queue};
use crate::registry::ended::EndedThread;
use crate::registry::report::RunningTask;
use crate::registry::Registry;
use crate::rejected::RejectReason;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::event::Event;
use crate::sync::thread::ThreadId;
use crate::sync::Instant;
use crate::sync::Mutex;
use crate::task::cell::{AnyTask, Place};
use crate::task::slot::{Ended, Slot};
use crate::task::{InPlace, Owner};
use crate::{FollowUps, WhenFull};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

type Callback<R> = Arc<dyn Fn() -> R + Send + Sync>;
type PanicCallback = Arc<dyn Fn(&RunningTask, &(dyn Any + Send)) + Send + Sync>;

/// What a pool calls on its threads.
#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    pub(crate) on_start: Option<Callback<()>>,
    pub(crate) make_state: Option<Callback<Box<dyn Any>>>,
    pub(crate) on_stop: Option<Callback<()>>,
    /// Also on a thread that runs a task for once.
    pub(crate) on_panic: Option<PanicCallback>,
}

impl Callbacks {
    fn is_empty(&self) -> bool {
        let Callbacks { on_start, make_state, on_stop, on_panic } = self;
        on_start.is_none() && make_state.is_none() && on_stop.is_none() && on_panic.is_none()
    }
}

/// What the builder decided.
pub(crate) struct Config {
    pub(crate) max_threads: usize,
    pub(crate) min_threads: usize,
    pub(crate) keep_alive: Duration,
    pub(crate) stack_size: Option<usize>,
    pub(crate) queue_capacity: Option<usize>,
    pub(crate) when_full: WhenFull,
    pub(crate) follow_ups: FollowUps,
    pub(crate) is_daemon: bool,
    /// Called by a worker between its time-out and its look at the queue; says whether it may look.
    #[cfg(test)]
    pub(crate) on_timeout: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

pub(crate) struct Core {
    callbacks: Mutex<Callbacks>,
    /// Whether there were any.
    pub(super) has_callbacks: bool,
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    /// Its key among the members of the registry.
    key: u64,
    born: Generation,
    /// Handles that keep the pool open.
    handles: AtomicUsize,
    rejected: AtomicU64,
    /// Running tasks are to stop.
    told: AtomicBool,
    /// Tasks are queued that no thread is left to run: whoever is blocked in a wait on one of the pool's threads has
    /// to. A hint; what is true is under the lock.
    stranded: AtomicBool,
    /// A shutdown of the pool is over.
    over: AtomicBool,
    /// Where submissions go without the lock.
    injector: Injector<Job<Slot>>,
    pub(super) state: Mutex<State>,
    /// Threads that are not ours wait on it for the pool to be idle: they are not to be woken by other pools, nor are
    /// other pools to wake them.
    rest: Event,
}

/// Everything here is behind [`Core::state`].
pub(super) struct State {
    pub(super) queue: Queue<Job<Slot>>,
    /// What submitters are told, once the intake is closed to them.
    refusal: RejectReason,
    /// Who runs tasks: worker threads, and threads of others that do so for once.
    pub(super) crew: BTreeMap<usize, Worker>,
    next_worker: usize,
    threads: usize,
    /// Those that will not look at the queue again by themselves.
    stuck: usize,
    peak_threads: usize,
    /// What the workers that left had ended.
    past: Ended,
    cancelled: u64,
    /// Of those, the ones that count as losses.
    lost: u64,
    /// Handed back unstarted.
    returned: u64,
    /// Accepted and neither due nor cancelled.
    delayed: u64,
    delays: Delays,
    abandoned: Vec<RunningTask>,
    /// Handles that a broken pool has yet to resolve.
    unburied: Vec<Arc<dyn Resolve>>,
    lobby: Lobby,
    /// Jobs that workers have taken out of the queue and put down again while they wake submitters.
    held: VecDeque<Job<Slot>>,
    /// What of each limit is out, or waits, while there is anything.
    limits: BTreeMap<u64, Backlog>,
    ended_threads: Vec<EndedThread>,
    /// Ended threads that somebody has taken and not joined yet, and those that were joined.
    joining: Vec<ThreadId>,
    joined: usize,
    /// Shutdowns of this pool that are under way.
    winders: usize,
    closed_at: Option<Instant>,
    took: Option<Duration>,
    is_retired: bool,
}

impl State {
    /// Tasks that are over.
    fn settled(&self) -> u64 {
        let ended = self.ended();
        ended.completed + ended.panicked + self.cancelled + self.returned + self.abandoned.len() as u64
    }

    fn ended(&self) -> Ended {
        self.crew.values().fold(self.past, |sum, worker| {
            let ended = worker.ended();
            Ended { completed: sum.completed + ended.completed, panicked: sum.panicked + ended.panicked }
        })
    }

    fn blocked_tasks(&self, counts: impl Fn(&Wait) -> bool) -> u64 {
        self.crew.values().map(|worker| worker.blocked_tasks(&counts)).sum()
    }

    /// Whether no task is left that a drain waits for, and so nobody inside who could submit.
    fn is_quiet(&self, injector: &Injector<Job<Slot>>) -> bool {
        // Read before `accepted`: see `registry::drain`.
        let settled = self.settled() + self.blocked_tasks(for_an_end);
        settled >= self.queue.accepted(injector)
    }

    /// Worker threads that will look at the queue again by themselves.
    fn active(&self) -> usize {
        self.threads - self.stuck
    }

    /// Ends a critical section, as [`Queue::settle`] does, which knows nothing of what is [put down](State::held): somebody
    /// has to come for that, too.
    #[must_use]
    fn settle(&mut self, injector: &Injector<Job<Slot>>) -> Option<usize> {
        match self.held.is_empty() {
            true => self.queue.settle(injector),
            false => self.queue.settle_with(injector, true),
        }
    }

    /// Changes a worker, if it is there.
    fn change<R>(&mut self, id: usize, change: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        let worker = self.crew.get_mut(&id)?;
        let was_stuck = worker.is_stuck();
        let result = change(worker);
        self.stuck = self.stuck + usize::from(worker.is_stuck()) - usize::from(was_stuck);
        Some(result)
    }

    /// Workers that have just ended a task and are about to look at the queue: they take a new task sooner than a new
    /// thread could.
    fn between(&self) -> usize {
        let is_coming = |worker: &&Worker| {
            worker.thread.is_some() && !worker.is_leaving && !worker.is_stuck() && worker.slot.is_between()
        };
        self.crew.values().filter(is_coming).count()
    }
}

impl Core {
    pub(super) fn new(
        name: Arc<str>,
        config: Config,
        callbacks: Callbacks,
        registry: Registry,
        key: u64,
    ) -> Core {
        let (queue, injector) = Queue::new(config.max_threads == 1, config.queue_capacity);
        Core {
            has_callbacks: !callbacks.is_empty(),
            callbacks: Mutex::new(callbacks),
            id: crate::registry::unique_id(),
            name,
            config,
            key,
            born: registry.born(),
            registry,
            handles: AtomicUsize::new(1),
            rejected: AtomicU64::new(0),
            told: AtomicBool::new(false),
            stranded: AtomicBool::new(false),
            over: AtomicBool::new(false),
            injector,
            state: Mutex::new(State {
                queue,
                refusal: RejectReason::Closed,
                crew: BTreeMap::new(),
                next_worker: 0,
                threads: 0,
                stuck: 0,
                peak_threads: 0,
                past: Ended::default(),
                cancelled: 0,
                lost: 0,
                returned: 0,
                delayed: 0,
                delays: Delays::default(),
                abandoned: Vec::new(),
                unburied: Vec::new(),
                lobby: Lobby::default(),
                held: VecDeque::new(),
                limits: BTreeMap::new(),
                ended_threads: Vec::new(),
                joining: Vec::new(),
                joined: 0,
                winders: 0,
                closed_at: None,
                took: None,
                is_retired: false,
            }),
            rest: Event::default(),
        }
    }

    /// Has everyone look again who waits for something of this pool.
    pub(super) fn signal(&self) {
        self.rest.signal();
        self.registry.event().signal();
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.config.queue_capacity.is_some()
    }

    #[inline]
    pub(super) fn is_stale(&self) -> bool {
        self.born.is_past()
    }

    /// Runs a job on the current thread, which shows its tasks in `slot`.
    pub(super) fn run(&self, job: Job<Slot>, slot: &Slot) {
        if !job.run(slot) {
            self.state.lock().queue.hollowed(-1);
        }
    }

    /// A pool that drains on its own is closed for good as soon as no task is left that could submit.
    fn close_if_drained(&self, state: &mut State) {
        if state.queue.intake() == Intake::Own {
            self.close_if_quiet(state);
        }
    }

    /// Closes for good if no task is left that could submit; for a pool that is not open. Says whether none was.
    fn close_if_quiet(&self, state: &mut State) -> bool {
        // Looked at twice. A task that counts as finished, because it is blocked, may be back between a look and the gates,
        // and submit to its worker's queue, which needs no lock. The first look is for all the times at which it is not quiet.
        if !state.is_quiet(&self.injector) {
            return false;
        }
        state.queue.gate_own(true);
        let is_quiet = state.is_quiet(&self.injector);
        if is_quiet {
            self.close_for_good(state);
        } else {
            state.queue.gate_own(self.refuses_own(state.queue.intake()));
        }
        is_quiet
    }

    fn close_for_good(&self, state: &mut State) {
        if state.queue.intake() == Intake::Closed {
            return;
        }
        state.queue.narrow(&self.injector, Intake::Closed, true);
        let sleepers = state.queue.sleepers().filter_map(|id| state.crew.get(id));
        sleepers.for_each(|worker| worker.bed.notify_one());
        state.rouse_submitters();
    }

    // ---- looking ----

    /// Waits until nothing is queued or runs, or until `until`. `from_inside` a task or a hook, tasks that are blocked
    /// in a wait themselves do not count, and tasks that nobody is left to run are run here.
    pub(super) fn wait_idle(&self, until: Option<Instant>, from_inside: bool) -> bool {
        if !from_inside {
            return self.rest.wait(|| until, || self.is_idle(false));
        }
        let look = || {
            while context::help() {}
            self.is_idle(true)
        };
        self.registry.event().wait(|| until, look)
    }

    /// Whether nothing is queued or runs; `from_inside`, tasks that are blocked in a wait do not count.
    fn is_idle(&self, from_inside: bool) -> bool {
        let state = self.state.lock();
        let blocked = match from_inside {
            true => state.blocked_tasks(|wait| matches!(wait, Wait::Idle(_)) || for_an_end(wait)),
            false => 0,
        };
        state.settled() + state.delayed + blocked >= state.queue.accepted(&self.injector)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_stale() || self.state.lock().queue.intake() != Intake::Open
    }

    /// Whether running tasks are to stop.
    pub(super) fn told_to_stop(&self) -> bool {
        // Pairs with the Release in `tell_to_stop`.
        self.told.load(Ordering::Acquire)
    }
}

impl Owner for Core {
    fn born(&self) -> Generation {
        self.born
    }

    fn count_cancelled(&self, place: &dyn Fn() -> Place) {
        let mut state = self.state.lock();
        let mut swept = Vec::new();
        match place() {
            Place::Queue => {
                state.cancelled += 1;
                state.queue.hollowed(1);
            }
            Place::Delays => {
                state.cancelled += 1;
                state.delayed -= 1;
                swept = self.sweep_delays(&mut state);
            }
            Place::Outside => {}
        }
        self.close_if_drained(&mut state);
        let is_closed = state.queue.intake() == Intake::Closed;
        self.wake(state, None);
        self.signal();
        if is_closed {
            // There may be no thread left that would do so when it goes: the drop of what the task had captured, which came
            // before this, may have taken longer than idle threads are kept.
            self.retire_if_done();
        }
        drop(swept);
    }

    fn run_in_place(&self, task: &dyn Fn() -> Arc<dyn AnyTask>) -> InPlace {
        self.run_where_inside(task, |_, _| InPlace::Settled)
    }
}

impl Core {
    fn is_in_task_of(&self, cx: &WorkerCx) -> bool {
        cx.core.id == self.id && cx.slot.depth() > 0
    }

    /// Whether the current thread is inside a task of this pool, be it within one of another pool.
    pub(super) fn is_on_stack(&self) -> bool {
        context::find_host(|cx: &WorkerCx| self.is_in_task_of(cx).then_some(())).is_some()
    }

    /// Whether the current thread is in one of the pool's callbacks.
    pub(super) fn is_in_callback(&self) -> bool {
        let is_idle = |cx: &WorkerCx| (cx.core.id == self.id && cx.slot.depth() == 0).then_some(());
        context::find_host(is_idle).is_some()
    }

    /// What [`Owner::run_in_place`] says; `may_run` is asked whether it may be run, for one that is in the queue.
    fn run_where_inside(
        &self,
        task: &dyn Fn() -> Arc<dyn AnyTask>,
        may_run: impl Fn(&WorkerCx, &mut State) -> InPlace,
    ) -> InPlace {
        let mut found = None;
        context::find_host(|cx: &WorkerCx| -> Option<()> {
            if self.is_in_task_of(cx) {
                let task = found.get_or_insert_with(task);
                assert!(
                    !cx.slot.is_inside(task),
                    "the task submitted at {} was joined inside itself, where it could never end",
                    task.location()
                );
            }
            None
        });
        let Some(task) = found else { return InPlace::Settled };
        let mut may_run = Some(may_run);
        // Of several, one within another, the innermost. It need not be the innermost of all: a task of this pool may have
        // submitted one of another pool, found its queue full, and run it itself.
        let verdict = context::find_host(|cx: &WorkerCx| {
            let may_run = may_run.take_if(|_| self.is_in_task_of(cx))?;
            let mut state = self.state.lock();
            let verdict = match task.place() {
                Place::Queue => may_run(cx, &mut state),
                Place::Delays => InPlace::NotYet,
                // It is with whoever called `shutdown_now`, or on its way there. That may wait for the current task.
                Place::Outside => InPlace::Settled,
            };
            if verdict == InPlace::NotYet {
                return Some(verdict);
            }
            // A deadline that has taken the queue by now finds this thread reaching, and waits until it has counted what it
            // claims: it would count that as queued and as abandoned.
            cx.slot.reach();
            drop(state);
            let has_run = self.run_joined(cx, &task);
            if !has_run {
                cx.slot.rest();
            }
            if has_run && !self.is_stale() {
                self.signal();
            }
            // Another thread runs it, which may come to wait for one that nobody else is left to run.
            let is_elsewhere = !has_run && !task.is_finished();
            Some(if is_elsewhere { InPlace::NotYet } else { InPlace::Settled })
        });
        verdict.unwrap_or(InPlace::Settled)
    }

    /// Runs a task on the thread of `cx`, in the place of a wait for it. Says whether it ran.
    fn run_joined(&self, cx: &WorkerCx, task: &Arc<dyn AnyTask>) -> bool {
        let run = || task.clone().run(&cx.slot, &|| self.count_claimed(&**task, &cx.slot));
        let is_innermost =
            context::with_host(|top: Option<&WorkerCx>| top.is_some_and(|top| ptr::eq(top, cx)));
        match is_innermost {
            true => run(),
            // The thread runs a task of another pool within one of this.
            false => context::enter_worker(cx, run),
        }
    }

    /// Counts a task that was claimed to be run elsewhere than where it is.
    fn count_claimed(&self, task: &dyn AnyTask, slot: &Slot) {
        let mut state = self.state.lock();
        match task.place() {
            Place::Queue => state.queue.hollowed(1),
            // Moved since it was looked for.
            Place::Delays => state.delayed -= 1,
            // It is counted as one that ran.
            Place::Outside => state.returned -= 1,
        }
        // Wakers are code of others.
        slot.rest();
        self.wake(state, None);
    }
}
