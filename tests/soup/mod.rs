//! Operation soup: bytes, read as a programme of operations over several pools in several registries, which several threads
//! play at the same time. What holds at any time is checked on the way; at rest, all the rest: each task that was accepted has
//! settled once, in one way, and its handle said so; what was refused came back and never ran; the counts of each pool add
//! up, and agree with those of the soup; what was captured, returned and thrown was dropped once; no thread is left, and no pool.
//!
//! # What is not played
//!
//! No run depends on a time-out to come to its end, so nothing may wait for itself. The crate says of these that they do, and
//! they are no bugs; [`standing`] knows them, and a programme that asks for one goes on with its next operation instead:
//!
//! * Tasks that wait for each other in a cycle, be it by `join`, by `map` and `scope`, or for room in each other's queues.
//! * A task that waits for an end, or for a pool to be idle, while another task, or a hook, waits for it: that of a scope whose
//!   owner is a task, for instance.
//! * A map in which all workers wait for its consumer, since the queue is full.
//! * A hook that waits for the shutdown which runs it: that panics, which is played.
//! * A thread that has a [`Hold`](winddown::Hold), or tasks that were handed back, in hand, and waits for those who wait for it.
//! * `wait_finished` where nobody has asked for a shutdown.

#![allow(unreachable_pub)] // Where this is included, it is private.

mod kettle;
mod kitchen;
mod ledger;
mod programme;
mod standing;

use self::kitchen::Soup;
use crate::common::{within, Tidy};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::thread;

/// Plays a programme; panics where something does not hold, or where something is left behind.
pub fn play(input: &[u8], tidy: &Tidy) {
    ledger::watch_panics();
    ledger::failures();
    ledger::HAS_DEADLINE.store(false, SeqCst);
    let programme = programme::decode(input);
    let mut told = Told { soup: Some(Soup::new(&programme)), programme: Arc::new(programme), input };
    let (soup, programme) = (told.soup.clone(), told.programme.clone());
    within(move || soup.expect("it was just made").cook(&programme));
    told.soup = None;
    tidy.expect_nothing();
    let failures = ledger::failures();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Says which programme it was that failed, and how far it had come.
struct Told<'a> {
    soup: Option<Arc<Soup>>,
    programme: Arc<programme::Programme>,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the programme: {:#?}\nits bytes: {:?}", self.programme, self.input);
            eprintln!("noted before: {}", ledger::failures().join("\n"));
            self.soup.iter().for_each(|soup| soup.tell());
        }
    }
}
