//! What tasks of a scope borrow, and panics that are looked at.

use std::fmt::Debug;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;

/// Something to borrow, on the heap, where a use after its end is found by AddressSanitizer. When it ends, nothing may borrow
/// from it.
pub struct Ground {
    loans: Box<AtomicUsize>,
    /// Loans that have ended.
    pub ended: Arc<AtomicUsize>,
}

impl Ground {
    pub fn new() -> Ground {
        Ground { loans: Box::default(), ended: Arc::default() }
    }

    pub fn loan(&self) -> Loan<'_> {
        self.loans.fetch_add(1, SeqCst);
        Loan(self)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let loans = self.loans.swap(usize::MAX, SeqCst);
        assert_eq!(loans, 0, "something borrows what is gone");
    }
}

pub struct Loan<'a>(pub &'a Ground);

impl Loan<'_> {
    pub fn touch(&self) {
        assert!(self.0.loans.load(SeqCst) != usize::MAX);
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.touch();
        self.0.ended.fetch_add(1, SeqCst);
        self.0.loans.fetch_sub(1, SeqCst);
    }
}

/// Panics when it is dropped.
pub struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("a bomb was dropped");
        }
    }
}

pub fn message(result: thread::Result<impl Debug>) -> &'static str {
    result.unwrap_err().downcast_ref::<&'static str>().copied().unwrap_or("something else")
}

/// What came of a call that may panic.
pub fn caught<R>(f: impl FnOnce() -> R) -> thread::Result<R> {
    catch_unwind(AssertUnwindSafe(f))
}
