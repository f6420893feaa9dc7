use super::core::{Callbacks, Config, Core};
use super::Pool;
use crate::queue::Intake;
use crate::registry::report::RunningTask;
use crate::registry::Registry;
use crate::rejected::RejectReason;
use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What a pool's own tasks may do while it drains.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum FollowUps {
    /// They may submit more, which is run before the pool ends. The default.
    #[default]
    Accept,
    /// Like everybody else they are refused.
    Reject,
}

/// What becomes of a task for which a pool's queue has no room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Its submitter waits for room, first come, first served. The default.
    #[default]
    Block,
    /// It is refused, with [`RejectReason::Full`](crate::RejectReason::Full).
    Reject,
    /// Its submitter runs it on the spot, which keeps it from submitting more meanwhile. Java's `CallerRunsPolicy`, but
    /// that a closed pool refuses the task instead of dropping it.
    ///
    /// On its submitter's thread, too, it is a task of this pool, in everything that a task may ask and do, but that it finds
    /// no [worker state](crate::task::with_state). What its submitter is inside of, it is inside of as well: where that is a
    /// task of another pool, a wait in it marks that task as waiting, too; where it is a hook, `shutdown` panics in it.
    CallerRuns,
}

/// Why a pool could not be built.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// `max_threads` is zero.
    ZeroThreads,
    /// `min_threads` is larger than `max_threads`.
    MinAboveMax,
    /// `queue_capacity` is zero.
    ZeroCapacity,
    /// The name has a NUL byte in it, which no thread's name may have.
    BadName,
    /// The registry drains already, or belongs to the process that this one was forked from.
    ShuttingDown,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BuildError::ZeroThreads => "max_threads is 0, and such a pool could run nothing: allow at least 1",
            BuildError::MinAboveMax => "min_threads is above max_threads: lower the one or raise the other",
            BuildError::ZeroCapacity => "queue_capacity is 0, and such a pool could take no task: allow at least 1",
            BuildError::BadName => "the name contains a NUL byte, which no thread's name may: leave it out",
            BuildError::ShuttingDown => {
                "the registry drains already, so a new pool would run nothing: build pools before shutdown begins"
            }
        })
    }
}

impl Error for BuildError {}

/// Sets up a [`Pool`]; get one with [`Pool::builder`].
///
/// ```
/// let pool = winddown::Pool::builder().name("mail").max_threads(2).daemon().build()?;
/// assert!(pool.stats().is_daemon);
/// # Ok::<(), winddown::BuildError>(())
/// ```
#[must_use = "a builder builds nothing until build() is called"]
pub struct PoolBuilder {
    name: Option<Cow<'static, str>>,
    max_threads: Option<usize>,
    min_threads: usize,
    keep_alive: Duration,
    stack_size: Option<usize>,
    queue_capacity: Option<usize>,
    when_full: WhenFull,
    follow_ups: FollowUps,
    is_daemon: bool,
    callbacks: Callbacks,
    registry: Option<Registry>,
    #[cfg(test)]
    pub(super) on_timeout: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl PoolBuilder {
    pub(super) fn new() -> PoolBuilder {
        PoolBuilder {
            name: None,
            max_threads: None,
            min_threads: 0,
            keep_alive: Duration::from_secs(10),
            stack_size: None,
            queue_capacity: None,
            when_full: WhenFull::default(),
            follow_ups: FollowUps::default(),
            is_daemon: false,
            callbacks: Callbacks::default(),
            registry: None,
            #[cfg(test)]
            on_timeout: None,
        }
    }

    /// The pool's name, which its threads share: `NAME-worker-1` and so on. Default: `pool-N`, counted up.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> PoolBuilder {
        self.name = Some(name.into());
        self
    }

    /// How many threads there may be at once. Default: the available parallelism.
    pub fn max_threads(mut self, max_threads: usize) -> PoolBuilder {
        self.max_threads = Some(max_threads);
        self
    }

    /// How many threads are kept when they are idle, once they were started. Default: 0.
    pub fn min_threads(mut self, min_threads: usize) -> PoolBuilder {
        self.min_threads = min_threads;
        self
    }

    /// For how long a thread above the minimum may be idle before it ends. Default: 10 s. `Duration::MAX`: for ever.
    pub fn keep_alive(mut self, keep_alive: Duration) -> PoolBuilder {
        self.keep_alive = keep_alive;
        self
    }

    /// The stack size of its threads, in bytes. Default: that of `std::thread`. One that the operating system refuses
    /// shows at the first submission, as [`RejectReason::NoThread`](crate::RejectReason::NoThread).
    ///
    /// As with `std::thread`, a closure is moved onto the stack of its worker when it starts: one that captures large arrays
    /// by value needs room for them there, or a box around it.
    pub fn stack_size(mut self, stack_size: usize) -> PoolBuilder {
        self.stack_size = Some(stack_size);
        self
    }

    /// How many tasks may wait in its queue. Default: as many as memory holds.
    ///
    /// What counts is accepted and not started, the backlogs of [limits](crate::Pool::limit) included;
    /// [delays](crate::Pool::spawn_after) count once they are due. [`when_full`](PoolBuilder::when_full) says what becomes
    /// of more. A task's submissions to its own pool, and delays that come due, go over the bound rather than wait, since
    /// all workers might come to wait for each other. Zero is an error of [`build`](PoolBuilder::build).
    ///
    /// ```
    /// use winddown::{Pool, RejectReason, WhenFull};
    /// let pool = Pool::builder().max_threads(1).queue_capacity(2).when_full(WhenFull::Reject).build()?;
    /// let (go, wait) = std::sync::mpsc::channel::<()>();
    /// let (running, is_running) = std::sync::mpsc::channel();
    /// pool.execute(move || { let _ = running.send(()); let _ = wait.recv(); })?;
    /// is_running.recv()?; // it has left the queue
    /// pool.execute(|| ())?;
    /// pool.execute(|| ())?;
    /// assert_eq!(pool.execute(|| ()).unwrap_err().reason(), RejectReason::Full);
    /// # drop(go);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn queue_capacity(mut self, queue_capacity: usize) -> PoolBuilder {
        self.queue_capacity = Some(queue_capacity);
        self
    }

    /// What becomes of a task that [`execute`](crate::Pool::execute) or [`spawn`](crate::Pool::spawn) finds no room for.
    /// Default: [`WhenFull::Block`]. The other submissions say themselves what they do.
    pub fn when_full(mut self, when_full: WhenFull) -> PoolBuilder {
        self.when_full = when_full;
        self
    }

    /// What its own tasks may submit while it drains. Default: [`FollowUps::Accept`].
    pub fn follow_ups(mut self, follow_ups: FollowUps) -> PoolBuilder {
        self.follow_ups = follow_ups;
        self
    }

    /// Makes it a daemon pool, which the exit of the process does not wait for.
    ///
    /// It stays open until everything else has ended; then its queued tasks are cancelled and its running ones left
    /// behind. For work that is worth nothing once the process ends: refreshing a cache, sending metrics. An explicit
    /// [`shutdown`](Pool::shutdown) of it does wait.
    pub fn daemon(mut self) -> PoolBuilder {
        self.is_daemon = true;
        self
    }

    /// Called on each worker thread before its first task.
    ///
    /// If it panics the pool is broken, as in CPython's `ThreadPoolExecutor`: its queued tasks are cancelled, and
    /// later ones refused with [`RejectReason::Broken`](crate::RejectReason::Broken). The same happens if it waits for a
    /// shutdown, and no other thread is there to run what is queued.
    pub fn on_thread_start(mut self, callback: impl Fn() + Send + Sync + 'static) -> PoolBuilder {
        self.callbacks.on_start = Some(Arc::new(callback));
        self
    }

    /// Something that each worker thread has for itself, and its tasks share through
    /// [`task::with_state`](crate::task::with_state): a connection, a client, a buffer that is costly to make.
    ///
    /// `make` is called on each worker thread, once, after [`on_thread_start`](PoolBuilder::on_thread_start) and before the
    /// thread's first task. What it makes never leaves that thread, so it need not be `Send`. It is dropped there after the
    /// last task and before [`on_thread_stop`](PoolBuilder::on_thread_stop): when the thread has been idle for the
    /// [keep-alive](PoolBuilder::keep_alive), or the pool ends; a shutdown waits for that drop as it does for a task, and
    /// a panic in it goes no further. Threads start one after another as they are needed, and a substitute for one that
    /// is blocked in a wait makes a state of its own, so there may for a while be more than
    /// [`max_threads`](PoolBuilder::max_threads). A later call replaces an earlier one. In a forked child, nothing is dropped
    /// of what the parent has made.
    ///
    /// If `make` panics, the pool is broken just as after a panic in `on_thread_start`.
    ///
    /// As the `initializer` of CPython's `ThreadPoolExecutor` with `threading.local`, or Java's `ThreadLocal.withInitial`,
    /// but that it has an owner, who sees to its end.
    ///
    /// ```
    /// # #[derive(Default)] struct Connection { rows: Vec<u32> }
    /// # impl Connection { fn insert(&mut self, row: u32) { self.rows.push(row) } }
    /// use winddown::{task, Pool};
    ///
    /// let pool = Pool::builder().max_threads(4).worker_state(Connection::default).build()?; // four at most
    /// for row in 0..100 {
    ///     pool.execute(move || {
    ///         task::with_state(|connection: &mut Connection| connection.insert(row));
    ///     })?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn worker_state<T: 'static>(mut self, make: impl Fn() -> T + Send + Sync + 'static) -> PoolBuilder {
        self.callbacks.make_state = Some(Arc::new(move || Box::new(make())));
        self
    }

    /// Called when a task has panicked and nobody holds its handle: one that was [executed](Pool::execute), or
    /// [spawned](Pool::spawn) and its handle dropped before it panicked.
    ///
    /// That is in addition to the log, which names the panic at `error` in any case. The callback gets the task, with its
    /// location and label and how long it ran, and what it panicked with. A panic that a handle receives, read or not, is
    /// not its business, nor is one that a [scope](Pool::scope) passes on, or that of a task that
    /// [`shutdown_now`](Pool::shutdown_now) has given back.
    ///
    /// It runs on the thread that ran the task, as the task's last part: until it returns, the task is in
    /// [`running`](Pool::running), [`wait_idle`](Pool::wait_idle) and each drain wait for it, a deadline abandons it. So it
    /// may do what a task may: submit a follow-up, even while the pool drains, or
    /// [label](crate::task::set_label) the task. It may run on several threads at once; no lock is held meanwhile. A
    /// panic in it is logged.
    ///
    /// Java has this as `Thread.UncaughtExceptionHandler`, rayon as its `panic_handler`.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// static FAILURES: AtomicUsize = AtomicUsize::new(0);
    ///
    /// let pool = winddown::Pool::builder()
    ///     .on_task_panic(|task, payload| {
    ///         FAILURES.fetch_add(1, Ordering::Relaxed); // a metric
    ///         let message = payload.downcast_ref::<&str>().unwrap_or(&"something else");
    ///         eprintln!("{task}: {message}");
    ///     })
    ///     .build()?;
    /// pool.execute(|| panic!("no luck"))?;
    /// pool.wait_idle();
    /// assert_eq!(FAILURES.load(Ordering::Relaxed), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_task_panic(
        mut self,
        callback: impl Fn(&RunningTask, &(dyn Any + Send)) + Send + Sync + 'static,
    ) -> PoolBuilder {
        self.callbacks.on_panic = Some(Arc::new(callback));
        self
    }

    /// Called on each worker thread after its last task. A panic in it is logged.
    ///
    /// While it runs the thread counts as alive to a shutdown, which waits for it unless it waits for one itself.
    pub fn on_thread_stop(mut self, callback: impl Fn() + Send + Sync + 'static) -> PoolBuilder {
        self.callbacks.on_stop = Some(Arc::new(callback));
        self
    }

    /// The registry that winds it down. Default: the [global](Registry::global) one.
    pub fn registry(mut self, registry: &Registry) -> PoolBuilder {
        self.registry = Some(registry.clone());
        self
    }

    /// Builds the pool. No thread is started before the first task.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    ///
    /// ```
    /// use winddown::{BuildError, Pool};
    /// assert_eq!(Pool::builder().max_threads(0).build().unwrap_err(), BuildError::ZeroThreads);
    /// ```
    pub fn build(self) -> Result<Pool, BuildError> {
        match self.build_either()? {
            Ok(pool) => Ok(pool),
            Err(_refusing) => Err(BuildError::ShuttingDown),
        }
    }

    /// Builds the pool, or, where its registry drains already, one that refuses every task.
    pub(super) fn build_or_refuse(self) -> Result<Pool, BuildError> {
        let (Ok(pool) | Err(pool)) = self.build_either()?;
        Ok(pool)
    }

    /// Builds the pool, or, where its registry drains already, as an `Err` inside one that refuses every task.
    fn build_either(self) -> Result<Result<Pool, Pool>, BuildError> {
        static POOLS: AtomicU64 = AtomicU64::new(1);
        let max_threads =
            self.max_threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, |n| n.get()));
        if max_threads == 0 {
            return Err(BuildError::ZeroThreads);
        }
        if self.min_threads > max_threads {
            return Err(BuildError::MinAboveMax);
        }
        if self.queue_capacity == Some(0) {
            return Err(BuildError::ZeroCapacity);
        }
        let name =
            self.name.unwrap_or_else(|| format!("pool-{}", POOLS.fetch_add(1, Ordering::Relaxed)).into());
        if name.contains('\0') {
            return Err(BuildError::BadName);
        }
        let name: Arc<str> = name.into();
        let registry = self.registry.unwrap_or_else(|| Registry::global().clone());
        let config = Config {
            max_threads,
            min_threads: self.min_threads,
            keep_alive: self.keep_alive,
            stack_size: self.stack_size,
            queue_capacity: self.queue_capacity,
            when_full: self.when_full,
            follow_ups: self.follow_ups,
            is_daemon: self.is_daemon,
            #[cfg(test)]
            on_timeout: self.on_timeout,
        };
        let callbacks = self.callbacks;
        let member = |key| Arc::new(Core::new(name.clone(), config, callbacks, registry.clone(), key));
        Ok(match registry.add_member(member) {
            Ok(core) => Ok(Pool { core, is_counted: true }),
            Err(make) => {
                let core = make(0);
                if !core.is_stale() {
                    core.close_intake(Intake::Closed, RejectReason::ShuttingDown);
                }
                Err(Pool { core, is_counted: true })
            }
        })
    }
}
