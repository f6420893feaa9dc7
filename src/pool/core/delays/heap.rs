//! A binary heap out of which entries can be taken anywhere, and which wastes next to no memory.
//!
//! std's gives up its first entry only: cancelled ones would stay in it until they are due, or until one look at all of
//! them, under the pool's lock. It also doubles when it is full.

/// Entries ordered by a number, the smallest first.
pub(super) struct Heap<T> {
    entries: Vec<(u64, T)>,
    /// Down to where [`sweep`](Heap::sweep) has looked.
    swept: usize,
}

/// What is never worth giving back.
const SMALL: usize = 64;
/// How many entries one sweep looks at.
const LOOKS: usize = 8;

impl<T> Heap<T> {
    pub(super) const fn new() -> Heap<T> {
        Heap { entries: Vec::new(), swept: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn first(&self) -> Option<&(u64, T)> {
        self.entries.first()
    }

    pub(super) fn push(&mut self, key: u64, value: T) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len() / 8 + SMALL / 8);
        }
        self.entries.push((key, value));
        self.rise(self.entries.len() - 1);
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        (self.len() > 0).then(|| self.remove(0))
    }

    /// Takes all out, in no particular order.
    pub(super) fn take(&mut self) -> Vec<(u64, T)> {
        std::mem::take(&mut self.entries)
    }

    /// Looks at some entries, others than the last times, and takes those out that are `dead`. Called once for each that
    /// dies, it keeps them at less than half of all: it begins when they are a quarter, and then takes two of its looks.
    pub(super) fn sweep(&mut self, alive: usize, is_dead: impl Fn(&T) -> bool) -> Vec<T> {
        let mut dead = Vec::new();
        for _ in 0..LOOKS {
            if self.len() <= SMALL || self.len() * 3 <= alive * 4 {
                break;
            }
            // From the last to the first: whatever moves to fill a gap here was looked at, or will be.
            self.swept = match self.swept.min(self.len()) {
                0 => self.len(),
                swept => swept,
            };
            self.swept -= 1;
            if is_dead(&self.entries[self.swept].1) {
                dead.push(self.remove(self.swept));
                self.swept += 1;
            }
        }
        dead
    }

    fn remove(&mut self, place: usize) -> T {
        let (_, value) = self.entries.swap_remove(place);
        if place < self.len() {
            self.rise(place);
            self.sink(place);
        }
        if self.len() > SMALL && self.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.len() * 2);
        }
        value
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.entries[parent].0 <= self.entries[place].0 {
                break;
            }
            self.entries.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = (2 * place + 1..self.len()).take(2);
            match children.min_by_key(|child| self.entries[*child].0) {
                Some(child) if self.entries[child].0 < self.entries[place].0 => {
                    self.entries.swap(child, place);
                    place = child;
                }
                _ => break,
            }
        }
    }
}

#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Numbers in no order, the same ones each time.
    fn numbers(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20)
    }

    #[test]
    fn entries_come_out_in_their_order_whatever_was_taken_out_of_the_middle() {
        let mut heap = Heap::new();
        let mut left = BTreeSet::new();
        for (count, key) in numbers(5_000).enumerate() {
            heap.push(key, key);
            left.insert(key);
            if count % 3 == 0 {
                let taken = heap.remove(key as usize % heap.len());
                assert!(left.remove(&taken));
            }
        }
        let mut popped = Vec::new();
        while let Some(key) = heap.pop() {
            popped.push(key);
        }
        assert_eq!(popped, Vec::from_iter(left));
    }

    #[test]
    fn the_dead_are_less_than_half_and_leave_their_memory() {
        let mut heap = Heap::new();
        let keys: Vec<u64> = numbers(20_000).collect();
        keys.iter().for_each(|key| heap.push(*key, *key));
        assert!(heap.entries.capacity() <= keys.len() / 8 * 9 + SMALL);
        let mut dead = BTreeSet::new();
        let mut swept = 0;
        for (count, key) in keys.iter().enumerate() {
            dead.insert(*key);
            let alive = keys.len() - count - 1;
            swept += heap.sweep(alive, |key| dead.contains(key)).len();
            assert_eq!(heap.len() + swept, keys.len());
            assert!(heap.len() <= alive * 2 + SMALL, "{} entries for {alive}", heap.len());
            assert!(heap.entries.capacity() <= heap.len() * 4 + 8 * SMALL);
        }
        // Those that come out are in order still.
        let mut last = 0;
        while let Some(key) = heap.pop() {
            assert!(last < key);
            last = key;
        }
    }
}
