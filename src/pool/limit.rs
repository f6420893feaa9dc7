//! Part of a pool: the same threads, but at most so many tasks at once.

use super::core::{IfFull, Permit, Ticket};
use super::Pool;
use crate::queue::job::Job;
use crate::rejected::Rejected;
use crate::task::cell::Cell;
use crate::task::slot::Slot;
use crate::task::work::{Fired, Spawned};
use crate::task::JoinHandle;
use std::fmt;
use std::panic::Location;

/// A share of a pool's threads: at most so many of its tasks run at once. Get one with [`Pool::limit`].
///
/// Clones share the limit. Like a handle of the pool, it keeps the pool open.
///
/// A task that waits, inside, for its pool to be idle or to shut down lends its permit for as long: else those that wait for
/// the permit, and it for them, would do so for ever. When such a wait for an idle pool ends just as another task of the
/// limit begins, there is one too many for a while.
pub struct Limited {
    pool: Pool,
    id: u64,
    permits: usize,
}

impl Limited {
    pub(super) fn new(pool: Pool, permits: usize) -> Limited {
        assert!(permits > 0, "limit(0) could run nothing: allow at least 1");
        Limited { pool, id: crate::registry::unique_id(), permits }
    }

    /// Like [`Pool::execute`], under the limit.
    ///
    /// # Errors
    ///
    /// As there. Of a pool that was built with [`WhenFull::CallerRuns`](crate::WhenFull::CallerRuns) it waits for room: the
    /// limit holds for the submitter's thread, too.
    #[track_caller]
    pub fn execute<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<(), Rejected<F>> {
        self.submit_fired(f, Location::caller(), IfFull::AsBuilt)
    }

    /// Like [`Pool::spawn`], under the limit. A task that waits for a task of its own limit lends it its permit.
    ///
    /// # Errors
    ///
    /// As for [`execute`](Limited::execute).
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_spawned(f, Location::caller(), IfFull::AsBuilt)
    }

    /// Like [`Pool::try_execute`], under the limit: a task for which there is no permit waits in the backlog, which is part of
    /// the queue.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn try_execute<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<(), Rejected<F>> {
        self.submit_fired(f, Location::caller(), IfFull::Refuse)
    }

    /// Like [`Pool::try_spawn`], under the limit.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_spawned(f, Location::caller(), IfFull::Refuse)
    }

    fn submit_fired<F: FnOnce() + Send + 'static>(
        &self,
        f: F,
        location: &'static Location<'static>,
        if_full: IfFull,
    ) -> Result<(), Rejected<F>> {
        self.submit(f, if_full, |f, permit| (Job::new(Fired(move || permit.run(f)), location), ()))
            .map(|_| ())
    }

    fn submit_spawned<F, T>(
        &self,
        f: F,
        location: &'static Location<'static>,
        if_full: IfFull,
    ) -> Result<JoinHandle<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (ticket, cell) = self.submit(f, if_full, |f, permit| {
            let cell = Cell::new(move || permit.run(f), location);
            (Job::new(Spawned(cell.clone()), location), cell)
        })?;
        Ok(JoinHandle::new(cell, ticket))
    }

    /// Makes a job once it is sure to be taken on, as a closure could not be taken out of it again.
    fn submit<F, R>(
        &self,
        f: F,
        if_full: IfFull,
        make: impl FnOnce(F, Permit) -> (Job<Slot>, R),
    ) -> Result<(std::sync::Arc<Ticket>, R), Rejected<F>> {
        let core = &self.pool.core;
        match core.enter_limited(if_full) {
            Err(reason) => Err(Rejected::new(reason, f)),
            Ok((state, is_first)) => {
                let ticket = Ticket::new(core, self.id, self.permits);
                let (job, result) = make(f, Permit::new(ticket.clone()));
                core.add_limited(state, is_first, ticket.clone(), job);
                Ok((ticket, result))
            }
        }
    }
}

impl Clone for Limited {
    fn clone(&self) -> Limited {
        Limited { pool: self.pool.clone(), ..*self }
    }
}

impl fmt::Debug for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("pool", &self.pool.name()).field("limit", &self.permits).finish()
    }
}
