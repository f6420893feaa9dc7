//! What a registry knows of a pool.

use super::ended::EndedThread;
use super::report::{PoolReport, PoolStats, RunningTask};
use crate::sync::thread::ThreadId;
use std::sync::Arc;

/// How many tasks a member took on and how many of those are over.
///
/// Both only grow, but for a task that resumes after it was blocked in a wait for a shutdown: it counts as settled
/// while it is blocked.
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) settled: u64,
}

/// Something that runs tasks on threads and can be wound down: a pool.
///
/// A shutdown calls these in the order in which they stand here; each may be called again, and any may be called
/// while another thread winds the same member down. After a change that a waiting shutdown may look at, the member
/// signals the registry's event.
pub(crate) trait Member: Send + Sync {
    fn is_daemon(&self) -> bool;

    /// Begins what is due by now, `most` tasks of it at most, and tells the registry when to call next: see
    /// [`timer`](super::timer).
    fn on_time(self: Arc<Self>, most: usize);

    /// Refuses tasks from outside from now on; those of `circle` may still submit. What is delayed is taken out, counted as
    /// cancelled. From here to [`finish`](Member::finish) the member's ended threads are left for the caller to join.
    fn close(&self, circle: Circle) -> Box<dyn Doomed>;

    fn tally(&self) -> Tally;

    /// Refuses every task from now on, unless one is left that may still submit. Says whether none was.
    fn seal(&self) -> bool;

    /// Refuses every task from now on, tells the running ones to stop, and takes the queued ones, counted as
    /// cancelled, out.
    fn cut_off(&self) -> Box<dyn Doomed>;

    /// Gives up the tasks that are running.
    fn abandon(&self);

    /// Threads that have neither ended nor been given up, nor are blocked in a wait that the shutdown `by` which they are
    /// to be joined must not wait for.
    fn threads_left(&self, by: Circle) -> usize;

    /// The threads that have ended and nobody has joined. Until `joined` is called for them they count as left, for
    /// another shutdown of the same member that waits for them.
    fn take_ended(&self) -> Vec<EndedThread>;

    fn joined(&self, threads: &[ThreadId]);

    /// The member is wound down, as far as it was to be. Balances each `close`.
    fn finish(&self);

    fn stats(&self) -> PoolStats;

    fn running(&self) -> Vec<RunningTask>;

    fn report(&self) -> PoolReport;
}

/// Whose tasks may still submit to a member that drains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Circle {
    /// Its own.
    Own,
    /// Those of every non-daemon member of its registry.
    Registry,
}

/// Tasks that were cancelled by a deadline, or before they were due; their captures are still to be dropped, which is other people's code.
pub(crate) trait Doomed: Send {
    /// Whether there are none, and so nothing that a thread is needed for.
    fn is_empty(&self) -> bool;

    /// Drops them, one after another, and resolves their handles.
    fn bury(self: Box<Self>);

    /// Something that resolves the handles of those that `bury` has not come to, because it hangs in one's drop.
    fn undertaker(&self) -> Box<dyn FnOnce() + Send>;
}
