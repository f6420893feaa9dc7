//! A worker's own queue: bounded; the worker adds and takes at the back, others take at the front.
//!
//! # The word
//!
//! Both ends and the two flags share one word, and every change of it is a compare-and-swap. Whoever takes an item first
//! moves an end past it and only then reads it, so that nobody ever reads what he does not own. What that leaves open is
//! when the owner may write to a slot again: not while another thread, which has moved the front past it, still reads.
//! There is one such thread at most, the holder of the [`Front`], and `stealing` says whether it reads (Release, with the
//! owner's Acquire).
//!
//! The flags are those of the [injector](super::injector), and hold for the same reason: an item is added by a swap that
//! fails if the gate was shut or that sees the bell.
//!
//! # Order
//!
//! A batch from the injector lies below what the owner has added since. The owner takes what it added last first, and
//! when none of that is left, the batch from its front on. All others take from the front: what is oldest.
#![allow(unsafe_code)]

use super::injector::{Draft, Front, Pushed};
use super::{BELL, CROWD, GATE};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Padded, Patience, UnsafeCell};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// How many items fit in.
pub(super) const CAP: u16 = if crate::sync::IS_MODEL { 2 } else { 256 };

/// Where the ends begin: in a model shortly before they wrap.
const START: u16 = if crate::sync::IS_MODEL { u16::MAX } else { 0 };

pub(crate) struct Deque<T> {
    /// The id of the front with which others take from it.
    of: u64,
    word: Padded<AtomicU64>,
    /// The holder of the front reads what it took.
    stealing: AtomicBool,
    /// Items that the owner has added by `push`, written by it alone.
    pushed: AtomicU64,
    slots: Box<[UnsafeCell<MaybeUninit<T>>; CAP as usize]>,
}

/// What a deque's word says. The ends count on and wrap; an item's slot is its place modulo the capacity.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    /// The place of the first item.
    fn front(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The place after the last one.
    fn back(self) -> u16 {
        (self.0 >> 48) as u16
    }

    fn len(self) -> u16 {
        self.back().wrapping_sub(self.front())
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn with_front(self, front: u16) -> Word {
        Word(self.0 & !(0xffff << 32) | u64::from(front) << 32)
    }

    fn with_back(self, back: u16) -> Word {
        Word(self.0 & !(0xffff << 48) | u64::from(back) << 48)
    }
}

/// The owner's end. Not `Sync`: it is used by one thread at a time.
pub(crate) struct OwnEnd<T> {
    deque: Arc<Deque<T>>,
    /// Where the batch ends that items were pushed on top of.
    base: Cell<u16>,
    /// No slot before this place is still being read.
    free_from: Cell<u16>,
}

// SAFETY: an item is moved in by one thread and out by one other, which sees it through the word; everything else is
// atomic.
unsafe impl<T: Send> Send for Deque<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Deque<T> {}

impl<T> Deque<T> {
    fn slot(&self, place: u16) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[usize::from(place % CAP)]
    }

    fn load(&self, ordering: Ordering) -> Word {
        Word(self.word.0.load(ordering))
    }

    /// Release: whoever sees an item sees its content, and whoever sees an end moved over an item sees what its taker
    /// announced before. Acquire: the reverse.
    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        let swapped = self.word.0.compare_exchange_weak(from.0, to.0, Ordering::AcqRel, Ordering::Acquire);
        swapped.map(drop).map_err(Word)
    }

    /// Takes items from the front, in order: `most` of the number there. Returns how many.
    pub(crate) fn steal(
        &self,
        front: &mut Front,
        most: impl Fn(usize) -> usize,
        mut give: impl FnMut(T),
    ) -> usize {
        assert_eq!(front.id(), self.of, "a front goes with one injector and the deques made for it");
        // Before the front moves: the owner that sees it moved sees this.
        self.stealing.store(true, Ordering::Relaxed);
        let mut word = self.load(Ordering::Acquire);
        let taken = loop {
            let len = word.len();
            let taken = most(len.into()).min(len.into()) as u16;
            if taken == 0 {
                break 0;
            }
            match self.swap(word, word.with_front(word.front().wrapping_add(taken))) {
                Ok(()) => break taken,
                Err(now) => word = now,
            }
        };
        for nth in 0..taken {
            let slot = self.slot(word.front().wrapping_add(nth));
            // SAFETY: the swap took these items, and the owner, which pushed them before, does not write to their slots
            // until `stealing` is false again.
            give(slot.with_mut(|place| unsafe { (*place).assume_init_read() }));
        }
        self.stealing.store(false, Ordering::Release);
        taken.into()
    }

    /// Sets the bell if there is no item. Says whether there was none: then whoever adds the next one sees the bell.
    pub(crate) fn arm(&self, _: &mut Front) -> bool {
        let mut word = self.load(Ordering::Acquire);
        loop {
            if word.len() > 0 {
                return false;
            }
            if word.has(BELL) {
                return true;
            }
            match self.swap(word, Word(word.0 | BELL)) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
    }

    pub(crate) fn set(&self, flags: u64) {
        self.word.0.fetch_or(flags, Ordering::AcqRel);
    }

    pub(crate) fn clear(&self, flags: u64) {
        self.word.0.fetch_and(!flags, Ordering::AcqRel);
    }

    pub(crate) fn len(&self) -> usize {
        self.load(Ordering::Acquire).len().into()
    }

    /// The place of the first item, if there is one.
    pub(crate) fn first(&self) -> Option<u16> {
        let word = self.load(Ordering::Acquire);
        (word.len() > 0).then(|| word.front())
    }

    /// Items that were ever pushed.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Acquire)
    }
}

impl<T> OwnEnd<T> {
    /// The owner's end of an empty deque with `flags` set. Others take from it with `front`.
    pub(crate) fn new(front: &Front, flags: u64) -> OwnEnd<T> {
        let slots: Box<[_]> = (0..CAP).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
        let deque = Deque {
            of: front.id(),
            word: Padded(AtomicU64::new(Word(flags).with_front(START).with_back(START).0)),
            stealing: AtomicBool::new(false),
            pushed: AtomicU64::new(0),
            slots: slots.try_into().unwrap_or_else(|_| unreachable!("as many as were made")),
        };
        OwnEnd { deque: Arc::new(deque), base: Cell::new(START), free_from: Cell::new(START) }
    }

    pub(crate) fn deque(&self) -> &Arc<Deque<T>> {
        &self.deque
    }

    /// Adds an item at the back, unless the gate is shut or there is no room.
    #[inline(always)]
    pub(crate) fn push<D: Draft<T>>(&self, draft: D) -> Pushed<D> {
        let deque = &*self.deque;
        let mut word = deque.load(Ordering::Relaxed);
        let back = word.back();
        if word.has(GATE) || !self.has_room(back) {
            return Pushed::Refused(draft);
        }
        // SAFETY: nobody reads this slot: it is behind the back, and no item that was in it before is still being read.
        deque.slot(back).with_mut(|place| unsafe { draft.make_in(place.cast()) });
        // Before the item can be seen, let alone be settled: nobody may find more settled than accepted.
        let pushed = deque.pushed.load(Ordering::Relaxed);
        deque.pushed.store(pushed + 1, Ordering::Relaxed);
        loop {
            match deque.swap(word, word.with_back(back.wrapping_add(1))) {
                Ok(()) => return Pushed::after(word.0),
                Err(now) if now.has(GATE) => {
                    deque.pushed.store(pushed, Ordering::Relaxed);
                    // SAFETY: the item was made above, and it is not between the ends, so nobody else takes it.
                    return Pushed::Refused(unsafe {
                        deque.slot(back).with_mut(|place| D::unmake(place.cast()))
                    });
                }
                Err(now) => word = now,
            }
        }
    }

    #[inline]
    fn has_room(&self, back: u16) -> bool {
        back.wrapping_sub(self.free_from.get()) < CAP || self.has_room_after_all(back)
    }

    #[cold]
    fn has_room_after_all(&self, back: u16) -> bool {
        // The word first: whoever moved the front as far as this sees has announced itself before.
        let word = self.deque.load(Ordering::Acquire);
        // Acquire: pairs with the Release in `steal`, after the last read.
        if !self.deque.stealing.load(Ordering::Acquire) {
            self.free_up_to(word.front());
        }
        back.wrapping_sub(self.free_from.get()) < CAP
    }

    /// Notes that the slots before this place, the front, may be used again.
    fn free_up_to(&self, front: u16) {
        // Nor does a batch reach farther back. Were its end left where it was, it would seem to lie ahead once others have
        // taken half of all places from a deque that its owner never finds empty. The back is at most a capacity away from
        // here, so this is in time.
        if front.wrapping_sub(self.base.get()) as i16 > 0 {
            self.base.set(front);
        }
        self.free_from.set(front);
    }

    /// Takes what was pushed last, or else the next of the batch.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
        self.take(true)
    }

    /// Like [`pop`](OwnEnd::pop), for an item that is taken out where it lies: `take` gets it, initialised, and has to
    /// leave the place empty before it runs anything that may push. It is told whether [`CROWD`] is set.
    ///
    /// # Safety
    ///
    /// As it says.
    #[inline]
    pub(crate) unsafe fn pop_in_place<R>(&self, take: impl FnOnce(*mut T, bool) -> R) -> Option<R> {
        let (place, word) = self.advance(true)?;
        Some(take(self.deque.slot(place).with_mut(|slot| slot.cast::<T>()), word.has(CROWD)))
    }

    /// Takes the oldest item.
    pub(crate) fn pop_front(&self) -> Option<T> {
        self.take(false)
    }

    #[inline]
    fn take(&self, from_back: bool) -> Option<T> {
        let (place, _) = self.advance(from_back)?;
        // SAFETY: the swap in `advance` took this item, which this thread has written.
        Some(self.deque.slot(place).with_mut(|slot| unsafe { (*slot).assume_init_read() }))
    }

    /// Moves an end past an item, which is the caller's then: the place it is in, and the word as it was.
    #[inline]
    fn advance(&self, from_back: bool) -> Option<(u16, Word)> {
        let deque = &*self.deque;
        let mut word = deque.load(Ordering::Relaxed);
        loop {
            if word.len() == 0 {
                self.base.set(word.back());
                return None;
            }
            let has_pushed = word.back().wrapping_sub(self.base.get()) as i16 > 0;
            let (place, rest) = if from_back && has_pushed {
                let last = word.back().wrapping_sub(1);
                (last, word.with_back(last))
            } else {
                (word.front(), word.with_front(word.front().wrapping_add(1)))
            };
            match deque.swap(word, rest) {
                Ok(()) => return Some((place, word)),
                Err(now) => word = now,
            }
        }
    }

    /// Whether there is anything on top of the batch.
    #[inline]
    pub(crate) fn has_pushed(&self) -> bool {
        let word = self.deque.load(Ordering::Relaxed);
        word.back().wrapping_sub(self.base.get()) as i16 > 0
    }

    /// Whether a batch lies below what was pushed: what waits longer than anything that `pop` returns.
    pub(crate) fn has_batch(&self) -> bool {
        let word = self.deque.load(Ordering::Relaxed);
        word.len() > 0 && self.base.get().wrapping_sub(word.front()) as i16 > 0
    }

    /// Adds a batch to an empty deque: what the result is given, in order, [`room`](Batch::room) at most.
    pub(crate) fn batch(&self) -> Batch<'_, T> {
        let mut patience = Patience::default();
        loop {
            // The order of the two loads: see `has_room_after_all`.
            let word = self.deque.load(Ordering::Acquire);
            if !self.deque.stealing.load(Ordering::Acquire) {
                self.free_up_to(word.front());
                return Batch { owner: self, back: word.back(), count: 0, room: CAP - word.len() };
            }
            // Whoever stole the last items may still read them.
            patience.wait();
        }
    }
}

/// A batch that is being added to a deque.
#[must_use]
pub(crate) struct Batch<'a, T> {
    owner: &'a OwnEnd<T>,
    back: u16,
    count: u16,
    room: u16,
}

impl<T> Batch<'_, T> {
    pub(crate) fn room(&self) -> usize {
        self.room.into()
    }

    pub(crate) fn add(&mut self, item: T) {
        assert!(self.count < self.room, "a batch is no larger than its deque");
        self.assert_alone(self.owner.deque.load(Ordering::Relaxed));
        let slot = self.owner.deque.slot(self.back.wrapping_add(self.count));
        // SAFETY: nobody reads this slot: it is behind the back and in front of what may still be read.
        slot.with_mut(|place| unsafe { (*place).write(item) });
        self.count += 1;
    }
}

impl<T> Batch<'_, T> {
    /// Between its begin and its end nothing else is added: it would lie in the same slots.
    fn assert_alone(&self, word: Word) {
        assert_eq!(word.back(), self.back, "a deque takes one batch at a time, and no push meanwhile");
    }

    /// Shows the batch to others, the gate notwithstanding: it was accepted elsewhere. Says whether the bell is set, and
    /// there is something to tell.
    pub(crate) fn publish(self) -> bool {
        let deque = &*self.owner.deque;
        let back = self.back.wrapping_add(self.count);
        let mut word = deque.load(Ordering::Relaxed);
        self.assert_alone(word);
        while let Err(now) = deque.swap(word, word.with_back(back)) {
            word = now;
        }
        self.owner.base.set(back);
        self.count > 0 && word.has(BELL)
    }
}

impl<T> Drop for Deque<T> {
    fn drop(&mut self) {
        let word = self.load(Ordering::Acquire);
        for nth in 0..word.len() {
            let slot = self.slot(word.front().wrapping_add(nth));
            // SAFETY: nobody else is left, and between the ends the slots are filled.
            drop(slot.with_mut(|place| unsafe { (*place).assume_init_read() }));
        }
    }
}
