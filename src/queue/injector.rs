//! The queue that every thread may add to: unbounded, first in first out, many producers and takers.
//!
//! # Layout
//!
//! Items lie inline in blocks of 127, which form a list. Positions count on through all blocks; each block has one
//! position more than it has slots, and the tail stands on that one while the next block is being linked.
//!
//! # The word
//!
//! The tail's position shares its word with two flags, so that adding an item is one compare-and-swap that also says
//! whether the item was taken on, and whether somebody has to be told:
//!
//! * **Accept against close.** A producer's swap fails once [`GATE`] is set. So every item is either
//!   before the gate in the order of changes of this one word, and whoever shut the gate counts it, or it is refused.
//! * **Add against sleep.** Whoever is going to sleep swaps [`BELL`] into the word it saw *empty*; the swap
//!   fails if an item was added since. So every item is either seen by the sleeper, or its producer sees the bell.
//!
//! Neither rests on the order of two different words, so neither needs a fence.
//!
//! # Filling and taking
//!
//! A producer first claims its position and then moves the item in; `ready` tells that this is done (Release, with the
//! Acquire of the taker). A taker claims a stretch of positions in one block with the only [`Front`], which is a matter of
//! two words, and takes the items out without it: several takers may do so at once. Who takes out the last item of a block
//! keeps the block for the next producer that needs one, or frees it.
#![allow(unsafe_code)]

use super::{BELL, FLAGS, GATE};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use crate::sync::{Padded, Patience, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr;

/// Positions in a block.
const LAP: u64 = if crate::sync::IS_MODEL { 3 } else { 128 };
/// Slots in a block.
const CAP: u64 = LAP - 1;
const ONE: u64 = FLAGS + 1;

pub(crate) struct Injector<T> {
    id: u64,
    tail: Padded<Tail<T>>,
    /// Changed by the holder of the front alone.
    head: Padded<Head<T>>,
    /// A block for the next producer that needs one.
    spare: AtomicPtr<Block<T>>,
    /// Hauls that are not done.
    hauls: AtomicU64,
}

struct Tail<T> {
    word: AtomicU64,
    /// The block that the position is in. It changes only while the position is that of no slot.
    block: AtomicPtr<Block<T>>,
}

struct Head<T> {
    position: AtomicU64,
    block: AtomicPtr<Block<T>>,
}

struct Block<T> {
    next: AtomicPtr<Block<T>>,
    /// Items that have not been taken out.
    left: AtomicU64,
    slots: [Slot<T>; CAP as usize],
}

struct Slot<T> {
    item: UnsafeCell<MaybeUninit<T>>,
    ready: AtomicBool,
}

/// The right to take items, from one injector and from the deques made for it: there is one for each injector, and
/// whoever has it borrowed mutably is the only taker.
pub(crate) struct Front {
    id: u64,
}

impl Front {
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

/// What came of a push.
#[must_use]
pub(crate) enum Pushed<D> {
    /// The item was added.
    Quietly,
    /// The item was added, and somebody has to be told.
    WithBell,
    /// The gate is shut, or there is no room.
    Refused(D),
}

impl<D> Pushed<D> {
    #[inline(always)]
    pub(super) fn after(word: u64) -> Pushed<D> {
        if word & BELL == 0 {
            Pushed::Quietly
        } else {
            Pushed::WithBell
        }
    }
}

/// What an item is made of, which goes back to whoever adds it if it is refused. It is made when its place is known, and
/// so is not moved about before: with closures of some words that costs more than the swap.
///
/// # Safety
///
/// `make_in` leaves a valid item in the place, and `unmake` takes out what it left there.
pub(crate) unsafe trait Draft<T>: Sized {
    /// Makes an item there. Must not panic: the place is waiting for it.
    ///
    /// # Safety
    ///
    /// The place is valid for a write of a `T`.
    unsafe fn make_in(self, place: *mut T);

    /// Undoes `make_in`.
    ///
    /// # Safety
    ///
    /// `make_in` of this very type made the item there, and it is used no more.
    unsafe fn unmake(place: *mut T) -> Self;
}

/// A place that an item has to be moved to: until then it holds up all behind it.
#[must_use]
struct Claim<'a, T> {
    slot: &'a Slot<T>,
    /// What the tail's word was at the claim.
    word: u64,
}

impl<T> Claim<'_, T> {
    /// Has the item written to the place.
    #[inline(always)]
    fn fill(self, write: impl FnOnce(*mut T)) {
        // The claim is on this slot, and no taker reads it before it is ready.
        self.slot.item.with_mut(|place| write(place.cast()));
        self.slot.ready.store(true, Ordering::Release);
    }
}

// SAFETY: an item is moved in by one thread and out by one other, which sees it through `ready`; everything else is
// atomic.
unsafe impl<T: Send> Send for Injector<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Injector<T> {}

impl<T> Block<T> {
    fn new() -> Box<Block<T>> {
        let slot = |_| Slot { item: UnsafeCell::new(MaybeUninit::uninit()), ready: AtomicBool::new(false) };
        Box::new(Block {
            next: AtomicPtr::new(ptr::null_mut()),
            left: AtomicU64::new(CAP),
            slots: std::array::from_fn(slot),
        })
    }
}

impl<T> Block<T> {
    /// Makes it as good as new. All at once: next to a slot that is taken out a producer may be writing to the next.
    fn reset(&self) {
        self.next.store(ptr::null_mut(), Ordering::Relaxed);
        self.left.store(CAP, Ordering::Relaxed);
        self.slots.iter().for_each(|slot| slot.ready.store(false, Ordering::Relaxed));
    }
}

impl<T> Injector<T> {
    /// Empty, with the bell set and the gate shut: it takes its first item through that, from the holder of the front.
    pub(crate) fn new() -> (Injector<T>, Front) {
        static IDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let id = IDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let none = ptr::null_mut;
        let injector = Injector {
            id,
            tail: Padded(Tail { word: AtomicU64::new(FLAGS), block: AtomicPtr::new(none()) }),
            head: Padded(Head { position: AtomicU64::new(0), block: AtomicPtr::new(none()) }),
            spare: AtomicPtr::new(none()),
            hauls: AtomicU64::new(0),
        };
        (injector, Front { id })
    }

    // ---- producers ----

    /// Adds an item unless the gate is shut.
    #[inline(always)]
    pub(crate) fn push<D: Draft<T>>(&self, draft: D) -> Pushed<D> {
        match self.claim(false) {
            Some(place) => {
                let word = place.word;
                // SAFETY: the place is valid for a write.
                place.fill(|place| unsafe { draft.make_in(place) });
                Pushed::after(word)
            }
            None => Pushed::Refused(draft),
        }
    }

    /// Adds an item although the gate is shut.
    pub(crate) fn push_through<D: Draft<T>>(&self, front: &mut Front, draft: D) {
        assert_eq!(front.id, self.id, "a front goes with one injector");
        if self.tail.0.block.load(Ordering::Relaxed).is_null() {
            // The gate has not been open yet, so no other producer is here.
            let first = Box::into_raw(Block::new());
            self.head.0.block.store(first, Ordering::Relaxed);
            self.tail.0.block.store(first, Ordering::Release);
        }
        if let Some(place) = self.claim(true) {
            // SAFETY: the place is valid for a write.
            place.fill(|place| unsafe { draft.make_in(place) });
        }
    }

    /// A place for an item, unless the gate is shut and that matters.
    #[inline]
    fn claim(&self, is_gated: bool) -> Option<Claim<'_, T>> {
        let mut next = None;
        let mut patience = Patience::default();
        // Acquire, here and below: pairs with the Release that ends `link`, so that a position never comes with the
        // block before its own.
        let mut word = self.tail.0.word.load(Ordering::Acquire);
        loop {
            if word & GATE != 0 && !is_gated {
                self.keep(next);
                return None;
            }
            let offset = (word / ONE) % LAP;
            if offset == CAP {
                patience.wait();
                word = self.tail.0.word.load(Ordering::Acquire);
                continue;
            }
            let block = self.tail.0.block.load(Ordering::Acquire);
            if offset + 1 == CAP && next.is_none() {
                // Before the claim: an allocation may take its time, and everybody waits for the link.
                next = Some(self.new_block());
            }
            // Release: whoever counts items and sees this one sees what its producer did before.
            match self.tail.0.word.compare_exchange_weak(
                word,
                word + ONE,
                Ordering::Release,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    // SAFETY: the position claimed is in this block: the block changes only together with the
                    // position, which was the same before the block was read and at the swap. The block is not
                    // freed before all its slots are taken, and this one cannot be before it is ready.
                    let block = unsafe { &*block };
                    if offset + 1 == CAP {
                        self.link(block, next.take());
                    }
                    self.keep(next);
                    return Some(Claim { slot: &block.slots[offset as usize], word });
                }
                Err(now) => word = now,
            }
        }
    }

    /// Opens the block after `block`, whose last slot the caller has claimed and not filled yet.
    #[cold]
    fn link(&self, block: &Block<T>, next: Option<Box<Block<T>>>) {
        let next = Box::into_raw(next.unwrap_or_else(Block::new));
        // No taker claims the last slot before it sees the position moved on, below.
        block.next.store(next, Ordering::Relaxed);
        // Release: pairs with the Acquire in `claim`. Who has seen this block comes after the claim of the block's last slot,
        // so no claim that came before goes with the block after its own.
        self.tail.0.block.store(next, Ordering::Release);
        self.tail.0.word.fetch_add(ONE, Ordering::Release);
    }

    fn new_block(&self) -> Box<Block<T>> {
        // Acquire: pairs with the Release in `keep`.
        let spare = self.spare.swap(ptr::null_mut(), Ordering::Acquire);
        if spare.is_null() {
            return Block::new();
        }
        // SAFETY: `keep` made it of a box, and the swap gave it to this thread alone.
        unsafe { Box::from_raw(spare) }
    }

    /// Keeps a block for the next that needs one, unless one is kept already.
    #[inline]
    fn keep(&self, block: Option<Box<Block<T>>>) {
        if let Some(block) = block {
            self.keep_one(block);
        }
    }

    #[cold]
    fn keep_one(&self, block: Box<Block<T>>) {
        let block = Box::into_raw(block);
        if self.spare.compare_exchange(ptr::null_mut(), block, Ordering::Release, Ordering::Relaxed).is_err()
        {
            // SAFETY: made of a box just above, and given to nobody.
            drop(unsafe { Box::from_raw(block) });
        }
    }

    // ---- takers ----

    /// Claims up to `most` items, those that come next. They are [unloaded](Haul::unload) without the front.
    pub(crate) fn haul(&self, front: &mut Front, most: usize) -> Option<Haul<'_, T>> {
        assert_eq!(front.id, self.id, "a front goes with one injector");
        let head = &self.head.0;
        let position = head.position.load(Ordering::Relaxed);
        // Acquire: pairs with the Release of the claims and of `link`.
        let tail = self.tail.0.word.load(Ordering::Acquire) / ONE;
        let first = position % LAP;
        let end = match tail / LAP == position / LAP {
            // The last item of a block waits until the next one is linked.
            true => (tail % LAP).min(CAP - 1),
            false => CAP,
        };
        let count = end.saturating_sub(first).min(most as u64);
        if count == 0 {
            return None;
        }
        let block = head.block.load(Ordering::Relaxed);
        if first + count < CAP {
            // Release: pairs with the Acquire in `len`.
            head.position.store(position + count, Ordering::Release);
        } else {
            // SAFETY: the head's block has items that nobody has claimed yet, so it is not freed.
            let next = unsafe { (*block).next.load(Ordering::Relaxed) };
            head.block.store(next, Ordering::Relaxed);
            head.position.store(position + count + 1, Ordering::Release);
        }
        // Nobody but the holder of the front adds to it.
        self.hauls.fetch_add(1, Ordering::Relaxed);
        Some(Haul { injector: self, block, first, count })
    }

    /// Whether claimed items are under way, not yet where their taker puts them.
    pub(crate) fn is_hauling(&self) -> bool {
        // Acquire: pairs with the Release in `Haul::drop`.
        self.hauls.load(Ordering::Acquire) > 0
    }

    /// Sets the bell if there is no item. Says whether there was none: then whoever adds the next one sees the bell.
    pub(crate) fn arm(&self, _: &mut Front) -> bool {
        let head = self.head.0.position.load(Ordering::Relaxed);
        let mut word = self.tail.0.word.load(Ordering::Acquire);
        loop {
            if word / ONE != head {
                return false;
            }
            if word & BELL != 0 {
                return true;
            }
            match self.tail.0.word.compare_exchange_weak(
                word,
                word | BELL,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Sets flags, whatever there is.
    pub(crate) fn set(&self, flags: u64) {
        self.tail.0.word.fetch_or(flags, Ordering::AcqRel);
    }

    pub(crate) fn clear(&self, flags: u64) {
        // What `claim` relies on.
        let is_begun = !self.tail.0.block.load(Ordering::Acquire).is_null();
        assert!(is_begun || flags & GATE == 0, "the gate opens after the first item");
        self.tail.0.word.fetch_and(!flags, Ordering::AcqRel);
    }

    // ---- everyone ----

    /// Items ever added.
    pub(crate) fn added(&self) -> u64 {
        items(self.tail.0.word.load(Ordering::Acquire) / ONE)
    }

    /// Items that nobody has claimed yet. Exact for whoever has the front.
    pub(crate) fn len(&self) -> usize {
        let taken = items(self.head.0.position.load(Ordering::Acquire));
        self.added().saturating_sub(taken) as usize
    }

    /// Whether there is something for a taker to look at: an item, or a shut gate. A hint.
    pub(crate) fn is_stirring(&self) -> bool {
        let word = self.tail.0.word.load(Ordering::Relaxed);
        word & GATE != 0 || word / ONE != self.head.0.position.load(Ordering::Relaxed)
    }
}

/// How many items come before a position.
fn items(position: u64) -> u64 {
    position / LAP * CAP + position % LAP
}

/// Items that somebody has claimed and that are still in their block.
#[must_use]
pub(crate) struct Haul<'a, T> {
    injector: &'a Injector<T>,
    block: *mut Block<T>,
    first: u64,
    count: u64,
}

impl<T> Haul<'_, T> {
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Takes the items out, in order. Those for which it [is still under way](Injector::is_hauling) when `give` has got
    /// the last are until this is dropped.
    pub(crate) fn unload(&mut self, mut give: impl FnMut(T)) {
        let Haul { injector, block, first, count } = *self;
        self.count = 0;
        {
            // SAFETY: a block is freed when all its items have been taken out, and these have not.
            let slots = unsafe { &(*block).slots };
            for slot in &slots[first as usize..(first + count) as usize] {
                let mut patience = Patience::default();
                // Acquire: pairs with the Release in `fill`. Its producer may have claimed it and not filled it yet.
                while !slot.ready.load(Ordering::Acquire) {
                    patience.wait();
                }
                // SAFETY: it is ready, so its producer is done with it, and it was claimed for this haul alone.
                give(slot.item.with_mut(|place| unsafe { (*place).assume_init_read() }));
            }
        }
        // SAFETY: as above.
        let left = unsafe { &(*block).left };
        // Release and Acquire: whoever takes the last item out is after all others that did, and after all producers.
        if count > 0 && left.fetch_sub(count, Ordering::AcqRel) == count {
            // SAFETY: it was made of a box. All its items are out, so every producer that claimed a slot is done with it,
            // and one that comes with a stale pointer claims nothing: `link` moved the tail before the last slot was
            // ready. The head has moved on as well.
            let done = unsafe { Box::from_raw(block) };
            done.reset();
            injector.keep(Some(done));
        }
    }
}

impl<T> Haul<'_, T> {
    /// The only item of a haul of one.
    pub(crate) fn unload_one(mut self) -> Option<T> {
        let mut one = None;
        self.unload(|item| one = Some(item));
        one
    }
}

impl<T> Drop for Haul<'_, T> {
    fn drop(&mut self) {
        self.unload(drop);
        self.injector.hauls.fetch_sub(1, Ordering::Release);
    }
}

impl<T> Drop for Injector<T> {
    fn drop(&mut self) {
        let mut block = self.head.0.block.load(Ordering::Relaxed);
        let mut first = self.head.0.position.load(Ordering::Relaxed) % LAP;
        while !block.is_null() {
            // SAFETY: nobody else is left, and each block in the list was made of a box.
            let done = unsafe { Box::from_raw(block) };
            for slot in &done.slots[first as usize..] {
                // In a forked child an item may have been halfway in at the fork; it stays where it is.
                if slot.ready.load(Ordering::Relaxed) {
                    // SAFETY: it is ready and was not taken.
                    drop(slot.item.with_mut(|place| unsafe { (*place).assume_init_read() }));
                }
            }
            first = 0;
            block = done.next.load(Ordering::Relaxed);
        }
        let spare = self.spare.load(Ordering::Relaxed);
        if !spare.is_null() {
            // SAFETY: as above; it is not in the list.
            drop(unsafe { Box::from_raw(spare) });
        }
    }
}
