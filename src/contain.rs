//! Keeps a panic in somebody else's code from costing anything of ours: a worker, a hook, the process.

use std::any::Any;
use std::fmt;
use std::panic::{catch_unwind, AssertUnwindSafe};

pub(crate) type Payload = Box<dyn Any + Send>;

/// Runs code that is not ours.
///
/// Asserting unwind safety is right here: what the closure captured is consumed by it, and what it shares with others
/// is the business of those who share it, as it is for `std::thread::spawn`.
pub(crate) fn run<R>(f: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Drops a value whose destructor is not ours; a panic in it goes no further, nor does one from dropping *that*
/// panic's payload.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(payload) = run(move || drop(value)) {
        if let Err(again) = run(move || drop(payload)) {
            std::mem::forget(again);
        }
    }
}

/// What a panic said, as far as it said it in words.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a panic without a message"
    }
}

/// Writes a log record. A logger is the application's code and may panic: the record is lost then, not the thread.
pub(crate) fn log(level: log::Level, text: fmt::Arguments<'_>) {
    if let Err(payload) = run(|| log::log!(target: "winddown", level, "{text}")) {
        drop_quietly(payload);
    }
}

#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests {
    use super::*;

    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Bomb(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_payload_whose_drop_panics_again_and_again_goes_no_further() {
        drop_quietly(Bomb(5));
    }
}
