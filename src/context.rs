//! What the current thread is doing for this crate: running a pool's tasks, or a hook, or nothing.
//!
//! The mark is a plain pointer in a thread-local without a destructor, so that it can still be read when the C
//! runtime runs exit handlers on this thread, after the thread's other thread-locals are gone.
#![allow(unsafe_code)]

use crate::os::Generation;
use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// A thread that runs tasks of a pool, as the layers below the pool see it.
pub(crate) trait TaskHost {
    /// Marks the thread as blocked in a wait for an end that must not wait for this thread; undone when the guard is
    /// dropped. Its tasks count as finished until then, or until what it waits for is over.
    fn block(&self, wait: Wait) -> Box<dyn Any>;

    /// Runs one task that no thread of the pool is left to run. Says whether there was one.
    fn help(&self) -> bool;

    /// Whether the thread is inside a task, and not between two or in one of its pool's callbacks.
    fn is_in_task(&self) -> bool;

    /// What decides which tasks may be run here in the place of a wait for them: the thread's pool, and the limits whose
    /// permits its tasks have. `None` outside a task, where none may.
    fn standing(&self) -> Option<Standing>;

    /// Whether the innermost task was told to stop.
    fn is_cancelled(&self) -> bool;

    /// Labels the innermost task.
    fn set_label(&self, label: Cow<'static, str>);
}

/// See [`TaskHost::standing`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) pool: u64,
    pub(crate) limits: Vec<u64>,
}

/// What a blocked thread waits for.
#[derive(Clone)]
pub(crate) enum Wait {
    /// The end of a shutdown. Its tasks count as finished for every drain.
    End {
        /// Turns true when the wait is over, though the thread may not have woken up yet: it counts as running again.
        over: Arc<AtomicBool>,
        /// Whether a shutdown that joins the thread can rely on the wait to end by itself.
        ends: bool,
    },
    /// An idle pool. Its tasks count as finished for the same wait of other tasks.
    Idle,
    /// A task of the thread's own pool that cannot be run in place, not yet or not any more. Somebody else has to.
    Join,
}

/// A hook that is running on the current thread.
pub(crate) trait HookHost {
    /// Has the shutdown go on as if the hook had ended, because its thread now waits for that shutdown.
    fn leave(&self);

    /// Records the code with which the process is to exit.
    fn exit_with(&self, code: i32);
}

#[derive(Clone, Copy)]
pub(crate) enum Frame<'a> {
    Worker(&'a dyn TaskHost),
    Hook(&'a dyn HookHost),
}

/// What was entered.
#[derive(Clone, Copy)]
struct Entered {
    frame: NonNull<Frame<'static>>,
    /// In a child that was forked since, the frame means nothing.
    generation: Generation,
    /// The host itself and its type, for `with_host`.
    host: Option<(NonNull<()>, TypeId)>,
    /// What this lies on: a thread that runs a task of a pool may, in its place, run one of another.
    below: NonNull<Option<Entered>>,
}

thread_local! {
    static CURRENT: Cell<Option<Entered>> = const { Cell::new(None) };
}

/// Runs `f` on a thread that runs tasks for `host`.
pub(crate) fn enter_worker<H: TaskHost + 'static, R>(host: &H, f: impl FnOnce() -> R) -> R {
    enter(&Frame::Worker(host), Some((NonNull::from(host).cast(), TypeId::of::<H>())), f)
}

/// Runs `f` on a thread that runs a hook for `host`.
pub(crate) fn enter_hook<R>(host: &dyn HookHost, f: impl FnOnce() -> R) -> R {
    enter(&Frame::Hook(host), None, f)
}

fn enter<R>(frame: &Frame<'_>, host: Option<(NonNull<()>, TypeId)>, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Entered>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with(|current| current.set(self.0));
        }
    }
    let restore = Restore(CURRENT.with(Cell::get));
    let below = NonNull::from(&restore.0);
    let entered = Entered { frame: NonNull::from(frame).cast(), generation: Generation::now(), host, below };
    CURRENT.with(|current| current.set(Some(entered)));
    f()
}

/// Shows `f` what the current thread is doing.
pub(crate) fn with<R>(f: impl FnOnce(Option<&Frame<'_>>) -> R) -> R {
    let current = CURRENT.with(Cell::get).filter(|entered| !entered.generation.is_past());
    // SAFETY: `enter` set the pointer from a reference that it borrows until it takes the pointer back, unwinding
    // included; both happen on this thread, so the frame is alive while `f` runs inside that call. `f` takes any
    // lifetime and so cannot keep the reference.
    f(current.map(|entered| unsafe { entered.frame.as_ref() }))
}

/// Shows `f` all that the current thread is doing, innermost first, until it says that it has seen enough.
fn each(mut f: impl FnMut(&Frame<'_>) -> bool) {
    // SAFETY: as in `with`.
    each_entered(|entered| f(unsafe { entered.frame.as_ref() }));
}

/// Whether one of the hosts of the tasks on the current thread's stack, the innermost or not, is such an `H`.
pub(crate) fn has_host<H: TaskHost + 'static>(is_it: impl Fn(&H) -> bool) -> bool {
    let mut found = false;
    each_entered(|entered| {
        if let Some((host, _)) = entered.host.filter(|(_, id)| *id == TypeId::of::<H>()) {
            // SAFETY: as in `with_host`.
            found = is_it(unsafe { host.cast::<H>().as_ref() });
        }
        !found
    });
    found
}

fn each_entered(mut f: impl FnMut(&Entered) -> bool) {
    let mut next = CURRENT.with(Cell::get);
    while let Some(entered) = next.filter(|entered| !entered.generation.is_past()) {
        if !f(&entered) {
            return;
        }
        // SAFETY: it lies on the stack of the call of `enter` that made `entered`, which has not returned: what it made
        // is still there.
        next = unsafe { *entered.below.as_ref() };
    }
}

/// Shows `f` the host of the tasks that the current thread runs, if it is an `H`. For each submission: without a call
/// through a table.
#[inline]
pub(crate) fn with_host<H: TaskHost + 'static, R>(f: impl FnOnce(Option<&H>) -> R) -> R {
    let host = match CURRENT.with(Cell::get) {
        Some(Entered { host: Some((host, id)), generation, .. })
            if id == TypeId::of::<H>() && !generation.is_past() =>
        {
            // SAFETY: as in `with`; `enter_worker` made the pointer of an `H`.
            Some(unsafe { host.cast::<H>().as_ref() })
        }
        _ => None,
    };
    f(host)
}

/// A thread that is blocked; undone when this is dropped.
#[must_use]
pub(crate) struct Blocked(Vec<Box<dyn Any>>);

impl Blocked {
    /// Whether the thread runs tasks, of whatever pool.
    pub(crate) fn is_worker(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Marks the current thread as blocked for every pool whose tasks it runs.
pub(crate) fn block(wait: Wait) -> Blocked {
    let mut blocked = Vec::new();
    each(|frame| {
        if let Frame::Worker(host) = frame {
            blocked.push(host.block(wait.clone()));
        }
        true
    });
    Blocked(blocked)
}

/// Runs one task of the current thread's pool that no other thread is left to run. Says whether there was one.
pub(crate) fn help() -> bool {
    with(|frame| match frame {
        Some(Frame::Worker(host)) => host.help(),
        _ => false,
    })
}

/// Which tasks may be run on the current thread in the place of a wait for them: see [`TaskHost::standing`].
pub(crate) fn standing() -> Option<Standing> {
    with(|frame| match frame {
        Some(Frame::Worker(host)) => host.standing(),
        _ => None,
    })
}

/// Whether the current thread runs a hook, or a task in a hook's place.
pub(crate) fn in_hook() -> bool {
    with_hook(|_| ())
}

/// Shows `f` the hook that the current thread runs. Says whether there is one.
pub(crate) fn with_hook(mut f: impl FnMut(&dyn HookHost)) -> bool {
    let mut has_hook = false;
    each(|frame| {
        if let Frame::Hook(hook) = frame {
            has_hook = true;
            f(*hook);
        }
        !has_hook
    });
    has_hook
}

pub(crate) fn in_worker() -> bool {
    with(|frame| matches!(frame, Some(Frame::Worker(_))))
}

/// Panics in a hook, where a wait for the end of a registry's shutdown would be one for the hook itself.
pub(crate) fn refuse_in_hook(call: &str) {
    assert!(
        !in_hook(),
        "{call} was called inside a shutdown hook, where it would wait for itself: the shutdown runs already"
    );
}
