//! What came of a scoped task, and of the panics that nobody joined.

use crate::contain::{self, Payload};
use crate::os::Generation;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::Mutex;
use crate::task::{error, JoinError};
use std::panic::Location;
use std::sync::Arc;

/// What a task and its handle share: the place for its result.
pub(super) struct Packet<T> {
    location: &'static Location<'static>,
    panics: Arc<Panics>,
    outcome: Mutex<Option<Result<T, Panic>>>,
}

impl<T> Packet<T> {
    pub(super) fn new(panics: &Arc<Panics>, location: &'static Location<'static>) -> Arc<Packet<T>> {
        Arc::new(Packet { location, panics: panics.clone(), outcome: Mutex::default() })
    }

    /// Puts the outcome in. Says whether it is a panic.
    pub(super) fn fill(&self, result: Result<T, Payload>) -> bool {
        let outcome = result.map_err(|payload| self.panics.note(payload, self.location));
        let has_panicked = outcome.is_err();
        *self.outcome.lock() = Some(outcome);
        has_panicked
    }

    pub(super) fn take(&self) -> Result<T, JoinError> {
        let outcome = self.outcome.lock().take();
        let outcome = outcome.expect("a task that has run has left its outcome");
        outcome.map_err(|panic| JoinError::panicked(panic.payload, panic.location))
    }
}

impl<T> Drop for Packet<T> {
    fn drop(&mut self) {
        match self.outcome.lock().take() {
            Some(Err(panic)) => self.panics.add_unjoined(panic),
            value => contain::drop_quietly(value),
        }
    }
}

pub(super) struct Panic {
    /// Among those of its scope.
    number: u64,
    location: &'static Location<'static>,
    pub(super) payload: Payload,
}

impl Panic {
    /// For one that nobody receives.
    pub(super) fn log(self) {
        error::log_panic(&self.payload, self.location);
        contain::drop_quietly(self.payload);
    }
}

/// The panics of a scope's tasks.
pub(super) struct Panics {
    born: Generation,
    count: AtomicU64,
    /// Of those whose handles are gone, the one that came first.
    first: Mutex<Option<Panic>>,
}

impl Panics {
    pub(super) fn new() -> Panics {
        Panics { born: Generation::now(), count: AtomicU64::new(0), first: Mutex::default() }
    }

    fn note(&self, payload: Payload, location: &'static Location<'static>) -> Panic {
        Panic { number: self.count.fetch_add(1, Ordering::Relaxed), location, payload }
    }

    /// Keeps the panic for the end of the scope, or the one before it.
    fn add_unjoined(&self, panic: Panic) {
        if self.born.is_past() {
            // The lock may be held for ever, and the scope may be over.
            return panic.log();
        }
        let mut first = self.first.lock();
        let later = match &mut *first {
            Some(first) if first.number < panic.number => Some(panic),
            first => first.replace(panic),
        };
        drop(first);
        later.into_iter().for_each(Panic::log);
    }

    pub(super) fn take_first(&self) -> Option<Panic> {
        if self.born.is_past() {
            return None;
        }
        self.first.lock().take()
    }
}
