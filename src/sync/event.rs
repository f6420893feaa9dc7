//! Waiting for conditions that other threads bring about.

use super::atomic::{fence, AtomicUsize, Ordering};
use super::{Condvar, Instant, Mutex};
use crate::os::Generation;

/// Lets threads wait until a condition holds that other threads bring about: an eventcount.
///
/// Whoever changes something a waiter may look at calls [`signal`](Event::signal) *after* the change.
///
/// No wake-up is lost. A waiter announces itself, fences, notes the epoch, and only then looks at the condition; a
/// signaller changes the condition, fences, and only then looks for waiters. Of the two fences one comes first in
/// their total order. If it is the waiter's, the signaller sees the waiter and moves the epoch on: either after the
/// waiter noted it, so that the waiter does not sleep, or before, and then the epoch's lock has made the change
/// visible to the look that follows. If it is the signaller's, the waiter's look sees the change.
pub(crate) struct Event {
    born: Generation,
    waiters: AtomicUsize,
    epoch: Mutex<u64>,
    moved: Condvar,
}

impl Default for Event {
    fn default() -> Event {
        Event {
            born: Generation::now(),
            waiters: AtomicUsize::new(0),
            epoch: Mutex::default(),
            moved: Condvar::default(),
        }
    }
}

impl Event {
    /// Whether its waiters are in a process of which this is a forked child.
    pub(crate) fn is_past(&self) -> bool {
        self.born.is_past()
    }

    /// Whether somebody waits, as far as can be told without a fence: a hint.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0
    }

    /// Wakes every waiter to look at its condition again; a fence and a load where nobody waits.
    pub(crate) fn signal(&self) {
        fence(Ordering::SeqCst); // pairs with the fence in `wait`
        if self.waiters.load(Ordering::Relaxed) == 0 {
            return;
        }
        *self.epoch.lock() += 1;
        self.moved.notify_all();
    }

    /// Waits until `ready` holds, or until the moment that `until` names has come; `until` is asked again at each
    /// signal, since deadlines move. Returns what `ready` said last: what is ready beats a deadline that has passed.
    pub(crate) fn wait(
        &self,
        mut until: impl FnMut() -> Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) -> bool {
        let _announced = Announced::new(&self.waiters);
        fence(Ordering::SeqCst); // pairs with the fence in `signal`
        loop {
            let seen = *self.epoch.lock();
            if ready() {
                return true;
            }
            let until = until();
            let mut epoch = self.epoch.lock();
            while *epoch == seen {
                let late;
                (epoch, late) = self.moved.wait(epoch, until);
                if late {
                    drop(epoch);
                    return ready();
                }
            }
        }
    }
}

/// One waiter in the count, taken out again however the wait ends.
struct Announced<'a>(&'a AtomicUsize);

impl<'a> Announced<'a> {
    fn new(waiters: &'a AtomicUsize) -> Announced<'a> {
        waiters.fetch_add(1, Ordering::Relaxed);
        Announced(waiters)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `cargo test --profile models -p models --features loom event::model`: in every order, and with every value that memory may show.
/// What is waited for is read and written `Relaxed`, so that nothing but the eventcount orders it.
#[cfg(all(test, winddown_loom))]
mod model {
    use super::super::atomic::AtomicBool;
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    fn change(is_ready: &AtomicBool, event: &Event) {
        is_ready.store(true, Ordering::Relaxed);
        event.signal();
    }

    #[test]
    fn a_waiter_sees_what_was_changed_before_a_signal() {
        loom::model(|| {
            let (event, is_ready) = (Arc::new(Event::default()), Arc::new(AtomicBool::new(false)));
            let changer = {
                let (event, is_ready) = (event.clone(), is_ready.clone());
                thread::spawn(move || change(&is_ready, &event))
            };
            assert!(event.wait(|| None, || is_ready.load(Ordering::Relaxed)));
            changer.join().unwrap();
        });
    }

    #[test]
    fn each_of_two_waiters_sees_both_of_two_changes() {
        let mut bounded = loom::model::Builder::new();
        bounded.preemption_bound = Some(2);
        bounded.check(|| {
            let event = Arc::new(Event::default());
            let ready = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
            let are_ready = |ready: &[AtomicBool; 2]| ready.iter().all(|it| it.load(Ordering::Relaxed));
            let waiter = {
                let (event, ready) = (event.clone(), ready.clone());
                thread::spawn(move || assert!(event.wait(|| None, || are_ready(&ready))))
            };
            let changer = {
                let (event, ready) = (event.clone(), ready.clone());
                thread::spawn(move || change(&ready[0], &event))
            };
            change(&ready[1], &event);
            assert!(event.wait(|| None, || are_ready(&ready)));
            waiter.join().unwrap();
            changer.join().unwrap();
        });
    }
}
