//! What a pool has to offer to take part.

use crate::task::Words;
use std::sync::OnceLock;

/// A pool, behind the cheapest calls of its own API.
///
/// Every function here is generic or inlined, so that a scene is compiled for each pool as a program of its own would
/// be.
pub(crate) trait Peer: Sized + Send + Sync + 'static {
    /// Sets a pool of `width` threads up, with its defaults in all else.
    fn start(width: usize) -> Self;

    /// The `static` in which the process keeps its one pool that lives on.
    fn home() -> &'static OnceLock<Self>;

    /// Submits a task that nobody waits for.
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F);

    /// What submits one task and waits for its result, in the way that is natural and cheapest here.
    fn caller(&'static self) -> impl FnMut(Words) -> u64;

    /// The pool in the `static`, as a task reaches it.
    #[inline]
    fn resident() -> &'static Self {
        Self::home().get().expect("the pool is there before its first task")
    }
}

/// A pool whose tasks can be waited for one by one.
pub(crate) trait Handles: Peer {
    /// What waits for a task.
    type Handle;

    /// Submits a task with a result.
    fn spawn(&self, words: Words) -> Self::Handle;

    /// Waits for all these tasks in turn, and adds their results up.
    fn join(&self, handles: Vec<Self::Handle>) -> u64;
}

/// A pool that can be ended.
pub(crate) trait Ends: Peer {
    /// Ends the pool as far as its API goes; not every pool joins its threads.
    fn end(self);
}

/// A pool whose [`end`](Ends::end) waits for all tasks that are queued.
pub(crate) trait Drains: Ends {}
