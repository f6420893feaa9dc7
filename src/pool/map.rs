//! Maps: a function applied to what an iterator gives, by a pool's threads.

use super::core::IfFull;
use super::Pool;
use crate::contain;
use crate::task::collect::Set;
use crate::task::{JoinError, JoinHandle};
use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::panic::Location;
use std::sync::Arc;

/// How many items are under way for each thread, unless it is said: one that runs, and one that is next.
const AHEAD_PER_THREAD: usize = 2;

impl Pool {
    /// Applies `f` to each item, on the pool's threads, and returns the results in the order of the items.
    ///
    /// It is lazy: nothing happens before the first [`next`](Iterator::next), and then the input is pulled, on the thread
    /// that calls it, no further than twice [`max_threads`](crate::PoolBuilder::max_threads) items ahead of the results that
    /// were returned. So the input may be endless, and what is slow to use its results holds the map up. (As Python's
    /// `Executor.map` with a `buffersize`. rayon's `par_bridge` has no such bound, and no order.)
    /// [`map_with_lookahead`](Pool::map_with_lookahead) sets the look-ahead, [`map_unordered`](Pool::map_unordered) gives
    /// whatever is done first.
    ///
    /// Each result stands for itself: an item for which `f` panics is an error, and the rest goes on. See [`Map`] for
    /// the ends: early ones, panics of the input, closed pools.
    ///
    /// ```
    /// let pool = winddown::Pool::new(4);
    /// let lengths = pool.map(["one", "two", "three"], |word| word.len());
    /// assert_eq!(lengths.collect::<Result<Vec<_>, _>>()?, [3, 3, 5]);
    /// # Ok::<(), winddown::JoinError>(())
    /// ```
    ///
    /// # Tiny items
    ///
    /// Each item is a task with a handle. With the default look-ahead that costs some microseconds, as threads wait for each
    /// other; with one of 1,000 less than half of one. Where `f` takes no longer than that, let each item be a chunk, which
    /// brings it down to nanoseconds (a map cannot do so itself, and keep to its look-ahead):
    ///
    /// ```
    /// let pool = winddown::Pool::new(4);
    /// let numbers: Vec<u64> = (1..=10_000).collect();
    /// let chunks: Vec<Vec<u64>> = numbers.chunks(1_000).map(<[u64]>::to_vec).collect();
    /// let sums = pool.map(chunks, |chunk| chunk.iter().map(|n| n * n).sum::<u64>());
    /// assert_eq!(sums.sum::<Result<u64, _>>()?, 333_383_335_000);
    /// # Ok::<(), winddown::JoinError>(())
    /// ```
    #[track_caller]
    pub fn map<I, F, R>(&self, iter: I, f: F) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        Map { feed: Feed::new(self, iter, self.default_lookahead(), f), pending: VecDeque::new() }
    }

    /// Like [`map`](Pool::map), with the look-ahead given: at most so many items are pulled from the input ahead of the results
    /// that were returned. With 1 it is one item after the other.
    ///
    /// # Panics
    ///
    /// If `lookahead` is zero: nothing could ever be pulled.
    ///
    /// ```
    /// let pool = winddown::Pool::new(4);
    /// let mut squares = pool.map_with_lookahead(1_u64.., 100, |n| n * n);
    /// assert_eq!(squares.next().unwrap()?, 1);
    /// assert_eq!(squares.next().unwrap()?, 4); // 101 items were pulled, and no more
    /// # Ok::<(), winddown::JoinError>(())
    /// ```
    #[track_caller]
    pub fn map_with_lookahead<I, F, R>(&self, iter: I, lookahead: usize, f: F) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        assert!(lookahead > 0, "a look-ahead of 0 could never pull an item: allow at least 1");
        Map { feed: Feed::new(self, iter, lookahead, f), pending: VecDeque::new() }
    }

    /// Like [`map`](Pool::map), with the results in the order in which they are done: none waits behind a slow one.
    ///
    /// As Python's `multiprocessing.Pool.imap_unordered`.
    ///
    /// ```
    /// let pool = winddown::Pool::new(4);
    /// let mut lengths: Vec<usize> =
    ///     pool.map_unordered(["one", "two", "three"], |word| word.len()).collect::<Result<_, _>>()?;
    /// lengths.sort();
    /// assert_eq!(lengths, [3, 3, 5]);
    /// # Ok::<(), winddown::JoinError>(())
    /// ```
    #[track_caller]
    pub fn map_unordered<I, F, R>(&self, iter: I, f: F) -> MapUnordered<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        MapUnordered { feed: Feed::new(self, iter, self.default_lookahead(), f), pending: Set::new() }
    }

    fn default_lookahead(&self) -> usize {
        self.core.config.max_threads.saturating_mul(AHEAD_PER_THREAD)
    }
}

/// What a map makes tasks of.
struct Feed<I: Iterator, R> {
    pool: Pool,
    /// `None` when it has ended, or the pool has refused an item.
    iter: Option<I>,
    f: Arc<dyn Fn(I::Item) -> R + Send + Sync>,
    /// Where the map was made.
    location: &'static Location<'static>,
    lookahead: usize,
    /// The input has panicked when it was asked last.
    has_panicked: bool,
    /// An item was refused, which is to be told of.
    is_refused: bool,
}

impl<I: Iterator, R> Feed<I, R> {
    #[track_caller]
    fn new<F>(pool: &Pool, iter: impl IntoIterator<IntoIter = I>, lookahead: usize, f: F) -> Feed<I, R>
    where
        F: Fn(I::Item) -> R + Send + Sync + 'static,
    {
        Feed {
            pool: pool.clone(),
            iter: Some(iter.into_iter()),
            f: Arc::new(f),
            location: Location::caller(),
            lookahead,
            has_panicked: false,
            is_refused: false,
        }
    }

    /// What the map yields after all else, if an item was refused.
    fn refusal<T>(&mut self) -> Option<Result<T, JoinError>> {
        let is_refused = std::mem::take(&mut self.is_refused);
        is_refused.then(|| Err(JoinError::cancelled(self.location)))
    }

    fn size_hint(&self, pending: usize) -> (usize, Option<usize>) {
        let sure = pending + usize::from(self.is_refused);
        let (lower, upper) = self.iter.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        // Where the pool refuses the next item, that is the last.
        (sure.saturating_add(lower.min(1)), upper.and_then(|upper| upper.checked_add(sure)))
    }

    fn fmt(&self, name: &str, pending: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("pool", &self.pool.name())
            .field("lookahead", &self.lookahead)
            .field("pending", &pending)
            .finish_non_exhaustive()
    }
}

impl<I, R> Feed<I, R>
where
    I: Iterator<Item: Send + 'static>,
    R: Send + 'static,
{
    /// The next task to be added to those that are `pending`, if there is room and the input has one.
    fn next(&mut self, pending: usize) -> Option<JoinHandle<R>> {
        // What was submitted comes out, though the input may panic each time that it is asked.
        if pending >= self.lookahead || (self.has_panicked && pending > 0) {
            return None;
        }
        let iter = self.iter.as_mut()?;
        self.has_panicked = true;
        let item = iter.next();
        self.has_panicked = false;
        let Some(item) = item else {
            self.iter = None;
            return None;
        };
        let f = self.f.clone();
        match self.pool.submit_spawned(move || f(item), self.location, IfFull::Wait) {
            Ok(handle) => Some(handle),
            Err(refused) => {
                contain::drop_quietly(refused);
                self.is_refused = true;
                self.iter = None;
                None
            }
        }
    }
}

/// The results of [`Pool::map`], in the order of the items.
///
/// `next` submits tasks until as many are under way as the look-ahead allows, waiting for room where the pool's queue is
/// bounded (whatever its [`WhenFull`](crate::WhenFull)), and then waits for the first of them. Inside a task of the same pool
/// it runs that one in place if nobody has started it, so maps work on a pool of one thread.
///
/// * **Dropped early**, it cancels what has not started, and tells what runs, by
///   [`task::is_cancelled`](crate::task::is_cancelled). It waits for nothing.
/// * **A panic of the input** comes out of `next`. What was submitted before is not lost: the calls after it return those
///   results first, and then ask the input again.
/// * **A pool that is closed**, or closes meanwhile, refuses an item: it is lost, the map yields an error that
///   [is cancelled](crate::JoinError::is_cancelled) in its place, and ends. The pool stays open at least as long as the map
///   is there, unless it is closed explicitly or by a shutdown.
#[must_use = "a map is lazy: nothing runs unless it is iterated over"]
pub struct Map<I: Iterator, R> {
    feed: Feed<I, R>,
    pending: VecDeque<JoinHandle<R>>,
}

impl<I, R> Iterator for Map<I, R>
where
    I: Iterator<Item: Send + 'static>,
    R: Send + 'static,
{
    type Item = Result<R, JoinError>;

    fn next(&mut self) -> Option<Result<R, JoinError>> {
        while let Some(handle) = self.feed.next(self.pending.len()) {
            self.pending.push_back(handle);
        }
        match self.pending.pop_front() {
            Some(handle) => Some(handle.join()),
            None => self.feed.refusal(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint(self.pending.len())
    }
}

impl<I, R> FusedIterator for Map<I, R>
where
    I: Iterator<Item: Send + 'static>,
    R: Send + 'static,
{
}

impl<I: Iterator, R> Drop for Map<I, R> {
    fn drop(&mut self) {
        // The latest first: those that run are told last, or the threads that they make free would start the others.
        self.pending.iter().rev().for_each(|handle| {
            handle.cancel();
        });
    }
}

impl<I: Iterator, R> fmt::Debug for Map<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.feed.fmt("Map", self.pending.len(), f)
    }
}

/// The results of [`Pool::map_unordered`], in the order in which they are done; all else is as for [`Map`].
///
/// What a closed pool refuses comes last. Inside a task of the same pool `next` runs the oldest item in place that nobody has
/// started, if no result is ready.
#[must_use = "a map is lazy: nothing runs unless it is iterated over"]
pub struct MapUnordered<I: Iterator, R> {
    feed: Feed<I, R>,
    pending: Set<R>,
}

impl<I, R> Iterator for MapUnordered<I, R>
where
    I: Iterator<Item: Send + 'static>,
    R: Send + 'static,
{
    type Item = Result<R, JoinError>;

    fn next(&mut self) -> Option<Result<R, JoinError>> {
        while let Some(handle) = self.feed.next(self.pending.len()) {
            self.pending.add(handle);
        }
        self.pending.next().or_else(|| self.feed.refusal())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint(self.pending.len())
    }
}

impl<I, R> FusedIterator for MapUnordered<I, R>
where
    I: Iterator<Item: Send + 'static>,
    R: Send + 'static,
{
}

impl<I: Iterator, R> Drop for MapUnordered<I, R> {
    fn drop(&mut self) {
        self.pending.cancel_all();
    }
}

impl<I: Iterator, R> fmt::Debug for MapUnordered<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.feed.fmt("MapUnordered", self.pending.len(), f)
    }
}
