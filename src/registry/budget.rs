//! How a shutdown spends its time.
//!
//! ```text
//! begin                                     cancel_at    abandon_at       end
//!   |--- pre-join hooks, holds, the drain -----|------------|--------------|
//!                                              |<- reserve: a fifth, <= 2 s ->|
//! ```
//!
//! At `cancel_at` queued tasks are cancelled and running ones told; at `abandon_at` running ones are given up; what
//! is left joins the workers that can be joined and runs post-join hooks.

use crate::sync::Instant;
use crate::sync::LeafMutex as Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

const LONGEST_RESERVE: Duration = Duration::from_secs(2);

/// Changes of budgets so far, of any; see [`changes`].
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A number that is another one after every change of a budget: who has read many of them, after this number, need not
/// read them again while it stays the same.
pub(crate) fn changes() -> u64 {
    CHANGES.load(Ordering::Acquire) // pairs with the Release in `changed`
}

/// Follows each change. Who sees the new number sees the change.
fn changed() {
    CHANGES.fetch_add(1, Ordering::Release);
}

/// The deadline of one shutdown: any number of calls may bring it nearer, none puts it off.
#[derive(Default)]
pub(crate) struct Budget {
    limit: Mutex<Option<Limit>>,
    /// The budget of the shutdown that this one is a part of.
    whole: Mutex<Option<Arc<Budget>>>,
}

#[derive(Clone, Copy)]
struct Limit {
    end: Instant,
    reserve: Duration,
}

impl Budget {
    pub(crate) fn new(timeout: Option<Duration>) -> Budget {
        let budget = Budget::default();
        budget.tighten(timeout);
        budget
    }

    /// Brings the end nearer, to `timeout` from now. `None`, or longer than clocks count, leaves it where it is.
    pub(crate) fn tighten(&self, timeout: Option<Duration>) {
        let Some(timeout) = timeout else { return };
        let Some(end) = crate::sync::deadline(timeout) else { return };
        let new = Limit { end, reserve: (timeout / 5).min(LONGEST_RESERVE) };
        let mut limit = self.limit.lock();
        if limit.map_or(true, |old| new.end < old.end) {
            *limit = Some(new);
            changed();
        }
    }

    /// Makes this the budget of a part of a shutdown, which ends when the whole does.
    pub(crate) fn within(&self, whole: &Arc<Budget>) {
        *self.whole.lock() = Some(whole.clone());
        changed();
    }

    fn limit(&self) -> Option<Limit> {
        let own = *self.limit.lock();
        let whole = self.whole.lock().clone().and_then(|whole| whole.limit());
        match (own, whole) {
            (Some(own), Some(whole)) => Some(if whole.end < own.end { whole } else { own }),
            (own, whole) => own.or(whole),
        }
    }

    pub(crate) fn cancel_at(&self) -> Option<Instant> {
        self.limit().map(|limit| limit.end - limit.reserve)
    }

    pub(crate) fn abandon_at(&self) -> Option<Instant> {
        self.limit().map(|limit| limit.end - limit.reserve / 2)
    }

    /// Until when threads are joined once running tasks have been abandoned: post-join hooks need the rest.
    pub(crate) fn join_until(&self) -> Option<Instant> {
        self.limit().map(|limit| limit.end - limit.reserve / 4)
    }

    pub(crate) fn end(&self) -> Option<Instant> {
        self.limit().map(|limit| limit.end)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end().is_some_and(|end| Instant::now() >= end)
    }

    /// Until when something that began at `start` and may hang is waited for: half of what was left then.
    pub(crate) fn half_from(&self, start: Instant) -> Option<Instant> {
        self.end().map(|end| start + end.saturating_duration_since(start) / 2)
    }
}

#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_later_call_brings_the_end_nearer_and_never_puts_it_off() {
        let budget = Budget::new(None);
        assert!(budget.end().is_none() && !budget.is_over());
        budget.tighten(Some(Duration::MAX));
        assert!(budget.end().is_none());
        budget.tighten(Some(Duration::from_secs(100)));
        let far = budget.end().unwrap();
        assert_eq!(far - budget.cancel_at().unwrap(), Duration::from_secs(2));
        budget.tighten(Some(Duration::from_secs(5)));
        let near = budget.end().unwrap();
        assert!(near < far);
        assert_eq!(near - budget.cancel_at().unwrap(), Duration::from_secs(1));
        assert_eq!(near - budget.abandon_at().unwrap(), Duration::from_millis(500));
        budget.tighten(Some(Duration::from_secs(50)));
        assert_eq!(budget.end(), Some(near));
    }

    #[test]
    fn a_part_ends_with_the_whole() {
        let whole = Arc::new(Budget::new(Some(Duration::from_secs(5))));
        let part = Budget::new(Some(Duration::from_secs(50)));
        part.within(&whole);
        assert_eq!(part.end(), whole.end());
        whole.tighten(Some(Duration::ZERO));
        assert!(part.is_over());
    }
}
