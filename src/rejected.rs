use std::error::Error;
use std::fmt;
use sync_wrapper::SyncWrapper;

/// A task or a hook that was refused, with the reason and the closure itself.
///
/// It is an error for every closure, so `?` works on a refused submission; [`into_inner`](Rejected::into_inner) gives
/// the closure back, to be run elsewhere, kept, or submitted again.
///
/// ```
/// let pool = winddown::Pool::new(1);
/// pool.close();
/// let refused = pool.execute(|| println!("too late")).unwrap_err();
/// assert_eq!(refused.reason(), winddown::RejectReason::Closed);
/// refused.into_inner()(); // run it here instead
/// ```
pub struct Rejected<F> {
    reason: RejectReason,
    inner: SyncWrapper<F>,
}

impl<F> Rejected<F> {
    pub(crate) fn new(reason: RejectReason, inner: F) -> Rejected<F> {
        Rejected { reason, inner: SyncWrapper::new(inner) }
    }

    /// Why it was refused.
    pub fn reason(&self) -> RejectReason {
        self.reason
    }

    /// Gives the closure back.
    pub fn into_inner(self) -> F {
        self.inner.into_inner()
    }
}

impl<F> fmt::Debug for Rejected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Rejected<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<F> Error for Rejected<F> {}

/// Why a submission or a registration was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RejectReason {
    /// The pool was closed, by [`close`](crate::Pool::close), a shutdown of its own, or the drop of its last handle.
    Closed,
    /// The pool's registry is shutting down, or has.
    ShuttingDown,
    /// The queue is full: see [`queue_capacity`](crate::PoolBuilder::queue_capacity).
    Full,
    /// The queue was full for as long as the submitter was willing to wait.
    Timeout,
    /// The operating system refused the pool's first thread. Nothing was queued; a later attempt may succeed.
    NoThread,
    /// The pool or registry was made before a `fork`, and this is the child: its threads are not here.
    Forked,
    /// A callback given to [`on_thread_start`](crate::PoolBuilder::on_thread_start) or
    /// [`worker_state`](crate::PoolBuilder::worker_state) panicked; the pool takes no more work.
    Broken,
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RejectReason::Closed => "the pool is closed: build a new one, or submit before closing it",
            RejectReason::ShuttingDown => "shutdown has begun: nothing new is taken on, finish or hand back the work",
            RejectReason::Full => "the pool's queue is full: try again later, wait for room, or shed the work",
            RejectReason::Timeout => "the pool's queue was full for the whole time: wait longer, or shed the work",
            RejectReason::NoThread => {
                "the operating system refused a thread and the pool has none: raise the limit, or try again later"
            }
            RejectReason::Forked => "this belongs to the parent process: build a new pool in the forked child",
            RejectReason::Broken => {
                "on_thread_start or worker_state panicked, so the pool has no usable worker: mend the callback, build a \
                 new pool"
            }
        })
    }
}
