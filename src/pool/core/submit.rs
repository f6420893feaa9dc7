//! How a task comes into the queue, and a worker to it.

use super::crew::Worker;
use super::lobby::Seat;
use super::{Core, State};
use crate::contain;
use crate::context::{self, TaskHost};
use crate::pool::worker::{self, WorkerCx};
use crate::queue::deque::{Deque, OwnEnd};
use crate::queue::injector::{Draft, Pushed};
use crate::queue::job::{fits, Job, Order, Work};
use crate::queue::{Intake, BELL};
use crate::registry::ended::Mark;
use crate::rejected::RejectReason;
use crate::sync::atomic::Ordering;
use crate::sync::{thread, Condvar, MutexGuard};
use crate::task::slot::Slot;
use crate::{FollowUps, WhenFull};
use std::io;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// What a submitter does for which there is no room.
#[derive(Clone, Copy)]
pub(in crate::pool) enum IfFull {
    /// What the pool was built for.
    AsBuilt,
    Refuse,
    Wait,
    WaitFor(Duration),
}

/// What may be done with a task, in the critical section that was entered for it.
pub(in crate::pool) enum Entry<'a> {
    /// It is added.
    Queue(MutexGuard<'a, State>),
    /// The submitter runs it.
    RunHere(MutexGuard<'a, State>),
}

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
        if_full: IfFull,
    ) -> Result<(), (W, RejectReason)> {
        if self.is_stale() {
            return Err((work, RejectReason::Forked));
        }
        if fits::<W>() {
            self.submit_inline(Order { work, location }, if_full)
        } else {
            self.submit_inline(Order { work: Box::new(work), location }, if_full)
                .map_err(|(work, reason)| (*work, reason))
        }
    }

    #[inline(always)]
    fn submit_inline<W: Work<Slot>>(
        self: &Arc<Core>,
        order: Order<W>,
        if_full: IfFull,
    ) -> Result<(), (W, RejectReason)> {
        if matches!(if_full, IfFull::Refuse) && self.config.queue_capacity.is_some() {
            // Even a task's own submission does not go over the bound then.
            return self.submit_at_gate(order, if_full);
        }
        context::with_host(|cx: Option<&WorkerCx>| match cx.and_then(|cx| self.own_queue(cx)) {
            None => self.submit_outside(order, if_full),
            Some(own) => match own.push(order) {
                Pushed::Quietly => Ok(()),
                Pushed::WithBell => {
                    self.answer_bell(Some(own.deque()));
                    Ok(())
                }
                Pushed::Refused(order) => self.submit_outside(order, if_full),
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
    fn submit_outside<W: Work<Slot>>(
        self: &Arc<Core>,
        order: Order<W>,
        if_full: IfFull,
    ) -> Result<(), (W, RejectReason)> {
        match self.injector.push(order) {
            Pushed::Quietly => Ok(()),
            Pushed::WithBell => {
                self.answer_bell(None);
                Ok(())
            }
            Pushed::Refused(order) => self.submit_at_gate(order, if_full),
        }
    }

    /// Queues a task under the lock, or refuses it.
    #[cold]
    fn submit_at_gate<W: Work<Slot>>(
        self: &Arc<Core>,
        order: Order<W>,
        if_full: IfFull,
    ) -> Result<(), (W, RejectReason)> {
        match self.enter(if_full) {
            Ok(Entry::Queue(state)) => {
                self.add_at_gate(state, order).map_err(|(order, reason)| (order.work, reason))
            }
            Ok(Entry::RunHere(mut state)) => {
                state.queue.accept_elsewhere();
                self.as_guest(state, |slot| {
                    order.work.run(slot, order.location);
                });
                Ok(())
            }
            Err(reason) => Err((order.work, reason)),
        }
    }

    /// Asks, under the lock, for a task to be taken on, and waits for room where that is wanted.
    pub(in crate::pool) fn enter(&self, if_full: IfFull) -> Result<Entry<'_>, RejectReason> {
        let mut state = self.state.lock();
        let mut seat: Option<Arc<Seat>> = None;
        let mut until = None;
        loop {
            if let Some(refusal) = self.refusal(&state) {
                return Err(self.turn_away(state, seat.as_ref(), refusal));
            }
            if state.has_room_for(&self.injector, seat.as_ref()) {
                return Ok(Entry::Queue(state));
            }
            let Some(seat) = &seat else {
                match if_full {
                    IfFull::Refuse => return Err(self.turn_away(state, None, RejectReason::Full)),
                    _ if self.is_on_thread() => return Ok(Entry::Queue(state)),
                    IfFull::Wait => {}
                    IfFull::WaitFor(time) => until = crate::sync::deadline(time),
                    IfFull::AsBuilt => match self.config.when_full {
                        WhenFull::Block => {}
                        WhenFull::Reject => return Err(self.turn_away(state, None, RejectReason::Full)),
                        WhenFull::CallerRuns => return Ok(Entry::RunHere(state)),
                    },
                }
                let new = Arc::new(Seat::of_thread());
                state.wait_in_line(&self.injector, new.clone());
                seat = Some(new);
                continue;
            };
            if seat.is_called() {
                // At once, since room was made meanwhile.
                continue;
            }
            let is_late;
            (state, is_late) = seat.bed().wait(state, until);
            // Called just in time, it has a place.
            if is_late && !seat.is_called() {
                let reason = self.refusal(&state).unwrap_or(RejectReason::Timeout);
                return Err(self.turn_away(state, Some(seat), reason));
            }
        }
    }

    /// The same for a future, which is woken when it is worth while to ask again. When it has got in, it has to drop its seat
    /// after the critical section: with it goes a waker, which is code of others.
    pub(in crate::pool) fn poll_enter(
        &self,
        seat: &mut Option<Arc<Seat>>,
        waker: &Waker,
    ) -> Poll<Result<Entry<'_>, RejectReason>> {
        // Before the look: whoever makes room after it wakes this one.
        let place = seat.get_or_insert_with(|| Arc::new(Seat::of_task()));
        let old = place.set_waker(waker);
        contain::drop_quietly(old);
        let mut state = self.state.lock();
        if let Some(refusal) = self.refusal(&state) {
            let reason = self.turn_away(state, seat.take().as_ref(), refusal);
            return Poll::Ready(Err(reason));
        }
        let is_waiting = place.is_taken();
        if state.has_room_for(&self.injector, is_waiting.then_some(&*place)) || self.is_on_thread() {
            state.leave_line(place);
            return Poll::Ready(Ok(Entry::Queue(state)));
        }
        if !is_waiting {
            state.wait_in_line(&self.injector, place.clone());
        }
        // If it has just been called, it is woken.
        self.wake(state, None);
        Poll::Pending
    }

    /// A future that waits for room is dropped.
    pub(in crate::pool) fn go_away(&self, seat: &Arc<Seat>) {
        if !self.is_stale() {
            let mut state = self.state.lock();
            state.leave_line(seat);
            self.wake(state, None);
        }
    }

    /// Why the current thread may not submit, if it may not.
    fn refusal(&self, state: &State) -> Option<RejectReason> {
        (state.queue.intake() != Intake::Open && !self.admits(state)).then_some(state.refusal)
    }

    /// Whether the current thread runs tasks of this pool, whatever else it runs within them or between them: the tasks of
    /// another pool in their submitter's place, wakers, callbacks. It must not wait for room here: all workers might come to.
    fn is_on_thread(&self) -> bool {
        context::find_host(|cx: &WorkerCx| (cx.core.id == self.id).then_some(())).is_some()
    }

    pub(super) fn turn_away(
        &self,
        mut state: MutexGuard<'_, State>,
        seat: Option<&Arc<Seat>>,
        reason: RejectReason,
    ) -> RejectReason {
        if let Some(seat) = seat {
            state.leave_line(seat);
        }
        self.wake(state, None);
        self.rejected.fetch_add(1, Ordering::Relaxed);
        reason
    }

    /// Adds a task in the critical section that was entered for it, and starts the first thread if there is none.
    pub(in crate::pool) fn add_at_gate<D: Draft<Job<Slot>>>(
        self: &Arc<Core>,
        state: MutexGuard<'_, State>,
        draft: D,
    ) -> Result<(), (D, RejectReason)> {
        match self.with_thread(state) {
            Ok((state, is_first)) => {
                self.add(state, draft, is_first);
                Ok(())
            }
            Err(reason) => Err((draft, reason)),
        }
    }

    /// Starts the first thread if there is none. Says whether there was none.
    pub(super) fn with_thread<'a>(
        self: &Arc<Core>,
        mut state: MutexGuard<'a, State>,
    ) -> Result<(MutexGuard<'a, State>, bool), RejectReason> {
        let is_first = state.threads == 0;
        if is_first {
            if let Err(error) = self.start_worker(&mut state) {
                let reason = self.turn_away(state, None, RejectReason::NoThread);
                contain::log(
                    log::Level::Warn,
                    format_args!("no first thread for pool {}: {error}", self.name),
                );
                return Err(reason);
            }
        }
        Ok((state, is_first))
    }

    /// Adds a task to a pool that has a thread, and gets a worker for it, unless that thread was started for it.
    pub(super) fn add<D: Draft<Job<Slot>>>(
        self: &Arc<Core>,
        mut state: MutexGuard<'_, State>,
        draft: D,
        is_first: bool,
    ) {
        state.queue.push(&self.injector, draft);
        if is_first {
            // With no thread there was no task queued either, so the new thread comes upon this one first.
            state.queue.open(&self.injector);
            self.wake(state, None);
            return;
        }
        self.call_worker(state, Way::Gate).unwrap_or_else(|error| self.log_no_thread(&error));
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
        let called = state.settle(&self.injector);
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
            state.rouse_joiners();
        }
        self.wake(state, called);
        if is_stranded {
            self.signal();
        }
        started
    }

    /// Ends a critical section by waking the worker that was called in it, and submitters for whom it has made room.
    pub(super) fn wake(&self, mut state: MutexGuard<'_, State>, called: Option<usize>) {
        state.call_waiting(&self.injector);
        self.notify(state, called);
    }

    /// The same, where submitters have been called already.
    pub(super) fn notify(&self, mut state: MutexGuard<'_, State>, called: Option<usize>) {
        let bed = called.and_then(|id| state.crew.get(&id)).map(|worker| worker.bed.clone());
        let submitters = state.take_roused();
        drop(state);
        if let Some(bed) = bed {
            bed.notify_one();
        }
        submitters.iter().for_each(|seat| seat.wake());
    }

    /// Starts a thread, under the lock: the thread cannot look for itself in the crew before it is in it.
    pub(super) fn start_worker(self: &Arc<Core>, state: &mut State) -> io::Result<()> {
        let id = state.next_worker;
        let name: Arc<str> = format!("{}-worker-{}", self.name, id + 1).into();
        let slot = Arc::new(Slot::new(name.clone()));
        let mark = Mark::default();
        let mut builder = thread::Builder::new().name(name.to_string());
        if let Some(size) = self.config.stack_size {
            builder = builder.stack_size(size);
        }
        let bed = Arc::new(Condvar::new());
        let of_thread = mark.clone();
        let own = state.queue.add_worker(self.refuses_own(state.queue.intake()));
        let deque = own.deque().clone();
        let (core, of_worker) = (self.clone(), slot.clone());
        let thread = builder.spawn(move || {
            of_thread.set_at_thread_exit();
            worker::run(WorkerCx::new(core, of_worker, id, Some(own)));
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
