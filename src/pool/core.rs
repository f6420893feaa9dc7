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
//! Locks are taken in the order registry, core, cell or slot; no user code runs under any of them, nothing is joined
//! and nothing is logged.

mod crew;
mod winding;

use self::crew::{for_an_end, Blocked, Worker};
use super::worker::{self, WorkerCx};
use crate::context::{self, TaskHost, Wait};
use crate::os::Generation;
use crate::queue::deque::{Deque, OwnEnd};
use crate::queue::injector::{Injector, Pushed};
use crate::queue::job::{fits, Job, Order, Resolve, Work};
use crate::queue::{Intake, Queue, Supply, BATCH, BELL, GATE};
use crate::registry::ended::{self, EndedThread, Mark};
use crate::registry::report::RunningTask;
use crate::registry::Registry;
use crate::rejected::RejectReason;
use crate::sync::{Condvar, Event, Mutex, MutexGuard};
use crate::task::cell::AnyTask;
use crate::task::slot::{Ended, Slot};
use crate::task::Owner;
use crate::{contain, FollowUps};
use std::collections::BTreeMap;
use std::io;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// After how many tasks of its own queue a worker looks beyond that.
const TURNS: u32 = 61;

pub(crate) type Callback = Arc<dyn Fn() + Send + Sync>;

/// What a pool calls on each of its threads.
#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    pub(crate) on_start: Option<Callback>,
    pub(crate) on_stop: Option<Callback>,
}

/// What the builder decided.
pub(crate) struct Config {
    pub(crate) max_threads: usize,
    pub(crate) min_threads: usize,
    pub(crate) keep_alive: Duration,
    pub(crate) stack_size: Option<usize>,
    pub(crate) follow_ups: FollowUps,
    pub(crate) is_daemon: bool,
    /// Called by a worker between its time-out and its look at the queue; says whether it may look.
    #[cfg(test)]
    pub(crate) on_timeout: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

pub(crate) struct Core {
    callbacks: Mutex<Callbacks>,
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
    abandoned: Vec<RunningTask>,
    /// Handles that a broken pool has yet to resolve.
    unburied: Vec<Arc<dyn Resolve>>,
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
    fn is_quiet(&self, injector: &Injector<Job<Slot>>) -> bool {
        // Read before `accepted`: see `registry::drain`.
        let settled = self.settled() + self.blocked_tasks(for_an_end);
        settled >= self.queue.accepted(injector)
    }

    /// Worker threads that will look at the queue again by themselves.
    fn active(&self) -> usize {
        self.threads - self.stuck
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

/// How a task came into the queue.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// Under the lock.
    Gate,
    Injector,
    Deque(&'a Deque<Job<Slot>>),
}

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
    Leave,
}

impl Core {
    pub(super) fn new(
        name: Arc<str>,
        config: Config,
        callbacks: Callbacks,
        registry: Registry,
        key: u64,
    ) -> Core {
        let (queue, injector) = Queue::new(config.max_threads == 1);
        Core {
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
                abandoned: Vec::new(),
                unburied: Vec::new(),
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
    fn signal(&self) {
        self.rest.signal();
        self.registry.event().signal();
    }

    #[inline]
    pub(super) fn is_stale(&self) -> bool {
        self.born.is_past()
    }

    // ---- submitting ----

    /// Queues a task and sees to it that a worker comes for it, or gives it back with the reason.
    #[inline(always)]
    pub(super) fn submit<W: Work<Slot>>(
        self: &Arc<Core>,
        work: W,
        location: &'static Location<'static>,
    ) -> Result<(), (W, RejectReason)> {
        if self.is_stale() {
            return Err((work, RejectReason::Forked));
        }
        if fits::<W>() {
            self.submit_inline(Order { work, location })
        } else {
            self.submit_inline(Order { work: Box::new(work), location })
                .map_err(|(work, reason)| (*work, reason))
        }
    }

    #[inline(always)]
    fn submit_inline<W: Work<Slot>>(self: &Arc<Core>, order: Order<W>) -> Result<(), (W, RejectReason)> {
        context::with_host(|cx: Option<&WorkerCx>| match cx.and_then(|cx| self.own_queue(cx)) {
            None => self.submit_outside(order),
            Some(own) => match own.push(order) {
                Pushed::Quietly => Ok(()),
                Pushed::WithBell => {
                    self.answer_bell(Some(own.deque()));
                    Ok(())
                }
                Pushed::Refused(order) => self.submit_outside(order),
            },
        })
    }

    /// The worker's own queue, if that is where its tasks submit to this pool.
    #[inline]
    fn own_queue<'a>(&self, cx: &'a WorkerCx) -> Option<&'a OwnEnd<Job<Slot>>> {
        // A single worker keeps to the order of acceptance, in which a task's own come last.
        let is_ours = ptr::eq(&*cx.core, self) && self.config.max_threads > 1 && cx.slot.depth() > 0;
        cx.own.as_ref().filter(|_| is_ours)
    }

    /// Queues a task where everybody does.
    #[inline(always)]
    fn submit_outside<W: Work<Slot>>(self: &Arc<Core>, order: Order<W>) -> Result<(), (W, RejectReason)> {
        match self.injector.push(order) {
            Pushed::Quietly => Ok(()),
            Pushed::WithBell => {
                self.answer_bell(None);
                Ok(())
            }
            Pushed::Refused(order) => self.submit_at_gate(order),
        }
    }

    /// Queues a task under the lock, or refuses it.
    #[cold]
    fn submit_at_gate<W: Work<Slot>>(self: &Arc<Core>, order: Order<W>) -> Result<(), (W, RejectReason)> {
        let mut state = self.state.lock();
        if state.queue.intake() != Intake::Open && !self.admits(&state) {
            let refusal = state.refusal;
            drop(state);
            return Err((order.work, self.reject(refusal)));
        }
        // With no thread there is no task queued either, so the new thread comes upon this one first.
        if state.threads == 0 {
            if let Err(error) = self.start_worker(&mut state) {
                drop(state);
                contain::log(
                    log::Level::Warn,
                    format_args!("no first thread for pool {}: {error}", self.name),
                );
                return Err((order.work, self.reject(RejectReason::NoThread)));
            }
            state.queue.push(&self.injector, order);
            state.queue.open(&self.injector);
            return Ok(());
        }
        state.queue.push(&self.injector, order);
        self.call_worker(state, Way::Gate).unwrap_or_else(|error| self.log_no_thread(&error));
        Ok(())
    }

    /// Gets a worker for a task that was just queued where the bell was set: in that deque, or in the injector.
    #[cold]
    fn answer_bell(self: &Arc<Core>, deque: Option<&Deque<Job<Slot>>>) {
        let called = self.call_worker(self.state.lock(), deque.map_or(Way::Injector, Way::Deque));
        called.unwrap_or_else(|error| self.log_no_thread(&error));
    }

    fn log_no_thread(&self, error: &io::Error) {
        contain::log(log::Level::Warn, format_args!("no further thread for pool {}: {error}", self.name));
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
            context::with_host(|cx: Option<&WorkerCx>| {
                cx.is_some_and(|cx| cx.is_in_task() && counts(&cx.core))
            })
        };
        match state.queue.intake() {
            Intake::Open => true,
            Intake::Own => from_task(&|core| core.id == self.id),
            Intake::Registry => {
                from_task(&|core| !core.config.is_daemon && core.registry.id() == self.registry.id())
            }
            Intake::Closed => false,
        }
    }

    /// Whether tasks of this pool may not submit to it under that intake.
    fn refuses_own(&self, intake: Intake) -> bool {
        match intake {
            Intake::Open => false,
            Intake::Registry => self.config.follow_ups == FollowUps::Reject || self.config.is_daemon,
            Intake::Own => self.config.follow_ups == FollowUps::Reject,
            Intake::Closed => true,
        }
    }

    /// Gets a worker for a task that was just queued: a sleeper, or a new thread, or nobody where enough are on their
    /// way. Where pushes need no lock from now on, the bell that brought this one here is cleared. Fails, for the caller to
    /// log, if a thread was needed and could not be had; the task is queued all the same.
    fn call_worker(self: &Arc<Core>, mut state: MutexGuard<'_, State>, way: Way<'_>) -> io::Result<()> {
        let called = state.queue.settle(&self.injector);
        let active = state.active();
        // Every sleeping worker is called in its turn while there are tasks for it; see `Queue::settle`.
        let coming = || state.queue.coming() + state.queue.asleep() + state.between();
        let is_full = state.threads >= self.config.max_threads;
        if active > 0 && (is_full || coming() >= state.queue.len(&self.injector)) {
            if is_full && !state.queue.needs_bell() {
                match way {
                    Way::Gate => {}
                    Way::Injector => self.injector.clear(BELL),
                    Way::Deque(deque) => deque.clear(BELL),
                }
            }
            self.wake(state, called);
            return Ok(());
        }
        let started = self.start_worker(&mut state);
        let is_stranded = started.is_err() && active == 0;
        if is_stranded {
            self.stranded.store(true, Ordering::Relaxed);
        }
        self.wake(state, called);
        if is_stranded {
            self.signal();
        }
        started
    }

    /// Ends a critical section by waking the worker that was called in it.
    fn wake(&self, state: MutexGuard<'_, State>, called: Option<usize>) {
        let bed = called.and_then(|id| state.crew.get(&id)).map(|worker| worker.bed.clone());
        drop(state);
        if let Some(bed) = bed {
            bed.notify_one();
        }
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
        let bed = Arc::new(Condvar::new());
        let of_thread = mark.clone();
        let own = state.queue.add_worker(self.refuses_own(state.queue.intake()));
        let deque = own.deque().clone();
        let cx = WorkerCx { core: self.clone(), slot: slot.clone(), id, own: Some(own) };
        let thread = builder.spawn(move || {
            of_thread.set_at_thread_exit();
            worker::run(cx);
        });
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                state.queue.remove_worker(&deque);
                return Err(error);
            }
        };
        state.next_worker += 1;
        state.threads += 1;
        state.peak_threads = state.peak_threads.max(state.threads);
        let worker = Worker {
            slot,
            thread: Some((thread, mark)),
            is_starting: true,
            is_leaving: false,
            blocked: Vec::new(),
            deque: Some(deque),
            bed,
            given_up: None,
        };
        state.crew.insert(id, worker);
        Ok(())
    }

    // ---- the workers' side ----

    /// Runs tasks until there is a reason to leave.
    pub(super) fn work(self: &Arc<Core>, cx: &WorkerCx, own: &OwnEnd<Job<Slot>>) {
        let mut woken = None;
        while !self.is_stale() {
            let mut turns = TURNS;
            while turns > 0 {
                turns -= u32::from(own.has_pushed());
                cx.slot.reach();
                match Job::run_next(own, &cx.slot) {
                    Some(true) => {}
                    Some(false) => self.state.lock().queue.hollowed(-1),
                    None => break,
                }
                if self.is_stale() {
                    return;
                }
            }
            cx.slot.look_on();
            if self.injector.len() < BATCH {
                // Right behind a producer, one would take each task from the cache in which it is being written. In so
                // short a time it writes some more.
                (0..16).for_each(|_| std::hint::spin_loop());
            }
            match self.next(cx.id, &cx.slot, own, &mut woken) {
                Next::Run(job) => self.run(job, &cx.slot),
                Next::Leave => return,
            }
        }
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
            let Some(worker) = state.crew.get_mut(&id) else { return Next::Leave };
            worker.is_starting = false;
            // Reason 1: its tasks were abandoned, and with them the worker. Reason 2: it stood in for one that was
            // blocked, and there are enough again.
            if worker.given_up.is_some() || state.active() > self.config.max_threads {
                return self.leave(state, id, has_news);
            }
            slot.reach();
            if let Some(supply) = self.take(&mut state, own) {
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
                return self.leave(state, id, has_news);
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
                std::thread::yield_now();
                state = self.state.lock();
                continue;
            }
            let bed = state.crew[&id].bed.clone(); // Whoever waits for the pool to be idle, or quiet, looks now.
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
                return self.leave(state, id, has_news);
            }
        }
    }

    /// The next task for a worker that has come for the lock: because its own queue is empty, or because it has run
    /// enough of that for now.
    fn take(&self, state: &mut State, own: &OwnEnd<Job<Slot>>) -> Option<Supply<'_, Job<Slot>>> {
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

    /// Takes a worker out of the count of threads, in the critical section in which it decided to end. It `has_news` if it
    /// ran something since it last signalled.
    #[cold]
    fn leave(&self, mut state: MutexGuard<'_, State>, id: usize, has_news: bool) -> Next {
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
        // It may have been on its way to a task, or leave some, which are somebody else's then.
        state.queue.answer(id);
        let called = state.queue.settle(&self.injector);
        self.wake(state, called);
        if has_news {
            self.signal();
        }
        Next::Leave
    }

    /// Takes a thread out of the crew, for good: nothing is left of it to run but thread-local destructors, if it was a
    /// worker.
    pub(super) fn sign_off(&self, id: usize) {
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
        if is_last {
            self.signal();
        }
        self.retire_if_done();
    }

    pub(super) fn callbacks(&self) -> Callbacks {
        self.callbacks.lock().clone()
    }

    /// Takes the callbacks, if there is no thread left to call them and never will be.
    pub(super) fn callbacks_if_last(&self) -> Option<Callbacks> {
        let state = self.state.lock();
        let is_last = state.queue.intake() == Intake::Closed && state.threads == 0;
        drop(state);
        is_last.then(|| std::mem::take(&mut *self.callbacks.lock()))
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
    }

    // ---- blocked threads ----

    /// The current thread, which is the worker `id`, begins a wait. If that leaves nobody to look at the queue, one
    /// thread is started in its place, beyond the maximum; where none can be had, whoever is blocked runs the queue
    /// (see [`Core::help`]).
    pub(super) fn block(self: &Arc<Core>, id: usize, wait: Wait) {
        let is_end = matches!(wait, Wait::End { .. });
        let mut state = self.state.lock();
        let mut is_starting = false;
        state.change(id, |worker| {
            let depth = worker.slot.depth();
            worker.blocked.push(Blocked { wait, depth });
            is_starting = worker.is_starting;
        });
        if let Some(deque) = state.crew.get(&id).and_then(|worker| worker.deque.clone()) {
            state.queue.clear_out(&deque);
        }
        self.close_if_drained(&mut state);
        if state.active() > 0 || self.is_left_empty(&mut state) {
            drop(state);
        } else if is_starting && is_end {
            // The first callback ends the process, or waits for its end, and would do so on every other thread too.
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
        state.queue.is_empty(&self.injector)
    }

    pub(super) fn unblock(&self, id: usize) {
        if self.is_stale() {
            return;
        }
        let mut state = self.state.lock();
        state.change(id, |worker| worker.blocked.pop());
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
        let job = if state.active() == 0 { state.queue.take_one(&self.injector) } else { None };
        let Some(job) = job else {
            self.stranded.store(false, Ordering::Relaxed);
            return false;
        };
        let id = state.next_worker;
        state.next_worker += 1;
        let slot = Arc::new(Slot::new(std::thread::current().name().unwrap_or("a blocked worker").into()));
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
        drop(state);
        let cx = WorkerCx { core: self.clone(), slot, id, own: None };
        context::enter_worker(&cx, || self.run(job, &cx.slot));
        if self.is_stale() {
            return true;
        }
        self.close_if_drained(&mut self.state.lock());
        self.sign_off(id);
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
        state.settled() + blocked >= state.queue.accepted(&self.injector)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_stale() || self.state.lock().queue.intake() != Intake::Open
    }

    /// Whether running tasks are to stop.
    pub(super) fn told_to_stop(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }
}

impl Owner for Core {
    fn born(&self) -> Generation {
        self.born
    }

    fn count_cancelled(&self) {
        let mut state = self.state.lock();
        state.cancelled += 1;
        state.queue.hollowed(1);
        self.close_if_drained(&mut state);
        drop(state);
        self.signal();
    }

    fn run_in_place(&self, task: &Arc<dyn AnyTask>) {
        context::with_host(|cx: Option<&WorkerCx>| {
            let Some(cx) = cx else { return };
            if cx.core.id != self.id || cx.slot.depth() == 0 {
                return;
            }
            assert!(
                !cx.slot.is_inside(task),
                "the task submitted at {} was joined inside itself, where it could never end",
                task.location()
            );
            let claimed = || self.state.lock().queue.hollowed(1);
            if task.clone().run(&cx.slot, &claimed) && !self.is_stale() {
                self.signal();
            }
        });
    }
}
