//! What bounded queues, limits and the hand-back of queued tasks rest on.

use super::injector::Pushed;
use super::job::{Doom, HandBack, Job, Order, Work};
use super::*;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A task that counts how often it ran and how often it was dropped, and that may have been cancelled where it lies.
struct Task {
    number: usize,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    ran: AtomicUsize,
    dropped: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Work<()> for Task {
    fn run(self, _: &(), location: &'static Location<'static>) -> bool {
        assert_eq!(location.file(), file!());
        if self.log.cancelled.load(Ordering::Relaxed) == self.number {
            return false;
        }
        self.log.ran.fetch_add(1, Ordering::Relaxed);
        true
    }
    fn doom(&mut self) -> Doom {
        Doom::Silent
    }
    fn hand_back(&mut self) -> HandBack {
        HandBack::Yes
    }

    fn discard(self) {}
}

impl Drop for Task {
    fn drop(&mut self) {
        self.log.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[track_caller]
fn order(number: usize, log: &Arc<Log>) -> Order<Task> {
    Order { work: Task { number, log: log.clone() }, location: Location::caller() }
}

fn queue(capacity: Option<usize>) -> (Queue<Job<()>>, Injector<Job<()>>) {
    Queue::new(false, capacity)
}

#[test]
fn a_queue_with_a_capacity_is_asked_under_the_lock_for_each_task() {
    let log = Arc::default();
    let (mut queue, injector) = queue(Some(2));
    for number in 1..=2 {
        assert!(queue.room(&injector) > 0);
        queue.push(&injector, order(number, &log));
        queue.open(&injector);
    }
    assert!(queue.room(&injector) == 0);
    // Without the lock nobody gets past, though the pool is open and has a thread.
    let refused = injector.push(order(3, &log));
    assert!(matches!(refused, Pushed::Refused(order) if order.work.number == 3));
    // A task that was started, and one that was cancelled in its place, each make room.
    queue.hollowed(1);
    assert!(queue.room(&injector) > 0);
    queue.push(&injector, order(4, &log));
    assert!(queue.room(&injector) == 0);
    drop(queue.take_one(&injector));
    queue.hollowed(-1);
    assert!(queue.room(&injector) == 0, "that was the cancelled one");
    drop(queue.take_one(&injector));
    assert!(queue.room(&injector) > 0);
}

#[test]
fn what_is_queued_is_handed_back_in_order_and_can_run_elsewhere() {
    let log = Arc::<Log>::default();
    let (mut queue, injector) = queue(None);
    let own = queue.add_worker(false);
    for number in 1..=100 {
        queue.push(&injector, order(number, &log));
    }
    // Some of them are with a worker already.
    let (first, _) = queue.refill(&injector, &own).unwrap().unload(&own);
    assert!(own.deque().len() > 0);
    queue.narrow(&injector, Intake::Closed, true);
    let mut rest = queue.take_all(&injector);
    assert_eq!(rest.len(), 99);
    assert!(queue.is_empty(&injector));
    assert!(rest.pop_front().unwrap().run(&()));
    assert!(first.run(&()));
    drop(rest);
    assert_eq!(log.ran.load(Ordering::Relaxed), 2);
    assert_eq!(log.dropped.load(Ordering::Relaxed), 100);
}

#[test]
fn a_task_that_is_cancelled_where_it_lies_counts_no_more_and_is_passed_over() {
    let log = Arc::<Log>::default();
    let (mut queue, injector) = queue(None);
    queue.push(&injector, order(1, &log));
    queue.push(&injector, order(2, &log));
    log.cancelled.store(1, Ordering::Relaxed);
    queue.hollowed(1);
    assert_eq!((queue.waiting(&injector), queue.len(&injector)), (1, 2));
    assert!(!queue.take_one(&injector).unwrap().run(&()));
    queue.hollowed(-1);
    assert_eq!(queue.waiting(&injector), 1);
    assert!(queue.take_one(&injector).unwrap().run(&()));
    assert_eq!(queue.waiting(&injector), 0);
    assert_eq!(queue.accepted(&injector), 2);
}

#[test]
fn a_task_that_waits_for_a_permit_is_accepted_and_calls_no_worker() {
    let log = Arc::<Log>::default();
    let (mut queue, injector) = queue(Some(2));
    let own = queue.add_worker(false);
    queue.set_aside();
    assert_eq!((queue.accepted(&injector), queue.waiting(&injector)), (1, 1));
    assert!(queue.room(&injector) > 0);
    assert!(queue.lie_down(&injector, 7), "there is nothing to run");
    assert_eq!(queue.settle(&injector), None);
    queue.push(&injector, order(2, &log));
    assert!(queue.room(&injector) == 0, "what is set aside takes up room");
    drop(queue.take_one(&injector));
    queue.enter(&injector, order(1, &log));
    assert_eq!((queue.accepted(&injector), queue.waiting(&injector)), (2, 1));
    assert_eq!(queue.settle(&injector), Some(7));
    assert!(queue.answer(7));
    assert!(queue.refill(&injector, &own).unwrap().unload(&own).0.run(&()));
}
