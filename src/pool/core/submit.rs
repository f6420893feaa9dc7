//! How a task comes into the queue, and a worker to it.

use super::crew::Worker;
use super::{Core, State};
use crate::contain;
use crate::context::{self, TaskHost};
use crate::pool::worker::{self, WorkerCx};
use crate::queue::deque::{Deque, OwnEnd};
use crate::queue::injector::Pushed;
use crate::queue::job::{fits, Job, Order, Work};
use crate::queue::{Intake, BELL};
use crate::registry::ended::Mark;
use crate::rejected::RejectReason;
use crate::sync::{Condvar, MutexGuard};
use crate::task::slot::Slot;
use crate::FollowUps;
use std::io;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// How a task came into the queue.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    /// Under the lock.
    Gate,
    Injector,
    Deque(&'a Deque<Job<Slot>>),
}

impl Core {
    /// Queues a task and sees to it that a worker comes for it, or gives it back with the reason.
    #[inline(always)]
    pub(in crate::pool) fn submit<W: Work<Slot>>(
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

    pub(super) fn log_no_thread(&self, error: &io::Error) {
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
    pub(super) fn refuses_own(&self, intake: Intake) -> bool {
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
    pub(super) fn call_worker(
        self: &Arc<Core>,
        mut state: MutexGuard<'_, State>,
        way: Way<'_>,
    ) -> io::Result<()> {
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
    pub(super) fn wake(&self, state: MutexGuard<'_, State>, called: Option<usize>) {
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
}
