//! Pools: the public face.

mod builder;
mod core;
mod default;
mod delay;
mod full;
mod limit;
mod map;
mod scope;
#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests;
mod unstarted;
mod worker;

pub use builder::{BuildError, FollowUps, PoolBuilder, WhenFull};
pub use default::{default_pool, execute, spawn};
pub use full::SpawnAsync;
pub use limit::Limited;
pub use map::{Map, MapUnordered};
pub use scope::{Scope, ScopedJoinHandle};
pub use unstarted::UnstartedTask;

use self::core::{Core, IfFull};
use crate::context::{self, TaskHost, Wait};
use crate::queue::Intake;
use crate::registry::budget::Budget;
use crate::registry::drain::Drain;
use crate::registry::member::Member;
use crate::registry::report::{PoolReport, PoolStats, RunningTask};
use crate::registry::Registry;
use crate::rejected::{RejectReason, Rejected};
use crate::sync::deadline;
use crate::sync::Instant;
use crate::task::cell::Cell;
use crate::task::work::{Fired, Spawned};
use crate::task::JoinHandle;
use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;
use worker::WorkerCx;

/// Threads that run tasks, and that the process waits for.
///
/// Threads start when there is work and none is idle, up to the maximum, and end when they have been idle for the
/// keep-alive. Clones are handles to the same pool. Dropping the last one closes the pool and never blocks: what it
/// accepted still runs, and the process waits for that when it exits.
///
/// # Order
///
/// A pool of one thread starts tasks in the order in which they were accepted. With several, each worker takes some tasks
/// at a time, in that order, and one that has run out takes over what another has not started: so a task waits behind a
/// long one only while every thread is busy. What a task submits to its own pool, the same worker runs first, the latest
/// before the others, unless another worker is free; tasks from outside still get their turn.
///
/// ```
/// let pool = winddown::Pool::new(4);
/// for n in 0..100 {
///     pool.execute(move || println!("task {n}"))?;
/// }
/// // All hundred run, though nothing here waits for them.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a pool without tasks does nothing"]
pub struct Pool {
    core: Arc<Core>,
    /// Whether this handle keeps the pool open; the one of `current` does not.
    is_counted: bool,
}

impl Pool {
    /// Makes a pool of at most `max_threads` threads in the global registry, with the defaults of
    /// [`PoolBuilder`] in all else.
    ///
    /// Once the registry drains, this makes a pool that refuses every task with [`RejectReason::ShuttingDown`].
    ///
    /// # Panics
    ///
    /// If `max_threads` is zero, as such a pool could never run anything. [`builder`](Pool::builder) returns an error
    /// instead.
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// assert_eq!(pool.stats().threads, 0); // they start with the work
    /// ```
    pub fn new(max_threads: usize) -> Pool {
        let pool = Pool::builder().max_threads(max_threads).build_or_refuse();
        pool.unwrap_or_else(|error| panic!("Pool::new({max_threads}): {error}"))
    }

    /// Sets up a pool in detail.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let pool = winddown::Pool::builder()
    ///     .name("thumbnails")
    ///     .max_threads(8)
    ///     .keep_alive(Duration::from_secs(60))
    ///     .build()?;
    /// assert_eq!(pool.name(), "thumbnails");
    /// # Ok::<(), winddown::BuildError>(())
    /// ```
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    /// Inside a task: its pool. `None` elsewhere.
    ///
    /// The handle does not keep the pool open, nor do its clones: a task that holds on to its pool does not hold up
    /// its end.
    ///
    /// ```
    /// let pool = winddown::Pool::builder().name("outer").build()?;
    /// let name = pool.spawn(|| winddown::Pool::current().unwrap().name().to_owned())?;
    /// assert_eq!(name.join()?, "outer");
    /// assert!(winddown::Pool::current().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn current() -> Option<Pool> {
        context::with_host(|cx: Option<&WorkerCx>| {
            let cx = cx.filter(|cx| cx.is_in_task())?;
            Some(Pool { core: cx.core.clone(), is_counted: false })
        })
    }

    /// Queues a task that nobody waits for: fire and forget. The process waits for it when it exits.
    ///
    /// Costs no allocation for a closure of up to four words. If the task panics, that is logged at `error` with the
    /// place of this call, told to [`on_task_panic`](PoolBuilder::on_task_panic), and counted.
    ///
    /// # Errors
    ///
    /// The closure comes back with the reason, and was not run: see [`RejectReason`]. While the pool drains, its own
    /// tasks may still submit (unless [`FollowUps::Reject`]), everyone else is refused.
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// pool.execute(|| println!("done in the background"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    #[inline]
    pub fn execute<F>(&self, f: F) -> Result<(), Rejected<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit_fired(f, Location::caller(), IfFull::AsBuilt)
    }

    /// Queues a task and returns a handle to wait for its result.
    ///
    /// # Errors
    ///
    /// As for [`execute`](Pool::execute).
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// let sum = pool.spawn(|| (1..=100).sum::<u32>())?;
    /// assert_eq!(sum.join()?, 5050);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, Rejected<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_spawned(f, Location::caller(), IfFull::AsBuilt)
    }

    #[inline]
    fn submit_fired<F: FnOnce() + Send + 'static>(
        &self,
        f: F,
        location: &'static Location<'static>,
        if_full: IfFull,
    ) -> Result<(), Rejected<F>> {
        let result = self.core.submit(Fired(f), location, if_full);
        result.map_err(|(Fired(f), reason)| Rejected::new(reason, f))
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
        let cell = Cell::new(f, location);
        let result = self.core.submit(Spawned(cell.clone()), location, if_full);
        full::finish(cell, &self.core, result.map_err(|(_, reason)| reason))
    }

    /// A share of this pool's threads, for tasks of which at most `limit` are to run at once: connections to one server,
    /// say. `limit(1)` runs its tasks one after the other.
    ///
    /// Its tasks start in the order of their submission. One that has to wait for another of the same limit keeps no worker
    /// waiting, and those of several limits take turns. They are tasks of this pool in all else: they drain, they count as
    /// queued while they wait, and a shutdown names them.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    ///
    /// ```
    /// let pool = winddown::Pool::new(8);
    /// let database = pool.limit(2); // two connections
    /// for n in 0..100 {
    ///     database.execute(move || println!("row {n}"))?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit(&self, limit: usize) -> Limited {
        Limited::new(self.clone(), limit)
    }

    /// Waits until nothing is queued and nothing runs. The pool stays open.
    ///
    /// Blocks; what is submitted meanwhile is waited for too. Inside a task it waits for the others: tasks that are
    /// themselves blocked in such a wait do not count. In a forked child it returns at once.
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// pool.execute(|| ())?;
    /// pool.wait_idle();
    /// assert_eq!(pool.stats().completed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_idle(&self) {
        self.wait_idle_until(None);
    }

    /// Like [`wait_idle`](Pool::wait_idle), for at most `timeout` (`Duration::MAX`: for ever). Says whether the pool
    /// was idle.
    pub fn wait_idle_timeout(&self, timeout: Duration) -> bool {
        self.wait_idle_until(deadline(timeout))
    }

    fn wait_idle_until(&self, until: Option<Instant>) -> bool {
        if self.core.is_stale() {
            return true;
        }
        let blocked = context::block(Wait::Idle(self.core.id));
        self.core.wait_idle(until, blocked.is_worker() || context::in_hook())
    }

    /// Refuses new tasks from now on and lets what was accepted drain in the background. Does not block.
    ///
    /// Until that is done the pool's own tasks may still submit to it, unless [`FollowUps::Reject`]. [Delays](Pool::spawn_after)
    /// that are not over are cancelled, and their captures dropped here.
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// pool.close();
    /// assert!(pool.execute(|| ()).is_err());
    /// ```
    pub fn close(&self) {
        if !self.core.is_stale() {
            self.core.bring_due(usize::MAX);
            self.core.close_intake(Intake::Own, RejectReason::Closed);
        }
    }

    /// Whether the pool has stopped taking tasks from outside.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Closes the pool, waits until everything it accepted has run, joins its threads and reports.
    ///
    /// Blocks as long as that takes; [`shutdown_timeout`](Pool::shutdown_timeout) sets a limit. May be called again,
    /// and by several threads at once. Inside a task of the pool it works: that task counts as finished. A daemon
    /// pool is waited for like any other.
    ///
    /// ```
    /// let pool = winddown::Pool::new(2);
    /// pool.execute(|| println!("runs before shutdown returns"))?;
    /// assert!(pool.shutdown().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self) -> PoolReport {
        self.wind_down(None)
    }

    /// Like [`shutdown`](Pool::shutdown), but gives up after `timeout` (`Duration::MAX`: never).
    ///
    /// In the last fifth of the time, two seconds at most, queued tasks are cancelled and
    /// [`task::is_cancelled`](crate::task::is_cancelled) turns true in running ones; halfway through it those that
    /// still run are abandoned. The report names them. A zero timeout waits for nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let pool = winddown::Pool::new(1);
    /// let (go, wait) = std::sync::mpsc::channel::<()>();
    /// pool.execute(move || { let _ = wait.recv(); })?;
    /// let report = pool.shutdown_timeout(Duration::from_millis(20));
    /// assert_eq!(report.abandoned().len(), 1);
    /// # drop(go);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_timeout(&self, timeout: Duration) -> PoolReport {
        self.wind_down(Some(timeout))
    }

    /// Closes the pool, takes back what it has not started, tells running tasks to stop, and waits until they have ended
    /// and its threads are joined.
    ///
    /// Blocks as long as that takes: [`task::is_cancelled`](crate::task::is_cancelled) turns true in running tasks, but nothing
    /// stops one that does not ask. What comes back can be run, or dropped, or told of by its
    /// [location](UnstartedTask::location); a handle stays pending until its task is run or dropped. Borrowed tasks of a
    /// [scope](Pool::scope) do not come back but are cancelled, as are [delays](Pool::spawn_after). Named after Java's
    /// `ExecutorService.shutdownNow`.
    ///
    /// Inside a task of the pool it works like [`shutdown`](Pool::shutdown). A task of the pool that joins one that was taken
    /// back runs it in place, as it runs a queued one: its [`UnstartedTask`] is empty then, and it is not counted as returned.
    /// One that waits for it in another way, with a timeout or in async code, waits until it is run or dropped.
    ///
    /// ```
    /// let pool = winddown::Pool::new(1);
    /// let (running, is_running) = std::sync::mpsc::channel();
    /// pool.execute(move || {
    ///     let _ = running.send(());
    ///     while !winddown::task::is_cancelled() { std::thread::yield_now() }
    /// })?;
    /// is_running.recv()?;
    /// let queued = pool.spawn(|| 5)?;
    /// let (report, unstarted) = pool.shutdown_now();
    /// assert_eq!((report.stats().completed, report.stats().returned), (1, 1));
    /// unstarted.into_iter().for_each(|task| task.run());
    /// assert_eq!(queued.join()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_now(&self) -> (PoolReport, Vec<UnstartedTask>) {
        if self.core.is_stale() {
            return (self.wind_down(None), Vec::new());
        }
        self.core.bring_due(usize::MAX);
        let (jobs, doomed) = self.core.hand_back();
        // From here on, so that a task that calls this is not waited for by another shutdown meanwhile.
        let _blocked = context::block(self.core.wait_for_shutdown());
        doomed.bury();
        (self.wind_down(None), jobs.into_iter().map(UnstartedTask::new).collect())
    }

    fn wind_down(&self, timeout: Option<Duration>) -> PoolReport {
        if self.core.is_stale() {
            return PoolReport {
                stats: self.core.stats(),
                abandoned: Vec::new(),
                lost: 0,
                workers_joined: 0,
                elapsed: Duration::ZERO,
            };
        }
        let _blocked = context::block(self.core.wait_for_shutdown());
        let budget = Arc::new(Budget::new(timeout));
        let mut drain = Drain::of_one(self.core.registry.event().clone(), self.core.clone(), budget);
        drain.drain();
        drain.join(|_| Vec::new());
        drain.finish();
        self.core.report()
    }

    /// The pool's name: the builder's, or `pool-N`.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The pool's counts.
    pub fn stats(&self) -> PoolStats {
        self.core.stats()
    }

    /// The tasks that run now.
    ///
    /// ```
    /// let pool = winddown::Pool::new(1);
    /// let (running, is_running) = std::sync::mpsc::channel();
    /// let (go, wait) = std::sync::mpsc::channel::<()>();
    /// pool.execute(move || {
    ///     winddown::task::set_label("invoice 4711");
    ///     let _ = running.send(());
    ///     let _ = wait.recv();
    /// })?;
    /// is_running.recv()?;
    /// assert_eq!(pool.running()[0].label(), Some("invoice 4711"));
    /// # drop(go);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn running(&self) -> Vec<RunningTask> {
        self.core.running()
    }

    /// The registry that winds the pool down.
    pub fn registry(&self) -> &Registry {
        &self.core.registry
    }
}

impl Clone for Pool {
    fn clone(&self) -> Pool {
        if self.is_counted {
            self.core.add_handle();
        }
        Pool { core: self.core.clone(), is_counted: self.is_counted }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.is_counted {
            self.core.drop_handle();
        }
    }
}

impl fmt::Debug for Pool {
    /// Takes no lock, so it can be printed anywhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.core.name)
            .field("max_threads", &self.core.config.max_threads)
            .field("is_daemon", &self.core.config.is_daemon)
            .finish_non_exhaustive()
    }
}

// Its locks do not poison and no code of others runs under them.
impl UnwindSafe for Pool {}
impl RefUnwindSafe for Pool {}
