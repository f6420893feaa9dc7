//! What a shutdown did, and what pools are doing: plain data.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How far a registry's shutdown has come.
///
/// The phases follow one another in the order of the variants and never go back, so `>=` asks whether one has been
/// reached. The thread that runs the shutdown makes every transition.
///
/// ```
/// use winddown::{Phase, Registry};
/// let registry = Registry::new();
/// assert_eq!(registry.phase(), Phase::Running);
/// registry.shutdown();
/// assert!(registry.phase() >= Phase::Joining);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// No shutdown has begun: hooks, holds and pools may be registered.
    Running,
    /// Pre-join hooks run and holds are waited for. Every pool still accepts work, and new pools may be built.
    PreJoin,
    /// Pools close and drain, newest first.
    Draining,
    /// Worker threads are joined.
    Joining,
    /// Post-join hooks run.
    PostJoin,
    /// The shutdown is over and its report is there.
    Finished,
}

impl Phase {
    pub(crate) const ALL: [Phase; 6] =
        [Phase::Running, Phase::PreJoin, Phase::Draining, Phase::Joining, Phase::PostJoin, Phase::Finished];
}

/// How far a shutdown has come, in numbers, for a progress bar or a health check.
///
/// ```
/// let progress = winddown::Registry::global().progress();
/// println!("{} tasks left on {} workers", progress.tasks_left, progress.workers_left);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The phase of the shutdown.
    pub phase: Phase,
    /// Hooks that have ended, one way or another.
    pub hooks_done: usize,
    /// Hooks that have ended and hooks that are still to run.
    pub hooks_total: usize,
    /// Tasks of non-daemon pools that are queued or running.
    pub tasks_left: u64,
    /// Worker threads of non-daemon pools that have not ended.
    pub workers_left: usize,
}

/// What began a shutdown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// A call of `shutdown` or one of its relatives.
    Call,
    /// The process was exiting: `main` returned or panicked, or [`exit`](crate::exit) or `std::process::exit` was
    /// called.
    Exit,
    /// A signal with this number.
    Signal(i32),
}

/// Which of the two lists a hook was on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// Before pools close: [`before_join`](crate::Registry::before_join), and holds.
    PreJoin,
    /// After every worker was joined: [`after_join`](crate::Registry::after_join).
    PostJoin,
}

/// How a hook ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HookOutcome {
    /// It returned.
    Ran,
    /// It panicked, with this message. The shutdown went on.
    Panicked(String),
    /// It did not return in its share of the deadline and was left behind; or this is a hold that nobody dropped.
    TimedOut,
    /// The deadline had passed before it could start.
    Skipped,
}

/// How one hook, or one hold that was not dropped in time, fared in a shutdown.
#[derive(Clone, Debug)]
pub struct HookReport {
    pub(crate) name: Cow<'static, str>,
    pub(crate) stage: Stage,
    pub(crate) outcome: HookOutcome,
    pub(crate) elapsed: Duration,
}

impl HookReport {
    pub(crate) fn new(
        name: Cow<'static, str>,
        stage: Stage,
        outcome: HookOutcome,
        elapsed: Duration,
    ) -> HookReport {
        HookReport { name, stage, outcome, elapsed }
    }

    /// The name it was registered with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was to run before the drain or after the join.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How it ended.
    pub fn outcome(&self) -> &HookOutcome {
        &self.outcome
    }

    /// How long it ran, or was waited for.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// A task that is running, or was when it was abandoned.
///
/// Its `Display` names it in one line: pool, worker, where it was submitted, label, and for how long it has run.
#[derive(Clone)]
pub struct RunningTask {
    pub(crate) pool: Arc<str>,
    pub(crate) worker: Arc<str>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) label: Option<Cow<'static, str>>,
    pub(crate) running_for: Duration,
}

impl RunningTask {
    /// The name of its pool.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The name of the thread that runs it.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Where it was submitted.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// What the task itself said it is working on, with [`task::set_label`](crate::task::set_label).
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// For how long it has run, at least: on Linux to within some milliseconds; elsewhere since it was first asked
    /// for by `running()` or a shutdown.
    pub fn running_for(&self) -> Duration {
        self.running_for
    }
}

impl fmt::Display for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task from {} on {} of pool {}", self.location, self.worker, self.pool)?;
        if let Some(label) = &self.label {
            write!(f, " ({label})")?;
        }
        write!(f, ", running for {:.1?}", self.running_for)
    }
}

impl fmt::Debug for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunningTask({self})")
    }
}

/// Whether a pool takes work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum PoolPhase {
    /// It does.
    Open,
    /// It runs what it has accepted, and follow-ups of tasks that run.
    Draining,
    /// It takes nothing any more and has nothing left to start.
    Closed,
}

/// The counts of one pool.
///
/// Each is exact by itself; read while tasks come and go they may be some tasks apart. At rest
/// `accepted = completed + panicked + cancelled + returned + abandoned + queued + delayed + running`.
///
/// ```
/// let pool = winddown::Pool::new(2);
/// for _ in 0..10 {
///     pool.execute(|| ())?;
/// }
/// pool.wait_idle();
/// assert_eq!(pool.stats().completed, 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolStats {
    /// The pool's name.
    pub name: String,
    /// Worker threads alive.
    pub threads: usize,
    /// Worker threads that sleep.
    pub idle: usize,
    /// The most worker threads that were alive at once.
    pub peak_threads: usize,
    /// Tasks accepted and not started.
    pub queued: u64,
    /// Tasks whose delay has not passed.
    pub delayed: u64,
    /// Tasks that run.
    pub running: u64,
    /// Tasks that the pool took on.
    pub accepted: u64,
    /// Tasks that returned.
    pub completed: u64,
    /// Tasks that panicked.
    pub panicked: u64,
    /// Tasks that were cancelled before they started: through their handle, by a deadline, because the pool broke, or because it
    /// closed before their delay was over.
    pub cancelled: u64,
    /// Tasks handed back to the caller unstarted.
    pub returned: u64,
    /// Tasks that were still running at a deadline and left behind.
    pub abandoned: u64,
    /// Submissions that were refused.
    pub rejected: u64,
    /// Whether exit does not wait for this pool.
    pub is_daemon: bool,
    /// Whether it takes work.
    pub phase: PoolPhase,
}

impl PoolStats {
    pub(crate) fn empty(name: &str, is_daemon: bool, phase: PoolPhase) -> PoolStats {
        PoolStats {
            name: name.to_owned(),
            threads: 0,
            idle: 0,
            peak_threads: 0,
            queued: 0,
            delayed: 0,
            running: 0,
            accepted: 0,
            completed: 0,
            panicked: 0,
            cancelled: 0,
            returned: 0,
            abandoned: 0,
            rejected: 0,
            is_daemon,
            phase,
        }
    }

    fn add(&mut self, other: &PoolStats) {
        self.threads += other.threads;
        self.idle += other.idle;
        self.peak_threads += other.peak_threads;
        self.queued += other.queued;
        self.delayed += other.delayed;
        self.running += other.running;
        self.accepted += other.accepted;
        self.completed += other.completed;
        self.panicked += other.panicked;
        self.cancelled += other.cancelled;
        self.returned += other.returned;
        self.abandoned += other.abandoned;
        self.rejected += other.rejected;
        self.phase = self.phase.min(other.phase);
    }
}

/// What the shutdown of one pool did.
///
/// ```
/// let pool = winddown::Pool::new(2);
/// pool.execute(|| ())?;
/// let report = pool.shutdown();
/// assert!(report.is_clean());
/// assert_eq!(report.stats().completed, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PoolReport {
    pub(crate) stats: PoolStats,
    pub(crate) abandoned: Vec<RunningTask>,
    /// Tasks that a deadline, or a worker callback that panicked, cancelled: losses, unlike those that a handle did.
    pub(crate) lost: u64,
    pub(crate) workers_joined: usize,
    pub(crate) elapsed: Duration,
}

impl PoolReport {
    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.stats.name
    }

    /// Its counts when the shutdown ended.
    pub fn stats(&self) -> &PoolStats {
        &self.stats
    }

    /// The tasks that were still running at the deadline.
    pub fn abandoned(&self) -> &[RunningTask] {
        &self.abandoned
    }

    /// How many of its worker threads have ended and been joined, thread-local destructors included, since the pool
    /// was built.
    pub fn workers_joined(&self) -> usize {
        self.workers_joined
    }

    /// How long the shutdown of this pool took.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Whether nothing was lost: no task was abandoned, or cancelled by the deadline or by a broken
    /// `on_thread_start`. A daemon pool loses nothing: nobody asked to wait for it.
    pub fn is_clean(&self) -> bool {
        self.stats.is_daemon || (self.abandoned.is_empty() && self.lost == 0)
    }
}

impl fmt::Display for PoolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.stats;
        write!(
            f,
            "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9.1?}",
            s.name,
            s.accepted,
            s.completed,
            s.panicked,
            s.cancelled,
            s.abandoned,
            self.workers_joined,
            self.elapsed
        )?;
        for task in &self.abandoned {
            write!(f, "\n  abandoned: {task}")?;
        }
        Ok(())
    }
}

/// What a shutdown did: hooks, pools, what was lost and whether anything was.
///
/// Its `Display` is a table for people; `ExitCode: From<&Report>` is 0 where it [is clean](Report::is_clean), else 1.
///
/// ```
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     let pool = winddown::Pool::new(2);
///     let _ = pool.execute(|| println!("at work"));
///     let report = winddown::shutdown();
///     println!("{report}");
///     ExitCode::from(&report)
/// }
/// ```
#[derive(Clone)]
pub struct Report(pub(crate) Arc<Findings>);

pub(crate) struct Findings {
    pub(crate) reason: Reason,
    pub(crate) elapsed: Duration,
    pub(crate) hooks: Vec<HookReport>,
    pub(crate) pools: Vec<PoolReport>,
}

impl Report {
    /// The report of a registry that has nothing to do: one that was made before a fork, in the child.
    pub(crate) fn nothing() -> Report {
        Report(Arc::new(Findings {
            reason: Reason::Call,
            elapsed: Duration::ZERO,
            hooks: Vec::new(),
            pools: Vec::new(),
        }))
    }

    /// Whether nothing went wrong: no hook panicked, timed out or was skipped, and every pool's report is clean.
    /// Tasks that panicked, were cancelled through their handle or refused are counted, and are no losses.
    pub fn is_clean(&self) -> bool {
        self.0.hooks.iter().all(|hook| hook.outcome == HookOutcome::Ran)
            && self.0.pools.iter().all(PoolReport::is_clean)
    }

    /// What began the shutdown.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// Its hooks, in the order in which they ran, in the report of the global registry those of all others too. A hold
    /// that nobody dropped in time is listed as one that timed out.
    pub fn hooks(&self) -> &[HookReport] {
        &self.0.hooks
    }

    /// The pools that were open or draining when it began, newest first, daemon pools last. In the report of the global
    /// registry those of all others, which its shutdown takes along, come first.
    pub fn pools(&self) -> &[PoolReport] {
        &self.0.pools
    }

    /// The counts of all its pools together.
    pub fn totals(&self) -> PoolStats {
        let mut totals = PoolStats::empty("all pools", false, PoolPhase::Closed);
        for pool in &self.0.pools {
            totals.add(&pool.stats);
        }
        totals
    }
}

impl From<&Report> for ExitCode {
    fn from(report: &Report) -> ExitCode {
        if report.is_clean() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_clean() { "clean" } else { "NOT CLEAN" };
        write!(f, "shutdown ({:?}): {verdict}, {:.1?}", self.reason(), self.elapsed())?;
        if !self.pools().is_empty() {
            write!(
                f,
                "\n{:<20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}",
                "pool", "accepted", "completed", "panicked", "cancelled", "abandoned", "workers", "took"
            )?;
            for pool in self.pools() {
                write!(f, "\n{pool}")?;
            }
        }
        for hook in self.hooks() {
            let stage = match hook.stage {
                Stage::PreJoin => "pre-join",
                Stage::PostJoin => "post-join",
            };
            write!(f, "\n{stage} hook {:?}: ", hook.name)?;
            match &hook.outcome {
                HookOutcome::Ran => write!(f, "ran")?,
                HookOutcome::Panicked(message) => write!(f, "PANICKED: {message}")?,
                HookOutcome::TimedOut => write!(f, "TIMED OUT")?,
                HookOutcome::Skipped => write!(f, "SKIPPED")?,
            }
            write!(f, ", {:.1?}", hook.elapsed)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("is_clean", &self.is_clean())
            .field("reason", &self.reason())
            .field("elapsed", &self.elapsed())
            .field("hooks", &self.hooks())
            .field("pools", &self.pools())
            .finish()
    }
}
