//! What types promise by what they are: where they may go, how they print, how large they are.

mod common;

use common::{occupy_with, pool_in, registry, tidy, within};
use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::mem::size_of;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::sync::mpsc::channel;
use winddown::*;

fn is_shared<T: Send + Sync>() {}
fn is_clone<T: Clone>() {}
fn is_shown<T: Debug>() {}
fn may_unwind<T: UnwindSafe>() {}
fn may_unwind_shared<T: UnwindSafe + RefUnwindSafe>() {}
fn is_error<T: Error + Send + Sync + 'static>() {}
fn is_future<T: Future + Send + Unpin>() {}

/// Has no trait at all, but may be sent.
struct Plain;

#[test]
fn handles_of_everything_go_to_any_thread() {
    let _tidy = tidy();
    is_shared::<Pool>();
    is_clone::<Pool>();
    may_unwind_shared::<Pool>();
    is_shared::<Limited>();
    is_clone::<Limited>();
    is_shared::<Registry>();
    is_clone::<Registry>();
    is_shared::<Canceller>();
    is_clone::<Canceller>();
    is_shared::<ShutdownToken>();
    is_clone::<ShutdownToken>();
    may_unwind::<ShutdownToken>();
    is_shared::<Report>();
    is_clone::<Report>();
    is_clone::<PoolReport>();
    is_clone::<RunningTask>();
    is_clone::<PoolStats>();
    // Whatever the result is, as long as it may be sent: one that only one thread may look at does as well.
    is_shared::<JoinHandle<std::cell::Cell<u8>>>();
    is_shared::<CancelOnDrop<std::cell::Cell<u8>>>();
    may_unwind::<JoinHandle<std::cell::Cell<u8>>>();
    is_future::<JoinHandle<Plain>>();
    is_future::<CancelOnDrop<Plain>>();
    is_future::<ShutdownToken>();
    is_future::<Finished>();
    is_future::<SpawnAsync<fn() -> Plain, Plain>>();
    fn is_key<T: Copy + Eq + Hash + Debug>() {}
    is_key::<HookId>();
    fn is_ordered<T: Ord>() {}
    is_ordered::<Phase>();
    fn may_be_sent<T: Send>() {}
    may_be_sent::<UnstartedTask>();
    may_be_sent::<AsCompleted<Plain>>();
    may_be_sent::<Map<std::vec::IntoIter<u8>, Plain>>();
    may_be_sent::<Hold>();
}

#[test]
fn errors_are_small_and_go_to_any_thread() {
    let _tidy = tidy();
    is_error::<BuildError>();
    is_error::<JoinError>();
    is_error::<TimedOut>();
    is_error::<ShuttingDown>();
    is_error::<Rejected<fn()>>();
    #[cfg(feature = "signals")]
    is_error::<signals::SignalError>();
    fn is_told<T: Display + Copy + Eq>() {}
    is_told::<RejectReason>();
    assert_eq!((size_of::<BuildError>(), size_of::<RejectReason>()), (1, 1));
    assert_eq!(size_of::<Rejected<fn()>>(), 2 * size_of::<usize>(), "the reason, and what is refused");
    // A result is as large as its error, if not larger: that of a task that returns nothing fits into few words.
    assert!(size_of::<Result<(), JoinError>>() <= 4 * size_of::<usize>());
}

/// Neither what a task returns nor what it captures need be anything but `Send`.
#[test]
fn everything_prints_itself_whatever_it_holds() {
    let _tidy = tidy();
    is_shown::<JoinHandle<Plain>>();
    is_shown::<CancelOnDrop<Plain>>();
    is_shown::<AsCompleted<Plain>>();
    is_shown::<Map<std::vec::IntoIter<Plain>, Plain>>();
    is_shown::<MapUnordered<std::vec::IntoIter<Plain>, Plain>>();
    is_shown::<Rejected<Rc<Plain>>>();
    is_shown::<Limited>();
    is_shown::<UnstartedTask>();
    within(|| {
        let pool = pool_in(&registry(), 1);
        let (go, running) = occupy_with(|task| pool.spawn(task).unwrap());
        let queued = pool.spawn(|| Plain).unwrap();
        let cancelled = pool.spawn(|| Plain).unwrap();
        assert!(cancelled.cancel());
        assert_eq!(format!("{running:?}"), "JoinHandle { is_finished: false }");
        assert_eq!(format!("{queued:?}"), "JoinHandle { is_finished: false }");
        assert_eq!(format!("{cancelled:?}"), "JoinHandle { is_finished: true }");
        // What became of it is the error's to say.
        let error = cancelled.join().map(drop).unwrap_err();
        assert!(format!("{error:?}").contains("kind: Cancelled"), "{error:?}");
        drop(go);
        assert!(queued.join().is_ok());
        let panicked = pool.spawn(|| -> Plain { panic!("no luck") }).unwrap();
        pool.wait_idle();
        assert_eq!(format!("{panicked:?} {running:?}"), "JoinHandle { is_finished: true } ".repeat(2).trim());
        let error = panicked.join().map(drop).unwrap_err();
        assert!(format!("{error:?}").contains("kind: Panicked"), "{error:?}");
        // Inside a task its own pool and handle print as well.
        let (give, take) = channel::<JoinHandle<String>>();
        let (hand_back, handed_back) = channel();
        let task = move || {
            let own = take.recv().unwrap();
            let text = format!("{own:?} {:?}", Pool::current().unwrap());
            hand_back.send(own).unwrap();
            text
        };
        give.send(pool.spawn(task).unwrap()).unwrap();
        let text = handed_back.recv().unwrap().join().unwrap();
        assert!(text.starts_with("JoinHandle { is_finished: false } Pool {"), "{text}");
    });
}
