//! Worker threads that have ended, until they are joined.

use crate::contain;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle, ThreadId};
use std::cell::RefCell;
use std::sync::Arc;

/// A thread of a member that has left its loop and may still run thread-local destructors.
///
/// Threads come and go in a pool with a short keep-alive, and each leaves a handle that has to be joined by somebody:
/// dropping it would let the process exit in the middle of the thread's destructors. Joining it at once could hang in
/// them. So handles are kept until their thread is [gone](EndedThread::is_gone).
pub(crate) struct EndedThread {
    thread: JoinHandle<()>,
    mark: Mark,
}

/// Set by the thread's own last thread-local destructor.
#[derive(Clone, Default)]
pub(crate) struct Mark(Arc<AtomicBool>);

impl Mark {
    /// To be called on the thread first of all: std runs the destructors of thread-locals in the reverse order of
    /// their first use on every platform where it keeps a list of them, so this one runs last. Where it does not, a
    /// thread may count as gone a little early, and joining it then waits for its other destructors.
    pub(crate) fn set_at_thread_exit(self) {
        struct AtExit(Option<Mark>);
        impl Drop for AtExit {
            fn drop(&mut self) {
                if let Some(mark) = &self.0 {
                    mark.0.store(true, Ordering::Release);
                }
            }
        }
        crate::sync::thread_local!(static AT_EXIT: RefCell<AtExit> = const { RefCell::new(AtExit(None)) });
        AT_EXIT.with(|at_exit| at_exit.borrow_mut().0 = Some(self));
    }
}

impl EndedThread {
    pub(crate) fn new(thread: JoinHandle<()>, mark: Mark) -> EndedThread {
        EndedThread { thread, mark }
    }

    /// Whether its destructors have run, so that joining it takes no time.
    fn is_gone(&self) -> bool {
        self.mark.0.load(Ordering::Acquire)
    }

    pub(crate) fn id(&self) -> ThreadId {
        self.thread.thread().id()
    }

    /// Waits for its end. A payload that it left is dropped.
    pub(crate) fn join(self) {
        if let Err(payload) = self.thread.join() {
            contain::drop_quietly(payload);
        }
    }
}

/// Takes those out that are gone; the caller joins them when it holds no lock.
pub(crate) fn take_gone(threads: &mut Vec<EndedThread>) -> Vec<EndedThread> {
    let (gone, rest) = std::mem::take(threads).into_iter().partition(EndedThread::is_gone);
    *threads = rest;
    gone
}

/// Takes all out but the current thread, which may be running its last destructors and cannot join itself.
pub(crate) fn take_others(threads: &mut Vec<EndedThread>) -> Vec<EndedThread> {
    // A thread that is so far gone that it does not know itself has no handle here that it could meet.
    let me = contain::run(|| thread::current().id()).ok();
    let (own, others) = std::mem::take(threads).into_iter().partition(|thread| Some(thread.id()) == me);
    *threads = own;
    others
}

pub(crate) fn join_all(threads: Vec<EndedThread>) {
    threads.into_iter().for_each(EndedThread::join);
}
