//! Maps: order, look-ahead, panics, ends.

mod common;

use common::{assert_adds_up, listen, meet, occupy_with, pool_in, registry, tidy, within};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::iter::FusedIterator;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use winddown::{task, JoinError, Map, MapUnordered, Pool, WhenFull};

const fn is_map<T: FusedIterator + Send + Debug>() {}
const _: () = is_map::<Map<std::ops::RangeFrom<u64>, String>>();
const _: () = is_map::<MapUnordered<std::vec::IntoIter<u64>, String>>();

fn pool(max_threads: usize) -> Pool {
    pool_in(&registry(), max_threads)
}

/// Keeps a thread of a pool busy until what this returns is dropped.
fn occupy(pool: &Pool) -> Sender<()> {
    occupy_with(|task| pool.execute(task).unwrap()).0
}

/// What became of an item, in a word.
fn word<T: ToString>(result: Result<T, JoinError>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn words<T: ToString>(results: impl IntoIterator<Item = Result<T, JoinError>>) -> Vec<String> {
    results.into_iter().map(word).collect()
}

fn values<T>(results: impl IntoIterator<Item = Result<T, JoinError>>) -> Vec<T> {
    results.into_iter().map(Result::unwrap).collect()
}

fn inside<T: Send + 'static>(pool: &Pool, task: impl FnOnce(&Pool) -> T + Send + 'static) -> T {
    let inner = pool.clone();
    pool.spawn(move || task(&inner)).unwrap().join().unwrap()
}

/// Counts from zero, and how often it was asked.
fn counted(pulls: &Arc<AtomicUsize>) -> impl Iterator<Item = usize> + Send {
    let pulls = pulls.clone();
    std::iter::from_fn(move || Some(pulls.fetch_add(1, SeqCst)))
}

// ---- order ----

#[test]
fn results_come_in_the_order_of_the_items_whatever_ends_first() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let (give, take) = mpsc::channel::<()>();
        let (give, take) = (Mutex::new(Some(give)), Mutex::new(take));
        let squares = pool.map(0..10, move |n| {
            match n {
                0 => drop(take.lock().unwrap().recv()), // The second item is done before the first.
                1 => drop(give.lock().unwrap().take()),
                _ => {}
            }
            n * n
        });
        assert_eq!(values(squares), (0..10).map(|n| n * n).collect::<Vec<_>>());
    });
}

#[test]
fn an_unordered_map_passes_by_what_is_slow() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let mut results = pool.map_unordered(0..50, move |n| {
            if n == 0 {
                let _ = wait.lock().unwrap().recv();
            }
            n
        });
        let fast: BTreeSet<_> = values(results.by_ref().take(49)).into_iter().collect();
        assert_eq!(fast, (1..50).collect());
        drop(go);
        assert_eq!(values(results), [0]);
    });
}

#[test]
fn as_many_items_run_at_once_as_there_are_threads() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(4);
        let meeting = Arc::new(Barrier::new(4));
        let meet_all = || {
            let meeting = meeting.clone();
            move |n| {
                meet(&meeting); // Nobody gets through unless four are under way.
                n
            }
        };
        assert_eq!(values(pool.map(0..16, meet_all())), (0..16).collect::<Vec<_>>());
        assert_eq!(values(pool.map_unordered(0..16, meet_all())).len(), 16);
        assert_eq!(values(pool.map_with_lookahead(0..4, 4, meet_all())), [0, 1, 2, 3]);
    });
}

#[test]
fn a_hundred_thousand_items_go_through() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        const MANY: usize = 100_000;
        assert!(values(pool.map(0..MANY, |n| n)).into_iter().eq(0..MANY));
        let mut unordered = values(pool.map_unordered(0..MANY, |n| n));
        unordered.sort_unstable();
        assert!(unordered.into_iter().eq(0..MANY));
        assert!(values(pool.map_with_lookahead(0..MANY, MANY, |n| n)).into_iter().eq(0..MANY));
        assert_adds_up(&pool.stats());
    });
}

// ---- laziness ----

#[test]
fn nothing_is_pulled_before_the_first_result_is_asked_for() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let pulls = Arc::new(AtomicUsize::new(0));
        let map = pool.map(counted(&pulls), |n| n);
        let unordered = pool.map_unordered(counted(&pulls), |n| n);
        let _ = (map.size_hint(), format!("{map:?}"), unordered.size_hint(), format!("{unordered:?}"));
        drop((map, unordered));
        assert_eq!(pulls.load(SeqCst), 0);
        assert_eq!(pool.stats().accepted, 0);
    });
}

#[test]
fn the_input_is_pulled_just_the_lookahead_ahead_of_the_results() {
    let _tidy = tidy();
    fn check(
        lookahead: usize,
        make: impl FnOnce(Box<dyn Iterator<Item = usize>>) -> Box<dyn Iterator<Item = Result<usize, JoinError>>>,
    ) {
        let (pulls, returned) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (pulls_of_input, returned_then) = (pulls.clone(), returned.clone());
        let input = std::iter::from_fn(move || {
            let pulled = pulls_of_input.fetch_add(1, SeqCst);
            assert!(pulled < returned_then.load(SeqCst) + lookahead, "{pulled} were pulled before");
            Some(pulled)
        });
        let mut results = make(Box::new(input));
        for n in 0..20 {
            results.next().unwrap().unwrap();
            assert_eq!(pulls.load(SeqCst), n + lookahead);
            returned.fetch_add(1, SeqCst);
        }
    }
    within(|| {
        let pool = pool(3);
        for lookahead in [1, 2, 7, 100] {
            check(lookahead, |input| Box::new(pool.map_with_lookahead(input, lookahead, |n| n)));
        }
        check(6, |input| Box::new(pool.map(input, |n| n)));
        check(6, |input| Box::new(pool.map_unordered(input, |n| n)));
    });
}

#[test]
fn a_lookahead_of_one_is_one_item_after_the_other() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(4);
        let running = Arc::new(AtomicUsize::new(0));
        let results = pool.map_with_lookahead(0..100, 1, move |n| {
            assert_eq!(running.fetch_add(1, SeqCst), 0);
            running.fetch_sub(1, SeqCst);
            n
        });
        assert_eq!(values(results).len(), 100);
    });
}

#[test]
fn a_lookahead_of_zero_panics_with_a_message() {
    let _tidy = tidy();
    let pool = pool(1);
    let payload =
        catch_unwind(AssertUnwindSafe(|| drop(pool.map_with_lookahead(0..3, 0, |n| n)))).unwrap_err();
    let message = payload.downcast_ref::<&str>().unwrap();
    assert!(message.contains("look-ahead of 0"), "{message}");
}

#[test]
fn the_size_is_known_as_far_as_it_is_sure() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let mut map = pool.map_with_lookahead(0..10, 4, |n| n);
        assert_eq!(map.size_hint(), (1, Some(10)));
        map.next().unwrap().unwrap();
        assert_eq!(map.size_hint(), (4, Some(9)));
        assert_eq!(values(map.by_ref()).len(), 9);
        assert_eq!(map.size_hint(), (0, Some(0)));
        assert_eq!(pool.map(1.., |n: u64| n).size_hint().1, None);
        assert_eq!(pool.map_unordered(Vec::<u8>::new(), |n| n).size_hint(), (0, Some(0)));
        let closed = pool.map_unordered(0..10, |n| n);
        pool.close();
        let (lower, upper) = closed.size_hint();
        let count = closed.count();
        assert!(lower <= count && count <= upper.unwrap());
    });
}

#[test]
fn after_the_end_there_is_nothing_more_and_the_input_is_not_asked_again() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        // Not fused: after its first end it goes on.
        let mut asked = 0;
        let input = move || {
            asked += 1;
            (asked != 3).then_some(asked)
        };
        let mut map = pool.map(std::iter::from_fn(input), |n| n);
        assert_eq!(values(map.by_ref()), [1, 2]);
        assert!(map.next().is_none() && map.next().is_none());
        let mut unordered = pool.map_unordered(std::iter::from_fn(input), |n| n);
        assert_eq!(values(unordered.by_ref()), [1, 2]);
        assert!(unordered.next().is_none() && unordered.next().is_none());
        assert!(pool.map([0_u8; 0], |n| n).next().is_none());
    });
}

// ---- panics ----

#[test]
fn the_panic_of_an_item_is_its_error_and_nothing_elses() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let odd = |n: usize| {
            assert_eq!(n % 2, 1, "{n} is even");
            n
        };
        let results: Vec<_> = pool.map(0..6, odd).collect();
        let location = results[0].as_ref().unwrap_err().to_string();
        assert!(location.contains("tests/maps.rs") && location.contains("0 is even"), "{location}");
        assert_eq!(words(results), ["Panicked", "1", "Panicked", "3", "Panicked", "5"]);
        let mut unordered = words(pool.map_unordered(0..6, odd));
        unordered.sort();
        assert_eq!(unordered, ["1", "3", "5", "Panicked", "Panicked", "Panicked"]);
    });
}

/// Counts from zero to nine, but panics instead of the fifth.
fn faulty() -> impl Iterator<Item = usize> {
    (0..10).inspect(|n| assert_ne!(*n, 4, "the input is faulty"))
}

#[test]
fn a_panic_of_the_input_comes_out_and_costs_nothing_that_was_submitted() {
    let _tidy = tidy();
    fn check(mut results: impl Iterator<Item = Result<usize, JoinError>>, before: usize) {
        let mut got = values(results.by_ref().take(before));
        let payload = catch_unwind(AssertUnwindSafe(|| results.next().is_none())).unwrap_err();
        assert!(payload.downcast_ref::<String>().unwrap().contains("the input is faulty"));
        got.extend(values(results));
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    }
    within(|| {
        let pool = pool(2);
        check(pool.map_with_lookahead(faulty(), 3, |n| n), 2);
        check(pool.map(faulty(), |n| n), 1);
        check(pool.map_unordered(faulty(), |n| n), 1);
        check(pool.map_with_lookahead(faulty(), 1, |n| n), 4);
    });
}

#[test]
fn an_input_that_panics_each_time_costs_nothing_that_was_submitted() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let mut next = 0;
        let input = std::iter::from_fn(move || {
            assert!(next < 3, "no more");
            next += 1;
            Some(next)
        });
        let mut results = pool.map_with_lookahead(input, 5, |n| n);
        let mut ask = || catch_unwind(AssertUnwindSafe(|| results.next().map(word))).map_err(drop);
        assert_eq!(ask(), Err(()));
        for n in 1..=3 {
            assert_eq!(ask(), Ok(Some(n.to_string())));
        }
        assert_eq!(ask(), Err(()));
        assert_eq!(ask(), Err(()));
        assert_eq!(values(pool.map(0..3, |n| n)), [0, 1, 2]);
    });
}

// ---- early ends ----

/// Counts its drops.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn dropped_early_it_cancels_what_has_not_started_and_tells_what_runs() {
    let _tidy = tidy();
    type Work = Box<dyn Fn((usize, Dropped)) -> usize + Send + Sync>;
    type Input = Box<dyn Iterator<Item = (usize, Dropped)>>;
    fn check<M: Iterator<Item = Result<usize, JoinError>>>(make: impl FnOnce(&Pool, Input, Work) -> M) {
        let pool = pool(1);
        let (started, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (is_running, has_started) = mpsc::channel();
        let starts = started.clone();
        let work = move |(n, _dropped): (usize, Dropped)| {
            starts.fetch_add(1, SeqCst);
            if n > 0 {
                is_running.send(()).unwrap();
                while !task::is_cancelled() {
                    thread::yield_now();
                }
            }
            n
        };
        let items = dropped.clone();
        let input = (0..5).map(move |n| (n, Dropped(items.clone())));
        // All five are to be under way, whatever the look-ahead of the map is.
        let mut results = make(&pool, Box::new(input), Box::new(work));
        assert_eq!(results.next().unwrap().unwrap(), 0);
        has_started.recv().unwrap();
        drop(results);
        pool.wait_idle();
        let stats = pool.stats();
        assert_eq!(started.load(SeqCst), 2);
        assert_eq!((stats.completed, stats.cancelled), (2, stats.accepted - 2));
        assert_eq!(
            dropped.load(SeqCst) as u64,
            stats.accepted,
            "captures are gone, whether they were used or not"
        );
        assert!(stats.accepted > 1);
    }
    within(|| {
        check(|pool, input, work| pool.map_with_lookahead(input, 5, work));
        check(|pool, input, work| pool.map_unordered(input, work));
    });
}

#[test]
fn an_unordered_map_cancels_what_is_queued_behind_the_tasks_of_others() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let (one, other) = (occupy(&pool), occupy(&pool));
        let started = Arc::new(AtomicUsize::new(0));
        let starts = started.clone();
        let (give, take) = mpsc::channel::<()>();
        let take = Mutex::new(take);
        let mut results = pool.map_unordered(0..100, move |n| {
            starts.fetch_add(1, SeqCst);
            if n > 0 {
                let _ = take.lock().unwrap().recv();
            }
        });
        let waits = thread::spawn(move || {
            results.next().unwrap().unwrap();
            results
        });
        while pool.stats().queued < 4 {
            thread::yield_now();
        }
        drop(one); // One thread: it runs the first, and is held up by the second.
        let results = waits.join().unwrap();
        while started.load(SeqCst) < 2 {
            thread::yield_now();
        }
        drop(results);
        drop((give, other));
        pool.wait_idle();
        let stats = pool.stats();
        assert_eq!((started.load(SeqCst), stats.cancelled, stats.accepted), (2, 2, 6));
    });
}

#[test]
fn results_that_nobody_takes_may_panic_in_their_drop() {
    let _tidy = tidy();
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("a bomb was dropped");
            }
        }
    }
    within(|| {
        let pool = pool(2);
        let mut results = pool.map_with_lookahead(0..4, 4, |_| Bomb);
        std::mem::forget(results.next().unwrap().unwrap());
        pool.wait_idle();
        drop(results);
        assert_eq!(values(pool.map(0..3, |n| n)), [0, 1, 2]);
    });
}

#[test]
fn items_that_are_cancelled_or_refused_may_panic_in_their_drop() {
    let _tidy = tidy();
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a bomb was dropped");
        }
    }
    within(|| {
        let pool = pool(1);
        let (started, has_started) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let bombs = (0..3).map(|n| (n, (n == 2).then(|| Bomb)));
        let mut results = pool.map_with_lookahead(bombs, 3, move |(n, _)| {
            if n == 1 {
                started.send(()).unwrap();
                let _ = wait.lock().unwrap().recv();
            }
        });
        results.next().unwrap().unwrap();
        has_started.recv().unwrap();
        drop(results);
        assert_eq!(pool.stats().cancelled, 1);
        drop(go);
        pool.close();
        assert_eq!(words(pool.map([Bomb], |_| 5)), ["Cancelled"]);
    });
}

// ---- closed pools ----

#[test]
fn what_a_closed_pool_refuses_is_cancelled_and_then_the_map_ends() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (pulls, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let items = dropped.clone();
        let input = counted(&pulls).map(move |n| (n, Dropped(items.clone())));
        let mut map = pool.map_with_lookahead(input, 3, |(n, _)| n);
        let mut unordered = pool.map_unordered(0..10, |n| n);
        assert_eq!(map.next().unwrap().unwrap(), 0);
        assert_eq!(unordered.next().unwrap().unwrap(), 0);
        pool.close();
        assert_eq!(words(map.by_ref()), ["1", "2", "Cancelled"]);
        assert!(map.next().is_none());
        assert_eq!((pulls.load(SeqCst), dropped.load(SeqCst)), (4, 4));
        assert_eq!(words(unordered.by_ref()), ["1", "Cancelled"]);
        assert!(unordered.next().is_none());
        assert_eq!(words(pool.map(0..10, |n| n)), ["Cancelled"]);
        assert!(pool.map([0_u8; 0], |n| n).next().is_none(), "nothing is refused");
        assert_eq!(pool.stats().rejected, 3);
        let error = pool.map(0..10, |n| n).next().unwrap().unwrap_err();
        assert!(error.to_string().contains("tests/maps.rs"), "{error}");
    });
}

#[test]
fn a_map_over_a_registry_that_shuts_down_ends() {
    let _tidy = tidy();
    within(|| {
        let registry = registry();
        let pool = pool_in(&registry, 2);
        let mut map = pool.map(0.., |n: u64| n);
        map.next().unwrap().unwrap();
        let waits = thread::spawn(move || map.filter(Result::is_err).map(word::<u64>).collect::<Vec<_>>());
        assert!(registry.shutdown().is_clean());
        assert_eq!(waits.join().unwrap(), ["Cancelled"]);
    });
}

#[test]
fn a_map_inside_a_task_goes_on_while_its_pool_drains() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, wait) = mpsc::channel::<()>();
        let inner = pool.clone();
        let task = pool.spawn(move || {
            let _ = wait.recv();
            values(inner.map(0..100, |n| n)).len()
        });
        pool.close();
        drop(go);
        assert_eq!(task.unwrap().join().unwrap(), 100);
    });
}

#[test]
fn a_map_keeps_its_pool_open() {
    let _tidy = tidy();
    within(|| {
        let map = pool(2).map(0..100, |n| n);
        assert_eq!(values(map), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn what_a_deadline_cancels_is_yielded_as_cancelled() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(1);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let mut map = pool.map_with_lookahead(0..5, 3, move |n| {
            if n == 1 {
                let _ = wait.lock().unwrap().recv();
            }
            n
        });
        assert_eq!(map.next().unwrap().unwrap(), 0);
        let waits = thread::spawn(move || words(map));
        pool.shutdown_timeout(Duration::from_millis(50));
        let got = waits.join().unwrap();
        assert_eq!(got[..2], ["Abandoned", "Cancelled"]);
        assert!(got[2..].iter().all(|word| word == "Cancelled"), "{got:?}");
        drop(go);
    });
}

// ---- inside tasks, and bounded pools ----

#[test]
fn maps_within_maps_work_on_a_pool_of_one_thread() {
    let _tidy = tidy();
    fn nested(pool: &Pool, depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let inner = pool.clone();
        if depth % 2 == 0 {
            pool.map(0..3, move |_| nested(&inner, depth - 1)).sum::<Result<u64, _>>().unwrap()
        } else {
            pool.map_unordered(0..3, move |_| nested(&inner, depth - 1)).sum::<Result<u64, _>>().unwrap()
        }
    }
    within(|| {
        for threads in [1, 3] {
            assert_eq!(inside(&pool(threads), |pool| nested(pool, 5)), 3_u64.pow(5));
        }
    });
}

#[test]
fn a_map_waits_for_room_whatever_the_pool_does_when_it_is_full() {
    let _tidy = tidy();
    within(|| {
        for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
            let builder = Pool::builder().registry(&registry()).max_threads(2);
            let pool = builder.queue_capacity(1).when_full(when_full).build().unwrap();
            let me = thread::current().id();
            let elsewhere = move |n| {
                assert_ne!(thread::current().id(), me);
                n
            };
            let all: Vec<_> = (0..2000).collect();
            assert_eq!(values(pool.map_with_lookahead(0..2000, 50, elsewhere)), all);
            let mut unordered = values(pool.map_unordered(0..2000, elsewhere));
            unordered.sort_unstable();
            assert_eq!(unordered, all);
            assert_eq!(pool.stats().rejected, 0);
            let nested = inside(&pool, |pool| values(pool.map_with_lookahead(0..100, 20, |n| n)));
            assert_eq!(nested, all[..100]);
            assert_adds_up(&pool.stats());
        }
    });
}

#[test]
fn a_map_that_waits_for_room_ends_when_the_pool_closes() {
    let _tidy = tidy();
    within(|| {
        let builder = Pool::builder().registry(&registry()).max_threads(1);
        let pool = builder.queue_capacity(1).build().unwrap();
        let go = occupy(&pool);
        let mut map = pool.map_with_lookahead(0..10, 5, |n| n);
        let pulls = thread::spawn(move || words(map.by_ref()));
        while pool.stats().queued < 1 {
            thread::yield_now();
        }
        pool.close();
        drop(go);
        let got = pulls.join().unwrap();
        assert_eq!(got, ["0", "Cancelled"]);
    });
}

#[test]
fn panics_of_a_map_that_is_dropped_are_logged() {
    let _tidy = tidy();
    within(|| {
        let lines = listen();
        let pool = pool(1);
        let (give, take) = mpsc::channel::<()>();
        let take = Mutex::new(take);
        let mut results = pool.map_with_lookahead(0..2, 2, move |n| {
            if n == 1 {
                let _ = take.lock().unwrap().recv();
                panic!("an item of a dropped map");
            }
        });
        results.next().unwrap().unwrap();
        while pool.stats().running == 0 {
            thread::yield_now();
        }
        drop(results);
        drop(give);
        pool.wait_idle();
        pool.shutdown();
        let is_ours = |line: &String| line.contains("an item of a dropped map");
        assert_eq!(lines.try_iter().filter(is_ours).count(), 1);
    });
}
