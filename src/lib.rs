//! Worker pools that finish their work before the process exits.
//!
//! When `main` returns, Rust ends every other thread where it stands, and what was queued on a thread pool is lost
//! without a word. With winddown it runs:
//!
//! ```
//! use winddown::Pool;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = Pool::new(2);
//!     for n in 1..=5 {
//!         pool.execute(move || println!("task {n} done"))?;
//!     }
//!     Ok(()) // all five run before the process is gone
//! }
//! ```
//!
//! The idea is CPython's: its `ThreadPoolExecutor` registers a hook with `threading._register_atexit`, hooks run in
//! reverse order when the main thread ends, and then every non-daemon thread is joined. winddown brings that to Rust,
//! for every way in which a program ends by itself, with a deadline, a report, and no way for one failing hook to cost
//! the rest.
//!
//! # What happens at exit
//!
//! On return from `main`, on a panic in it, on `std::process::exit` and [`exit`](exit()) from any thread, a task
//! included, on SIGTERM, SIGINT and SIGHUP once [`signals::install`] was called, and on an explicit [`shutdown`]:
//!
//! 1. [Tokens](ShutdownToken) fire, and hooks registered with [`before_join`] run, newest first, while every pool still
//!    accepts work. Then [holds](Registry::hold), requests in flight, are waited for.
//! 2. Pools close and drain, newest first. Tasks may still submit follow-ups, to any pool, until all pools are quiet.
//! 3. Every worker thread is joined, its thread-local destructors included. [Daemon](PoolBuilder::daemon) pools are
//!    not waited for.
//! 4. Hooks registered with [`after_join`] run, newest first.
//!
//! [Registries](Registry::new) that a library or a test made for itself are wound down along with the global one: at
//! each step theirs comes first, newest first, so that all hooks of step 1 find all pools open.
//!
//! There is no deadline unless one is [set](set_deadline). When one passes, what still runs is left behind and named
//! in the [`Report`]: pool, worker, place of submission, [label](task::set_label), for how long.
//!
//! # What does not drain
//!
//! * `abort`, SIGKILL, `_exit`, `exec`, and signals that nobody handles: the process is gone at once. (An application
//!   [handles](signals) the usual ones; a library must not.)
//! * What std aborts for: a stack overflow, a destructor that panics while a panic unwinds, as that of a task's capture
//!   may, and a thread-local's destructor that panics.
//! * A program built with `panic = "abort"` that panics.
//! * On Windows, `std::process::exit`: it never reaches exit handlers. Use [`exit`](exit()).
//! * `std::process::exit` called in a task or a hook *while the process exits already*: std lets that thread sleep for
//!   ever, so neither ever ends, and only a [deadline](set_deadline) ends the wait for it. [`exit`](exit()) is safe there.
//! * C `atexit` handlers that were registered after this crate was first used run before the drain; tasks that use
//!   what such a handler tears down must be waited for earlier, with [`shutdown`].
//!
//! Exit handlers run after the main thread's thread-locals are gone; hooks therefore run on a thread of their own.
//!
//! # Waiting, in growing detail
//!
//! A handle waits for one task, on a thread or in any async runtime:
//!
//! ```
//! # let pool = winddown::Pool::new(2);
//! let handle = pool.spawn(|| (1..=10).product::<u64>())?;
//! assert_eq!(handle.join()?, 3_628_800);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A shutdown of one pool, or of everything, waits for all tasks and says what became of them:
//!
//! ```
//! use std::time::Duration;
//! use winddown::{Pool, Registry};
//!
//! let registry = Registry::new(); // or use the global one, through the free functions of this crate
//! let pool = Pool::builder().name("mail").max_threads(4).registry(&registry).build()?;
//! registry.before_join("stop the listener", || { /* no more requests from here on */ })?;
//! pool.execute(|| { /* a mail */ })?;
//!
//! let report = registry.shutdown_timeout(Duration::from_secs(25));
//! println!("{report}");
//! assert!(report.is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! * `exit-hook` (default): the C `atexit` handler that drains at exit. Without it, use [`guard`], [`exit`](exit()) or
//!   [`shutdown`].
//! * `signals` (default): [`signals::install`], so that SIGTERM, SIGINT and SIGHUP drain too. Nothing is installed
//!   unless it is called.
//!
//! # Inside
//!
//! Modules form a one-way street; each uses only those below it:
//!
//! ```text
//! signals         what SIGTERM, SIGINT and SIGHUP do; signals::unix: the handler
//! exit            guard, exit() and the global registry's verbs
//! pool            Pool, its builder; pool::core: the lock that accepting, closing and workers share, with
//!                 core::crew, who runs tasks, core::lobby, who waits for room, core::limits, core::delays, what is
//!                 for later, and core::winding, how a pool ends; pool::{full, limit, delay, map, default}: its verbs;
//!                 pool::scope: tasks that borrow, and scope::borrowed, why none outlives its scope
//! process         the global registry, afresh in every forked child (process::eras), and the exit handler
//! registry        hooks, holds, members; registry::{shutdown, drain, budget}: the order and its time;
//!                 registry::timer: who is called when
//! task            handles; task::collect: several at once; task::work: what is queued of a task; task::cell: one task's
//!                 states; task::slot: what a worker shows of its task; task::error: why there is no result
//! queue           tasks in order, and who may add; queue::job: a closure, inline
//! context         what the current thread is doing
//! rejected, contain, os, sync
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]
// The front page speaks of the whole crate.
#![cfg_attr(not(feature = "signals"), allow(rustdoc::broken_intra_doc_links))]

mod contain;
mod context;
mod exit;
#[cfg(all(test, winddown_shuttle))]
mod models;
mod os;
mod pool;
mod process;
mod queue;
mod registry;
mod rejected;
#[cfg(feature = "signals")]
#[cfg_attr(docsrs, doc(cfg(feature = "signals")))]
pub mod signals;
mod sync;
pub mod task;

pub use exit::{
    after_join, before_join, exit, guard, hold, request_shutdown, set_deadline, shutdown, shutdown_timeout,
    token, wait_finished, ShutdownGuard,
};
pub use pool::{
    default_pool, execute, spawn, BuildError, FollowUps, Limited, Map, MapUnordered, Pool, PoolBuilder,
    Scope, ScopedJoinHandle, SpawnAsync, UnstartedTask, WhenFull,
};
pub use registry::report::{
    HookOutcome, HookReport, Phase, PoolPhase, PoolReport, PoolStats, Progress, Reason, Report, RunningTask,
    Stage,
};
pub use registry::token::{Finished, ShutdownToken};
pub use registry::{Hold, HookId, Registry, ShuttingDown};
pub use rejected::{RejectReason, Rejected};
pub use task::collect::{as_completed, join_all, join_any, AsCompleted, TimedOut};
pub use task::{CancelOnDrop, Canceller, JoinError, JoinErrorKind, JoinHandle};

/// What `fuzz/` plays with that nobody else can reach.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::queue::job::soup::play as job;
}

/// Compiles and runs the programs of the README.
#[cfg(all(doctest, feature = "signals"))]
#[doc = include_str!("../README.md")]
struct Readme;
