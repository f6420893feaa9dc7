//! Submissions that are for later.

use super::{full, Pool};
use crate::rejected::Rejected;
use crate::task::cell::{Awaited, Cell};
use crate::task::JoinHandle;
use std::panic::Location;
use std::time::Duration;

impl Pool {
    /// Queues a task when `delay` has passed, and returns a handle to wait for its result. Until then it costs no thread of the
    /// pool, and some ninety bytes beside what the closure takes.
    ///
    /// It is queued never before its time, and commonly within a fraction of a millisecond after it; of equal delays the first
    /// accepted is the first queued. From then on it is a task like any other, but that it goes over the bound of a
    /// [full queue](crate::PoolBuilder::queue_capacity) rather than wait. With a delay of zero it is queued at once. One that
    /// is longer than clocks count (`Duration::MAX`) never ends.
    ///
    /// **At the end.** When the pool closes, in whatever way, delays that are not over are cancelled: their captures are
    /// dropped, and then their handles resolve. [`close`](Pool::close), [`shutdown_now`](Pool::shutdown_now) and the drop of the
    /// last handle do so on their own thread, other shutdowns on one for that. Nothing waits for the tasks, and no report
    /// counts them as lost; it counts them as [cancelled](crate::PoolStats::cancelled), and before that the pool as
    /// [delayed](crate::PoolStats::delayed). [`wait_idle`](Pool::wait_idle) does not wait for them either.
    /// [Cancelling](JoinHandle::cancel) one drops its captures at once.
    ///
    /// All delays of a [registry](crate::Registry) share one thread, `winddown-timer`, which runs none of their tasks. The first
    /// delay starts it, and it ends when none is left. The model is Java's `ScheduledExecutorService.schedule`.
    ///
    /// # Errors
    ///
    /// The closure comes back with the reason, and was not run. A pool that is not open refuses delays from everybody, its own
    /// tasks included, as they would be cancelled; so does one whose registry drains.
    /// [`NoThread`](crate::RejectReason::NoThread): the system refused the thread that waits.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// let pool = winddown::Pool::new(2);
    /// let start = Instant::now();
    /// let reminder = pool.spawn_after(Duration::from_millis(20), move || start.elapsed())?;
    /// assert!(reminder.join()? >= Duration::from_millis(20));
    ///
    /// let timeout = pool.spawn_after(Duration::from_secs(60), || println!("too late"))?;
    /// assert!(timeout.cancel());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Retry
    ///
    /// A task that has failed may submit itself again, after a delay, and keeps no thread waiting for it. How long to wait is
    /// what crates such as [`backon`](https://docs.rs/backon) know:
    ///
    /// ```
    /// use backon::{BackoffBuilder, ExponentialBuilder};
    /// use std::sync::mpsc::{channel, Sender};
    /// use std::time::Duration;
    /// use winddown::Pool;
    ///
    /// struct Retry<T, E> {
    ///     attempt: Box<dyn FnMut() -> Result<T, E> + Send>,
    ///     delays: Box<dyn Iterator<Item = Duration> + Send>,
    ///     answer: Sender<Result<T, E>>,
    /// }
    ///
    /// impl<T: Send + 'static, E: Send + 'static> Retry<T, E> {
    ///     /// A task of the pool.
    ///     fn run(mut self) {
    ///         let result = (self.attempt)();
    ///         let delay = if result.is_err() { self.delays.next() } else { None };
    ///         match (delay, Pool::current()) {
    ///             // Where the pool has closed, this is refused; where it closes later, this is cancelled. Either drops
    ///             // `answer`, and so whoever waits for that learns of it.
    ///             (Some(delay), Some(pool)) => drop(pool.spawn_after(delay, move || self.run())),
    ///             _ => drop(self.answer.send(result)), // nobody may wait any more
    ///         }
    ///     }
    /// }
    ///
    /// let pool = Pool::new(2);
    /// let (answer, answered) = channel();
    /// let mut attempts = 0;
    /// let retry = Retry {
    ///     attempt: Box::new(move || {
    ///         attempts += 1; // call a service that is busy now and then
    ///         if attempts < 3 { Err("busy") } else { Ok(attempts) }
    ///     }),
    ///     delays: Box::new(ExponentialBuilder::new().with_min_delay(Duration::from_millis(1)).with_jitter().build()),
    ///     answer,
    /// };
    /// pool.execute(move || retry.run())?;
    /// assert_eq!(answered.recv()?, Ok(3)); // an error here: the pool closed before there was an answer
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The example `retry` is a program that is stopped in the middle of it.
    #[track_caller]
    pub fn spawn_after<F, T>(&self, delay: Duration, f: F) -> Result<JoinHandle<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let cell = Cell::new(f, Location::caller());
        let result = self.core.delay(delay, cell.clone().erase());
        full::finish(cell, &self.core, result)
    }
}
