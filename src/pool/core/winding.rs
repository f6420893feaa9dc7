//! The end of a pool: closing it, cutting it off, abandoning it, and what the registry's shutdown asks of it.

use super::crew::{for_an_end, Worker};
use super::{Core, State};
use crate::contain;
use crate::context::{Wait, Whose};
use crate::queue::job::{Doom, HandBack, Job, Resolve};
use crate::queue::Intake;
use crate::registry::ended::{self, EndedThread};
use crate::registry::helper::Helper;
use crate::registry::member::{Circle, Doomed, Member, Tally};
use crate::registry::report::{PoolPhase, PoolReport, PoolStats, RunningTask};
use crate::rejected::RejectReason;
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, ThreadId};
use crate::sync::Instant;
use crate::task::cell::AnyTask;
use crate::task::slot::{Ended, Sighting, Slot};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

impl Core {
    pub(in crate::pool) fn close_intake(&self, intake: Intake, refusal: RejectReason) {
        let mut state = self.state.lock();
        let doomed = self.narrow(&mut state, intake, refusal);
        self.wake(state, None);
        self.signal();
        self.retire_if_done();
        Box::new(doomed).bury();
    }

    /// Returns what is delayed, and cancelled by this, if the pool was open.
    #[must_use]
    fn narrow(&self, state: &mut State, intake: Intake, refusal: RejectReason) -> DoomedTasks {
        let mut doomed = DoomedTasks::default();
        if state.queue.intake() == Intake::Open {
            state.refusal = refusal;
            state.closed_at = Some(Instant::now());
            self.doom_delays(state, &mut doomed);
        }
        state.queue.narrow(&self.injector, intake, self.refuses_own(intake));
        state.rouse_submitters();
        self.close_if_drained(state);
        doomed
    }

    /// Closes for good, and claims everything that is queued or delayed for cancellation.
    fn doom_queue(&self, state: &mut State) -> DoomedTasks {
        let jobs = self.take_queue(state);
        let mut doomed = DoomedTasks::default();
        self.doom_delays(state, &mut doomed);
        jobs.into_iter().for_each(|job| state.lost += state.doom(job, &mut doomed));
        doomed
    }

    /// Closes for good, and takes all that is queued, backlogs of limits included.
    fn take_queue(&self, state: &mut State) -> VecDeque<Job<Slot>> {
        state.closed_at.get_or_insert_with(Instant::now);
        self.close_for_good(state);
        let mut jobs = std::mem::take(&mut state.held);
        jobs.extend(state.queue.take_all(&self.injector));
        jobs.extend(state.take_backlogs());
        jobs
    }

    /// Closes for good, tells the running tasks to stop, and gives back what is queued and may leave the pool; and, to be
    /// buried, what may not.
    pub(in crate::pool) fn hand_back(&self) -> (Vec<Job<Slot>>, Box<dyn Doomed>) {
        let mut state = self.state.lock();
        if state.queue.intake() == Intake::Open {
            state.refusal = RejectReason::Closed;
        }
        let mut returned = Vec::new();
        let mut doomed = DoomedTasks::default();
        self.doom_delays(&mut state, &mut doomed);
        for mut job in self.take_queue(&mut state) {
            match job.hand_back() {
                HandBack::Yes => {
                    state.returned += 1;
                    returned.push(job);
                }
                HandBack::Gone => {
                    state.queue.hollowed(-1);
                    doomed.jobs.push_back(job);
                }
                HandBack::Never => {
                    state.doom(job, &mut doomed);
                }
            }
        }
        self.tell_to_stop();
        self.wake(state, None);
        self.signal();
        (returned, Box::new(doomed))
    }

    /// Tells the running tasks to stop, once the queue has been taken: a worker takes from its own end of it without the lock,
    /// so one whose task stopped before that would start the next, only to have it stopped, too, or abandoned.
    fn tell_to_stop(&self) {
        // Pairs with the Acquire in `told_to_stop`: whoever stops for this finds the queue empty.
        self.told.store(true, Ordering::Release);
    }

    pub(in crate::pool) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::pool) fn drop_handle(self: &Arc<Core>) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 && !self.is_stale() {
            self.bring_due(usize::MAX);
            self.close_intake(Intake::Own, RejectReason::Closed);
        }
    }

    /// Takes the pool out of the registry when nothing of it is left to wind down and nobody can ask for it.
    pub(in crate::pool) fn retire_if_done(&self) {
        let mut state = self.state.lock();
        let is_deserted =
            state.crew.values().all(|worker| worker.thread.is_none()) && state.joining.is_empty();
        let is_done = state.queue.intake() == Intake::Closed && is_deserted && state.winders == 0;
        // A handle may still ask for a shutdown, which has threads to join.
        let has_work = !self.over.load(Ordering::Relaxed) || !state.ended_threads.is_empty();
        let is_wanted = self.handles.load(Ordering::Acquire) > 0 && has_work;
        if !is_done || is_wanted || state.is_retired {
            return;
        }
        state.is_retired = true;
        drop(state);
        self.over.store(true, Ordering::Release);
        self.registry.retire_member(self.key, || {
            let ended = std::mem::take(&mut self.state.lock().ended_threads);
            // Nobody waits for a daemon's threads.
            if self.config.is_daemon {
                Vec::new()
            } else {
                ended
            }
        });
    }

    /// The wait of a call that shuts this pool down. It is over when the call returns, and not when an earlier one has.
    pub(in crate::pool) fn wait_for_shutdown(&self) -> Wait {
        Wait::End { of: Whose::Pool(self.id), over: Arc::default(), ends: !self.config.is_daemon }
    }

    /// `on_thread_start` panicked, or `worker_state`: the pool has no usable worker.
    pub(in crate::pool) fn break_down(&self) {
        let mut state = self.state.lock();
        state.refusal = RejectReason::Broken;
        let doomed = self.doom_queue(&mut state);
        // Dropping captures may hang; then the handles resolve at the deadline.
        state.unburied.extend(doomed.handles());
        self.wake(state, None);
        self.signal();
        Box::new(doomed).bury();
        let buried = std::mem::take(&mut self.state.lock().unburied);
        drop(buried);
    }

    /// The innermost task that the thread of `slot` runs.
    pub(in crate::pool) fn innermost(&self, slot: &Slot) -> Option<RunningTask> {
        slot.innermost().map(|seen| self.name_task(&slot.name, seen))
    }

    fn name_task(&self, worker: &Arc<str>, seen: Sighting) -> RunningTask {
        RunningTask {
            pool: self.name.clone(),
            worker: worker.clone(),
            location: seen.location,
            label: seen.label,
            running_for: Duration::from_nanos(seen.nanos),
        }
    }
}

impl Member for Core {
    fn is_daemon(&self) -> bool {
        self.config.is_daemon
    }

    fn on_time(self: Arc<Core>, most: usize) {
        if !self.is_stale() {
            self.bring_due(most);
        }
        if let Some(core) = Arc::into_inner(self) {
            // It was dropped everywhere else meanwhile. What its callbacks captured is code of others.
            let event = core.registry.event().clone();
            Helper::new("winddown-drop").start(&event, move || contain::drop_quietly(core));
        }
    }

    fn close(&self, circle: Circle) -> Box<dyn Doomed> {
        let mut state = self.state.lock();
        state.winders += 1;
        let doomed = match circle {
            Circle::Own => self.narrow(&mut state, Intake::Own, RejectReason::Closed),
            Circle::Registry => self.narrow(&mut state, Intake::Registry, RejectReason::ShuttingDown),
        };
        self.wake(state, None);
        self.signal();
        Box::new(doomed)
    }

    fn tally(&self) -> Tally {
        let state = self.state.lock();
        Tally {
            settled: state.settled() + state.blocked_tasks(for_an_end),
            accepted: state.queue.accepted(&self.injector),
        }
    }

    fn seal(&self) -> bool {
        let mut state = self.state.lock();
        let is_sealed = state.queue.intake() == Intake::Closed || self.close_if_quiet(&mut state);
        self.wake(state, None);
        is_sealed
    }

    fn cut_off(&self) -> Box<dyn Doomed> {
        let mut state = self.state.lock();
        if state.queue.intake() == Intake::Open {
            state.refusal = RejectReason::ShuttingDown;
        }
        let doomed = self.doom_queue(&mut state);
        self.tell_to_stop();
        self.wake(state, None);
        self.signal();
        Box::new(doomed)
    }

    fn abandon(&self) {
        let mut state = self.state.lock();
        let is_any_between = |state: &State| state.crew.values().any(Worker::is_between_queue_and_task);
        // Looked at until nobody is in between, neither before the look, so that no task begins after it, nor after it: a task
        // that ended before it is counted by then, and one that ends from now on was seen.
        let mut seen = loop {
            let mut seen = BTreeMap::new();
            if !is_any_between(&state) {
                let look =
                    |worker: &Worker| (worker.slot.ended_bare(), worker.slot.bare(), worker.slot.cells());
                seen.extend(state.crew.iter().map(|(id, worker)| (*id, look(worker))));
                if !is_any_between(&state) {
                    break seen;
                }
            }
            drop(state);
            drop(seen); // With it, perhaps, the last of a task.
            thread::yield_now();
            state = self.state.lock();
        };
        let mut tasks: Vec<(RunningTask, Arc<dyn AnyTask>)> = Vec::new();
        let mut abandoned = Vec::new();
        let mut stuck = 0;
        for (id, worker) in &mut state.crew {
            if worker.given_up.is_some() || worker.is_waiting() {
                continue;
            }
            let name = worker.slot.name.clone();
            // The queue is empty and closed, and this holds its lock, so no task begins here; one that ends now is
            // counted by the thread, and frozen out of the count if it had not been at this moment.
            let Some((then, bare, cells)) = seen.remove(id) else { continue };
            if bare.is_none() && cells.is_empty() {
                continue;
            }
            let was_stuck = worker.is_stuck();
            worker.given_up = Some(if bare.is_some() { then } else { FROM_NOW_ON });
            // A thread that runs a task for once is never in that count.
            stuck += usize::from(worker.is_stuck()) - usize::from(was_stuck);
            abandoned.extend(bare.map(|seen| self.name_task(&name, seen)));
            for mut seen in cells {
                if let Some(task) = seen.task.take() {
                    tasks.push((self.name_task(&name, seen), task));
                }
            }
        }
        state.stuck += stuck;
        state.abandoned.extend(abandoned);
        let unburied = std::mem::take(&mut state.unburied);
        drop(state);
        unburied.iter().for_each(|handle| handle.resolve_cancelled());
        // Wakes whoever waits for them, which is code that is not ours. A task that ends by itself first is counted
        // by its thread: its cell decides.
        for (task, cell) in tasks {
            if cell.abandon() {
                self.state.lock().abandoned.push(task);
            }
        }
        self.signal();
    }

    fn threads_left(&self, by: Circle) -> usize {
        let state = self.state.lock();
        let left = |worker: &&Worker| worker.thread.is_some() && !worker.cannot_be_joined(by);
        // A thread that another shutdown joins may be the caller, in its last thread-local destructors.
        let me = contain::run(|| thread::current().id()).ok();
        let joining = state.joining.iter().filter(|thread| Some(**thread) != me).count();
        state.crew.values().filter(left).count() + joining
    }

    fn take_ended(&self) -> Vec<EndedThread> {
        let mut state = self.state.lock();
        let taken = ended::take_others(&mut state.ended_threads);
        state.joining.extend(taken.iter().map(EndedThread::id));
        taken
    }

    fn joined(&self, threads: &[ThreadId]) {
        let mut state = self.state.lock();
        state.joining.retain(|thread| !threads.contains(thread));
        state.joined += threads.len();
        drop(state);
        self.signal();
        self.retire_if_done();
    }

    fn finish(&self) {
        let mut state = self.state.lock();
        state.winders -= 1;
        let took = state.closed_at.map_or(Duration::ZERO, |closed_at| closed_at.elapsed());
        state.took.get_or_insert(took);
        drop(state);
        self.over.store(true, Ordering::Release);
        self.signal();
        self.retire_if_done();
    }

    fn stats(&self) -> PoolStats {
        let mut stats = PoolStats::empty(&self.name, self.config.is_daemon, PoolPhase::Closed);
        stats.rejected = self.rejected.load(Ordering::Relaxed);
        if self.is_stale() {
            return stats;
        }
        let state = self.state.lock();
        let ended = state.ended();
        stats.threads = state.threads;
        stats.idle = state.queue.asleep();
        stats.peak_threads = state.peak_threads;
        stats.queued = state.queue.waiting(&self.injector);
        let living = state.crew.values().filter(|worker| worker.given_up.is_none());
        stats.running = living.map(|worker| worker.slot.depth() as u64).sum();
        stats.accepted = state.queue.accepted(&self.injector);
        stats.completed = ended.completed;
        stats.panicked = ended.panicked;
        stats.cancelled = state.cancelled;
        stats.returned = state.returned;
        stats.delayed = state.delayed;
        stats.abandoned = state.abandoned.len() as u64;
        stats.phase = match state.queue.intake() {
            Intake::Open => PoolPhase::Open,
            Intake::Registry | Intake::Own => PoolPhase::Draining,
            Intake::Closed => PoolPhase::Closed,
        };
        stats
    }

    fn running(&self) -> Vec<RunningTask> {
        if self.is_stale() {
            return Vec::new();
        }
        let state = self.state.lock();
        let mut tasks = Vec::new();
        for worker in state.crew.values().filter(|worker| worker.given_up.is_none()) {
            let seen = worker.slot.bare().into_iter().chain(worker.slot.cells());
            tasks.extend(seen.map(|seen| self.name_task(&worker.slot.name, seen)));
        }
        tasks
    }

    fn report(&self) -> PoolReport {
        let stats = self.stats();
        let state = self.state.lock();
        PoolReport {
            stats,
            abandoned: state.abandoned.clone(),
            lost: state.lost,
            workers_joined: state.joined,
            elapsed: state.took.unwrap_or_default(),
        }
    }
}

/// For a worker that was given up while it ran no task without a handle: it counts whatever it counted, and it starts
/// no task any more.
const FROM_NOW_ON: Ended = Ended { completed: u64::MAX, panicked: u64::MAX };

impl State {
    /// Claims a job for cancellation. Returns how many tasks that cancels: none where it is hollow. Such a job comes along,
    /// as dropping it may run code that is not ours.
    fn doom(&mut self, mut job: Job<Slot>, doomed: &mut DoomedTasks) -> u64 {
        let count = match job.doom() {
            Doom::Gone => {
                self.queue.hollowed(-1);
                0
            }
            Doom::Silent => 1,
            Doom::Awaited(handle) => {
                doomed.handles.push(handle);
                1
            }
        };
        self.cancelled += count;
        doomed.jobs.push_back(job);
        count
    }
}

/// What a deadline, or a broken pool, cancels, and delays that are not due when their pool closes.
#[derive(Default)]
pub(super) struct DoomedTasks {
    jobs: VecDeque<Job<Slot>>,
    handles: Vec<Arc<dyn Resolve>>,
    pub(super) delays: Vec<Arc<dyn AnyTask>>,
    /// Delays that somebody else has claimed, who counts them and resolves their handles.
    pub(super) claimed: Vec<Arc<dyn AnyTask>>,
}

impl DoomedTasks {
    fn handles(&self) -> Vec<Arc<dyn Resolve>> {
        let of_delays = self.delays.iter().map(|task| task.clone().resolver());
        self.handles.iter().cloned().chain(of_delays).collect()
    }
}

impl Doomed for DoomedTasks {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.delays.is_empty()
    }

    fn bury(self: Box<Self>) {
        drop((self.handles, self.claimed));
        self.jobs.into_iter().for_each(drop);
        self.delays.into_iter().for_each(|task| task.discard());
    }

    fn undertaker(&self) -> Box<dyn FnOnce() + Send> {
        let handles = self.handles();
        Box::new(move || handles.iter().for_each(|handle| handle.resolve_cancelled()))
    }
}
