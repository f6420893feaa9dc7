//! Waiting for several tasks together: `join_all`, `as_completed`.

mod common;

use common::gated::{gated, inside, occupy, values, word};
use common::{assert_adds_up, meet, pool_in, registry, tidy, within};
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{as_completed, join_all, task, AsCompleted, JoinHandle, Pool, TimedOut};

const fn is_iterator<T: ExactSizeIterator + Send + Sync + UnwindSafe + RefUnwindSafe + Debug>() {}
const fn is_error<T: Error + Send + Sync + Copy + Eq + 'static>() {}
const _: () = is_iterator::<AsCompleted<u8>>();
const _: () = is_error::<TimedOut>();

fn pool(max_threads: usize) -> Pool {
    pool_in(&registry(), max_threads)
}

// ---- join_all ----

#[test]
fn join_all_gives_all_results_in_the_order_of_the_handles() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        let (first, one) = occupy(&pool, 1);
        let (last, two) = occupy(&pool, 2);
        let panicked = pool.spawn(|| panic!("no luck")).unwrap();
        let three = pool.spawn(|| 3).unwrap();
        pool.spawn(|| ()).unwrap().join().unwrap(); // The others on the third thread have ended.
        let (full, others) = (gated(&pool, ()), pool.spawn(|| 4).unwrap());
        assert!(others.cancel());
        let waits = thread::spawn(move || join_all([one, panicked, two, others, three]));
        drop(last);
        drop(first);
        let results = waits.join().unwrap();
        assert_eq!(
            results.into_iter().map(word).collect::<Vec<_>>(),
            ["1", "Panicked", "2", "Cancelled", "3"]
        );
        drop(full);
        assert!(join_all::<u8>([]).is_empty());
    });
}

#[test]
fn join_all_takes_all_handles_before_it_waits() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        let meeting = Arc::new(Barrier::new(3));
        let spawn = |n| {
            let meeting = meeting.clone();
            pool.spawn(move || {
                meet(&meeting); // Nobody gets through unless all are submitted.
                n
            })
        };
        assert_eq!(values(join_all((0..3).map(|n| spawn(n).unwrap()))), [0, 1, 2]);
    });
}

#[test]
fn join_all_runs_queued_tasks_in_place_inside_a_task() {
    let _tidy = tidy();
    within(|| {
        let results = inside(&pool(1), |pool| {
            let me = thread::current().id();
            let handles = (0..3).map(|n| pool.spawn(move || (n, thread::current().id() == me)).unwrap());
            values(join_all(handles))
        });
        assert_eq!(results, [(0, true), (1, true), (2, true)]);
    });
}

// ---- as_completed ----

#[test]
fn results_come_in_the_order_in_which_the_tasks_end() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(4);
        let (mut gates, handles): (Vec<_>, Vec<_>) =
            (0..4).map(|n| occupy(&pool, n)).map(|(go, handle)| (Some(go), handle)).unzip();
        let mut results = as_completed(handles);
        for n in [2, 0, 3, 1] {
            assert!(results.next_timeout(Duration::ZERO).is_err());
            drop(gates[n].take());
            assert_eq!(results.next().unwrap().unwrap(), n);
        }
        assert!(results.next().is_none() && results.next().is_none());
    });
}

#[test]
fn the_order_is_that_of_the_ends_even_if_nobody_looks() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, _running) = occupy(&pool, ());
        let mut handles: Vec<_> = (0..5).map(|n| pool.spawn(move || n).unwrap()).collect();
        handles.reverse();
        let mut results = as_completed(handles);
        drop(go);
        pool.wait_idle();
        for n in 0..5 {
            assert_eq!(results.next_timeout(Duration::ZERO).unwrap().unwrap().unwrap(), n);
        }
    });
}

#[test]
fn what_has_ended_before_comes_first_in_the_order_of_the_handles() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let (go, blocked) = occupy(&pool, 0);
        let done = (1..4).map(|n| pool.spawn(move || n).unwrap()).collect::<Vec<_>>();
        while !done.iter().all(JoinHandle::is_finished) {
            thread::yield_now();
        }
        let mut results = as_completed([blocked].into_iter().chain(done));
        assert_eq!(values(results.by_ref().take(3)), [1, 2, 3]);
        drop(go);
        assert_eq!(values(results), [0]);
    });
}

#[test]
fn each_task_comes_once_however_it_ends() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, running) = occupy(&pool, 0);
        let cancelled = pool.spawn(|| 1).unwrap();
        assert!(cancelled.cancel());
        let panicked = pool.spawn(|| panic_any(5)).unwrap();
        let late = pool.spawn(|| 2).unwrap();
        let canceller = late.canceller();
        let value = pool.spawn(|| 3).unwrap();
        let mut results = as_completed([running, cancelled, panicked, late, value]);
        assert_eq!(results.len(), 5);
        assert_eq!(word(results.next().unwrap()), "Cancelled");
        assert!(canceller.cancel(), "while it is waited for");
        assert_eq!(word(results.next().unwrap()), "Cancelled");
        assert_eq!((results.len(), results.size_hint()), (3, (3, Some(3))));
        drop(go);
        assert_eq!(results.map(word).collect::<Vec<_>>(), ["0", "Panicked", "3"]);
        assert!(as_completed::<u8>([]).next().is_none());
    });
}

#[test]
fn what_a_shutdown_cancels_or_abandons_comes_too() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, running) = occupy(&pool, 0);
        let queued = pool.spawn(|| 1).unwrap();
        let results = as_completed([running, queued]);
        let waits = thread::spawn(move || results.map(word).collect::<BTreeSet<_>>());
        pool.shutdown_timeout(Duration::from_millis(20));
        let expected = ["Abandoned", "Cancelled"].map(str::to_owned);
        assert_eq!(waits.join().unwrap(), BTreeSet::from(expected));
        drop(go);
    });
}

#[test]
fn what_is_handed_back_comes_when_it_is_run_or_dropped() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, running) = occupy(&pool, 0);
        let queued = (1..3).map(|n| pool.spawn(move || n).unwrap());
        let mut results = as_completed([running].into_iter().chain(queued));
        let (shut, is_shut) = mpsc::channel();
        let closer = pool.clone();
        let closing = thread::spawn(move || shut.send(closer.shutdown_now().1).unwrap());
        while pool.stats().returned < 2 {
            thread::yield_now();
        }
        drop(go);
        assert_eq!(word(results.next().unwrap()), "0");
        let mut unstarted = is_shut.recv().unwrap();
        assert!(results.next_timeout(Duration::ZERO).is_err());
        unstarted.pop().unwrap().run();
        assert_eq!(word(results.next().unwrap()), "2");
        drop(unstarted);
        assert_eq!(word(results.next().unwrap()), "Cancelled");
        closing.join().unwrap();
    });
}

#[test]
fn a_wait_of_pools_of_all_sorts_gets_all_results() {
    let _tidy = tidy();
    within(|| {
        let (one, other, closed) = (pool(1), pool(2), pool(1));
        let handles = (0..60).map(|n| [&one, &other, &closed][n % 3].spawn(move || n).unwrap());
        let results = as_completed(handles.collect::<Vec<_>>());
        closed.shutdown();
        let got: BTreeSet<usize> = values(results).into_iter().collect();
        assert_eq!(got, (0..60).collect());
    });
}

// ---- next_timeout ----

#[test]
fn a_timed_wait_is_never_early_and_says_how_many_are_left() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let (go, blocked) = occupy(&pool, 1);
        let done = pool.spawn(|| 2).unwrap();
        let mut results = as_completed([blocked, done]);
        assert_eq!(results.next_timeout(Duration::MAX).unwrap().unwrap().unwrap(), 2);
        for millis in [1, 5, 20] {
            let start = Instant::now();
            let error = results.next_timeout(Duration::from_millis(millis)).unwrap_err();
            assert!(start.elapsed() >= Duration::from_millis(millis));
            assert_eq!(error.to_string(), "1 of 2 tasks had not ended in time");
        }
        assert_eq!(format!("{results:?}"), "AsCompleted { left: 1, total: 2 }");
        drop(go);
        assert_eq!(results.next_timeout(Duration::MAX).unwrap().unwrap().unwrap(), 1);
        assert!(results.next_timeout(Duration::ZERO).unwrap().is_none());
    });
}

#[test]
fn a_result_that_is_ready_beats_a_deadline_that_has_passed() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        for n in 0..2000 {
            let (go, handle) = gated(&pool, n);
            let mut results = as_completed([handle]);
            drop(go);
            while pool.stats().completed <= n {
                std::hint::spin_loop();
            }
            assert_eq!(results.next_timeout(Duration::ZERO).unwrap().unwrap().unwrap(), n);
        }
    });
}

#[test]
fn a_timed_wait_runs_nothing_in_place_and_an_untimed_one_does_so_after_it() {
    let _tidy = tidy();
    within(|| {
        let in_place = inside(&pool(1), |pool| {
            let me = thread::current().id();
            let mut results = as_completed([pool.spawn(move || thread::current().id() == me).unwrap()]);
            assert!(results.next_timeout(Duration::from_millis(5)).is_err());
            results.next().unwrap().unwrap()
        });
        assert!(in_place);
    });
}

// ---- many ----

const MANY: usize = 100_000;

#[test]
fn a_hundred_thousand_tasks_are_waited_for() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let handles: Vec<_> = (0..MANY).map(|n| pool.spawn(move || n).unwrap()).collect();
        let mut seen = values(as_completed(handles));
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..MANY));
        let handles = (0..MANY).map(|n| pool.spawn(move || n).unwrap());
        assert!(values(join_all(handles)).into_iter().eq(0..MANY));
    });
}

#[test]
fn a_hundred_thousand_tasks_are_waited_for_inside_a_task() {
    let _tidy = tidy();
    within(|| {
        for threads in [1, 2] {
            let sum = inside(&pool(threads), |pool| {
                let handles: Vec<_> = (0..MANY).map(|n| pool.spawn(move || n).unwrap()).collect();
                values(as_completed(handles)).into_iter().sum::<usize>()
            });
            assert_eq!(sum, MANY * (MANY - 1) / 2);
        }
    });
}

#[test]
fn a_hundred_thousand_tasks_of_another_pool_are_waited_for_inside_a_task() {
    let _tidy = tidy();
    within(|| {
        let other = pool(1);
        let sum = inside(&pool(1), move |pool| {
            let (go, blocked) = occupy(&other, 0);
            let rest = (1..MANY).map(|n| other.spawn(move || n).unwrap());
            // Nothing is ready until this is run in place, as the last that is tried.
            let opener = pool.spawn(move || {
                drop(go);
                MANY
            });
            let results = as_completed([blocked].into_iter().chain(rest).chain([opener.unwrap()]));
            values(results).into_iter().sum::<usize>()
        });
        assert_eq!(sum, MANY * (MANY + 1) / 2);
    });
}

#[test]
fn tasks_that_end_cancel_and_are_added_at_once_come_once_each() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(3);
        for round in 0..1500 {
            let meeting = Arc::new(Barrier::new(2));
            let handles: Vec<_> = (0..6).map(|n| pool.spawn(move || n + round).unwrap()).collect();
            let cancellers: Vec<_> = handles.iter().map(JoinHandle::canceller).collect();
            let at_once = meeting.clone();
            pool.execute(move || {
                meet(&at_once);
                cancellers.iter().rev().for_each(|canceller| {
                    canceller.cancel();
                });
            })
            .unwrap();
            meet(&meeting);
            let results: Vec<_> = as_completed(handles).collect();
            assert_eq!(results.len(), 6);
            let ran: BTreeSet<_> = results.iter().flatten().copied().collect();
            let cancelled = results.iter().flat_map(|result| result.as_ref().err());
            assert_eq!(cancelled.filter(|error| error.is_cancelled()).count() + ran.len(), 6);
        }
        pool.wait_idle();
        assert_adds_up(&pool.stats());
    });
}

#[test]
fn many_threads_wait_for_tasks_of_one_pool() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let consume = |receiver: Receiver<JoinHandle<usize>>| {
            thread::spawn(move || values(as_completed(receiver)).into_iter().sum::<usize>())
        };
        let (senders, consumers): (Vec<_>, Vec<_>) = (0..4)
            .map(|_| {
                let (sender, receiver) = mpsc::channel();
                (sender, consume(receiver))
            })
            .unzip();
        for n in 0..20_000 {
            senders[n % 4].send(pool.spawn(move || n).unwrap()).unwrap();
        }
        drop(senders);
        let total: usize = consumers.into_iter().map(|consumer| consumer.join().unwrap()).sum();
        assert_eq!(total, 20_000 * 19_999 / 2);
    });
}

// ---- inside tasks ----

#[test]
fn a_tree_of_tasks_is_waited_for_on_one_thread() {
    let _tidy = tidy();
    fn leaves(pool: &Pool, depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let children = (0..3).map(|_| {
            let inner = pool.clone();
            pool.spawn(move || leaves(&inner, depth - 1)).unwrap()
        });
        values(as_completed(children)).into_iter().sum()
    }
    within(|| {
        for threads in [1, 3] {
            assert_eq!(inside(&pool(threads), |pool| leaves(pool, 5)), 3_u64.pow(5));
        }
    });
}

#[test]
fn a_queued_task_is_run_in_place_although_it_was_tried_before_elsewhere() {
    let _tidy = tidy();
    within(|| {
        let (one, other) = (pool(1), pool(1));
        let (give, take) = mpsc::channel::<AsCompleted<u32>>();
        let consumer = one.spawn(move || values(take.recv().unwrap())).unwrap();
        // They wait for the thread on which the consumer waits for them.
        let behind: Vec<_> = (1..3).map(|n| one.spawn(move || n).unwrap()).collect();
        inside(&other, move |other| {
            let own = other.spawn(|| 0).unwrap();
            let mut results = as_completed(behind.into_iter().chain([own]));
            // This runs the last in place, after it has tried those before it.
            assert_eq!(results.next().unwrap().unwrap(), 0);
            give.send(results).unwrap();
        });
        assert_eq!(consumer.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_queued_task_is_run_in_place_although_it_might_not_be_before_for_want_of_a_permit() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let limit = pool.limit(1);
        let (give, take) = mpsc::channel::<AsCompleted<u32>>();
        let consumer = inside(&pool, move |pool| {
            let consumer = limit.spawn(move || values(take.recv().unwrap())).unwrap();
            let waiting = limit.spawn(|| 1).unwrap();
            let mut results = as_completed([waiting, pool.spawn(|| 0).unwrap()]);
            assert_eq!(results.next().unwrap().unwrap(), 0);
            give.send(results).unwrap();
            consumer
        });
        assert_eq!(consumer.join().unwrap(), [1]);
    });
}

#[test]
fn a_task_that_may_not_be_started_yet_is_waited_for() {
    let _tidy = tidy();
    within(|| {
        let got = inside(&pool(1), |pool| {
            let limit = pool.limit(1);
            let permitted = limit.spawn(|| 1).unwrap();
            let waiting = limit.spawn(|| 2).unwrap();
            // The permit comes free when the first is run in place; a substitute has to run the second.
            values(as_completed([waiting, permitted]))
        });
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn a_task_that_is_not_due_is_waited_for() {
    let _tidy = tidy();
    within(|| {
        let got = inside(&pool(1), |pool| {
            let late = pool.spawn_after(Duration::from_millis(20), || 1).unwrap();
            // Nobody may run it in place before it is due, and then a substitute has to.
            values(as_completed([late, pool.spawn(|| 2).unwrap()]))
        });
        assert_eq!(got, [2, 1]);
    });
}

#[test]
fn a_task_of_a_limit_shares_its_permit_with_those_that_it_waits_for() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let limit = pool.limit(1);
        let inner = limit.clone();
        let parent = limit.spawn(move || {
            let children = (0..3).map(|n| inner.spawn(move || n).unwrap());
            values(as_completed(children))
        });
        assert_eq!(parent.unwrap().join().unwrap(), [0, 1, 2]);
    });
}

#[test]
fn a_task_that_waits_for_itself_panics_each_time_and_is_told_of_the_others() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (give, take) = mpsc::channel::<AsCompleted<Vec<u32>>>();
        let done = pool.spawn(|| vec![7]).unwrap();
        let parent = pool
            .spawn(move || {
                let mut results: AsCompleted<_> = take.recv().unwrap();
                let got = results.next().unwrap().unwrap();
                for _ in 0..2 {
                    let payload = catch_unwind(AssertUnwindSafe(|| results.next().is_none())).unwrap_err();
                    let message = payload.downcast_ref::<String>().unwrap();
                    assert!(message.contains("joined inside itself"), "{message}");
                }
                got
            })
            .unwrap();
        let (end, has_ended) = mpsc::channel();
        pool.execute(move || end.send(()).unwrap()).unwrap();
        give.send(as_completed([parent, done])).unwrap();
        has_ended.recv().unwrap();
        assert_eq!(pool.stats().panicked, 0);
    });
}

// ---- what is left ----

#[test]
fn dropped_early_it_detaches_what_is_left() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let ran = Arc::new(AtomicUsize::new(0));
        let (go, first) = occupy(&pool, ());
        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let count = || {
            let (ran, gate) = (ran.clone(), gate.clone());
            pool.spawn(move || {
                let _ = gate.lock().unwrap().recv();
                ran.fetch_add(usize::from(!task::is_cancelled()), SeqCst);
            })
            .unwrap()
        };
        let rest = [count(), count()];
        let mut results = as_completed([first].into_iter().chain(rest));
        drop(go);
        results.next().unwrap().unwrap();
        // One runs, and is not told to stop, the other is queued.
        while pool.stats().queued > 1 {
            thread::yield_now();
        }
        drop(results);
        drop(open);
        pool.wait_idle();
        assert_eq!(ran.load(SeqCst), 2);
        assert_eq!(pool.stats().cancelled, 0);
    });
}

#[test]
fn a_result_is_kept_no_longer_than_until_it_is_taken() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let value = Arc::new(());
        let kept = value.clone();
        let (go, last) = gated(&pool, Arc::new(()));
        let mut results = as_completed([pool.spawn(move || kept).unwrap(), last]);
        drop(go);
        results.by_ref().take(2).for_each(drop);
        assert_eq!(Arc::strong_count(&value), 1);
        assert!(results.next().is_none());
    });
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_handle_that_was_polled_before_wakes_its_old_waker_no_more() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, mut handle) = occupy(&pool, 5);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        let results = as_completed([handle]);
        assert_eq!(Arc::strong_count(&count), 1);
        drop(go);
        assert_eq!(values(results), [5]);
        assert_eq!(count.0.load(SeqCst), 0);
    });
}
