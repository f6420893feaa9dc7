//! Programs that fork. Each waits for its children and prints how they ended; an alarm makes a signal of a hang.
#![allow(unsafe_code)] // The C library's `fork` and what goes with it.

#[cfg(unix)]
mod before;
#[cfg(unix)]
mod scopes;
#[cfg(unix)]
mod storm;
#[cfg(unix)]
pub mod unix;

#[cfg(not(unix))]
pub const CASES: &[crate::Case] = &[];
#[cfg(unix)]
pub use unix::CASES;
