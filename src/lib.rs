//! Worker pools that finish their work before the process exits.

mod contain;
mod context;
mod exit;
mod os;
mod pool;
mod process;
mod queue;
mod registry;
mod rejected;
mod sync;
pub mod task;

pub use exit::{
    after_join, before_join, exit, guard, hold, request_shutdown, set_deadline, shutdown, shutdown_timeout, token,
    wait_finished, ShutdownGuard,
};
pub use pool::{BuildError, FollowUps, Pool, PoolBuilder};
pub use registry::report::{
    HookOutcome, HookReport, Phase, PoolPhase, PoolReport, PoolStats, Progress, Reason, Report, RunningTask, Stage,
};
pub use registry::token::{Finished, ShutdownToken};
pub use registry::{Hold, HookId, Registry, ShuttingDown};
pub use rejected::{RejectReason, Rejected};
pub use task::{CancelOnDrop, Canceller, JoinError, JoinErrorKind, JoinHandle};
