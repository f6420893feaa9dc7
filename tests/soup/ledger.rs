//! What became of each task, written down by the task itself and by whoever heard of it, and checked at rest.

use super::programme::Manners;
use crate::common::Tracked;
use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use winddown::{JoinError, JoinErrorKind};

/// One closure that was offered to a pool or a registry.
#[derive(Debug)]
pub struct Record {
    number: usize,
    what: String,
    pub runs: AtomicUsize,
    captures_dropped: AtomicUsize,
    values_made: AtomicUsize,
    values_dropped: AtomicUsize,
    panicked: AtomicBool,
    pub refused: AtomicBool,
    /// Somebody was told that it will never run.
    pub is_doomed: AtomicBool,
    /// What handles said.
    told: Mutex<Vec<Told>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Value,
    Error(JoinErrorKind),
}

impl Record {
    pub fn new(number: usize, what: String) -> Record {
        Record {
            number,
            what,
            runs: AtomicUsize::new(0),
            captures_dropped: AtomicUsize::new(0),
            values_made: AtomicUsize::new(0),
            values_dropped: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            is_doomed: AtomicBool::new(false),
            told: Mutex::default(),
        }
    }

    pub fn begin(&self) {
        assert_eq!(self.runs.fetch_add(1, SeqCst), 0, "it ran twice: {self:?}");
        assert!(!self.refused.load(SeqCst), "it was refused, and runs: {self:?}");
        assert!(!self.is_doomed.load(SeqCst), "it was to run never: {self:?}");
        assert_eq!(self.captures_dropped.load(SeqCst), 0, "it runs without its captures: {self:?}");
    }

    pub fn panics(&self) {
        self.panicked.store(true, SeqCst);
    }

    /// A handle has resolved. But for a task that was abandoned, its captures are gone by now.
    pub fn tell(&self, result: &Result<Value, JoinError>) {
        let told = match result {
            Ok(value) => {
                assert_eq!(value.record.number, self.number, "the result of another task: {self:?}");
                Told::Value
            }
            Err(error) => Told::Error(error.kind()),
        };
        self.told.lock().unwrap().push(told);
        // What a deadline has cancelled resolves even where the drop of its captures takes long.
        let is_loose = match told {
            Told::Error(JoinErrorKind::Cancelled) => HAS_DEADLINE.load(SeqCst),
            told => told == Told::Error(JoinErrorKind::Abandoned),
        };
        if !is_loose {
            assert_eq!(
                self.captures_dropped.load(SeqCst),
                1,
                "it resolves before its captures are gone: {self:?}"
            );
        }
        // A deadline may have given a task up that was just about to begin. At rest it has begun.
        if told != Told::Error(JoinErrorKind::Abandoned) {
            self.check_told(told);
        }
    }

    fn check_told(&self, told: Told) {
        let runs = self.runs.load(SeqCst);
        let panicked = self.panicked.load(SeqCst);
        let expected = match told {
            Told::Value => runs == 1 && !panicked && self.values_made.load(SeqCst) == 1,
            Told::Error(JoinErrorKind::Cancelled) => runs == 0,
            Told::Error(JoinErrorKind::Panicked) => runs == 1 && panicked,
            Told::Error(JoinErrorKind::Abandoned) => runs == 1,
            Told::Error(_) => false,
        };
        assert!(expected, "a handle says {told:?}: {self:?}");
    }

    /// Where it was offered, and how.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Whether nothing of it is left.
    pub fn is_over(&self) -> bool {
        self.captures_dropped.load(SeqCst) > 0
            && self.values_made.load(SeqCst) == self.values_dropped.load(SeqCst)
    }

    pub fn check(&self) {
        let runs = self.runs.load(SeqCst);
        assert!(runs <= 1, "it ran more than once: {self:?}");
        assert_eq!(self.captures_dropped.load(SeqCst), 1, "its captures are dropped once: {self:?}");
        assert_eq!(self.values_made.load(SeqCst), self.values_dropped.load(SeqCst), "{self:?}");
        assert!(runs == 0 || !self.refused.load(SeqCst), "it was refused, and ran: {self:?}");
        assert!(runs == 0 || !self.is_doomed.load(SeqCst), "it was cancelled, and ran: {self:?}");
        self.told.lock().unwrap().iter().for_each(|told| self.check_told(*told));
    }
}

/// What a closure captures.
pub struct Capture {
    pub record: Arc<Record>,
    manners: Manners,
    _tracked: Tracked<()>,
}

impl Capture {
    pub fn new(record: Arc<Record>, manners: Manners) -> Capture {
        Capture { record, manners, _tracked: Tracked::new(()) }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let before = self.record.captures_dropped.fetch_add(1, SeqCst);
        note(before == 0, || format!("captures dropped twice: {:?}", self.record));
        misbehave(self.manners);
    }
}

/// What a task returns.
pub struct Value {
    record: Arc<Record>,
    manners: Manners,
    _tracked: Tracked<()>,
}

impl Value {
    pub fn new(record: Arc<Record>, manners: Manners) -> Value {
        record.values_made.fetch_add(1, SeqCst);
        Value { record, manners, _tracked: Tracked::new(()) }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.record.values_dropped.fetch_add(1, SeqCst);
        misbehave(self.manners);
    }
}

/// The payload of each panic that belongs to the programme.
pub struct Boom(Manners, #[allow(dead_code)] Tracked<()>);

impl Boom {
    pub fn go(manners: Manners) -> ! {
        panic::panic_any(Boom(manners, Tracked::new(())))
    }
}

impl Drop for Boom {
    fn drop(&mut self) {
        misbehave(self.0);
    }
}

/// Panics in a drop, but not while another panic unwinds, which would end the process.
pub fn misbehave(manners: Manners) {
    if manners == Manners::Panics && !thread::panicking() {
        Boom::go(Manners::Good);
    }
}

/// Whether a time-out may have cut something off in this play.
pub static HAS_DEADLINE: AtomicBool = AtomicBool::new(false);

// ---- panics that do not belong to the programme ----

/// What went wrong where a panic would have been contained by the pool, or be one in a drop.
static FAILURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

pub fn note(holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        FAILURES.lock().unwrap_or_else(PoisonError::into_inner).push(what());
    }
}

pub fn failures() -> Vec<String> {
    std::mem::take(&mut FAILURES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Has every panic noted but those of the programme, which are silent.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().is::<Boom>() || EXPECTED.try_with(Cell::get).unwrap_or(false) {
                return;
            }
            note(false, || info.to_string());
            say(info);
        }));
    });
}

/// Does what may panic as the programme has it.
pub fn quietly<R>(f: impl FnOnce() -> R) -> Option<R> {
    match panic::catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) => {
            forget_politely(payload);
            None
        }
    }
}

fn forget_politely(payload: Box<dyn Any + Send>) {
    // What the drop of a `Boom` panics with is well behaved.
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        drop(payload);
    }
}

/// Does what the crate says panics.
pub fn expect_panic(f: impl FnOnce()) {
    EXPECTED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    EXPECTED.set(false);
    note(result.is_err(), || "no panic where one was due".into());
}
