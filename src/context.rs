//! What the current thread is doing for this crate: running a pool's tasks, or a hook, or nothing.
//!
//! The mark is a plain pointer in a thread-local without a destructor, so that it can still be read when the C
//! runtime runs exit handlers on this thread, after the thread's other thread-locals are gone.
#![allow(unsafe_code)]

use crate::os::Generation;
use crate::sync::atomic::AtomicBool;
use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
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

    /// Tells whom it may concern that the innermost task has panicked, which no handle receives.
    fn tell_panic(&self, payload: &(dyn Any + Send));

    /// A number that no other pool has.
    fn pool(&self) -> u64;

    /// What the tasks of the pool share on this thread, if it is one of the pool's own.
    fn state(&self) -> Option<&State>;
}

/// What the tasks on a worker thread share. Empty where the pool makes nothing of the kind, before it is made, and once it
/// is dropped.
pub(crate) type State = RefCell<Option<Box<dyn Any>>>;

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
        of: Whose,
        /// Turns true when the wait is over, though the thread may not have woken up yet: it counts as running again.
        over: Arc<AtomicBool>,
        /// Whether a shutdown that joins the thread can rely on the wait to end by itself.
        ends: bool,
    },
    /// An idle pool, of that id. Its tasks count as finished for the same wait of other tasks.
    Idle(u64),
    /// A task of the thread's own pool that cannot be run in place, not yet or not any more. Somebody else has to, or, where
    /// no thread can be had for that, whoever sleeps in the wait.
    Join(Arc<dyn Sleeper>),
}

/// Who sleeps in a wait, and may have to run what nobody else is left to run: see [`help`].
pub(crate) trait Sleeper: Send + Sync {
    /// Has the thread look again. Called under a pool's lock.
    fn rouse(&self);
}

/// Whose end is waited for.
#[derive(Clone, Copy)]
pub(crate) enum Whose {
    /// The pool's of that id.
    Pool(u64),
    /// The registry's of that id.
    Registry(u64),
    /// That of all pools.
    Process,
}

impl Wait {
    /// Whether it goes on until that pool, of that registry, has nothing left to run.
    pub(crate) fn is_for(&self, pool: u64, registry: u64) -> bool {
        match self {
            Wait::End { of: Whose::Pool(id), .. } | Wait::Idle(id) => *id == pool,
            Wait::End { of: Whose::Registry(id), .. } => *id == registry,
            Wait::End { of: Whose::Process, .. } => true,
            Wait::Join(_) => false,
        }
    }
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

crate::sync::thread_local! {
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

fn each_entered(mut f: impl FnMut(Entered) -> bool) {
    let mut next = CURRENT.with(Cell::get);
    while let Some(entered) = next.filter(|entered| !entered.generation.is_past()) {
        if !f(entered) {
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

/// Shows `f` every host of tasks that the current thread runs, if it is an `H`, innermost first, until `f` has found what it
/// looks for.
pub(crate) fn find_host<H: TaskHost + 'static, R>(mut f: impl FnMut(&H) -> Option<R>) -> Option<R> {
    let mut found = None;
    each_entered(|entered| {
        if let Some((host, _)) = entered.host.filter(|(_, id)| *id == TypeId::of::<H>()) {
            // SAFETY: as in `with_host`.
            found = f(unsafe { host.cast::<H>().as_ref() });
        }
        found.is_none()
    });
    found
}

/// Shows `f` what the tasks of the innermost one's pool share on this thread. Where the thread runs that task for once, while
/// it is blocked, that is what lies further down its stack, if it is a worker of the same pool.
pub(crate) fn with_state<R>(f: impl FnOnce(&State) -> Option<R>) -> Option<R> {
    let (mut f, mut result, mut pool) = (Some(f), None, None);
    each(|frame| {
        let Frame::Worker(host) = frame else { return true };
        if *pool.get_or_insert_with(|| host.pool()) == host.pool() {
            if let Some(state) = host.state() {
                result = f.take().and_then(|f| f(state));
            }
        }
        f.is_some()
    });
    result
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

/// Runs one task that no other thread is left to run, of a pool whose tasks the current thread runs. Says whether there was
/// one.
pub(crate) fn help() -> bool {
    let mut has_helped = false;
    each(|frame| {
        if let Frame::Worker(host) = frame {
            has_helped = host.help();
        }
        !has_helped
    });
    has_helped
}

/// Which tasks may be run on the current thread in the place of a wait for them: see [`TaskHost::standing`].
pub(crate) fn standing() -> Option<Standing> {
    let mut standing = None;
    each(|frame| {
        if let Frame::Worker(host) = frame {
            standing = host.standing();
        }
        standing.is_none()
    });
    standing
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
