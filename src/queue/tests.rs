//! The queue's parts on one thread: order, wrap-around, what is refused and what is dropped. What threads can do to each
//! other is tried in `queue::model` and, on the whole pool, in `tests/streams.rs`.
#![allow(unsafe_code)]

use super::deque::{OwnEnd, CAP};
use super::injector::{Draft, Front, Injector, Pushed};
use super::{Intake, Queue, Supply, BATCH, BELL, GATE};
use std::sync::Arc;

/// An item whose drops can be counted: each holds a clone.
type Item = (usize, Arc<()>);

struct Plain<T>(T);

// SAFETY: `make_in` writes an item.
unsafe impl<T> Draft<T> for Plain<T> {
    unsafe fn make_in(self, place: *mut T) {
        // SAFETY: the caller says that the place is valid for a write.
        unsafe { place.write(self.0) };
    }

    unsafe fn unmake(place: *mut T) -> Plain<T> {
        // SAFETY: the caller says that the item was made there, and nobody else uses it.
        Plain(unsafe { place.read() })
    }
}

fn deque<T>() -> (Injector<T>, Front, OwnEnd<T>) {
    let (injector, front) = Injector::new();
    let own = OwnEnd::new(&front, 0);
    (injector, front, own)
}

fn push<T>(own: &OwnEnd<T>, item: T) {
    assert!(matches!(own.push(Plain(item)), Pushed::Quietly));
}

fn steal<T>(own: &OwnEnd<T>, front: &mut Front, most: usize) -> Vec<T> {
    let mut stolen = Vec::new();
    own.deque().steal(front, |_| most, |item| stolen.push(item));
    stolen
}

/// Pops all there is.
fn drain<T>(own: &OwnEnd<T>) -> Vec<T> {
    std::iter::from_fn(|| own.pop()).collect()
}

/// An open injector that was used: its first block is there.
fn injector<T>(first: T) -> (Injector<T>, Front) {
    let (injector, mut front) = Injector::new();
    injector.push_through(&mut front, Plain(first));
    injector.clear(GATE | BELL);
    (injector, front)
}

/// A queue with `N` workers that is open to all.
fn queue<const N: usize>(is_serial: bool) -> (Queue<usize>, Injector<usize>, [OwnEnd<usize>; N]) {
    let (mut queue, injector) = Queue::new(is_serial, None);
    let ends = std::array::from_fn(|_| queue.add_worker(false));
    queue.push(&injector, Plain(usize::MAX));
    queue.open(&injector);
    assert_eq!(queue.take_one(&injector), Some(usize::MAX));
    (queue, injector, ends)
}

fn submit(injector: &Injector<usize>, items: impl IntoIterator<Item = usize>) {
    for item in items {
        assert!(!matches!(injector.push(Plain(item)), Pushed::Refused(_)));
    }
}

/// What a worker takes that comes for more: the first is in its hand, the others are in its deque.
fn refill(queue: &mut Queue<usize>, injector: &Injector<usize>, own: &OwnEnd<usize>) -> Option<usize> {
    queue.refill(injector, own).map(|supply| supply.unload(own).0)
}

#[test]
fn an_owner_takes_what_it_pushed_last_and_then_the_batch_from_its_front() {
    let (_injector, mut front, own) = deque();
    let mut batch = own.batch();
    (0..4).for_each(|n| batch.add(n));
    assert!(!batch.publish());
    (10..13).for_each(|n| push(&own, n));
    assert!(own.has_batch() && own.has_pushed());
    assert_eq!((own.pop(), own.pop()), (Some(12), Some(11)));
    assert_eq!(steal(&own, &mut front, 1), [0], "a thief takes what is oldest");
    assert_eq!(own.pop_front(), Some(1));
    assert_eq!(drain(&own), [10, 2, 3]);
    assert!(!own.has_batch() && !own.has_pushed());
}

#[test]
fn thieves_take_from_the_front_as_many_as_they_may() {
    let (_injector, mut front, own) = deque();
    (0..10).for_each(|n| push(&own, n));
    assert_eq!(steal(&own, &mut front, 0), [0; 0]);
    assert_eq!(steal(&own, &mut front, 4), [0, 1, 2, 3]);
    assert_eq!(own.pop(), Some(9));
    assert_eq!(steal(&own, &mut front, 99), [4, 5, 6, 7, 8]);
    assert_eq!(steal(&own, &mut front, 99), [0; 0]);
    assert_eq!(own.pop(), None);
    assert_eq!(own.deque().pushed(), 10);
}

#[test]
fn places_of_a_deque_wrap_in_every_way_of_taking() {
    let (_injector, mut front, own) = deque();
    let mut next = 0_usize;
    // Each round moves the ends on by 13, so that batches, pushes and thefts come across the wrap in every position.
    while next < 3 * 65_536 {
        let mut batch = own.batch();
        (next..next + 5).for_each(|n| batch.add(n));
        batch.publish();
        (next + 5..next + 15).for_each(|n| push(&own, n));
        assert_eq!(own.deque().len(), 15);
        assert_eq!(own.pop(), Some(next + 14));
        assert_eq!(own.pop(), Some(next + 13));
        assert_eq!(steal(&own, &mut front, 3), [next, next + 1, next + 2]);
        assert_eq!(own.pop_front(), Some(next + 3));
        let rest: Vec<_> = (next + 5..next + 13).rev().chain([next + 4]).collect();
        assert_eq!(drain(&own), rest);
        next += 15;
    }
}

#[test]
fn a_deque_that_is_never_empty_keeps_its_order_beyond_the_wrap() {
    let (_injector, mut front, own) = deque();
    push(&own, 0);
    // One long task submits while others steal what it submits.
    for n in 1..150_000_usize {
        push(&own, n);
        assert!(own.has_pushed(), "there is something on top of the batch, which was empty: {n}");
        assert!(!own.has_batch(), "there never was a batch: {n}");
        assert_eq!(steal(&own, &mut front, 1), [n - 1]);
    }
    push(&own, 150_000);
    assert_eq!(own.pop(), Some(150_000), "what was pushed last");
    assert_eq!(own.pop(), Some(149_999));
}

#[test]
fn a_full_deque_refuses_and_takes_again_when_there_is_room() {
    let (_injector, mut front, own) = deque();
    let cap = usize::from(CAP);
    (0..cap).for_each(|n| push(&own, n));
    assert!(matches!(own.push(Plain(7)), Pushed::Refused(Plain(7))));
    assert_eq!(own.deque().pushed(), cap as u64);
    assert_eq!(steal(&own, &mut front, 2), [0, 1]);
    push(&own, cap);
    push(&own, cap + 1);
    assert!(matches!(own.push(Plain(7)), Pushed::Refused(Plain(7))));
    assert_eq!(own.pop(), Some(cap + 1));
    push(&own, cap + 1);
    assert_eq!(drain(&own), (2..cap + 2).rev().collect::<Vec<_>>());
}

#[test]
fn a_refused_push_gives_back_the_same_draft() {
    let (injector, _front) = injector(String::from("first"));
    let (_other, _, own) = deque();
    injector.set(GATE);
    own.deque().set(GATE);
    for push in [&|draft| injector.push(draft) as _, &|draft| own.push(draft)]
        as [&dyn Fn(Plain<String>) -> Pushed<Plain<String>>; 2]
    {
        let text = String::from("a draft");
        let address = text.as_ptr();
        let Pushed::Refused(Plain(back)) = push(Plain(text)) else { panic!("the gate is shut") };
        assert_eq!((back.as_ptr(), &*back), (address, "a draft"));
    }
    assert_eq!((own.deque().pushed(), own.deque().len(), injector.added()), (0, 0, 1));
}

#[test]
fn an_injector_keeps_its_order_across_blocks() {
    let (injector, mut front) = injector(0);
    let mut expected = 0;
    let mut next = 1;
    for round in 0..200 {
        (0..round % 50 * 7).for_each(|_| {
            submit(&injector, [next]);
            next += 1;
        });
        assert_eq!(injector.len(), next - expected);
        while let Some(mut haul) = injector.haul(&mut front, 1 + round) {
            assert!(injector.is_hauling());
            haul.unload(|item| {
                assert_eq!(item, expected);
                expected += 1;
            });
        }
        assert_eq!(expected, next);
        assert!(!injector.is_hauling() && injector.len() == 0);
        assert_eq!(injector.added(), next as u64);
    }
}

#[test]
fn whoever_drops_an_injector_a_haul_or_a_deque_drops_each_item_once() {
    let token = Arc::new(());
    let item = |n| -> Item { (n, token.clone()) };
    for items in [1, 2, 126, 127, 128, 300] {
        let (injector, mut front) = injector(item(0));
        (1..items).for_each(|n| assert!(matches!(injector.push(Plain(item(n))), Pushed::Quietly)));
        let own = OwnEnd::new(&front, 0);
        (0..items.min(CAP.into())).for_each(|n| push(&own, item(n)));
        // One of each is taken, and a haul is given up.
        drop((own.pop(), injector.haul(&mut front, 1).and_then(super::Haul::unload_one)));
        drop(injector.haul(&mut front, 10));
        assert!(!injector.is_hauling());
        drop((own, injector));
        assert_eq!(Arc::strong_count(&token), 1, "of {items} items");
    }
    let (_injector, _front, own) = deque();
    let mut batch = own.batch();
    batch.add(item(0));
    batch.add(item(1));
    batch.publish();
    drop(own);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn what_a_worker_left_comes_first_and_what_is_in_deques_before_what_is_outside() {
    let (mut queue, injector, [first, second]) = queue(false);
    (0..3).for_each(|n| drop(first.push(Plain(n))));
    submit(&injector, 30..33);
    drop(second.push(Plain(20)));
    queue.remove_worker(first.deque());
    assert!(matches!(first.push(Plain(9)), Pushed::Refused(_)), "who left adds no more");
    assert_eq!(queue.len(&injector), 7);
    assert_eq!(queue.accepted(&injector), 8, "with the one that opened the gate");
    assert_eq!(queue.take_one(&injector), Some(0));
    assert_eq!(queue.take_from_outside(&injector), Some(1));
    queue.narrow(&injector, Intake::Closed, true);
    assert_eq!(queue.take_all(&injector), [2, 20, 30, 31, 32]);
    assert!(queue.is_empty(&injector));
    assert_eq!(queue.accepted(&injector), 8);
}

#[test]
fn a_worker_takes_its_share_and_others_steal_half_of_that() {
    let (mut queue, injector, [first, second]) = queue(false);
    submit(&injector, 0..20);
    assert_eq!(refill(&mut queue, &injector, &first), Some(0));
    assert_eq!((first.deque().len(), injector.len()), (9, 10));
    assert_eq!(refill(&mut queue, &injector, &second), Some(10));
    assert_eq!((second.deque().len(), injector.len()), (4, 5));
    while refill(&mut queue, &injector, &second).is_some() {
        drain(&second);
        if first.deque().len() < 9 {
            break;
        }
    }
    assert_eq!(first.deque().len(), 4, "half of nine, rounded up, are gone");
    assert_eq!(drain(&first), [6, 7, 8, 9]);
}

#[test]
fn a_share_is_a_batch_at_most() {
    let (mut queue, injector, [own]) = queue(false);
    submit(&injector, 0..1000);
    let supply = queue.refill(&injector, &own).unwrap();
    assert!(supply.has_more() && matches!(&supply, Supply::Many(haul) if haul.len() <= BATCH as u64));
    drop(supply);
    assert!(queue.len(&injector) >= 1000 - BATCH);
}

#[test]
fn a_stream_from_outside_does_not_starve_what_lies_behind_a_long_task() {
    let (mut queue, injector, [first, second]) = queue(false);
    submit(&injector, 0..20);
    // Its worker is in this task and does not come back.
    assert_eq!(refill(&mut queue, &injector, &first), Some(0));
    let mut others = Vec::new();
    for n in 100..120 {
        submit(&injector, [n]);
        others.extend(refill(&mut queue, &injector, &second));
        others.extend(drain(&second));
    }
    assert!((1..10).all(|n| others.contains(&n)), "{others:?}");
    assert!(others.contains(&10), "nor is what is outside: {others:?}");
}

#[test]
fn a_chain_of_follow_ups_does_not_starve_what_lies_behind_a_long_task() {
    let (mut queue, injector, [first, second]) = queue(false);
    (1..4).for_each(|n| drop(first.push(Plain(n))));
    // What the other worker takes each time that its turns are over.
    let mut others = Vec::new();
    for n in 100..110 {
        submit(&injector, [n]);
        others.extend(queue.take_elsewhere(&injector, &second));
    }
    assert!(others.contains(&1), "{others:?}");
    assert!(others.contains(&100), "{others:?}");
}

#[test]
#[should_panic = "one batch at a time"]
fn a_push_while_a_batch_is_being_added_is_found_out() {
    let (_injector, _front, own) = deque();
    let mut batch = own.batch();
    batch.add(1);
    push(&own, 2);
    batch.publish();
}

#[test]
#[should_panic = "goes with one injector"]
fn a_front_of_another_injector_is_no_right_to_add() {
    let ((injector, _), (_, mut front)) = (Injector::new(), Injector::<u8>::new());
    injector.push_through(&mut front, Plain(1_u8));
}

#[test]
#[should_panic = "after the first item"]
fn a_gate_does_not_open_before_there_is_a_place_for_items() {
    Injector::<u8>::new().0.clear(GATE);
}

#[test]
fn a_worker_in_a_chain_of_follow_ups_does_not_take_itself_for_one_that_is_stuck() {
    let (mut queue, injector, [own]) = queue(false);
    drop(own.push(Plain(0)));
    for n in 100..110 {
        submit(&injector, [n]);
        assert_eq!(queue.take_elsewhere(&injector, &own), Some(n));
    }
}
