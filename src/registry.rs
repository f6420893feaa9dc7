//! The registry: hooks, holds and members, and the one shutdown that winds them down.
//!
//! It knows nothing of pools: a [`member::Member`] is whatever can be closed, drained and joined. The order of a
//! shutdown stands in [`shutdown`], how hooks are run in [`hooks`], how single members are drained and joined in
//! [`drain`], how time is spent in [`budget`], who calls members when something of theirs is due in [`timer`].
//!
//! # Who may do what when
//!
//! | phase | hooks, holds | new members | submissions (decided by each member) |
//! |---|---|---|---|
//! | `Running` | accepted | accepted | accepted |
//! | `PreJoin` | refused | accepted | accepted |
//! | `Draining` | refused | refused | refused once its member has closed, but for follow-ups |
//! | `Joining`, `PostJoin`, `Finished` | refused | refused | refused, but for daemon members before `PostJoin` |
//!
//! The phase is written under the lock of [`State`], and every registration looks at it under the same lock: either
//! it comes first, and then the shutdown finds what was registered when it takes the lists under that lock, or it
//! comes second and is refused.

pub(crate) mod budget;
pub(crate) mod drain;
pub(crate) mod ended;
pub(crate) mod helper;
mod hooks;
pub(crate) mod member;
pub(crate) mod report;
pub(crate) mod shutdown;
#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests;
mod timer;
pub(crate) mod token;

use crate::contain;
use crate::os::Generation;
use crate::rejected::{RejectReason, Rejected};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use crate::sync::event::Event;
use crate::sync::thread::ThreadId;
use crate::sync::Instant;
use crate::sync::Mutex;
use budget::Budget;
use ended::EndedThread;
use member::Member;
use report::{HookReport, Phase, PoolStats, Progress, Report, Stage};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;
use timer::Timer;
use token::{Finished, Once, ShutdownToken};

/// What is to be wound down together: pools, hooks around their drain, and holds.
///
/// Most programs use the [global](Registry::global) one, which every pool joins unless its builder says otherwise,
/// through the free functions of the same names ([`before_join`](crate::before_join), [`shutdown`](crate::shutdown)
/// and so on). A library or a test that wants to wind down its own pools alone makes one with
/// [`new`](Registry::new). A shutdown of the global registry, and so the end of the process, winds the others down
/// too, ahead of it and newest first.
///
/// Clones are handles to the same registry. Dropping them loses nothing: hooks and pools of a registry without
/// handles are wound down all the same.
///
/// The model is CPython's `threading._register_atexit` and `threading._shutdown`.
///
/// ```
/// use winddown::{Pool, Registry};
///
/// let registry = Registry::new();
/// let pool = Pool::builder().registry(&registry).max_threads(2).build()?;
/// registry.before_join("stop accepting", || println!("no more requests"))?;
/// registry.after_join("close the log", || println!("all done"))?;
/// pool.execute(|| println!("a request"))?;
///
/// let report = registry.shutdown(); // hook, drain, join, hook
/// assert!(report.is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Registry {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    id: u64,
    born: Generation,
    /// Signalled after every change that somebody may wait for; shared with the registries below this one.
    event: Arc<Event>,
    budget: Arc<Budget>,
    /// Written under the lock of `state`; read without it where a little late does no harm.
    phase: AtomicU8,
    state: Mutex<State>,
    begun: Arc<Once<()>>,
    done: Arc<Once<Report>>,
    /// True once `done` is set; shared with the waits that tasks are blocked in.
    over: Arc<AtomicBool>,
    handles: AtomicUsize,
    parent: Option<Arc<Inner>>,
    /// The registries below this one that have a handle, a hook, a hold or a member. Lock order: this before their
    /// `state`, and theirs before this one's own.
    children: Mutex<BTreeMap<u64, Arc<Inner>>>,
    timer: Timer,
}

/// Everything here is behind [`Inner::state`].
#[derive(Default)]
struct State {
    next_key: u64,
    members: BTreeMap<u64, Arc<dyn Member>>,
    before_join: BTreeMap<u64, Hook>,
    after_join: BTreeMap<u64, Hook>,
    holds: BTreeMap<u64, Cow<'static, str>>,
    default_deadline: Option<Duration>,
    /// Set by the call that runs the shutdown, or is about to hand it to a thread.
    claimed: bool,
    begun_at: Option<Instant>,
    hook_reports: Vec<HookReport>,
    /// Hooks reported so far; the reports themselves go into that of the whole shutdown.
    hooks_done: usize,
    /// The hook that has been taken off its list and is not reported yet, and the series that runs it: see [`hooks`].
    in_hook: Option<hooks::Current>,
    series: u64,
    /// Threads of members that are gone, ended but not joined.
    ended_threads: Vec<EndedThread>,
    exit_code: Option<i32>,
    /// The thread that runs the shutdown, once one does.
    runner: Option<ThreadId>,
}

struct Hook {
    name: Cow<'static, str>,
    run: Box<dyn FnOnce() + Send>,
}

impl State {
    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn hooks(&mut self, stage: Stage) -> &mut BTreeMap<u64, Hook> {
        match stage {
            Stage::PreJoin => &mut self.before_join,
            Stage::PostJoin => &mut self.after_join,
        }
    }
}

/// A number that no other registry or pool of this program has.
pub(crate) fn unique_id() -> u64 {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Names a registered hook, to [remove](Registry::remove) it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HookId {
    registry: u64,
    stage: Stage,
    key: u64,
}

/// Why a [hold](Registry::hold) was refused: shutdown has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ShuttingDown;

impl fmt::Display for ShuttingDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RejectReason::ShuttingDown.fmt(f)
    }
}

impl Error for ShuttingDown {}

/// Keeps the pre-join phase of a shutdown waiting until it is dropped; see [`Registry::hold`].
#[must_use = "the hold ends when this is dropped: keep it for as long as pools have to stay open"]
pub struct Hold {
    registry: Arc<Inner>,
    key: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.registry.born.is_past() {
            self.registry.state.lock().holds.remove(&self.key);
            self.registry.event.signal();
            self.registry.leave_if_done();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}

impl Registry {
    /// Registers a pre-join hook: it runs when a shutdown begins, while every pool still accepts work.
    ///
    /// Hooks run one at a time, newest first, on a thread of their own. This is the place to stop what feeds the
    /// pools: close a listener, drop the sender that a task reads from. A hook may submit tasks and wait for them.
    /// One that panics is reported and stops nothing; one that hangs costs at most half of the time that is left
    /// until the deadline, if there is one.
    ///
    /// # Errors
    ///
    /// Once shutdown has begun the closure comes back with [`RejectReason::ShuttingDown`], and in a forked child
    /// with [`RejectReason::Forked`].
    ///
    /// # Panics
    ///
    /// Inside the hook, `shutdown` and `wait_finished` panic: they would wait for the hook itself.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// let (stop, requests) = std::sync::mpsc::channel::<u32>();
    /// let pool = winddown::Pool::builder().registry(&registry).build()?;
    /// pool.execute(move || requests.into_iter().for_each(|n| println!("request {n}")))?;
    /// registry.before_join("close the queue of requests", move || drop(stop))?;
    /// assert!(registry.shutdown().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn before_join<F>(&self, name: impl Into<Cow<'static, str>>, f: F) -> Result<HookId, Rejected<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.register(Stage::PreJoin, name.into(), f)
    }

    /// Registers a post-join hook: it runs after every worker thread has been joined, newest first.
    ///
    /// This is the place to close what tasks use to their last line: flush a log, remove a lock file. Pools refuse
    /// work by then. In all else it is like [`before_join`](Registry::before_join), errors included.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// registry.after_join("say goodbye", || println!("goodbye"))?;
    /// assert!(registry.shutdown().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn after_join<F>(&self, name: impl Into<Cow<'static, str>>, f: F) -> Result<HookId, Rejected<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.register(Stage::PostJoin, name.into(), f)
    }

    fn register<F>(&self, stage: Stage, name: Cow<'static, str>, f: F) -> Result<HookId, Rejected<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        if self.inner.born.is_past() {
            return Err(Rejected::new(RejectReason::Forked, f));
        }
        let mut state = self.inner.state.lock();
        if self.phase() > Phase::Running {
            return Err(Rejected::new(RejectReason::ShuttingDown, f));
        }
        let key = state.key();
        state.hooks(stage).insert(key, Hook { name, run: Box::new(f) });
        Ok(HookId { registry: self.inner.id, stage, key })
    }

    /// Removes a hook that has not started. Says whether there was one; its closure is dropped.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// let id = registry.before_join("never", || unreachable!())?;
    /// assert!(registry.remove(id));
    /// assert!(!registry.remove(id));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&self, id: HookId) -> bool {
        if self.inner.born.is_past() || id.registry != self.inner.id {
            return false;
        }
        let mut state = self.inner.state.lock();
        let hook = state.hooks(id.stage).remove(&id.key);
        drop(state);
        hook.map(contain::drop_quietly).is_some()
    }

    /// Keeps the pre-join phase waiting until the returned [`Hold`] is dropped: for requests in flight.
    ///
    /// While a hold is alive no pool closes, so a request that has been accepted can still submit its tasks. Holds are
    /// waited for after the pre-join hooks; all together get at most half of the time left until the deadline. Those
    /// left then are reported by name, as timed out.
    ///
    /// # Errors
    ///
    /// [`ShuttingDown`] once shutdown has begun: answer "try elsewhere". In a forked child, too.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// let pool = winddown::Pool::builder().registry(&registry).build()?;
    /// let request = registry.hold("request 7")?;
    /// registry.request_shutdown();
    /// pool.execute(|| println!("its task is still accepted"))?;
    /// drop(request);
    /// assert!(registry.wait_finished().is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hold(&self, name: impl Into<Cow<'static, str>>) -> Result<Hold, ShuttingDown> {
        if self.inner.born.is_past() {
            return Err(ShuttingDown);
        }
        let name = name.into();
        let mut state = self.inner.state.lock();
        if self.phase() > Phase::Running {
            return Err(ShuttingDown);
        }
        let key = state.key();
        state.holds.insert(key, name);
        Ok(Hold { registry: self.inner.clone(), key })
    }

    /// Sets how long a shutdown may take, whatever begins it; `None`, the default, is as long as it takes.
    ///
    /// The deadline is one for the whole: hooks, holds, drain and join. Its last fifth, two seconds at most, is the
    /// reserve. When that begins, queued tasks are cancelled and [`task::is_cancelled`](crate::task::is_cancelled)
    /// turns true; halfway through it, running tasks are abandoned; the rest is for post-join hooks. Set it a little
    /// below the patience of whatever kills the process (30 s in Kubernetes, 90 s under systemd). A zero deadline
    /// waits for nothing. Set during a shutdown, it counts from when that began and can only bring its end nearer.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let registry = winddown::Registry::new();
    /// registry.set_deadline(Some(Duration::from_secs(25)));
    /// ```
    pub fn set_deadline(&self, deadline: Option<Duration>) {
        if self.inner.born.is_past() {
            return;
        }
        let mut state = self.inner.state.lock();
        state.default_deadline = deadline;
        if let (Some(begun_at), Some(deadline)) = (state.begun_at, deadline) {
            self.inner.budget.tighten(Some(deadline.saturating_sub(begun_at.elapsed())));
        }
        drop(state);
        self.inner.event.signal();
    }

    /// How far the shutdown has come.
    pub fn phase(&self) -> Phase {
        self.inner.phase()
    }

    /// A token that fires when shutdown begins, before the first hook.
    pub fn token(&self) -> ShutdownToken {
        ShutdownToken::new(self.inner.begun.clone())
    }

    /// A future for the report of the shutdown, whoever begins it. It does not begin one.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// let finished = registry.finished();
    /// registry.shutdown();
    /// # fn block_on<F: std::future::Future>(f: F) -> F::Output {
    /// #     struct Unpark(std::thread::Thread);
    /// #     impl std::task::Wake for Unpark { fn wake(self: std::sync::Arc<Self>) { self.0.unpark() } }
    /// #     let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    /// #     let mut f = std::pin::pin!(f);
    /// #     loop {
    /// #         match f.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
    /// #             std::task::Poll::Ready(value) => return value,
    /// #             std::task::Poll::Pending => std::thread::park(),
    /// #         }
    /// #     }
    /// # }
    /// assert!(block_on(finished).is_clean());
    /// ```
    pub fn finished(&self) -> Finished {
        Finished::new(self.inner.done.clone())
    }

    /// How far the shutdown has come, in numbers.
    pub fn progress(&self) -> Progress {
        let mut progress =
            Progress { phase: self.phase(), hooks_done: 0, hooks_total: 0, tasks_left: 0, workers_left: 0 };
        if self.inner.born.is_past() {
            return progress;
        }
        let state = self.inner.state.lock();
        progress.hooks_done = state.hooks_done;
        let left = state.before_join.len() + state.after_join.len() + usize::from(state.in_hook.is_some());
        progress.hooks_total = progress.hooks_done + left;
        let members: Vec<_> = state.members.values().filter(|member| !member.is_daemon()).cloned().collect();
        drop(state);
        for member in members {
            let stats = member.stats();
            // Not what is queued and what runs: a task on its way from the one to the other is in neither for a moment.
            let settled =
                stats.completed + stats.panicked + stats.cancelled + stats.returned + stats.abandoned;
            progress.tasks_left += stats.accepted.saturating_sub(settled + stats.delayed);
            progress.workers_left += stats.threads;
        }
        progress
    }

    /// The counts of every pool that is open or draining, newest first.
    pub fn stats(&self) -> Vec<PoolStats> {
        if self.inner.born.is_past() {
            return Vec::new();
        }
        let members: Vec<_> = self.inner.state.lock().members.values().rev().cloned().collect();
        members.iter().map(|member| member.stats()).collect()
    }

    pub(crate) fn root() -> Registry {
        Registry::with_parent(None)
    }

    /// A registry below `self`.
    pub(crate) fn child(&self) -> Registry {
        let child = Registry::with_parent(Some(self.inner.clone()));
        self.inner.children.lock().insert(child.inner.id, child.inner.clone());
        child
    }

    fn with_parent(parent: Option<Arc<Inner>>) -> Registry {
        let event = parent.as_ref().map_or_else(Default::default, |parent| parent.event.clone());
        Registry {
            inner: Arc::new(Inner {
                id: unique_id(),
                born: Generation::now(),
                event,
                budget: Arc::default(),
                phase: AtomicU8::new(Phase::Running as u8),
                state: Mutex::default(),
                begun: Arc::new(Once::new()),
                done: Arc::new(Once::new()),
                over: Arc::default(),
                handles: AtomicUsize::new(1),
                parent,
                children: Mutex::default(),
                timer: Timer::default(),
            }),
        }
    }

    /// When the deadline of the shutdown is, if it has one.
    #[cfg(feature = "exit-hook")]
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        self.inner.budget.end()
    }

    pub(crate) fn born(&self) -> Generation {
        self.inner.born
    }

    pub(crate) fn id(&self) -> u64 {
        self.inner.id
    }

    pub(crate) fn event(&self) -> &Arc<Event> {
        &self.inner.event
    }

    /// Adds the member that `make` makes of its key, unless the registry drains already: then `make` comes back.
    pub(crate) fn add_member<M: Member + 'static, F: FnOnce(u64) -> Arc<M>>(
        &self,
        make: F,
    ) -> Result<Arc<M>, F> {
        if self.inner.born.is_past() {
            return Err(make);
        }
        let mut state = self.inner.state.lock();
        if self.phase() >= Phase::Draining {
            return Err(make);
        }
        let key = state.key();
        let member = make(key);
        state.members.insert(key, member.clone());
        Ok(member)
    }

    /// Removes a member that is closed and has no threads left, and takes over, in the same breath, the threads of it
    /// that have ended and nobody has joined: there is no moment in which a shutdown could miss them.
    pub(crate) fn retire_member(&self, key: u64, ended: impl FnOnce() -> Vec<EndedThread>) {
        if self.inner.born.is_past() {
            return;
        }
        let mut state = self.inner.state.lock();
        let member = state.members.remove(&key);
        state.ended_threads.extend(ended());
        let mut gone = ended::take_gone(&mut state.ended_threads);
        drop(state);
        gone.extend(self.inner.timer.take_gone());
        drop(member);
        ended::join_all(gone);
    }
}

impl Inner {
    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Has the parent forget this registry if nobody can reach it any more and it has nothing to wind down.
    fn leave_if_done(self: &Arc<Inner>) {
        if let (0, Some(parent)) = (self.handles.load(Ordering::Acquire), &self.parent) {
            parent.disown(self);
        }
    }

    /// Forgets a registry below this one that nobody can reach and that has nothing to wind down.
    fn disown(&self, child: &Arc<Inner>) {
        let mut children = self.children.lock();
        let mut state = child.state.lock();
        let is_idle = state.members.is_empty()
            && state.before_join.is_empty()
            && state.after_join.is_empty()
            && state.holds.is_empty();
        // The count is read under the lock of the list: only through the list could it rise again from zero.
        if !is_idle || child.handles.load(Ordering::Acquire) > 0 {
            return;
        }
        let mut ended = std::mem::take(&mut state.ended_threads);
        ended.extend(child.timer.end());
        drop(state);
        let forgotten = children.remove(&child.id);
        // Its threads are joined all the same, with those of this registry.
        let mut state = self.state.lock();
        state.ended_threads.extend(ended);
        let gone = ended::take_gone(&mut state.ended_threads);
        drop(state);
        drop(children);
        drop(forgotten);
        ended::join_all(gone);
    }
}

impl Clone for Registry {
    fn clone(&self) -> Registry {
        self.inner.handles.fetch_add(1, Ordering::Relaxed);
        Registry { inner: self.inner.clone() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if self.inner.handles.fetch_sub(1, Ordering::AcqRel) == 1 && !self.inner.born.is_past() {
            self.inner.leave_if_done();
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("id", &self.inner.id).field("phase", &self.phase()).finish()
    }
}

// Its locks do not poison and no code of others runs under them.
impl UnwindSafe for Registry {}
impl RefUnwindSafe for Registry {}
