//! What the current thread may wait for, without waiting for itself in the end.
//!
//! The order of pools by their place is what keeps waits from going round: a task waits for tasks of its own place, which it
//! has submitted itself, and of higher ones. A wait for the end of something, or for a pool to be idle, waits for tasks that
//! nobody named; it is for those that no task waits for.

use super::kettle::Kettle;
use std::cell::RefCell;
use std::sync::Arc;

pub struct Frame {
    /// The pool whose task this is, and of which of its limits.
    pub task: Option<(Arc<Kettle>, Option<usize>)>,
    /// No task and no hook waits for it.
    pub is_free: bool,
    /// It may wait at all.
    pub waits: bool,
    pub is_hook: bool,
    /// A pool has handed it back.
    pub is_adrift: bool,
}

thread_local! {
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

impl Frame {
    pub fn of_task(kettle: Arc<Kettle>, limit: Option<usize>, is_free: bool) -> Frame {
        Frame { task: Some((kettle, limit)), is_free, waits: true, is_hook: false, is_adrift: false }
    }

    pub fn of_hook() -> Frame {
        Frame { task: None, is_free: true, waits: true, is_hook: true, is_adrift: false }
    }

    /// Somebody waits for the current thread to go on.
    pub fn in_a_hurry() -> Frame {
        Frame { task: None, is_free: false, waits: false, is_hook: false, is_adrift: false }
    }

    pub fn adrift() -> Frame {
        Frame { is_adrift: true, ..Frame::in_a_hurry() }
    }

    pub fn enter(self) -> Entered {
        FRAMES.with_borrow_mut(|frames| frames.push(self));
        Entered
    }
}

#[must_use]
pub struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        let frame = FRAMES.with_borrow_mut(Vec::pop);
        drop(frame);
    }
}

fn all(f: impl Fn(&Frame) -> bool) -> bool {
    FRAMES.with_borrow(|frames| frames.iter().all(f))
}

/// Whether this is a thread that no pool and no hook waits for.
pub fn is_outside() -> bool {
    all(|_| false)
}

pub fn is_in_hook() -> bool {
    !all(|frame| !frame.is_hook)
}

pub fn is_adrift() -> bool {
    !all(|frame| !frame.is_adrift)
}

/// The pool of the innermost task.
pub fn own() -> Option<Arc<Kettle>> {
    FRAMES.with_borrow(|frames| Some(frames.last()?.task.as_ref()?.0.clone()))
}

/// Whether the thread may wait for a task of a pool that it has submitted itself, or for room for it.
pub fn may_wait_for(kettle: &Arc<Kettle>, limit: Option<usize>) -> bool {
    all(|frame| {
        frame.waits
            && frame.task.as_ref().map_or(true, |(own, own_limit)| match own_limit {
                None => kettle.place >= own.place,
                Some(_) => kettle.place > own.place || (Arc::ptr_eq(own, kettle) && limit == *own_limit),
            })
    })
}

/// Whether it may do so where the task is never run in place.
pub fn may_only_wait_for(kettle: &Kettle) -> bool {
    all(|frame| frame.waits && frame.task.as_ref().map_or(true, |(own, _)| kettle.place > own.place))
}

/// Whether it may be that it waits for room in a pool's queue. What a task submits to its own pool goes over the bound.
pub fn may_wait_for_room(kettle: &Arc<Kettle>) -> bool {
    may_only_wait_for(kettle) || (!is_adrift() && own().is_some_and(|own| Arc::ptr_eq(&own, kettle)))
}

/// Whether this is inside a task of the pool.
pub fn is_inside(kettle: &Arc<Kettle>) -> bool {
    !all(|frame| frame.task.as_ref().map_or(true, |(own, _)| !Arc::ptr_eq(own, kettle)))
}

/// Whether it may wait for the end of a pool. While a task of a limit waits for its own pool, others have its permit.
pub fn may_end(kettle: &Arc<Kettle>) -> bool {
    may_end_where(|own| Arc::ptr_eq(own, kettle) || kettle.place > own.place)
}

pub fn may_end_registry(registry: usize) -> bool {
    may_end_where(|own| own.spec.registry == registry)
}

fn may_end_where(lends: impl Fn(&Arc<Kettle>) -> bool) -> bool {
    let fits = |frame: &Frame| match &frame.task {
        Some((own, Some(_))) => lends(own),
        _ => true,
    };
    all(|frame| frame.waits && frame.is_free && fits(frame))
}

/// Whether it may wait until a pool is idle. Such a wait keeps its own pool's `shutdown_now` waiting, which has tasks of that
/// pool in hand that lower ones wait for.
pub fn may_wait_idle(kettle: &Arc<Kettle>) -> bool {
    may_end(kettle) && all(|frame| frame.task.as_ref().map_or(true, |(own, _)| kettle.place >= own.place))
}
