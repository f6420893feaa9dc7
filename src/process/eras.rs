//! What a process has one of, and each forked child another.

use crate::os::Generation;
use once_cell::race::OnceBox;

/// One `T` for each process in a line of forks: a child starts afresh, with the next era.
///
/// Eras are linked and never freed, so references to them can be handed out for ever. They are made without a lock: one that
/// another thread held at the moment of a fork could never be taken in the child.
pub(crate) struct Eras<T>(OnceBox<Era<T>>);

struct Era<T> {
    generation: Generation,
    value: T,
    next: Eras<T>,
}

impl<T> Eras<T> {
    pub(crate) const fn new() -> Eras<T> {
        Eras(OnceBox::new())
    }

    /// That of the present process. Several threads may make one at once; all get the same, and the others are dropped.
    pub(crate) fn get_or_make(&self, make: impl Fn() -> T) -> &T {
        let generation = Generation::now();
        let new = || Box::new(Era { generation, value: make(), next: Eras::new() });
        let mut era = self.0.get_or_init(new);
        while era.generation != generation {
            era = era.next.0.get_or_init(new);
        }
        &era.value
    }

    /// The same, if there is one.
    #[cfg(feature = "exit-hook")]
    pub(crate) fn get(&self) -> Option<&T> {
        let generation = Generation::now();
        let mut era = self.0.get();
        while let Some(found) = era {
            if found.generation == generation {
                return Some(&found.value);
            }
            era = found.next.0.get();
        }
        None
    }
}
