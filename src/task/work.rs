//! What is queued of a task: its cell, or where nobody holds a handle, its closure alone.

use super::cell::{AnyTask, Place};
use super::error::tell_panic;
use super::slot::Slot;
use crate::contain::{self, Payload};
use crate::os::Generation;
use crate::queue::job::{Doom, HandBack, Work};
use std::panic::Location;
use std::sync::Arc;

/// Ends a task without a handle.
#[cold]
fn end_in_panic(payload: Payload, slot: &Slot, location: &Location<'_>, process: Generation) {
    tell_panic(&payload, location);
    contain::drop_quietly(payload);
    // Either may have forked.
    if !process.is_past() {
        slot.end(true);
    }
}

/// A task with a handle, on its way to a worker.
pub(crate) struct Spawned(pub(crate) Arc<dyn AnyTask>);

impl Work<Slot> for Spawned {
    fn run(self, slot: &Slot, _: &'static Location<'static>) -> bool {
        self.0.run(slot, &|| ())
    }

    fn doom(&mut self) -> Doom {
        if self.0.doom() {
            Doom::Awaited(self.0.clone().resolver())
        } else {
            Doom::Gone
        }
    }

    fn hand_back(&mut self) -> HandBack {
        // Who claims the task after this counts it under the pool's lock, and finds there that it is outside.
        if !self.0.is_queued() {
            return HandBack::Gone;
        }
        self.0.set_place(Place::Outside);
        // Whoever is handed it may wait for the one that waits for it, in a task of the pool.
        self.0.rouse();
        HandBack::Yes
    }

    fn discard(self) {
        self.0.discard();
    }
}

/// A task without a handle.
pub(crate) struct Fired<F>(pub(crate) F);

impl<F: FnOnce() + Send + 'static> Work<Slot> for Fired<F> {
    #[inline]
    fn run(self, slot: &Slot, location: &'static Location<'static>) -> bool {
        slot.begin(location);
        let process = Generation::now();
        let result = contain::run(self.0);
        if process.is_past() {
            contain::drop_quietly(result);
            return true;
        }
        match result {
            Ok(()) => slot.end(false),
            Err(payload) => end_in_panic(payload, slot, location, process),
        }
        true
    }

    fn doom(&mut self) -> Doom {
        Doom::Silent
    }

    fn hand_back(&mut self) -> HandBack {
        HandBack::Yes
    }

    fn discard(self) {
        contain::drop_quietly(self.0);
    }
}
