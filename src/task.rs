//! Tasks from the outside: handles to wait for them and cancel them, and what a task can ask and say about itself.

mod arrivals;
pub(crate) mod cell;
pub(crate) mod collect;
pub(crate) mod error;
pub(crate) mod slot;
pub(crate) mod work;

use crate::context::{self, Frame, Sleeper, Wait};
use crate::os::Generation;
use crate::sync::deadline;
use crate::sync::thread;
use crate::sync::Instant;
use cell::{AnyTask, Awaited, Cancel, Place, Waiter};
pub use error::{JoinError, JoinErrorKind};
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a handle needs of the pool whose task it stands for.
pub(crate) trait Owner: Send + Sync {
    fn born(&self) -> Generation;

    /// Counts a task that its handle has cancelled; `place` says where it is.
    fn count_cancelled(&self, place: &dyn Fn() -> Place);

    /// Called before a wait without a time limit. Where the current thread runs a task of the same pool, it runs
    /// `task` in place if it is still queued: no other worker may be left to do it.
    ///
    /// Panics where the current thread is inside `task`, which then never ends.
    fn run_in_place(&self, task: &dyn Fn() -> Arc<dyn AnyTask>) -> InPlace;
}

/// What came of an attempt to run a task in the place of a wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InPlace {
    /// It was run, or has ended, or the current thread is none of its pool's.
    Settled,
    /// It must not be started yet, or another thread runs it: while the current one waits, others of the pool have to run
    /// whatever there is.
    NotYet,
}

/// Waits for one task and takes its result.
///
/// [`join`](JoinHandle::join) blocks; the handle is also a [`Future`] for any async runtime. Dropping it detaches the
/// task: it still runs, and the process still waits for it; [`cancel_on_drop`](JoinHandle::cancel_on_drop) makes
/// dropping cancel it instead. The interface follows that of tokio's `JoinHandle`, but that a panic which nobody has
/// taken is logged at `error` when its handle is dropped.
///
/// In a forked child a handle from before the fork resolves as abandoned.
///
/// ```
/// let pool = winddown::Pool::new(2);
/// let answer = pool.spawn(|| 6 * 7)?;
/// assert_eq!(answer.join()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a handle detaches its task: use execute() for a task that nobody waits for"]
pub struct JoinHandle<T> {
    task: Option<Arc<dyn Awaited<T>>>,
    owner: Arc<dyn Owner>,
}

/// A task that a thread joins inside another.
struct Joined(Arc<dyn AnyTask>);

impl Sleeper for Joined {
    fn rouse(&self) {
        self.0.rouse();
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: Arc<dyn Awaited<T>>, owner: Arc<dyn Owner>) -> JoinHandle<T> {
        JoinHandle { task: Some(task), owner }
    }

    fn task(&self) -> &Arc<dyn Awaited<T>> {
        self.task.as_ref().expect("a handle has its task until it is consumed")
    }

    /// Waits for the task and returns its result.
    ///
    /// Blocks the thread. Inside a task of the same pool, a task that is still queued is run in place instead, so a
    /// task may join its children on a pool of one thread.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if the task panicked, was cancelled, or was abandoned at a deadline.
    ///
    /// # Panics
    ///
    /// Inside the task itself, which could never end.
    ///
    /// ```
    /// let pool = winddown::Pool::new(1);
    /// let inner = pool.clone();
    /// let parent = pool.spawn(move || inner.spawn(|| 1)?.join().map_err(Box::<dyn std::error::Error + Send + Sync>::from))?;
    /// assert_eq!(parent.join()?.unwrap(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(self) -> Result<T, JoinError> {
        if self.task().is_finished() || self.is_stale() {
            return self.wait_without_limit(false);
        }
        match self.run_in_place() {
            InPlace::Settled => self.wait_without_limit(false),
            InPlace::NotYet => {
                let _blocked = context::block(Wait::Join(Arc::new(Joined(self.task().clone().erase()))));
                self.wait_without_limit(true)
            }
        }
    }

    fn wait_without_limit(self, may_come: bool) -> Result<T, JoinError> {
        match self.wait(None, may_come) {
            Ok(result) => result,
            Err(_) => unreachable!("a wait without a limit ends with a result"),
        }
    }

    /// Runs a task that is not finished in the place of a wait for it, where that is possible; see [`Owner::run_in_place`].
    fn run_in_place(&self) -> InPlace {
        self.owner.run_in_place(&|| self.task().clone().erase())
    }

    /// The result of a task that is done.
    fn take_result(mut self) -> Result<T, JoinError> {
        if self.is_stale() {
            return Err(JoinError::abandoned(self.task().location()));
        }
        let result = self.task().take(None).expect("a task that is done has a result");
        self.task = None;
        result
    }

    /// Waits for the task for at most `timeout`, and gives the handle back if it has not ended by then.
    ///
    /// A result that is ready is returned even if `timeout` is zero; `Duration::MAX` waits for ever. The task goes on
    /// when the wait ends. A timed wait never runs anything in place.
    ///
    /// # Errors
    ///
    /// The handle itself, to be waited for again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let pool = winddown::Pool::new(1);
    /// let (go, wait) = std::sync::mpsc::channel::<()>();
    /// let handle = pool.spawn(move || { let _ = wait.recv(); 5 })?;
    /// let handle = handle.join_timeout(Duration::from_millis(1)).unwrap_err();
    /// drop(go);
    /// assert_eq!(handle.join_timeout(Duration::MAX).unwrap()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, JoinHandle<T>> {
        // Without a moment to wait for, the wait has no limit.
        self.wait(deadline(timeout), false)
    }

    /// Waits until the task has ended, or until `until`. It `may_come` to be run in place meanwhile: the thread is woken then.
    fn wait(
        mut self,
        until: Option<Instant>,
        mut may_come: bool,
    ) -> Result<Result<T, JoinError>, JoinHandle<T>> {
        if self.is_stale() {
            return Ok(Err(JoinError::abandoned(self.task().location())));
        }
        let is_inside = may_come;
        let is_done = crate::sync::linger(|| self.task().is_finished() || until.is_some());
        if is_done {
            if let Some(result) = self.task().take(None) {
                self.task = None;
                return Ok(result);
            }
        }
        loop {
            // Parking is woken by anyone who unparks this thread, for whatever reason: look again each time.
            if let Some(result) = self.task().take(Some(Waiter::Thread(thread::current()))) {
                self.task = None;
                return Ok(result);
            }
            if may_come && self.run_in_place() == InPlace::Settled {
                may_come = false;
                continue;
            }
            // After the waiter was left: who strands tasks after this look wakes it.
            if is_inside && context::help() {
                continue;
            }
            match until {
                None => thread::park(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(self);
                    }
                    thread::park_timeout(left);
                }
            }
        }
    }

    /// Whether the task has ended, so that `join` returns at once.
    pub fn is_finished(&self) -> bool {
        self.is_stale() || self.task().is_finished()
    }

    /// Cancels the task if it has not started. Says whether it will never run.
    ///
    /// If so its captures are dropped before this returns, and whoever waits for it gets an error that
    /// [is cancelled](JoinError::is_cancelled). If it runs, nothing stops it, but [`is_cancelled`] turns true in it.
    ///
    /// ```
    /// let pool = winddown::Pool::new(1);
    /// let (go, wait) = std::sync::mpsc::channel::<()>();
    /// pool.execute(move || { let _ = wait.recv(); })?;
    /// let queued = pool.spawn(|| unreachable!())?;
    /// assert!(queued.cancel());
    /// assert!(queued.join().unwrap_err().is_cancelled());
    /// # drop(go);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) -> bool {
        !self.is_stale() && cancel(&**self.task(), &*self.owner)
    }

    /// Something that cancels the task from elsewhere, while this handle waits for it.
    pub fn canceller(&self) -> Canceller {
        Canceller { task: self.task().clone().erase(), owner: self.owner.clone() }
    }

    /// Makes dropping the handle cancel the task instead of detaching it.
    ///
    /// ```
    /// let pool = winddown::Pool::new(1);
    /// let handle = pool.spawn(|| 5)?.cancel_on_drop();
    /// assert_eq!(handle.join()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop { handle: Some(self) }
    }

    /// Whether the task belongs to a process of which this is a forked child.
    fn is_stale(&self) -> bool {
        self.owner.born().is_past()
    }
}

fn cancel<X: AnyTask + ?Sized>(task: &X, owner: &dyn Owner) -> bool {
    task.cancel(&|| owner.count_cancelled(&|| task.place())) != Cancel::TooLate
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &self.task else { panic!("a JoinHandle was polled after it had given its result") };
        if self.is_stale() {
            return Poll::Ready(Err(JoinError::abandoned(task.location())));
        }
        match task.take(Some(Waiter::Task(Box::new(cx.waker().clone())))) {
            Some(result) => {
                self.task = None;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            if !self.is_stale() {
                task.detach();
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_finished = self.task.as_ref().map_or(true, |_| self.is_finished());
        f.debug_struct("JoinHandle").field("is_finished", &is_finished).finish()
    }
}

// Nothing of the result or the closure is reached through a shared handle, and the lock under it does not poison.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

/// Cancels a task from elsewhere than its handle; get one with [`JoinHandle::canceller`].
///
/// ```
/// let pool = winddown::Pool::new(1);
/// let handle = pool.spawn(|| ())?;
/// let canceller = handle.canceller();
/// let will_not_run = std::thread::spawn(move || canceller.cancel()).join().unwrap();
/// assert_eq!(handle.join().is_err(), will_not_run);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Canceller {
    task: Arc<dyn AnyTask>,
    owner: Arc<dyn Owner>,
}

impl Canceller {
    /// Like [`JoinHandle::cancel`].
    pub fn cancel(&self) -> bool {
        !self.owner.born().is_past() && cancel(&*self.task, &*self.owner)
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

impl UnwindSafe for Canceller {}
impl RefUnwindSafe for Canceller {}

/// A [`JoinHandle`] whose drop cancels the task: before it started, for good; after, by its flag.
///
/// Get one with [`JoinHandle::cancel_on_drop`].
#[must_use = "dropping this cancels its task"]
pub struct CancelOnDrop<T> {
    handle: Option<JoinHandle<T>>,
}

impl<T> CancelOnDrop<T> {
    /// Like [`JoinHandle::join`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn join(mut self) -> Result<T, JoinError> {
        self.handle.take().expect("a handle is there until it is consumed").join()
    }
}

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handle = self.handle.as_mut().expect("a handle is there until it is consumed");
        Pin::new(handle).poll(cx)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.as_ref().filter(|handle| handle.task.is_some()) {
            handle.cancel();
        }
    }
}

impl<T> fmt::Debug for CancelOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelOnDrop").field("handle", &self.handle).finish()
    }
}

/// Inside a task: whether it should stop, because its handle was cancelled, the deadline's reserve has begun, or
/// [`shutdown_now`](crate::Pool::shutdown_now) was called.
///
/// Nothing stops a task that does not ask: a long one asks now and then and returns early. To ask takes a lock at most that
/// next to nobody else wants.
///
/// The answer is that for the innermost task. Where one runs another in its place, by joining it or for a full queue
/// ([`CallerRuns`](crate::WhenFull::CallerRuns)), each has a flag of its own, and a deadline tells the tasks of the pools that
/// it is the deadline of. False outside a task. The flag is never taken back, as that of Java's `Thread.interrupt` is.
///
/// ```
/// let pool = winddown::Pool::new(1);
/// let (running, is_running) = std::sync::mpsc::channel();
/// let handle = pool.spawn(move || {
///     let _ = running.send(());
///     let mut rounds = 0_u64;
///     while !winddown::task::is_cancelled() {
///         rounds += 1; // one step of the work
///     }
///     rounds
/// })?;
/// is_running.recv()?;
/// assert!(!handle.cancel()); // it runs: only its flag is set
/// assert!(handle.join().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A task that waits for something else than time waits for the [token](crate::token) of the shutdown, too:
///
/// ```
/// # use std::time::Duration;
/// # let registry = winddown::Registry::new();
/// # let pool = winddown::Pool::builder().registry(&registry).build()?;
/// let token = registry.token();
/// pool.execute(move || {
///     while !token.wait_timeout(Duration::from_secs(60)) {
///         // what is due every minute
///     }
/// })?;
/// assert!(registry.shutdown().is_clean()); // does not take a minute
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn is_cancelled() -> bool {
    context::with(|frame| match frame {
        Some(Frame::Worker(host)) => host.is_cancelled(),
        _ => false,
    })
}

/// Inside a task: says what it is working on. Reports and warnings show it wherever they name the task.
///
/// A later call replaces the label; it goes with the task. Of tasks that run one in the place of another each has its own.
/// Does nothing outside a task.
///
/// ```
/// let pool = winddown::Pool::new(1);
/// pool.execute(|| winddown::task::set_label("invoice 4711"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn set_label(label: impl Into<Cow<'static, str>>) {
    let label = label.into();
    context::with(|frame| {
        if let Some(Frame::Worker(host)) = frame {
            host.set_label(label);
        }
    });
}

/// On a worker thread: shows `f` the thread's state, which [`worker_state`](crate::PoolBuilder::worker_state) made.
///
/// A panic of `f` goes on into the task; the state is as `f` has left it, and the next task finds it there.
///
/// `None`, and `f` is dropped uncalled:
///
/// * if the state is of another type than `T`, or the pool was built without one;
/// * inside another `with_state` of the same thread, also where that closure waits for a task and so runs it in place;
/// * outside a worker: on any other thread, and in a task that such a thread runs itself, as the submitters of a pool of
///   [`CallerRuns`](crate::WhenFull::CallerRuns) do, whatever pool they belong to themselves, and whoever runs an
///   [`UnstartedTask`](crate::UnstartedTask).
///
/// So a task that may come to run there makes what it needs itself if it gets `None`:
///
/// ```
/// # struct Connection;
/// # impl Connection { fn open() -> Connection { Connection } fn insert(&mut self, row: u32) -> u32 { row } }
/// use winddown::{task, Pool, WhenFull};
///
/// let pool = Pool::builder()
///     .queue_capacity(100)
///     .when_full(WhenFull::CallerRuns)
///     .worker_state(Connection::open) // once per thread
///     .build()?;
/// for row in 0..1000 {
///     pool.execute(move || {
///         let insert = |connection: &mut Connection| connection.insert(row);
///         task::with_state(insert).unwrap_or_else(|| insert(&mut Connection::open()));
///     })?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A worker that is blocked in a wait may have to run other tasks of its pool meanwhile, where no thread can be had for them;
/// they find its state, unless the wait is inside of `with_state`.
pub fn with_state<T: 'static, R>(f: impl FnOnce(&mut T) -> R) -> Option<R> {
    context::with_state(|state| {
        // The guard gives it back when `f` panics, too.
        let mut state = state.try_borrow_mut().ok()?;
        state.as_mut()?.downcast_mut::<T>().map(f)
    })
}
