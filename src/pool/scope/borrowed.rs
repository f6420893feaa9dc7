//! The closure of a scoped task without its lifetime, and the count that keeps its scope from ending before it.
//!
//! # Why nothing borrowed is used too late
//!
//! A pool's queue holds what lives for ever, so the closure of a scoped task has its lifetime erased. Three facts make that
//! sound, and the code that they rest on is in this file and [`tasks`](super::tasks):
//!
//! 1. Everything of a task that may borrow is in its closure: what the user's closure captured, and the place for its result.
//!    What is left of the task elsewhere, in the queue, in a worker's slot, in a handle, borrows nothing.
//! 2. Each [`Borrowed`] has a [`Guard`], which it drops after the closure, whatever becomes of it: after it has run, or
//!    after it was dropped unrun, because it was cancelled, refused, or forgotten in a queue.
//! 3. [`Tasks::none_left`] is false while there is a guard, and a scope ends, by a return or by a panic, only when it is true:
//!    [`enclose`] sees to that. Guards are made through a borrow of the scope, which its closure has and its tasks, and
//!    threads that these wait for; so when the closure is over and no guard is left, none will be made.
//!
//! A forked child has no other threads, so the tasks of its parent end for it when it comes to the end of the scope, and
//! nothing waits for them there. What is left of them in queues must be neither run nor dropped after that, and is not.
#![allow(unsafe_code)]

use super::inner::Inner;
use super::tasks::Guard;
use crate::contain::{self, Payload};
use crate::task::cell::{Call, Called};
use std::marker::PhantomData;

/// Where tasks are submitted that borrow from outside of [`Pool::scope`](crate::Pool::scope).
///
/// `'scope` is the time of the scope: its tasks may borrow what lives that long, itself included, and submit more. `'env`
/// is the time of what they borrow from outside. As with [`std::thread::Scope`] neither is ever written down.
///
/// ```
/// let pool = winddown::Pool::new(2);
/// let numbers: Vec<u64> = (1..=1000).collect();
/// let sum = pool.scope(|s| {
///     let (left, right) = numbers.split_at(500);
///     let left = s.spawn(move || left.iter().sum::<u64>());
///     let right = s.spawn(move || right.iter().sum::<u64>());
///     Ok::<_, winddown::JoinError>(left.join()? + right.join()?)
/// })?;
/// assert_eq!(sum, 500_500);
/// # Ok::<(), winddown::JoinError>(())
/// ```
///
/// A task cannot outlive what it borrows:
///
/// ```compile_fail
/// let pool = winddown::Pool::new(2);
/// pool.scope(|s| {
///     let local = 5; // gone when the closure returns, while the task may still run
///     s.spawn(|| println!("{local}"));
/// });
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    pub(super) inner: Inner,
    /// Neither lifetime can be made shorter or longer: a task that borrows for less than the scope would outlive that.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Calls `f` with a scope, and waits until no task of it is left, whatever came of `f`. The only place where a scope is made.
pub(super) fn enclose<'env, F, R>(inner: Inner, f: F) -> Result<R, Payload>
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    /// The end of the scope while there are tasks.
    struct Abort;
    impl Drop for Abort {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    let scope = Scope { inner, scope: PhantomData, env: PhantomData };
    let result = contain::run(|| f(&scope));
    let abort = Abort;
    scope.inner.wait();
    if scope.inner.tasks.none_left() {
        std::mem::forget(abort);
    }
    result
}

/// The closure of a scoped task, which says whether it has panicked, and lets no panic out.
pub(super) struct Borrowed {
    /// There until it is run or dropped.
    closure: Option<Box<dyn FnOnce() -> bool + Send>>,
    guard: Option<Guard>,
}

impl Borrowed {
    pub(super) fn new<'scope>(
        scope: &'scope Scope<'scope, '_>,
        closure: impl FnOnce() -> bool + Send + 'scope,
    ) -> Borrowed {
        let guard = Guard::new(&scope.inner.tasks);
        let closure: Box<dyn FnOnce() -> bool + Send + 'scope> = Box::new(closure);
        // SAFETY: the two types differ in the lifetime alone. `'scope` lasts as long as the borrow of the scope, which
        // `enclose` made and keeps alive, along with all that is borrowed for as long, until no guard is left. The closure
        // is called or dropped before its guard is dropped, or never.
        let closure = unsafe {
            std::mem::transmute::<
                Box<dyn FnOnce() -> bool + Send + 'scope>,
                Box<dyn FnOnce() -> bool + Send + 'static>,
            >(closure)
        };
        Borrowed { closure: Some(closure), guard: Some(guard) }
    }

    /// Takes the closure out, where it may still be used.
    fn take(&mut self) -> Option<Box<dyn FnOnce() -> bool + Send>> {
        let closure = self.closure.take()?;
        if self.guard.as_ref().is_some_and(|guard| guard.is_past()) {
            std::mem::forget(closure);
            return None;
        }
        Some(closure)
    }
}

impl Call<()> for Borrowed {
    /// Dropped last, so that whoever finds the scope ended finds its tasks in the counts of the pool.
    type Rest = Option<Guard>;

    fn call(mut self) -> Called<(), Option<Guard>> {
        let has_panicked = self.take().is_some_and(|closure| closure());
        Called { result: Ok(()), has_panicked, rest: self.guard.take() }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // The guard is dropped after this, as fields are.
        contain::drop_quietly(self.take());
    }
}
