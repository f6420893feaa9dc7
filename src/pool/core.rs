//! The inside of a pool: its queue, its workers, and the one lock that both are behind.
//!
//! # The promise, and why it holds
//!
//! *A task that was accepted is settled.* Everything that decides it is done under [`Core::state`]:
//!
//! * **Submit against close.** See [`Intake`]: accepting and closing are critical sections of the same lock.
//! * **Submit against the end of a worker.** A task is queued only while a worker thread is alive (else the first
//!   thread is started under the same lock, and if that fails the task is refused). A worker decides to end, and is
//!   taken out of the crew, in one critical section, in which it has seen the queue empty. So as long as a task is
//!   queued there is a worker that has not decided to end, and it looks at the queue again before it does.
//! * **Submit against sleep.** A worker counts itself idle in the critical section in which it saw the queue empty. A
//!   submitter that finds an idle worker takes it out of that count and leaves a token for it, in the critical section
//!   in which it queues the task, unless a token is out already; then whoever answers that one leaves the next (see
//!   [`Core::call_sleeper`]). A sleeper that wakes up, for whatever reason, looks for a token before it looks at the
//!   clock.
//! * **Idle expiry against submit.** The clock of a sleeper may run out and a submitter may leave it a token before it
//!   gets the lock back. It finds the token then and stays. If it gets the lock first, it ends, and the submitter finds
//!   it gone. `tests::an_expiring_worker_looks_again` stops a worker in between.
//! * **Cancel against start.** A task with a handle leaves its state `Queued` once, under its cell's lock.
//!
//! Locks are taken in the order registry, core, cell or slot; no user code runs under any of them, nothing is joined
//! and nothing is logged.

use super::worker::{self, WorkerCx};
use crate::context::{self, Frame, Wait};
use crate::os::Generation;
use crate::queue::job::{Doom, Job, Resolve, Work};
use crate::queue::{Intake, Queue};
use crate::registry::ended::{self, EndedThread, Mark};
use crate::registry::member::{Circle, Doomed, Member, Tally};
use crate::registry::report::{PoolPhase, PoolReport, PoolStats, RunningTask};
use crate::registry::Registry;
use crate::rejected::RejectReason;
use crate::sync::{Condvar, Event, Mutex, MutexGuard};
use crate::task::cell::AnyTask;
use crate::task::slot::{Ended, Sighting, Slot};
use crate::task::Owner;
use crate::{contain, FollowUps};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) type Callback = Arc<dyn Fn() + Send + Sync>;

/// What the builder decided.
pub(crate) struct Config {
    pub(crate) max_threads: usize,
    pub(crate) min_threads: usize,
    pub(crate) keep_alive: Duration,
    pub(crate) stack_size: Option<usize>,
    pub(crate) follow_ups: FollowUps,
    pub(crate) is_daemon: bool,
    pub(crate) on_thread_start: Option<Callback>,
    pub(crate) on_thread_stop: Option<Callback>,
    /// Called by a worker between its time-out and its look at the queue; says whether it may look.
    #[cfg(test)]
    pub(crate) on_timeout: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

pub(crate) struct Core {
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
    pub(super) state: Mutex<State>,
    /// Idle workers sleep on it.
    work: Condvar,
    /// Threads that are not ours wait on it for the pool to be idle: they are not to be woken by other pools, nor are
    /// other pools to wake them.
    rest: Event,
}

/// Everything here is behind [`Core::state`].
pub(super) struct State {
    pub(super) queue: Queue<Slot>,
    /// What submitters are told, once the intake is closed to them.
    refusal: RejectReason,
    /// Who runs tasks: worker threads, and threads of others that do so for once.
    pub(super) crew: BTreeMap<usize, Worker>,
    next_worker: usize,
    threads: usize,
    peak_threads: usize,
    /// Workers that sleep and were not called.
    idle: usize,
    /// Calls to sleepers that none has answered yet.
    tokens: usize,
    /// What the workers that left had ended.
    past: Ended,
    cancelled: u64,
    /// Of those, the ones that count as losses.
    lost: u64,
    abandoned: Vec<RunningTask>,
    /// Handles that a broken pool has yet to resolve.
    unburied: Vec<Arc<dyn Resolve>>,
    ended_threads: Vec<EndedThread>,
    /// Ended threads that somebody has taken and not joined yet, and those that were joined.
    joining: usize,
    joined: usize,
    /// Shutdowns of this pool that are under way.
    winders: usize,
    closed_at: Option<Instant>,
    took: Option<Duration>,
    is_retired: bool,
}

pub(super) struct Worker {
    slot: Arc<Slot>,
    /// None for a thread that is not the pool's own.
    thread: Option<(JoinHandle<()>, Mark)>,
    /// The waits that the thread is blocked in, one within another.
    blocked: Vec<Blocked>,
    /// How many tasks the thread had ended when it took the job that it has not come back from.
    taken_at: Option<u64>,
    /// Its tasks were abandoned; the counts of tasks without a handle stand still from then on.
    given_up: Option<Ended>,
}

struct Blocked {
    wait: Wait,
    /// The tasks on the thread's stack, which count as finished.
    depth: usize,
}

impl Worker {
    fn ended(&self) -> Ended {
        let bare = self.slot.ended_bare();
        // A task that was abandoned ends some day and is counted by its thread; it is settled already.
        let bare = match self.given_up {
            Some(then) => Ended {
                completed: bare.completed.min(then.completed),
                panicked: bare.panicked.min(then.panicked),
            },
            None => bare,
        };
        let cells = self.slot.ended_cells();
        Ended { completed: bare.completed + cells.completed, panicked: bare.panicked + cells.panicked }
    }

    /// Whether the thread has a job in hand that is neither in the queue nor to be seen in the slot: it has taken it
    /// and not begun, or it is about to count it. None but a few of our own instructions lie on either way, so this
    /// may be waited out. It must be, before tasks are abandoned: the job would be missed.
    fn is_between_queue_and_task(&self) -> bool {
        // The count is read first: a task that ends in between was either seen or is counted.
        self.taken_at == Some(self.slot.ended()) && self.slot.is_empty()
    }

    /// The tasks of this thread that count as finished because it is blocked in a wait that `counts`.
    fn blocked_tasks(&self, counts: impl Fn(&Wait) -> bool) -> u64 {
        if self.given_up.is_some() {
            return 0;
        }
        let depths = self.blocked.iter().filter(|blocked| counts(&blocked.wait)).map(|blocked| blocked.depth);
        depths.max().unwrap_or(0) as u64
    }

    /// Whether the thread is blocked in a wait for an end.
    fn is_waiting(&self) -> bool {
        self.blocked.iter().any(|blocked| for_an_end(&blocked.wait))
    }

    /// Whether a shutdown that joins the thread might wait for ever, or for itself. That of a registry can rely on the
    /// shutdown of a single pool to end, since such a one waits for nobody who waits.
    fn cannot_be_joined(&self, by: Circle) -> bool {
        let hopeless = |wait: &Wait| match wait {
            Wait::End { ends: true, .. } if by == Circle::Registry => false,
            wait => for_an_end(wait),
        };
        self.given_up.is_some() || self.blocked.iter().any(|blocked| hopeless(&blocked.wait))
    }
}

/// Waits for an end, the thread's tasks count as finished for every drain; when it is over, they run again.
fn for_an_end(wait: &Wait) -> bool {
    match wait {
        Wait::End { over, .. } => !over.load(Ordering::Acquire),
        Wait::Idle => false,
    }
}

impl State {
    /// Tasks that are over.
    fn settled(&self) -> u64 {
        let ended = self.ended();
        ended.completed + ended.panicked + self.cancelled + self.abandoned.len() as u64
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
    fn is_quiet(&self) -> bool {
        // Read before `accepted`, although that cannot change here: see `registry::drain`.
        let settled = self.settled() + self.blocked_tasks(for_an_end);
        settled >= self.queue.accepted()
    }

    /// Worker threads that will look at the queue again by themselves.
    fn active(&self) -> usize {
        let stuck = |worker: &&Worker| {
            worker.thread.is_some() && (!worker.blocked.is_empty() || worker.given_up.is_some())
        };
        self.threads - self.crew.values().filter(stuck).count()
    }

    /// Workers that have just ended a task and are about to look at the queue: they take a new task sooner than a new
    /// thread could.
    fn between(&self) -> usize {
        let is_coming = |worker: &&Worker| {
            worker.thread.is_some()
                && worker.blocked.is_empty()
                && worker.given_up.is_none()
                && worker.slot.is_between()
        };
        self.crew.values().filter(is_coming).count()
    }
}

/// What a worker does next.
pub(super) enum Next {
    Run(Job<Slot>),
    Leave,
}

impl Core {
    pub(super) fn new(name: Arc<str>, config: Config, registry: Registry, key: u64) -> Core {
        Core {
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
            state: Mutex::new(State {
                queue: Queue::new(),
                refusal: RejectReason::Closed,
                crew: BTreeMap::new(),
                next_worker: 0,
                threads: 0,
                peak_threads: 0,
                idle: 0,
                tokens: 0,
                past: Ended::default(),
                cancelled: 0,
                lost: 0,
                abandoned: Vec::new(),
                unburied: Vec::new(),
                ended_threads: Vec::new(),
                joining: 0,
                joined: 0,
                winders: 0,
                closed_at: None,
                took: None,
                is_retired: false,
            }),
            work: Condvar::new(),
            rest: Event::default(),
        }
    }

    /// Has everyone look again who waits for something of this pool.
    fn signal(&self) {
        self.rest.signal();
        self.registry.event().signal();
    }

    pub(super) fn is_stale(&self) -> bool {
        self.born.is_past()
    }

    // ---- submitting ----

    /// Queues a task and sees to it that a worker comes for it, or gives it back with the reason.
    pub(super) fn submit<W: Work<Slot>>(
        self: &Arc<Core>,
        work: W,
        location: &'static Location<'static>,
    ) -> Result<(), (W, RejectReason)> {
        if self.is_stale() {
            return Err((work, RejectReason::Forked));
        }
        let mut state = self.state.lock();
        if state.queue.intake != Intake::Open && !self.admits(&state) {
            let refusal = state.refusal;
            drop(state);
            return Err((work, self.reject(refusal)));
        }
        // With no thread there is no task queued either, so the new thread comes upon this one first.
        if state.threads == 0 {
            if let Err(error) = self.start_worker(&mut state) {
                drop(state);
                contain::log(
                    log::Level::Warn,
                    format_args!("no first thread for pool {}: {error}", self.name),
                );
                return Err((work, self.reject(RejectReason::NoThread)));
            }
            state.queue.push(Job::new(work, location));
            return Ok(());
        }
        state.queue.push(Job::new(work, location));
        self.call_worker(state);
        Ok(())
    }

    fn reject(&self, reason: RejectReason) -> RejectReason {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        reason
    }

    /// Whether the current thread may submit although the pool is not open.
    fn admits(&self, state: &State) -> bool {
        if self.config.follow_ups == FollowUps::Reject {
            return false;
        }
        let from_task = |counts: &dyn Fn(&Core) -> bool| {
            context::with(|frame| match frame {
                Some(Frame::Worker(host)) if host.is_in_task() => {
                    host.as_any().downcast_ref::<WorkerCx>().is_some_and(|cx| counts(&cx.core))
                }
                _ => false,
            })
        };
        match state.queue.intake {
            Intake::Open => true,
            Intake::Own => from_task(&|core| core.id == self.id),
            Intake::Registry => {
                from_task(&|core| !core.config.is_daemon && core.registry.id() == self.registry.id())
            }
            Intake::Closed => false,
        }
    }

    /// Gets a worker for a task that was just queued: a sleeper, or a new thread, or nobody where enough are on their
    /// way.
    fn call_worker(self: &Arc<Core>, mut state: MutexGuard<'_, State>) {
        let has_called = self.call_sleeper(&mut state);
        let active = state.active();
        // Every idle worker is called in its turn while there are tasks for it; see `call_sleeper`.
        let coming = state.tokens + state.idle + state.between();
        if active > 0 && (state.threads >= self.config.max_threads || coming >= state.queue.len()) {
            drop(state);
            if has_called {
                self.work.notify_one();
            }
            return;
        }
        let started = self.start_worker(&mut state);
        let is_stranded = started.is_err() && active == 0;
        if is_stranded {
            self.stranded.store(true, Ordering::Relaxed);
        }
        drop(state);
        if has_called {
            self.work.notify_one();
        }
        if let Err(error) = started {
            contain::log(log::Level::Warn, format_args!("no further thread for pool {}: {error}", self.name));
        }
        if is_stranded {
            self.signal();
        }
    }

    /// Leaves a token for a sleeper, if there is a task for one and none is on its way; the caller notifies it.
    ///
    /// At the end of every critical section, if a task is queued and a worker is idle, a token is out: whoever queues a
    /// task and whoever takes one calls this. So as many sleepers wake up as there are tasks for, but each is woken by
    /// the one before it, and a burst of small tasks that one worker can keep up with does not wake them all.
    fn call_sleeper(&self, state: &mut State) -> bool {
        let is_due = state.idle > 0 && state.tokens == 0 && !state.queue.is_empty();
        if is_due {
            state.idle -= 1;
            state.tokens += 1;
        }
        is_due
    }

    /// Starts a thread, under the lock: the thread cannot look for itself in the crew before it is in it.
    fn start_worker(self: &Arc<Core>, state: &mut State) -> io::Result<()> {
        let id = state.next_worker;
        let name: Arc<str> = format!("{}-worker-{}", self.name, id + 1).into();
        let slot = Arc::new(Slot::new(name.clone()));
        let mark = Mark::default();
        let mut builder = std::thread::Builder::new().name(name.to_string());
        if let Some(size) = self.config.stack_size {
            builder = builder.stack_size(size);
        }
        let cx = WorkerCx::new(self.clone(), slot.clone(), id);
        let of_thread = mark.clone();
        let thread = builder.spawn(move || {
            of_thread.set_at_thread_exit();
            worker::run(cx);
        })?;
        state.next_worker += 1;
        state.threads += 1;
        state.peak_threads = state.peak_threads.max(state.threads);
        let worker = Worker { slot, thread: Some((thread, mark)), blocked: Vec::new(), taken_at: None, given_up: None };
        state.crew.insert(id, worker);
        Ok(())
    }

    // ---- the workers' side ----

    /// Waits for the next task, or for a reason to leave; a worker that is told to leave has left the crew.
    pub(super) fn next(&self, id: usize) -> Next {
        if self.is_stale() {
            return Next::Leave;
        }
        let mut state = self.state.lock();
        loop {
            let Some(worker) = state.crew.get_mut(&id) else { return Next::Leave };
            worker.taken_at = None;
            // Reason 1: its tasks were abandoned, and with them the worker.
            if worker.given_up.is_some() {
                return self.leave(state, id);
            }
            // Reason 2: it stood in for one that was blocked, and there are enough again.
            if state.active() > self.config.max_threads {
                // It may have been called for a task, which is somebody else's then.
                let has_called = self.call_sleeper(&mut state);
                let next = self.leave(state, id);
                if has_called {
                    self.work.notify_one();
                }
                return next;
            }
            if let Some(job) = state.queue.pop() {
                if let Some(worker) = state.crew.get_mut(&id) {
                    worker.slot.set_between(false);
                    worker.taken_at = Some(worker.slot.ended());
                }
                let has_called = self.call_sleeper(&mut state);
                drop(state);
                if has_called {
                    self.work.notify_one();
                }
                return Next::Run(job);
            }
            self.close_if_drained(&mut state);
            // Reason 3: nothing is left and nothing will come.
            if state.queue.intake == Intake::Closed {
                return self.leave(state, id);
            }
            state.crew[&id].slot.set_between(false);
            state.idle += 1;
            // Whoever waits for the pool to be idle, or quiet, looks now.
            self.signal();
            let mut until = match state.threads > self.config.min_threads {
                true => crate::sync::deadline(self.config.keep_alive),
                false => None,
            };
            loop {
                if state.tokens > 0 {
                    // The caller took one sleeper out of the idle ones already.
                    state.tokens -= 1;
                    break;
                }
                if state.queue.intake == Intake::Closed {
                    state.idle -= 1;
                    break;
                }
                let timed_out;
                (state, timed_out) = self.work.wait(state, until);
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
                // A token that was left between the time-out and the lock: somebody counts on this worker.
                if may_look && state.tokens > 0 {
                    continue;
                }
                if state.threads <= self.config.min_threads {
                    until = None;
                    continue;
                }
                // Reason 4: nobody needed it for as long as idle workers are kept.
                state.idle = state.idle.saturating_sub(1);
                return self.leave(state, id);
            }
        }
    }

    /// Takes a worker out of the crew, in the critical section in which it decided to end.
    fn leave(&self, mut state: MutexGuard<'_, State>, id: usize) -> Next {
        if let Some(worker) = state.crew.remove(&id) {
            let ended = worker.ended();
            state.past.completed += ended.completed;
            state.past.panicked += ended.panicked;
            if let Some((thread, mark)) = worker.thread {
                state.threads -= 1;
                state.ended_threads.push(EndedThread::new(thread, mark));
            }
        }
        // While a shutdown is under way it joins them all; until then those that are gone are not kept.
        let gone = match state.winders {
            0 => ended::take_gone(&mut state.ended_threads),
            _ => Vec::new(),
        };
        state.joined += gone.len();
        drop(state);
        ended::join_all(gone);
        self.signal();
        Next::Leave
    }

    /// Runs a job on the current thread, which shows its tasks in `slot`.
    pub(super) fn run(&self, job: Job<Slot>, slot: &Slot) {
        if !job.run(slot) {
            self.state.lock().queue.hollow_taken();
        }
    }

    /// A pool that drains on its own is closed for good as soon as no task is left that could submit.
    fn close_if_drained(&self, state: &mut State) {
        if state.queue.intake == Intake::Own && state.is_quiet() {
            self.close_for_good(state);
        }
    }

    fn close_for_good(&self, state: &mut State) {
        state.queue.intake = Intake::Closed;
        self.work.notify_all();
    }

    /// `on_thread_start` panicked: the pool has no usable worker.
    pub(super) fn break_down(&self) {
        let mut state = self.state.lock();
        state.refusal = RejectReason::Broken;
        let doomed = self.doom_queue(&mut state);
        // Dropping captures may hang; then the handles resolve at the deadline.
        state.unburied.extend(doomed.handles.iter().cloned());
        drop(state);
        self.signal();
        Box::new(doomed).bury();
        let buried = std::mem::take(&mut self.state.lock().unburied);
        drop(buried);
    }

    // ---- blocked threads ----

    pub(super) fn block(self: &Arc<Core>, id: usize, wait: Wait) {
        let mut state = self.state.lock();
        if let Some(worker) = state.crew.get_mut(&id) {
            let depth = worker.slot.depth();
            worker.blocked.push(Blocked { wait, depth });
        }
        self.close_if_drained(&mut state);
        if state.active() == 0 && !state.queue.is_empty() {
            self.call_worker(state);
        } else {
            drop(state);
        }
        self.signal();
    }

    pub(super) fn unblock(&self, id: usize) {
        if self.is_stale() {
            return;
        }
        let mut state = self.state.lock();
        if let Some(worker) = state.crew.get_mut(&id) {
            worker.blocked.pop();
        }
        drop(state);
        self.signal();
    }

    /// Runs one task on the current thread, which is blocked in a wait, if no thread of the pool can. Says whether it
    /// did.
    pub(super) fn help(self: &Arc<Core>) -> bool {
        if !self.stranded.load(Ordering::Relaxed) || self.is_stale() {
            return false;
        }
        let mut state = self.state.lock();
        let job = if state.active() == 0 { state.queue.pop() } else { None };
        let Some(job) = job else {
            self.stranded.store(false, Ordering::Relaxed);
            return false;
        };
        let id = state.next_worker;
        state.next_worker += 1;
        let slot = Arc::new(Slot::new(std::thread::current().name().unwrap_or("a blocked worker").into()));
        let guest = Worker { slot: slot.clone(), thread: None, blocked: Vec::new(), taken_at: Some(0), given_up: None };
        state.crew.insert(id, guest);
        drop(state);
        let cx = WorkerCx::new(self.clone(), slot, id);
        context::enter(&Frame::Worker(&cx), || self.run(job, &cx.slot));
        if self.is_stale() {
            return true;
        }
        let mut state = self.state.lock();
        self.close_if_drained(&mut state);
        self.leave(state, id);
        true
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
            true => state.blocked_tasks(|wait| matches!(wait, Wait::Idle) || for_an_end(wait)),
            false => 0,
        };
        state.settled() + blocked >= state.queue.accepted()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_stale() || self.state.lock().queue.intake != Intake::Open
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

    // ---- closing ----

    pub(super) fn close_intake(&self, intake: Intake, refusal: RejectReason) {
        let mut state = self.state.lock();
        self.narrow(&mut state, intake, refusal);
        drop(state);
        self.signal();
        self.retire_if_done();
    }

    fn narrow(&self, state: &mut State, intake: Intake, refusal: RejectReason) {
        if state.queue.intake == Intake::Open {
            state.refusal = refusal;
            state.closed_at = Some(Instant::now());
        }
        state.queue.intake = state.queue.intake.max(intake);
        self.close_if_drained(state);
    }

    /// Closes for good, and claims everything that is queued for cancellation.
    fn doom_queue(&self, state: &mut State) -> DoomedTasks {
        state.closed_at.get_or_insert_with(Instant::now);
        self.close_for_good(state);
        let (jobs, dooms) = state.queue.doom_all();
        let mut handles = Vec::new();
        for doom in dooms {
            match doom {
                Doom::Gone => continue,
                Doom::Silent => {}
                Doom::Awaited(handle) => handles.push(handle),
            }
            state.cancelled += 1;
            state.lost += 1;
        }
        DoomedTasks { jobs, handles }
    }

    pub(super) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 && !self.is_stale() {
            self.close_intake(Intake::Own, RejectReason::Closed);
        }
    }

    /// Takes the pool out of the registry when nothing of it is left to wind down and nobody can ask for it.
    pub(super) fn retire_if_done(&self) {
        let mut state = self.state.lock();
        let is_done = state.queue.intake == Intake::Closed && state.threads == 0 && state.winders == 0;
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
    pub(super) fn wait_for_shutdown(&self) -> Wait {
        Wait::End { over: Arc::default(), ends: !self.config.is_daemon }
    }
}

impl Owner for Core {
    fn born(&self) -> Generation {
        self.born
    }

    fn count_cancelled(&self) {
        let mut state = self.state.lock();
        state.cancelled += 1;
        state.queue.hollowed();
        self.close_if_drained(&mut state);
        drop(state);
        self.signal();
    }

    fn run_in_place(&self, task: &Arc<dyn AnyTask>) {
        context::with(|frame| {
            let Some(Frame::Worker(host)) = frame else { return };
            let Some(cx) = host.as_any().downcast_ref::<WorkerCx>() else { return };
            if cx.core.id != self.id || cx.slot.depth() == 0 {
                return;
            }
            assert!(
                !cx.slot.is_inside(task),
                "the task submitted at {} was joined inside itself, where it could never end",
                task.location()
            );
            let claimed = || self.state.lock().queue.hollowed();
            if task.clone().run(&cx.slot, &claimed) && !self.is_stale() {
                self.signal();
            }
        });
    }
}

impl Member for Core {
    fn is_daemon(&self) -> bool {
        self.config.is_daemon
    }

    fn close(&self, circle: Circle) {
        let mut state = self.state.lock();
        state.winders += 1;
        match circle {
            Circle::Own => self.narrow(&mut state, Intake::Own, RejectReason::Closed),
            Circle::Registry => self.narrow(&mut state, Intake::Registry, RejectReason::ShuttingDown),
        }
        drop(state);
        self.signal();
    }

    fn tally(&self) -> Tally {
        let state = self.state.lock();
        Tally { settled: state.settled() + state.blocked_tasks(for_an_end), accepted: state.queue.accepted() }
    }

    fn seal(&self) -> bool {
        let mut state = self.state.lock();
        let is_quiet = state.queue.intake == Intake::Closed || state.is_quiet();
        if is_quiet {
            self.close_for_good(&mut state);
        }
        is_quiet
    }

    fn cut_off(&self) -> Box<dyn Doomed> {
        let mut state = self.state.lock();
        if state.queue.intake == Intake::Open {
            state.refusal = RejectReason::ShuttingDown;
        }
        self.told.store(true, Ordering::Relaxed);
        let doomed = self.doom_queue(&mut state);
        drop(state);
        self.signal();
        Box::new(doomed)
    }

    fn abandon(&self) {
        let mut state = self.state.lock();
        while state.crew.values().any(Worker::is_between_queue_and_task) {
            drop(state);
            std::thread::yield_now();
            state = self.state.lock();
        }
        let mut tasks: Vec<(RunningTask, Arc<dyn AnyTask>)> = Vec::new();
        let mut abandoned = Vec::new();
        for worker in state.crew.values_mut() {
            if worker.given_up.is_some() || worker.is_waiting() {
                continue;
            }
            let name = worker.slot.name.clone();
            // The queue is empty and closed, and this holds its lock, so no task begins here; one that ends now is
            // counted by the thread, and frozen out of the count if it had not been at this moment.
            let then = worker.slot.ended_bare();
            let bare = worker.slot.bare();
            let cells = worker.slot.cells();
            if bare.is_none() && cells.is_empty() {
                continue;
            }
            worker.given_up = Some(if bare.is_some() { then } else { FROM_NOW_ON });
            abandoned.extend(bare.map(|seen| self.name_task(&name, seen)));
            for mut seen in cells {
                if let Some(task) = seen.task.take() {
                    tasks.push((self.name_task(&name, seen), task));
                }
            }
        }
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
        state.crew.values().filter(left).count() + state.joining
    }

    fn take_ended(&self) -> Vec<EndedThread> {
        let mut state = self.state.lock();
        let taken = ended::take_others(&mut state.ended_threads);
        state.joining += taken.len();
        taken
    }

    fn joined(&self, threads: usize) {
        let mut state = self.state.lock();
        state.joining -= threads;
        state.joined += threads;
        drop(state);
        self.signal();
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
        stats.idle = state.idle;
        stats.peak_threads = state.peak_threads;
        stats.queued = state.queue.waiting();
        let living = state.crew.values().filter(|worker| worker.given_up.is_none());
        stats.running = living.map(|worker| worker.slot.depth() as u64).sum();
        stats.accepted = state.queue.accepted();
        stats.completed = ended.completed;
        stats.panicked = ended.panicked;
        stats.cancelled = state.cancelled;
        stats.abandoned = state.abandoned.len() as u64;
        stats.phase = match state.queue.intake {
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

/// What a deadline, or a broken pool, cancels.
struct DoomedTasks {
    jobs: VecDeque<Job<Slot>>,
    handles: Vec<Arc<dyn Resolve>>,
}

impl Doomed for DoomedTasks {
    fn bury(self: Box<Self>) {
        drop(self.handles);
        self.jobs.into_iter().for_each(drop);
    }

    fn undertaker(&self) -> Box<dyn FnOnce() + Send> {
        let handles = self.handles.clone();
        Box::new(move || handles.iter().for_each(|handle| handle.resolve_cancelled()))
    }
}

impl Core {
    pub(super) fn told_to_stop(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}
