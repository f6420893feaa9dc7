//! Delays, and tasks whose time must not come.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Counts its drops.
pub struct Dropped(pub Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A task that must not run, and the count of the drops of what it has captured.
pub fn doomed() -> (impl FnOnce() + Send + 'static, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    let captured = Dropped(drops.clone());
    let task = move || {
        let _captured = captured;
        panic!("a delayed task ran before its time");
    };
    (task, drops)
}
