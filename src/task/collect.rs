//! Waiting for several tasks together.

use super::arrivals::Arrivals;
use super::{InPlace, JoinError, JoinHandle};
use crate::context::{self, Standing, Wait};
use crate::sync::Instant;
use crate::sync::{deadline, linger};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Duration;

/// Tasks of which the results are taken in the order in which they come. More may be added at any time.
///
/// # Waiting inside a task
///
/// A member that is still queued may have no other thread to run it than the one that waits. So before the wait each member
/// is tried in place once, oldest first, and looked at no more: what was not run then has been started, or is somebody
/// else's to run, or must not be started yet; for the latter the thread counts as blocked, so that another can come. What
/// was found holds only for where the thread was then: a wait for the same members from inside another task asks anew.
pub(crate) struct Set<T> {
    arrivals: Arc<Arrivals>,
    /// By their tickets, which are handed out in ascending order, from zero on and again.
    members: BTreeMap<u32, JoinHandle<T>>,
    next_ticket: u32,
    /// Those that have come, in that order.
    ready: VecDeque<u32>,
    /// For where members were tried in place.
    standing: Option<Standing>,
    /// The members before this ticket were.
    tried: u64,
    /// Those that must not be started yet, or must not have been when they were tried.
    not_yet: BTreeSet<u32>,
}

impl<T> Set<T> {
    pub(crate) fn new() -> Set<T> {
        Set {
            arrivals: Arc::new(Arrivals::new()),
            members: BTreeMap::new(),
            next_ticket: 0,
            ready: VecDeque::new(),
            standing: None,
            tried: 0,
            not_yet: BTreeSet::new(),
        }
    }

    #[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
    pub(crate) fn skip_to_ticket(&mut self, ticket: u32) {
        self.next_ticket = ticket;
    }

    /// How many results are to come.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn add(&mut self, handle: JoinHandle<T>) {
        self.forget_parent();
        let ticket = self.take_ticket();
        if handle.is_stale() {
            self.arrivals.add(ticket);
        } else {
            handle.task().watch(&self.arrivals, ticket);
        }
        self.members.insert(ticket, handle);
    }

    /// A ticket that no member has.
    fn take_ticket(&mut self) -> u32 {
        loop {
            let ticket = self.next_ticket;
            self.next_ticket = ticket.wrapping_add(1);
            if !self.members.contains_key(&ticket) {
                // Where they start over, what is left of the old ones is tried again, which does no harm.
                self.tried = self.tried.min(ticket.into());
                return ticket;
            }
        }
    }

    /// The next result, or `None` if all were taken.
    pub(crate) fn next(&mut self) -> Option<Result<T, JoinError>> {
        while !self.is_empty() {
            if let Some(result) = self.next_ready() {
                return Some(result);
            }
            if self.try_one_in_place() {
                continue;
            }
            let blocked =
                (!self.not_yet.is_empty()).then(|| context::block(Wait::Join(self.arrivals.clone())));
            if blocked.is_some() && context::help() {
                continue;
            }
            linger(|| self.arrivals.has_any());
            self.arrivals.take(&mut self.ready, None);
        }
        None
    }

    /// The same, if it comes until then (`None`: whenever that is). Runs nothing in place.
    pub(crate) fn next_until(
        &mut self,
        until: Option<Instant>,
    ) -> Result<Option<Result<T, JoinError>>, Late> {
        while !self.is_empty() {
            if let Some(result) = self.next_ready() {
                return Ok(Some(result));
            }
            if !self.arrivals.take(&mut self.ready, until) {
                return Err(Late);
            }
        }
        Ok(None)
    }

    fn next_ready(&mut self) -> Option<Result<T, JoinError>> {
        self.forget_parent();
        if self.ready.is_empty() && self.arrivals.has_any() {
            self.arrivals.take(&mut self.ready, None);
        }
        let ticket = self.ready.pop_front()?;
        self.not_yet.remove(&ticket);
        let handle =
            self.members.remove(&ticket).expect("a ticket comes once, and its member is there until then");
        Some(handle.take_result())
    }

    /// Looks at the next member that was not tried in place where the thread is. Says whether there was one.
    fn try_one_in_place(&mut self) -> bool {
        let Some(standing) = context::standing() else { return false };
        if self.standing.as_ref() != Some(&standing) {
            self.standing = Some(standing);
            self.tried = 0;
            self.not_yet.clear();
        }
        let Ok(tried) = u32::try_from(self.tried) else { return false };
        let Some((&ticket, handle)) = self.members.range(tried..).next() else { return false };
        let verdict = if handle.is_finished() { InPlace::Settled } else { handle.run_in_place() };
        // Not before: what panics now, as the wait is inside that very task, has to do so again.
        self.tried = u64::from(ticket) + 1;
        if verdict == InPlace::NotYet {
            self.not_yet.insert(ticket);
        }
        true
    }

    /// Where the members belong to a process of which this is a forked child, none of them comes any more, and all of them
    /// are to be told of as abandoned.
    fn forget_parent(&mut self) {
        if self.arrivals.is_past() {
            // Whoever held its lock when the process was forked held a count of it, too: dropping it here frees nothing.
            self.arrivals = Arc::new(Arrivals::new());
            self.ready = self.members.keys().copied().collect();
        }
    }

    /// Cancels what has not started, and sets the flag of what has: the latest first, or the threads that the others make free
    /// would start them.
    pub(crate) fn cancel_all(&self) {
        self.members.values().rev().for_each(|handle| {
            handle.cancel();
        });
    }
}

/// The time was up.
pub(crate) struct Late;

/// Waits for all of these tasks, and returns their results in the order of their handles.
///
/// Blocks the thread. The handles are collected first, so tasks that are submitted by the iterator all run at once. Inside a
/// task of the same pool, those that are still queued are run in place, as [`join`](JoinHandle::join) does it. A task that
/// fails holds up nobody: its error stands in its place.
///
/// # Panics
///
/// Inside one of these tasks, which could never end.
///
/// ```
/// let pool = winddown::Pool::new(4);
/// let handles: Vec<_> = (1..=3).map(|n| pool.spawn(move || n * n)).collect::<Result<_, _>>()?;
/// let squares: Vec<i32> = winddown::join_all(handles).into_iter().collect::<Result<_, _>>()?;
/// assert_eq!(squares, [1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn join_all<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    let handles: Vec<_> = handles.into_iter().collect();
    handles.into_iter().map(JoinHandle::join).collect()
}

/// Waits for the first of these tasks that succeeds, and cancels the others. `None` if there are none.
///
/// A task succeeds that neither panics nor is cancelled or abandoned, whatever it returns: a `Result` of its own is not
/// looked into. If none succeeds, the last error is returned, as Java's `ExecutorService.invokeAny` throws the last
/// exception; panics among the others are logged at `error`. Others that run already are told so by
/// [`task::is_cancelled`](crate::task::is_cancelled), and not waited for.
///
/// Blocks the thread. Inside a task of the same pool, tasks that are still queued are run in place, oldest first, until one
/// has succeeded.
///
/// # Panics
///
/// Inside one of these tasks, which could never end.
///
/// ```
/// let pool = winddown::Pool::new(2);
/// let mirrors = ["a.example", "b.example"];
/// let downloads = mirrors.map(|mirror| pool.spawn(move || format!("the file, from {mirror}")).unwrap());
/// let file = winddown::join_any(downloads).expect("there is a mirror")?;
/// assert!(file.starts_with("the file"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn join_any<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Option<Result<T, JoinError>> {
    let mut set = set_of(handles);
    let mut last = None;
    while let Some(result) = set.next() {
        match result {
            Ok(value) => {
                set.cancel_all();
                return Some(Ok(value));
            }
            Err(error) => {
                if let Some(unwanted) = last.replace(error) {
                    unwanted.log_if_panic();
                }
            }
        }
    }
    last.map(Err)
}

/// Returns the results of these tasks one by one, as they end: whichever is done first comes first.
///
/// The handles are collected before this returns; those of tasks that have ended already come first, in their order. They may
/// be of several pools. As Python's `concurrent.futures.as_completed`, but of results: which task one belongs to, the
/// task has to say. Java has `ExecutorCompletionService` for it.
///
/// ```
/// let pool = winddown::Pool::new(4);
/// let handles = ["one", "two", "three"].map(|page| pool.spawn(move || (page, page.len())).unwrap());
/// for result in winddown::as_completed(handles) {
///     let (page, length) = result?;
///     println!("{page} has {length} letters");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> AsCompleted<T> {
    let set = set_of(handles);
    AsCompleted { total: set.len(), set }
}

fn set_of<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Set<T> {
    // An iterator that panics detaches those that it gave, as if they had never been looked at.
    let handles: Vec<_> = handles.into_iter().collect();
    let mut set = Set::new();
    handles.into_iter().for_each(|handle| set.add(handle));
    set
}

/// The results of tasks, in the order in which they end; see [`as_completed`].
///
/// [`next`](Iterator::next) blocks until the next task has ended. Inside a task of the same pool it runs one that is still
/// queued in place instead, so it works on a pool of one thread. Dropping this detaches the tasks that are left, as dropping
/// their handles does.
///
/// # Panics
///
/// `next` panics inside one of these tasks, which could never end.
#[must_use = "dropping this detaches its tasks: iterate over it"]
pub struct AsCompleted<T> {
    set: Set<T>,
    total: usize,
}

impl<T> AsCompleted<T> {
    /// Waits for the next result for at most `timeout`. `None` if all were returned.
    ///
    /// A result that is ready is returned even if `timeout` is zero; `Duration::MAX` waits for ever. A timed wait never runs
    /// anything in place.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] if no task ended in time. The tasks go on, and may be waited for again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let pool = winddown::Pool::new(1);
    /// let (go, wait) = std::sync::mpsc::channel::<()>();
    /// let mut results = winddown::as_completed([pool.spawn(move || { let _ = wait.recv(); 5 })?]);
    /// let error = results.next_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(error.to_string(), "1 of 1 tasks had not ended in time");
    /// drop(go);
    /// assert_eq!(results.next_timeout(Duration::MAX)?.unwrap()?, 5);
    /// assert!(results.next_timeout(Duration::ZERO)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Result<T, JoinError>>, TimedOut> {
        let next = self.set.next_until(deadline(timeout));
        next.map_err(|Late| TimedOut { unfinished: self.set.len(), total: self.total })
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Result<T, JoinError>;

    fn next(&mut self) -> Option<Result<T, JoinError>> {
        self.set.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.set.len(), Some(self.set.len()))
    }
}

impl<T> ExactSizeIterator for AsCompleted<T> {}
impl<T> FusedIterator for AsCompleted<T> {}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.set.len();
        f.debug_struct("AsCompleted").field("left", &left).field("total", &self.total).finish()
    }
}

/// No task ended in time; see [`AsCompleted::next_timeout`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TimedOut {
    unfinished: usize,
    total: usize,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} tasks had not ended in time", self.unfinished, self.total)
    }
}

impl Error for TimedOut {}
