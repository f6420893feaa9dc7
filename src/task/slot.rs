//! What a thread shows of the tasks that it runs.
//!
//! Only the thread itself writes its counts, with plain stores: no two threads write one count, so nothing is passed
//! back and forth between cores for each task. Readers add up the slots of all threads.
#![allow(unsafe_code)]

use super::cell::AnyTask;
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize, Ordering};
use crate::sync::Mutex;
use std::borrow::Cow;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;

/// Aligned to two cache lines, so that no neighbour's writes slow this thread's down.
#[repr(align(128))]
pub(crate) struct Slot {
    pub(crate) name: Arc<str>,
    /// Tasks without a handle that this thread started, and how those that ended did. Such a task runs on the bottom
    /// of the thread's stack or not at all, so `started` exceeds the sum of the others by one or nothing.
    started: AtomicU64,
    completed: AtomicU64,
    panicked: AtomicU64,
    /// Tasks with a handle that ended here.
    cells_completed: AtomicU64,
    cells_panicked: AtomicU64,
    /// Tasks on the thread's stack: one within another where one runs the other in place.
    depth: AtomicUsize,
    /// A [`Stage`].
    stage: AtomicU8,
    /// Of the task without a handle.
    location: AtomicPtr<Location<'static>>,
    since: AtomicU64,
    is_labelled: AtomicBool,
    details: Mutex<Details>,
}

/// Where a thread is between tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// In code that is not ours, or asleep.
    Away,
    /// It has no task in hand and looks for one before it runs any code that is not ours.
    Between,
    /// It may have a task in hand that is neither in the queue nor to be seen in the slot: it has reached for one and not
    /// begun it, or it is about to count it.
    Reaching,
}

#[derive(Default)]
struct Details {
    label: Option<Cow<'static, str>>,
    /// The tasks with handles, innermost last.
    frames: Vec<Frame>,
}

struct Frame {
    task: Arc<dyn AnyTask>,
    since: u64,
    label: Option<Cow<'static, str>>,
}

/// One task as it is seen from outside.
pub(crate) struct Sighting {
    pub(crate) location: &'static Location<'static>,
    pub(crate) label: Option<Cow<'static, str>>,
    pub(crate) nanos: u64,
    /// The task, if it has a handle.
    pub(crate) task: Option<Arc<dyn AnyTask>>,
}

/// How many tasks ended in which way.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Ended {
    pub(crate) completed: u64,
    pub(crate) panicked: u64,
}

impl Slot {
    pub(crate) fn new(name: Arc<str>) -> Slot {
        Slot {
            name,
            started: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            cells_completed: AtomicU64::new(0),
            cells_panicked: AtomicU64::new(0),
            depth: AtomicUsize::new(0),
            stage: AtomicU8::new(Stage::Away as u8),
            location: AtomicPtr::new(ptr::null_mut()),
            since: AtomicU64::new(0),
            is_labelled: AtomicBool::new(false),
            details: Mutex::default(),
        }
    }

    // ---- the thread itself ----

    /// A task without a handle begins.
    #[inline]
    pub(crate) fn begin(&self, location: &'static Location<'static>) {
        self.location.store(ptr::from_ref(location).cast_mut(), Ordering::Relaxed);
        self.since.store(crate::os::now_if_cheap(), Ordering::Relaxed);
        self.depth.store(1, Ordering::Relaxed);
        // Pairs with the Acquire in `bare`: who sees the task started sees its location.
        bump(&self.started);
        self.set_stage(Stage::Away);
    }

    /// The task without a handle has ended; its captures are gone, and its panic was told.
    #[inline]
    pub(crate) fn end(&self, panicked: bool) {
        if self.is_labelled.load(Ordering::Relaxed) {
            self.unlabel();
        }
        self.set_stage(Stage::Between);
        self.depth.store(0, Ordering::Relaxed);
        bump(if panicked { &self.panicked } else { &self.completed });
    }

    #[cold]
    fn unlabel(&self) {
        self.is_labelled.store(false, Ordering::Relaxed);
        let label = self.details.lock().label.take();
        drop(label);
    }

    /// A task with a handle begins. The thread [rests](Slot::rest) once that is counted.
    pub(crate) fn enter(&self, task: Arc<dyn AnyTask>) {
        let frame = Frame { task, since: crate::os::now_if_cheap(), label: None };
        self.details.lock().frames.push(frame);
        self.depth.store(self.depth() + 1, Ordering::Relaxed);
    }

    /// The innermost task with a handle is about to end: it is shown no more.
    pub(crate) fn leave(&self) {
        self.set_stage(Stage::Reaching);
        let frame = self.details.lock().frames.pop();
        self.depth.store(self.depth() - 1, Ordering::Relaxed);
        drop(frame);
    }

    /// Counts the task that [`leave`](Slot::leave) was called for; `is_quick` says that no code but ours runs between
    /// this and the next look at the queue, unless the task was one within another.
    pub(crate) fn count_cell(&self, panicked: bool, is_quick: bool) {
        bump(if panicked { &self.cells_panicked } else { &self.cells_completed });
        self.set_stage(if is_quick && self.depth() == 0 { Stage::Between } else { Stage::Away });
    }

    pub(crate) fn label(&self, label: Cow<'static, str>) {
        let mut details = self.details.lock();
        let place = match details.frames.last_mut() {
            Some(frame) => &mut frame.label,
            None => {
                self.is_labelled.store(true, Ordering::Relaxed);
                &mut details.label
            }
        };
        let old = place.replace(label);
        drop(details);
        drop(old);
    }

    /// The innermost task.
    pub(crate) fn innermost(&self) -> Option<Sighting> {
        self.cells().pop().or_else(|| self.bare())
    }

    /// The innermost task, if it has a handle.
    pub(crate) fn current(&self) -> Option<Arc<dyn AnyTask>> {
        self.details.lock().frames.last().map(|frame| frame.task.clone())
    }

    /// Whether `task` is on this thread's stack.
    pub(crate) fn is_inside(&self, task: &Arc<dyn AnyTask>) -> bool {
        self.details.lock().frames.iter().any(|frame| same(&frame.task, task))
    }

    #[inline]
    fn set_stage(&self, stage: Stage) {
        // Release: who sees that a task is in hand no more sees it in the slot.
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// The thread is going to take a task, if there is one. Called before: whoever finds the task gone from the queue
    /// finds this, too.
    pub(crate) fn reach(&self) {
        self.set_stage(Stage::Reaching);
    }

    /// There was none; the thread looks for one elsewhere.
    pub(crate) fn look_on(&self) {
        self.set_stage(Stage::Between);
    }

    /// The thread looks no more.
    pub(crate) fn rest(&self) {
        self.set_stage(Stage::Away);
    }

    // ---- everyone else ----

    #[inline]
    pub(crate) fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    pub(crate) fn is_between(&self) -> bool {
        self.stage.load(Ordering::Acquire) == Stage::Between as u8
    }

    /// Whether the thread may have a task in hand that is neither in the queue nor to be seen here.
    pub(crate) fn is_reaching(&self) -> bool {
        self.stage.load(Ordering::Acquire) == Stage::Reaching as u8
    }

    /// The counts of tasks without a handle.
    ///
    /// Pairs with the Release in `bump`: who sees a task counted sees what it did.
    pub(crate) fn ended_bare(&self) -> Ended {
        Ended {
            completed: self.completed.load(Ordering::Acquire),
            panicked: self.panicked.load(Ordering::Acquire),
        }
    }

    pub(crate) fn ended_cells(&self) -> Ended {
        Ended {
            completed: self.cells_completed.load(Ordering::Acquire),
            panicked: self.cells_panicked.load(Ordering::Acquire),
        }
    }

    /// The task without a handle, if one runs.
    pub(crate) fn bare(&self) -> Option<Sighting> {
        loop {
            let started = self.started.load(Ordering::Acquire);
            let ended = self.ended_bare();
            if started <= ended.completed + ended.panicked {
                return None;
            }
            let location = self.location.load(Ordering::Relaxed);
            let nanos = self.seen(&self.since);
            let label = self.details.lock().label.clone();
            if self.started.load(Ordering::Acquire) == started {
                // SAFETY: it is null or was made of a `&'static Location`; it is not null, since the load that saw
                // the task started happened after the store of its location.
                let location = unsafe { &*location };
                return Some(Sighting { location, label, nanos, task: None });
            }
        }
    }

    /// The tasks with handles, outermost first.
    pub(crate) fn cells(&self) -> Vec<Sighting> {
        let now = crate::os::now();
        let mut details = self.details.lock();
        let sight = |frame: &mut Frame| {
            if frame.since == 0 {
                frame.since = now;
            }
            Sighting {
                location: frame.task.location(),
                label: frame.label.clone(),
                nanos: now.saturating_sub(frame.since),
                task: Some(frame.task.clone()),
            }
        };
        details.frames.iter_mut().map(sight).collect()
    }

    /// For how long something has run; where its start was not noted, from now on.
    fn seen(&self, since: &AtomicU64) -> u64 {
        let now = crate::os::now();
        match since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => 0,
            Err(since) => now.saturating_sub(since),
        }
    }
}

/// Adds one to a count that only this thread writes. Release: what the thread did before is seen by who sees it.
#[inline]
fn bump(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
}

pub(crate) fn same(a: &Arc<dyn AnyTask>, b: &Arc<dyn AnyTask>) -> bool {
    // Compares addresses alone: vtables may be duplicated.
    ptr::eq(Arc::as_ptr(a).cast::<()>(), Arc::as_ptr(b).cast::<()>())
}
