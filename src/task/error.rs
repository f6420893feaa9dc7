//! Why a task has no result, and what becomes of a panic that nobody takes.

use crate::contain::{self, Payload};
use crate::context::{self, Frame};
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use sync_wrapper::SyncWrapper;

/// Why a task has no result.
pub struct JoinError {
    cause: Cause,
}

/// In two words: every task has room for an error, and few have one.
enum Cause {
    Cancelled(&'static Location<'static>),
    Abandoned(&'static Location<'static>),
    Panicked(Box<Panic>),
}

struct Panic {
    location: &'static Location<'static>,
    payload: SyncWrapper<Payload>,
    message: String,
}

/// The ways in which a task can have no result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum JoinErrorKind {
    /// It was cancelled before it started: through its handle, at a deadline, or because its pool closed before its delay was
    /// over.
    Cancelled,
    /// It panicked.
    Panicked,
    /// It was still running at a deadline, or belongs to a process of which this is a forked child.
    Abandoned,
}

impl JoinError {
    pub(crate) fn cancelled(location: &'static Location<'static>) -> JoinError {
        JoinError { cause: Cause::Cancelled(location) }
    }

    pub(crate) fn abandoned(location: &'static Location<'static>) -> JoinError {
        JoinError { cause: Cause::Abandoned(location) }
    }

    pub(crate) fn panicked(payload: Payload, location: &'static Location<'static>) -> JoinError {
        let message = contain::message(&*payload).to_owned();
        let panic = Panic { location, payload: SyncWrapper::new(payload), message };
        JoinError { cause: Cause::Panicked(Box::new(panic)) }
    }

    fn location(&self) -> &'static Location<'static> {
        match &self.cause {
            Cause::Cancelled(location) | Cause::Abandoned(location) => location,
            Cause::Panicked(panic) => panic.location,
        }
    }

    fn message(&self) -> Option<&str> {
        match &self.cause {
            Cause::Panicked(panic) => Some(&panic.message),
            _ => None,
        }
    }

    /// Takes the payload of a panic out, and leaves an error without one.
    fn take_panic(&mut self) -> Option<Box<Panic>> {
        let rest = Cause::Abandoned(self.location());
        match std::mem::replace(&mut self.cause, rest) {
            Cause::Panicked(panic) => Some(panic),
            other => {
                self.cause = other;
                None
            }
        }
    }

    /// A panic that nobody looks at is not to go unnoticed.
    pub(crate) fn log_if_panic(&self) {
        if self.is_panic() {
            contain::log(log::Level::Error, format_args!("{self}"));
        }
    }

    /// Which way it was.
    pub fn kind(&self) -> JoinErrorKind {
        match self.cause {
            Cause::Cancelled(_) => JoinErrorKind::Cancelled,
            Cause::Abandoned(_) => JoinErrorKind::Abandoned,
            Cause::Panicked(_) => JoinErrorKind::Panicked,
        }
    }

    /// Whether the task was cancelled before it started.
    pub fn is_cancelled(&self) -> bool {
        self.kind() == JoinErrorKind::Cancelled
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        self.kind() == JoinErrorKind::Panicked
    }

    /// Whether the task was left behind while it ran.
    pub fn is_abandoned(&self) -> bool {
        self.kind() == JoinErrorKind::Abandoned
    }

    /// What the task panicked with, to be passed to [`std::panic::resume_unwind`].
    ///
    /// # Panics
    ///
    /// If the task did not panic: ask [`is_panic`](JoinError::is_panic), or use
    /// [`try_into_panic`](JoinError::try_into_panic).
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        self.try_into_panic().expect("into_panic() was called for a task that did not panic")
    }

    /// What the task panicked with.
    ///
    /// # Errors
    ///
    /// The error itself, if the task did not panic.
    ///
    /// ```
    /// let pool = winddown::Pool::new(1);
    /// let error = pool.spawn(|| panic!("no luck"))?.join().unwrap_err();
    /// let payload = error.try_into_panic().unwrap();
    /// assert_eq!(payload.downcast_ref(), Some(&"no luck"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_into_panic(mut self) -> Result<Box<dyn Any + Send + 'static>, JoinError> {
        match self.take_panic() {
            Some(panic) => Ok(panic.payload.into_inner()),
            None => Err(self),
        }
    }
}

impl Drop for JoinError {
    /// A payload's own drop may panic.
    fn drop(&mut self) {
        contain::drop_quietly(self.take_panic());
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = self.location();
        match (self.kind(), self.message()) {
            (JoinErrorKind::Panicked, Some(message)) => {
                write!(f, "the task submitted at {location} panicked: {message}")
            }
            (JoinErrorKind::Panicked, None) => write!(f, "the task submitted at {location} panicked"),
            (JoinErrorKind::Cancelled, _) => {
                write!(f, "the task submitted at {location} was cancelled before it started")
            }
            (JoinErrorKind::Abandoned, _) => {
                write!(f, "the task submitted at {location} was left behind while it ran")
            }
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinError")
            .field("kind", &self.kind())
            .field("message", &self.message())
            .field("submitted_at", &format_args!("{}", self.location()))
            .finish()
    }
}

impl Error for JoinError {}

/// A panic that no handle receives is not to go unnoticed. Whoever is told runs as a part of the task, which is shown and
/// waited for until this returns.
#[cold]
pub(super) fn tell_panic(payload: &Payload, location: &Location<'_>) {
    log_panic(payload, location);
    context::with(|frame| {
        if let Some(Frame::Worker(host)) = frame {
            host.tell_panic(&**payload);
        }
    });
}

pub(crate) fn log_panic(payload: &Payload, location: &Location<'_>) {
    let message = contain::message(&**payload);
    contain::log(log::Level::Error, format_args!("the task submitted at {location} panicked: {message}"));
}
