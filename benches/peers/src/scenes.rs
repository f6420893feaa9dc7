//! The scenes, as one peer plays them: each file has one, or a few of a kind.
//!
//! A scene is asked for one round with a number of tasks, and answers with one or more figures. What is timed is the
//! whole round, except where a single round trip is the thing itself.

pub(crate) mod backlog;
pub(crate) mod fan_out;
pub(crate) mod life;
pub(crate) mod mixed;
pub(crate) mod round_trip;
pub(crate) mod spawn_join;
pub(crate) mod stream;

use std::time::{Duration, Instant};

/// Nanoseconds for each of `n`.
fn each(time: Duration, n: u64) -> f64 {
    time.as_nanos() as f64 / n as f64
}

/// Nanoseconds since `start`, for each of `n`.
fn each_since(start: Instant, n: u64) -> f64 {
    each(start.elapsed(), n)
}
