//! Waiting for a shutdown to begin, or to finish, in threads and in async tasks.

use super::report::Report;
use crate::os::Generation;
use crate::sync::Instant;
use crate::sync::{deadline, Condvar, Mutex};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A value that is set once, and everyone who waits for it.
pub(crate) struct Once<T> {
    born: Generation,
    state: Mutex<State<T>>,
    set: Condvar,
}

struct State<T> {
    value: Option<T>,
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl<T: Clone> Once<T> {
    pub(crate) fn new() -> Once<T> {
        let state = State { value: None, next: 0, wakers: BTreeMap::new() };
        Once { born: Generation::now(), state: Mutex::new(state), set: Condvar::new() }
    }

    /// Sets the value, the first time, and wakes everyone. Wakers are other people's code: no lock is held.
    pub(crate) fn set(&self, value: T) {
        let mut state = self.state.lock();
        if state.value.is_some() {
            return;
        }
        state.value = Some(value);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.set.notify_all();
        for waker in wakers.into_values() {
            if let Err(payload) = crate::contain::run(|| waker.wake()) {
                crate::contain::drop_quietly(payload);
            }
        }
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.state.lock().value.clone()
    }

    fn wait_until(&self, until: Option<Instant>) -> bool {
        self.wait_for(until, || false)
    }

    /// Waits for the value, or for `otherwise`, which changes only before a [`look_again`](Once::look_again) and is
    /// asked under the lock.
    pub(crate) fn wait(&self, otherwise: impl Fn() -> bool) {
        self.wait_for(None, otherwise);
    }

    fn wait_for(&self, until: Option<Instant>, otherwise: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.value.is_some() {
                return true;
            }
            if otherwise() {
                return false;
            }
            let late;
            (state, late) = self.set.wait(state, until);
            if late {
                return state.value.is_some();
            }
        }
    }

    pub(crate) fn look_again(&self) {
        // Under the lock no waiter is between its look and its sleep.
        let _state = self.state.lock();
        self.set.notify_all();
    }

    /// Polls for the value. `key` is the poller's place among the wakers; it gives it up with [`forget`](Once::forget).
    fn poll(&self, key: &mut Option<u64>, cx: &Context<'_>) -> Poll<T> {
        // Cloned, like dropped, without the lock: a waker is other people's code.
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        if let Some(value) = &state.value {
            *key = None;
            return Poll::Ready(value.clone());
        }
        let next = state.next;
        let place = *key.get_or_insert(next);
        if place == next {
            state.next += 1;
        }
        let old = state.wakers.insert(place, waker);
        drop(state);
        drop(old);
        Poll::Pending
    }

    fn forget(&self, key: Option<u64>) {
        if let Some(key) = key {
            if !self.born.is_past() {
                let old = self.state.lock().wakers.remove(&key);
                drop(old);
            }
        }
    }
}

/// Fires when a shutdown begins, before the first hook runs: the sign to stop taking on work.
///
/// It is a future for any async runtime, ready from then on however often it is polled, and threads can wait for it
/// or ask. Get one with [`token`](crate::token) or [`Registry::token`](crate::Registry::token).
///
/// In a forked child the token of the parent's registry counts as triggered.
///
/// ```
/// let registry = winddown::Registry::new();
/// let token = registry.token();
/// assert!(!token.is_triggered());
/// registry.shutdown();
/// token.wait();
/// ```
#[must_use = "a token does nothing by itself: ask it, wait for it or await it"]
pub struct ShutdownToken {
    shared: Arc<Once<()>>,
    key: Option<u64>,
}

impl ShutdownToken {
    pub(crate) fn new(shared: Arc<Once<()>>) -> ShutdownToken {
        ShutdownToken { shared, key: None }
    }

    /// Whether shutdown has begun.
    pub fn is_triggered(&self) -> bool {
        self.shared.born.is_past() || self.shared.get().is_some()
    }

    /// Blocks until shutdown begins.
    pub fn wait(&self) {
        if !self.shared.born.is_past() {
            self.shared.wait_until(None);
        }
    }

    /// Blocks until shutdown begins, for at most `timeout` (`Duration::MAX`: for ever). Says whether it has begun.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.shared.born.is_past() || self.shared.wait_until(deadline(timeout))
    }
}

impl Clone for ShutdownToken {
    fn clone(&self) -> ShutdownToken {
        ShutdownToken::new(self.shared.clone())
    }
}

impl Future for ShutdownToken {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let token = self.get_mut();
        if token.shared.born.is_past() {
            return Poll::Ready(());
        }
        token.shared.poll(&mut token.key, cx)
    }
}

impl Drop for ShutdownToken {
    fn drop(&mut self) {
        self.shared.forget(self.key.take());
    }
}

impl fmt::Debug for ShutdownToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownToken").field("is_triggered", &self.is_triggered()).finish()
    }
}

// Its lock does not poison and no code of others runs under it, so a panic elsewhere cannot leave it half changed.
impl UnwindSafe for ShutdownToken {}
impl RefUnwindSafe for ShutdownToken {}

/// A future for the report of a registry's shutdown; get one with [`Registry::finished`](crate::Registry::finished).
///
/// It does not begin a shutdown, it waits for one to finish. It works in any async runtime.
#[must_use = "a future does nothing until it is awaited"]
pub struct Finished {
    shared: Arc<Once<Report>>,
    key: Option<u64>,
}

impl Finished {
    pub(crate) fn new(shared: Arc<Once<Report>>) -> Finished {
        Finished { shared, key: None }
    }
}

impl Future for Finished {
    type Output = Report;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        let finished = self.get_mut();
        if finished.shared.born.is_past() {
            return Poll::Ready(Report::nothing());
        }
        finished.shared.poll(&mut finished.key, cx)
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        self.shared.forget(self.key.take());
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished").finish_non_exhaustive()
    }
}

impl UnwindSafe for Finished {}
impl RefUnwindSafe for Finished {}
