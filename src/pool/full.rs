//! Submissions that say themselves what becomes of a task for which there is no room.

use super::core::{Core, Entry, IfFull, Seat};
use super::Pool;
use crate::queue::job::Order;
use crate::rejected::{RejectReason, Rejected};
use crate::task::cell::Cell;
use crate::task::work::Spawned;
use crate::task::JoinHandle;
use std::fmt;
use std::future::Future;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

impl Pool {
    /// Like [`execute`](Pool::execute), but refuses the task when the queue is full. Never blocks.
    ///
    /// # Errors
    ///
    /// [`RejectReason::Full`], whatever the pool's [`WhenFull`](crate::WhenFull), and for its own tasks, too; else as there.
    ///
    /// ```
    /// # let pool = winddown::Pool::new(1);
    /// if let Err(refused) = pool.try_execute(|| println!("thumbnail")) {
    ///     println!("not now: {}", refused.reason());
    /// }
    /// ```
    #[track_caller]
    pub fn try_execute<F: FnOnce() + Send + 'static>(&self, f: F) -> Result<(), Rejected<F>> {
        self.submit_fired(f, Location::caller(), IfFull::Refuse)
    }

    /// Like [`spawn`](Pool::spawn), but refuses the task when the queue is full. Never blocks.
    ///
    /// # Errors
    ///
    /// As for [`try_execute`](Pool::try_execute).
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_spawned(f, Location::caller(), IfFull::Refuse)
    }

    /// Like [`execute`](Pool::execute), but waits for room for at most `timeout`, whatever the pool's
    /// [`WhenFull`](crate::WhenFull). `Duration::MAX` waits for ever.
    ///
    /// A task's own submission to its pool goes over the bound instead of waiting.
    ///
    /// # Errors
    ///
    /// [`RejectReason::Timeout`] if there was no room in time; else as there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let pool = winddown::Pool::builder().queue_capacity(100).build()?;
    /// pool.execute_timeout(|| println!("thumbnail"), Duration::from_millis(50))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn execute_timeout<F>(&self, f: F, timeout: Duration) -> Result<(), Rejected<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit_fired(f, Location::caller(), IfFull::WaitFor(timeout))
    }

    /// Like [`spawn`](Pool::spawn), but waits for room as [`execute_timeout`](Pool::execute_timeout) does.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn spawn_timeout<F, T>(&self, f: F, timeout: Duration) -> Result<JoinHandle<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_spawned(f, Location::caller(), IfFull::WaitFor(timeout))
    }

    /// Like [`spawn`](Pool::spawn), for async code: a future that waits for room without blocking its thread, whatever the
    /// pool's [`WhenFull`](crate::WhenFull).
    ///
    /// Nothing is submitted before it is polled. It waits in one line with threads that wait for room; dropped before it is
    /// ready it has submitted nothing, and its place goes to the next in line. One that is not polled for a long time after
    /// it was woken keeps its place in the queue.
    ///
    /// # Errors
    ///
    /// As for [`execute`](Pool::execute), but never `Full`.
    ///
    /// ```
    /// async fn hash(pool: &winddown::Pool, text: String) -> Result<usize, Box<dyn std::error::Error>> {
    ///     Ok(pool.spawn_async(move || text.len()).await?.await?)
    /// }
    /// ```
    #[track_caller]
    pub fn spawn_async<F, T>(&self, f: F) -> SpawnAsync<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let location = Location::caller();
        SpawnAsync { core: self.core.clone(), location, cell: Some(Cell::new(f, location)), seat: None }
    }
}

#[cfg(all(test, winddown_shuttle))]
impl Pool {
    /// How many submitters wait for room: a model lets others go when they do.
    pub(crate) fn submitters_in_line(&self) -> usize {
        self.core.in_line()
    }
}

/// A submission that waits for room; see [`Pool::spawn_async`].
#[must_use = "nothing is submitted unless this is awaited"]
pub struct SpawnAsync<F, T> {
    core: Arc<Core>,
    location: &'static Location<'static>,
    cell: Option<Arc<Cell<F, T>>>,
    seat: Option<Arc<Seat>>,
}

impl<F, T> Future for SpawnAsync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<JoinHandle<T>, Rejected<F>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(cell) = this.cell.clone() else { panic!("a submission was polled after it was done") };
        let order = || Order { work: Spawned(cell.clone()), location: this.location };
        let result = match this.core.is_bounded() && !this.core.is_stale() {
            false => {
                this.core.submit(order().work, this.location, IfFull::Wait).map_err(|(_, reason)| reason)
            }
            true => match this.core.poll_enter(&mut this.seat, cx.waker()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(reason)) => Err(reason),
                Poll::Ready(Ok(Entry::Queue(state) | Entry::RunHere(state))) => {
                    this.core.add_at_gate(state, order()).map_err(|(_, reason)| reason)
                }
            },
        };
        (this.cell, this.seat) = (None, None);
        Poll::Ready(finish(cell, &this.core, result))
    }
}

/// The handle of a task that was accepted, or the closure of one that was refused.
pub(super) fn finish<F, T>(
    cell: Arc<Cell<F, T>>,
    core: &Arc<Core>,
    result: Result<(), RejectReason>,
) -> Result<JoinHandle<T>, Rejected<F>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match result {
        Ok(()) => Ok(JoinHandle::new(cell, core.clone())),
        Err(reason) => {
            let f = cell.into_closure().expect("a task that was refused has not run");
            Err(Rejected::new(reason, f))
        }
    }
}

impl<F, T> Drop for SpawnAsync<F, T> {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            self.core.go_away(seat);
        }
    }
}

impl<F, T> fmt::Debug for SpawnAsync<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_done = self.cell.is_none();
        f.debug_struct("SpawnAsync").field("location", &self.location).field("is_done", &is_done).finish()
    }
}

// As for a `JoinHandle`.
impl<F, T> UnwindSafe for SpawnAsync<F, T> {}
impl<F, T> RefUnwindSafe for SpawnAsync<F, T> {}
