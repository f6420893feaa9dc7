//! Where submitters wait for room in a full queue.
//!
//! # The line
//!
//! Submitters wait in the order in which they came. Whoever makes room calls as many of those in front as there is room
//! for, and each of them has a place from then on: one that comes anew gets in only if nobody waits and there is more room
//! than those who were called will take.
//!
//! # Nobody waits in vain
//!
//! Whenever the pool's lock is free, there is no more room than submitters were called, or nobody waits uncalled. What makes
//! room ends its critical section with [`Core::wake`], which calls. A worker that takes a task from its own queue does so
//! without the lock, but finds a flag there and comes for it: see [`CROWD`](crate::queue::CROWD). A submitter that was
//! called and goes away all the same, since its time is up or its future was dropped, gives its place back in such a
//! critical section, and so the next one is called. Who narrows the intake rouses everybody, to see whether they are refused.
//!
//! A place may be gone before the submitter comes: tasks of the pool itself go over the bound. It returns to where it was
//! in the line, and whoever joins the line, or returns to it, sets the flag and looks for room after that.
//!
//! A future that was called and is not polled keeps its place: the others have theirs.

use super::{Core, State};
use crate::contain;
use crate::queue::injector::Injector;
use crate::queue::job::Job;
use crate::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::task::slot::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

/// Who waits for room. Behind the pool's lock.
#[derive(Default)]
pub(super) struct Lobby {
    /// By their numbers: thousands may go away at once, from wherever they are in the line.
    waiting: BTreeMap<u64, Arc<Seat>>,
    /// How many ever came.
    came: u64,
    /// Those who were called and have not come yet.
    called: u64,
    /// To be told that something else has changed.
    roused: Vec<Arc<Seat>>,
}

/// One submitter in the lobby.
pub(in crate::pool) struct Seat {
    /// A [`Stage`], behind the pool's lock.
    stage: AtomicU8,
    /// Its place in the line, once it has one. Behind the pool's lock.
    number: AtomicU64,
    sleeper: Sleeper,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// It is not in the line.
    Away,
    Waiting,
    /// It is out of the line, and there is a place for it.
    Called,
}

enum Sleeper {
    Thread(Condvar),
    /// The one of the latest poll.
    Task(Mutex<Option<Waker>>),
}

impl Seat {
    pub(super) fn of_thread() -> Seat {
        Seat::new(Sleeper::Thread(Condvar::new()))
    }

    pub(super) fn of_task() -> Seat {
        Seat::new(Sleeper::Task(Mutex::new(None)))
    }

    fn new(sleeper: Sleeper) -> Seat {
        Seat { stage: AtomicU8::new(Stage::Away as u8), number: AtomicU64::new(0), sleeper }
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    fn is(&self, stage: Stage) -> bool {
        // Relaxed: read and written under the pool's lock.
        self.stage.load(Ordering::Relaxed) == stage as u8
    }

    fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn is_called(&self) -> bool {
        self.is(Stage::Called)
    }

    /// Whether it waits, or was called and has not come yet.
    pub(super) fn is_taken(&self) -> bool {
        !self.is(Stage::Away)
    }

    pub(super) fn bed(&self) -> &Condvar {
        match &self.sleeper {
            Sleeper::Thread(bed) => bed,
            Sleeper::Task(_) => unreachable!("a future's seat is not slept on"),
        }
    }

    /// Has `waker` woken from now on. Returns the one before, whose drop is code of others.
    #[must_use]
    pub(super) fn set_waker(&self, waker: &Waker) -> Option<Waker> {
        match &self.sleeper {
            Sleeper::Thread(_) => None,
            // Cloned before the lock is taken.
            Sleeper::Task(place) => {
                let waker = waker.clone();
                place.lock().replace(waker)
            }
        }
    }

    /// Wakes it; without the pool's lock, as a waker is code of others.
    pub(super) fn wake(&self) {
        match &self.sleeper {
            Sleeper::Thread(bed) => bed.notify_one(),
            Sleeper::Task(place) => {
                let waker = place.lock().take();
                if let Some(Err(payload)) = waker.map(|waker| contain::run(move || waker.wake())) {
                    contain::drop_quietly(payload);
                }
            }
        }
    }
}

impl State {
    /// Whether a submitter may add its task. If it has waited for that, it waits no more. If it was called and comes too
    /// late, it is in the line again, and may have been called again when this returns.
    pub(super) fn has_room_for(&mut self, injector: &Injector<Job<Slot>>, seat: Option<&Arc<Seat>>) -> bool {
        let room = self.queue.room(injector);
        match seat {
            None => self.lobby.waiting.is_empty() && room > self.lobby.called,
            Some(seat) if !seat.is_called() => false,
            Some(seat) => {
                self.lobby.called -= 1;
                seat.set(Stage::Away);
                if room == 0 {
                    // What goes over the bound has taken its place.
                    self.line_up(injector, seat.clone());
                }
                room > 0
            }
        }
    }

    /// Takes a seat at the end of the line. It may be called before this returns.
    pub(super) fn wait_in_line(&mut self, injector: &Injector<Job<Slot>>, seat: Arc<Seat>) {
        self.lobby.came += 1;
        seat.number.store(self.lobby.came, Ordering::Relaxed);
        self.line_up(injector, seat);
    }

    fn line_up(&mut self, injector: &Injector<Job<Slot>>, seat: Arc<Seat>) {
        seat.set(Stage::Waiting);
        self.lobby.waiting.insert(seat.number(), seat);
        self.call_submitters(injector);
    }

    /// Calls as many as there is room for. They are woken by the end of the critical section.
    fn call_submitters(&mut self, injector: &Injector<Job<Slot>>) {
        // The flag first: see `queue`.
        self.queue.set_crowded(!self.lobby.waiting.is_empty());
        while self.lobby.called < self.queue.room(injector) {
            let Some((_, seat)) = self.lobby.waiting.pop_first() else { break };
            seat.set(Stage::Called);
            self.lobby.called += 1;
            self.lobby.roused.push(seat);
        }
        self.queue.set_crowded(!self.lobby.waiting.is_empty());
    }

    /// A submitter goes away without having come in.
    pub(super) fn leave_line(&mut self, seat: &Arc<Seat>) {
        if seat.is_called() {
            self.lobby.called -= 1;
        } else if seat.is_taken() {
            self.lobby.waiting.remove(&seat.number());
        }
        seat.set(Stage::Away);
    }

    /// Has everybody look whether they are still admitted.
    pub(super) fn rouse_submitters(&mut self) {
        self.lobby.roused.extend(self.lobby.waiting.values().cloned());
    }

    /// Calls those for whom there is room.
    pub(super) fn call_waiting(&mut self, injector: &Injector<Job<Slot>>) {
        // Where the last one went away, the flag is taken down.
        if !self.lobby.waiting.is_empty() || self.queue.is_crowded() {
            self.call_submitters(injector);
        }
    }

    /// Whom to wake when the lock is free.
    #[must_use]
    pub(super) fn take_roused(&mut self) -> Vec<Arc<Seat>> {
        std::mem::take(&mut self.lobby.roused)
    }
}

impl Core {
    /// How many wait in the line.
    #[cfg(all(test, winddown_shuttle))]
    pub(in crate::pool) fn in_line(&self) -> usize {
        self.state.lock().lobby.waiting.len()
    }

    /// Calls submitters, for a worker that has taken a task from its own queue, and runs that.
    #[cold]
    pub(super) fn make_way(&self, job: Job<Slot>, slot: &Slot) {
        let (state, job) = self.let_in(self.state.lock(), job, Some(slot));
        self.notify(state, None);
        if let Some(job) = job {
            self.run(job, slot);
        }
    }

    /// Calls submitters for a thread that has just taken a job, and shows in `slot` that it has. Returns the job, unless it is
    /// gone meanwhile.
    ///
    /// Wakers are code of others, which may hang, or wait for the pool. So the job is [put down](State::held) while they
    /// run: others may run it, and a deadline finds it. After this the critical section is ended without calling anybody.
    pub(super) fn let_in<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        job: Job<Slot>,
        slot: Option<&Slot>,
    ) -> (MutexGuard<'a, State>, Option<Job<Slot>>) {
        state.call_waiting(&self.injector);
        if !state.lobby.roused.iter().any(|seat| matches!(seat.sleeper, Sleeper::Task(_))) {
            return (state, Some(job));
        }
        state.held.push_back(job);
        slot.inspect(|slot| slot.rest());
        let called = state.settle(&self.injector);
        self.notify(state, called);
        let mut state = self.state.lock();
        slot.inspect(|slot| slot.reach());
        let job = state.held.pop_front();
        (state, job)
    }
}
