//! What producers and workers share: the tasks in their order, who may still add to them, and who sleeps.
//!
//! # The parts
//!
//! ```text
//!  any thread --push--> [ injector ] --batch--> [ deque of worker 1 ] --pop--> runs
//!                                    --batch--> [ deque of worker 2 ] --pop--> runs
//!                 tasks of worker 2 --push-->        ^      '--steal--> [ deque of worker 1 ]
//! ```
//!
//! Everybody adds to the [`Injector`]; a task adds to the [`Deque`] of the worker that runs it. A worker runs what is in
//! its deque, and when that is empty it takes a batch from the injector, or half of another worker's deque. Three things
//! are done without the owner's lock, each with one compare-and-swap: a push to the injector, a worker's push to its own
//! deque, and a worker's pop from that. Everything else is decided under it, by methods of [`Queue`]: it has the
//! [`Front`], without which nothing can be claimed elsewhere.
//!
//! # The words
//!
//! The injector and every deque have one word each, in which their ends and two flags change together:
//!
//! | flag | a push that sees it | set | cleared |
//! |---|---|---|---|
//! | [`BELL`] | adds its task, then takes the lock and calls a worker | while workers sleep and none was called; while threads may be started; while no worker looks at the queue | under the lock, by a push that came upon it and found it needless |
//! | [`GATE`] | adds nothing, and asks under the lock | on the injector: while the pool is not open to all, has a capacity, or has no thread. On deques: once the tasks of the pool itself are refused, and while it is decided whether they are to be | on the injector: when an open pool starts its first thread; on deques: if they are not |
//!
//! # No task is lost
//!
//! **Submit against close.** Whoever closes sets the gate under the lock. A push changes the same word and does not
//! succeed once the gate is set. So each push either comes before the gate, and whoever has set the gate finds the task
//! in the queue and in its counts, or it adds nothing, asks under the lock, and is refused there.
//!
//! **Submit against sleep.** A worker lies down under the lock: it adds itself to the sleepers and then [arms](Queue::arm)
//! every word, unless a called worker is on its way, who will do the same. Arming swaps the bell into a word that is
//! *empty*, and fails if it is not, in which case the worker gets up again. So for each word, a push either came before,
//! and was seen, or finds the bell set, and calls a sleeper under the lock.
//!
//! From this follows what the rest relies on. *Whenever the lock is free: if a worker sleeps and none was called, then
//! every word is empty and has its bell set, or the push that added to it waits for the lock to call.* Tasks that move from
//! one word to another do so under the lock, or as a [haul](Haul): claimed under the lock, and then published in the
//! worker's own deque by a swap that sees its bell, like a push. [`settle`](Queue::settle) ends every critical section that
//! may have changed what this speaks of.
//!
//! **Each called worker calls the next.** One call at a time is out. The worker that answers it takes what it finds and,
//! if it leaves something behind while others sleep, calls again. So as many wake up as there is work for, but a stream
//! of small tasks that one worker keeps up with wakes one.
//!
//! **The lookout.** One worker that has run out of tasks does not lie down at once. For some microseconds it looks at the
//! injector again and again, and where the others have just shown that they keep up with a stream of small tasks, it
//! looks away for a hundred of them first. For everybody else it is a called worker that takes its time to answer: until
//! then pushes need no bell, and nobody else is called, since whoever is called would find no more than it will.
//!
//! **Idle expiry against submit.** A sleeper whose time is up decides under the lock to leave, and stays if it has been
//! called. The last thread of an open pool shuts the gate, [in one step](Queue::gate_if_empty) with seeing the queue
//! empty; a push then asks under the lock, and starts a thread there.
//!
//! **Room.** With a capacity the gate of the injector stays shut, so that each push from outside is counted under the lock
//! before the next. A submitter that finds no room sets the [`CROWD`] flag of every deque, under the lock, and then looks
//! once more. A worker's pop swaps the same word: it comes before the flag, and the look sees that there is room, or it sees
//! the flag, and makes way under the lock. All else that makes room does so under the lock.
//!
//! **Nobody waits for ever.** A worker that runs what its own tasks submit looks elsewhere every so often: at what lies
//! below that in its deque, then at the injector and at the other deques in turn. And one that looks for more helps itself
//! first where another worker's deque [stands still](Queue::stuck), however much there is in the injector.
//!
//! **Counting.** The injector's position counts what was accepted there, each deque counts its owner's pushes, before
//! they can be seen. Workers count what they have settled. Nobody else writes either count. Whoever reads what is settled
//! first and what is accepted afterwards never finds more settled than accepted, and if they are equal, all was quiet at
//! the first reading: see `registry::drain`.
//!
//! `queue::model` has loom try every order of these steps, up to a bound.
//!
//! The injector is built like the list channel of [crossbeam](https://github.com/crossbeam-rs/crossbeam); injector,
//! worker's deque and stealing by halves are those of rayon, tokio and Go. That accepting, closing and sleeping are
//! decided by the same swap as the push is our own, as far as we know.

pub(crate) mod deque;
pub(crate) mod injector;
pub(crate) mod job;
#[cfg(all(test, winddown_loom))]
mod model;
#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod promises;
#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests;

use crate::sync::Patience;
use deque::{Deque, OwnEnd};
use injector::{Draft, Front, Haul, Injector};
use std::collections::VecDeque;
use std::sync::Arc;

/// Flag of a word: whoever adds an item takes the lock after that and calls a worker.
pub(crate) const BELL: u64 = 1;
/// Flag of a word: whoever wants to add an item takes the lock before that.
pub(crate) const GATE: u64 = 2;
const FLAGS: u64 = BELL | GATE;
/// Flag of a deque's word: its owner, when it has taken an item, takes the lock, since somebody waits for room.
pub(crate) const CROWD: u64 = 4;

/// How many tasks a worker takes from the injector at once.
pub(crate) const BATCH: usize = 127;

/// Who may add tasks.
///
/// It only moves downwards, under the lock of the queue's owner.
///
/// | to | by | allows | why not back |
/// |---|---|---|---|
/// | `Open` | construction | everyone | |
/// | `Registry` | the registry's shutdown | tasks of the registry's non-daemon pools | a refusal was handed out |
/// | `Own` | `close`, or the drop of the last handle | the pool's own tasks | the same |
/// | `Closed` | the end of the drain, a deadline, a broken worker | nobody | workers have left |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Intake {
    Open,
    Registry,
    Own,
    Closed,
}

/// What a worker gets that has run out of tasks.
pub(crate) enum Supply<'a, T> {
    One(T),
    /// To be unloaded into its own deque, without the lock.
    Many(Haul<'a, T>),
}

impl<T> Supply<'_, T> {
    /// Whether there is more than one task in it.
    pub(crate) fn has_more(&self) -> bool {
        matches!(self, Supply::Many(haul) if haul.len() > 1)
    }

    /// The first of the tasks; the others are in the worker's deque then. Says whether the bell is set there.
    pub(crate) fn unload(self, own: &OwnEnd<T>) -> (T, bool) {
        match self {
            Supply::One(item) => (item, false),
            Supply::Many(mut haul) => {
                let mut batch = own.batch();
                let mut first = None;
                haul.unload(|item| match first {
                    None => first = Some(item),
                    Some(_) => batch.add(item),
                });
                // Before the haul is done: whoever waits for that looks into the deque.
                (first.expect("a haul has an item"), batch.publish())
            }
        }
    }
}

/// A worker's deque, as others see it.
struct Peer<T> {
    deque: Arc<Deque<T>>,
    /// Where its front was at the last look, if there was anything in it.
    seen: Option<u16>,
}

impl<T> Peer<T> {
    fn steal(&mut self, front: &mut Front, most: impl Fn(usize) -> usize, give: impl FnMut(T)) {
        if self.deque.steal(front, most, give) > 0 {
            // It was not its owner who moved it.
            self.seen = self.seen.and(self.deque.first());
        }
    }
}

/// What of the queue is behind the owner's lock. Each method takes the injector that was made with it.
pub(crate) struct Queue<T> {
    front: Front,
    deques: Vec<Peer<T>>,
    /// What workers had in their deques when they left, or were blocked: older than anything in the injector.
    left: VecDeque<T>,
    /// Whose deque was looked at last.
    victim: usize,
    /// There is one worker, apart from substitutes, and it starts tasks strictly in the order of their acceptance.
    is_serial: bool,
    intake: Intake,
    /// Tasks in the queue that were cancelled or run elsewhere. Below zero for a moment where a worker comes upon such a
    /// task before it was counted.
    hollow: i64,
    /// What was accepted and is not in the counts of the injector and the deques: what the deques of workers that left had
    /// accepted, and what is set aside.
    accepted: u64,
    /// Tasks that count as queued and wait elsewhere.
    aside: u64,
    /// How many tasks may be queued.
    capacity: Option<usize>,
    /// Whether the deques have their [`CROWD`] flag set.
    is_crowded: bool,
    /// Workers that sleep and were not called; the one that lay down last is called first, since its caches are warm, and
    /// those below expire.
    sleepers: Vec<usize>,
    /// Workers that were called and have not answered yet: one at a time, or none.
    called: Vec<usize>,
}

impl<T> Queue<T> {
    /// An empty queue and its injector, with the bell set and the gate shut. With a capacity the gate stays shut: only
    /// under the lock can it be told whether there [is room](Queue::room).
    pub(crate) fn new(is_serial: bool, capacity: Option<usize>) -> (Queue<T>, Injector<T>) {
        let (injector, front) = Injector::new();
        let queue = Queue {
            front,
            deques: Vec::new(),
            left: VecDeque::new(),
            victim: 0,
            is_serial,
            intake: Intake::Open,
            hollow: 0,
            accepted: 0,
            aside: 0,
            capacity,
            is_crowded: false,
            sleepers: Vec::new(),
            called: Vec::new(),
        };
        (queue, injector)
    }

    // ---- who may add ----

    pub(crate) fn intake(&self) -> Intake {
        self.intake
    }

    /// Narrows the intake; `is_own_refused` says whether the pool's own tasks are refused from now on, too.
    pub(crate) fn narrow(&mut self, injector: &Injector<T>, intake: Intake, is_own_refused: bool) {
        self.intake = self.intake.max(intake);
        if self.intake > Intake::Open {
            injector.set(GATE);
        }
        if is_own_refused {
            self.gate_own(true);
        }
    }

    fn deques(&self) -> impl Iterator<Item = &Deque<T>> {
        self.deques.iter().map(|peer| &*peer.deque)
    }

    /// Shuts the gates of all deques, or opens them again: in between, all that is accepted is accepted under the lock.
    pub(crate) fn gate_own(&self, is_shut: bool) {
        self.deques().for_each(|deque| if is_shut { deque.set(GATE) } else { deque.clear(GATE) });
    }

    /// Opens the gate, if the pool is open: it has a thread.
    pub(crate) fn open(&mut self, injector: &Injector<T>) {
        if self.intake == Intake::Open && self.capacity.is_none() {
            injector.clear(GATE);
        }
    }

    /// Shuts the gate if there is no task in the queue. Says whether there was none.
    pub(crate) fn gate_if_empty(&mut self, injector: &Injector<T>) -> bool {
        injector.set(GATE);
        let is_empty = self.is_empty(injector);
        if !is_empty {
            self.open(injector);
        }
        is_empty
    }

    /// Has every push take the lock afterwards.
    pub(crate) fn set_bells(&mut self, injector: &Injector<T>) {
        injector.set(BELL);
        self.deques().for_each(|deque| deque.set(BELL));
    }

    /// Adds a task although the gate is shut: the caller has looked who it comes from.
    pub(crate) fn push<D: Draft<T>>(&mut self, injector: &Injector<T>, draft: D) {
        injector.push_through(&mut self.front, draft);
    }

    pub(crate) fn is_bounded(&self) -> bool {
        self.capacity.is_some()
    }

    /// How many more tasks may be queued. Tasks that were started count no more, nor do those that were cancelled in
    /// their place.
    pub(crate) fn room(&self, injector: &Injector<T>) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| (capacity as u64).saturating_sub(self.waiting(injector)))
    }

    /// Whether submitters wait for room, as was said last.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Says whether submitters wait for room. Who asks for that looks for room after this.
    pub(crate) fn set_crowded(&mut self, is_crowded: bool) {
        if self.is_crowded != is_crowded {
            self.is_crowded = is_crowded;
            let change = if is_crowded { Deque::set } else { Deque::clear };
            self.deques().for_each(|deque| change(deque, CROWD));
        }
    }

    /// Counts a task as accepted that never comes into the queue.
    pub(crate) fn accept_elsewhere(&mut self) {
        self.accepted += 1;
    }

    /// Takes back what [`accept_elsewhere`](Queue::accept_elsewhere) counted, for a task that comes into the queue after
    /// all, and is counted there.
    pub(crate) fn recount(&mut self) {
        self.accepted -= 1;
    }

    /// Counts a task as accepted and queued that waits elsewhere until it may enter the queue: for a permit, say.
    pub(crate) fn set_aside(&mut self) {
        self.accepted += 1;
        self.aside += 1;
    }

    /// A task that was set aside does not wait there any more, and does not enter the queue.
    pub(crate) fn leave_aside(&mut self) {
        self.aside -= 1;
    }

    /// Adds a task that was set aside.
    pub(crate) fn enter<D: Draft<T>>(&mut self, injector: &Injector<T>, draft: D) {
        self.accepted -= 1;
        self.aside -= 1;
        self.push(injector, draft);
    }

    // ---- workers come and go ----

    /// The deque of a new worker. Its first push finds the bell set.
    pub(crate) fn add_worker(&mut self, is_own_refused: bool) -> OwnEnd<T> {
        let crowd = if self.is_crowded { CROWD } else { 0 };
        let owner = OwnEnd::new(&self.front, crowd | if is_own_refused { FLAGS } else { BELL });
        self.deques.push(Peer { deque: owner.deque().clone(), seen: None });
        owner
    }

    /// A worker leaves: it pushes and pops no more. What is in its deque is kept for others.
    pub(crate) fn remove_worker(&mut self, deque: &Arc<Deque<T>>) {
        deque.set(GATE);
        deque.steal(&mut self.front, |len| len, |item| self.left.push_back(item));
        self.accepted += deque.pushed();
        self.deques.retain(|peer| !Arc::ptr_eq(&peer.deque, deque));
    }

    /// A worker is blocked: what lies in its deque is to be started by somebody else, and if there is one worker, before
    /// anything else. When that worker is back it finds nothing of its own to start, and comes here to see whether it or
    /// the substitute is one too many.
    pub(crate) fn clear_out(&mut self, deque: &Deque<T>) {
        if self.is_serial {
            deque.steal(&mut self.front, |len| len, |item| self.left.push_back(item));
        }
    }

    // ---- taking ----

    /// What comes next for a worker whose own deque is empty.
    pub(crate) fn refill<'a>(&mut self, injector: &'a Injector<T>, own: &OwnEnd<T>) -> Option<Supply<'a, T>> {
        if let Some(item) = self.left.pop_front() {
            return Some(Supply::One(item));
        }
        let stuck = self.stuck(own).and_then(|victim| self.steal_half(victim, own));
        if let Some(item) = stuck {
            return Some(Supply::One(item));
        }
        let haul = self.haul(injector).map(Supply::Many);
        haul.or_else(|| self.steal_from_any(own).map(Supply::One))
    }

    /// A fair share of what is in the injector.
    fn haul<'a>(&mut self, injector: &'a Injector<T>) -> Option<Haul<'a, T>> {
        let share = match self.is_serial && self.deques.len() > 1 {
            // A substitute, which leaves after the task at which the worker that it stands in for has come back.
            true => 1,
            false => injector.len().div_ceil(self.deques.len().max(1)),
        };
        injector.haul(&mut self.front, share.clamp(1, BATCH))
    }

    /// Looks at the next deque in turn. Says which it is, if it is another worker's, there is something in it, and its
    /// front has not moved since the last look: its owner may be in a long task, or wait for what lies there, and others
    /// may find enough elsewhere for ever.
    fn stuck(&mut self, own: &OwnEnd<T>) -> Option<usize> {
        self.victim = (self.victim + 1) % self.deques.len().max(1);
        let peer = self.deques.get_mut(self.victim)?;
        let before = std::mem::replace(&mut peer.seen, peer.deque.first());
        let is_own = Arc::ptr_eq(&peer.deque, own.deque());
        (!is_own && peer.seen.is_some() && peer.seen == before).then_some(self.victim)
    }

    /// One task, and more in the worker's own deque.
    fn steal_from_any(&mut self, own: &OwnEnd<T>) -> Option<T> {
        (0..self.deques.len()).find_map(|_| {
            self.victim = (self.victim + 1) % self.deques.len();
            self.steal_half(self.victim, own)
        })
    }

    /// The same, from one deque.
    fn steal_half(&mut self, victim: usize, own: &OwnEnd<T>) -> Option<T> {
        let mut batch = own.batch();
        let most = BATCH.min(batch.room() + 1);
        let mut first = None;
        let peer = &mut self.deques[victim];
        let give = |item| match first {
            None => first = Some(item),
            Some(_) => batch.add(item),
        };
        peer.steal(&mut self.front, |len| len.div_ceil(2).min(most), give);
        // Whether somebody is to be told is decided at the end of this critical section.
        batch.publish();
        first
    }

    fn steal_one(&mut self) -> Option<T> {
        (0..self.deques.len()).find_map(|victim| self.steal_one_from(victim))
    }

    fn steal_one_from(&mut self, victim: usize) -> Option<T> {
        let mut one = None;
        self.deques[victim].steal(&mut self.front, |_| 1, |item| one = Some(item));
        one
    }

    /// A task that may wait behind others for ever: the first in a deque whose owner is stuck, or else the oldest outside of
    /// deques. So those who push to their own deques for ever starve nobody.
    pub(crate) fn take_elsewhere(&mut self, injector: &Injector<T>, own: &OwnEnd<T>) -> Option<T> {
        let stuck = self.stuck(own).and_then(|victim| self.steal_one_from(victim));
        stuck.or_else(|| self.take_from_outside(injector))
    }

    fn take_from_outside(&mut self, injector: &Injector<T>) -> Option<T> {
        let mut first = self.left.pop_front();
        if first.is_none() {
            first = injector.haul(&mut self.front, 1).and_then(Haul::unload_one);
        }
        first
    }

    /// One task, for a thread that has no deque.
    pub(crate) fn take_one(&mut self, injector: &Injector<T>) -> Option<T> {
        let left = self.left.pop_front();
        left.or_else(|| self.steal_one()).or_else(|| self.take_from_outside(injector))
    }

    /// Takes everything out, for a queue whose gates are shut.
    pub(crate) fn take_all(&mut self, injector: &Injector<T>) -> VecDeque<T> {
        // A haul ends in a worker's deque. No other begins without the front, and nobody needs the lock to end one.
        let mut patience = Patience::default();
        while injector.is_hauling() {
            patience.wait();
        }
        let mut all = std::mem::take(&mut self.left);
        for peer in &self.deques {
            peer.deque.steal(&mut self.front, |len| len, |item| all.push_back(item));
        }
        while injector.len() > 0 {
            match injector.haul(&mut self.front, usize::MAX) {
                Some(mut haul) => haul.unload(|item| all.push_back(item)),
                // A producer is about to link a block.
                None => patience.wait(),
            }
        }
        all
    }

    // ---- counts ----

    /// Tasks in the queue, hollow ones included: while there are any, somebody has to look at them.
    pub(crate) fn len(&self, injector: &Injector<T>) -> usize {
        self.left.len() + self.deques().map(Deque::len).sum::<usize>() + injector.len()
    }

    pub(crate) fn is_empty(&self, injector: &Injector<T>) -> bool {
        self.len(injector) == 0
    }

    /// Tasks that wait to be started.
    pub(crate) fn waiting(&self, injector: &Injector<T>) -> u64 {
        (self.len(injector) as i64 + self.aside as i64 - self.hollow).max(0) as u64
    }

    /// Tasks ever accepted.
    pub(crate) fn accepted(&self, injector: &Injector<T>) -> u64 {
        self.accepted + self.deques().map(Deque::pushed).sum::<u64>() + injector.added()
    }

    /// Counts tasks in the queue that were claimed there, or, below zero, such tasks taken out.
    pub(crate) fn hollowed(&mut self, change: i64) {
        self.hollow += change;
    }

    // ---- sleeping ----

    /// Workers that sleep and were not called.
    pub(crate) fn asleep(&self) -> usize {
        self.sleepers.len()
    }

    pub(crate) fn sleepers(&self) -> impl Iterator<Item = &usize> {
        self.sleepers.iter()
    }

    /// Workers that were called and have not answered yet.
    pub(crate) fn coming(&self) -> usize {
        self.called.len()
    }

    /// A worker that has found nothing lies down. Says whether it may: if not, there is something after all.
    #[must_use]
    pub(crate) fn lie_down(&mut self, injector: &Injector<T>, worker: usize) -> bool {
        let may = !self.called.is_empty() || self.arm(injector);
        if may {
            self.sleepers.push(worker);
        }
        may
    }

    /// Whether a worker that lay down was called; if so it is up again.
    pub(crate) fn answer(&mut self, worker: usize) -> bool {
        let before = self.called.len();
        self.called.retain(|called| *called != worker);
        self.called.len() < before
    }

    /// A worker that has found nothing stays on the lookout, as one that is called already: it will answer by itself, and
    /// until then nobody else is called. Says whether it may: not if somebody is on the way.
    #[must_use]
    pub(crate) fn look_out(&mut self, worker: usize) -> bool {
        let may = self.called.is_empty();
        if may {
            self.called.push(worker);
        }
        may
    }

    /// A worker that was not called gets up.
    pub(crate) fn get_up(&mut self, worker: usize) {
        self.sleepers.retain(|sleeper| *sleeper != worker);
    }

    /// Ends a critical section in which tasks were taken, or workers called, or woken: if a task is queued, a worker sleeps
    /// and none is on its way, one is called. The caller wakes it.
    #[must_use]
    pub(crate) fn settle(&mut self, injector: &Injector<T>) -> Option<usize> {
        self.settle_with(injector, false)
    }

    /// The same, where the caller knows of tasks under way, which nobody would see.
    #[must_use]
    pub(crate) fn settle_with(&mut self, injector: &Injector<T>, has_more: bool) -> Option<usize> {
        if self.sleepers.is_empty() || !self.called.is_empty() || (!has_more && self.arm(injector)) {
            return None;
        }
        let worker = self.sleepers.pop()?;
        self.called.push(worker);
        Some(worker)
    }

    /// Sets the bell of every word, if there is no task in any of them. Says whether there was none.
    fn arm(&mut self, injector: &Injector<T>) -> bool {
        let front = &mut self.front;
        self.left.is_empty() && injector.arm(front) && self.deques.iter().all(|peer| peer.deque.arm(front))
    }

    /// Whether pushes have to come for the lock to call a worker.
    pub(crate) fn needs_bell(&self) -> bool {
        !self.sleepers.is_empty() && self.called.is_empty()
    }
}
