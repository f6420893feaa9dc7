//! Promise 1 in streams: what is accepted runs, whoever else is busy, asleep, or about to be, and nobody waits for ever.

mod common;

use common::{assert_adds_up, meet, pool_in, registry, tidy, within};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use winddown::Pool;

const WIDTHS: [usize; 4] = [1, 2, 4, 16];

fn pool(width: usize) -> Pool {
    pool_in(&registry(), width)
}

/// The next of a sequence that looks random enough: an xorshift.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize
}

/// Keeps all threads of a pool busy until what it returns is dropped; they are all in their tasks by then.
fn occupy_all(pool: &Pool, width: usize) -> Vec<Sender<()>> {
    let met = Arc::new(Barrier::new(width + 1));
    let gates = (0..width).map(|_| {
        let met = met.clone();
        let (gate, wait) = mpsc::channel::<()>();
        let task = move || {
            meet(&met);
            wait.recv().unwrap_err();
        };
        pool.execute(task).unwrap();
        gate
    });
    let gates = gates.collect();
    meet(&met);
    gates
}

fn await_one(receiver: &Receiver<()>) {
    receiver.recv().expect("a task that was accepted runs");
}

fn reporter(done: &Sender<()>) -> impl FnOnce() + Send + 'static {
    let done = done.clone();
    move || done.send(()).unwrap()
}

/// Accepted and run tasks.
#[derive(Default)]
struct Count {
    accepted: AtomicUsize,
    ran: AtomicUsize,
}

impl Count {
    /// Submits a task that counts itself and submits two others, `depth` levels deep. Says whether it was accepted.
    fn submit(self: &Arc<Self>, pool: &Pool, depth: usize) -> bool {
        let me = self.clone();
        let task = move || {
            me.ran.fetch_add(1, SeqCst);
            if depth > 0 {
                let pool = Pool::current().unwrap();
                (0..2).for_each(|_| assert!(me.submit(&pool, depth - 1), "a draining pool takes follow-ups"));
            }
        };
        let is_accepted = pool.execute(task).is_ok();
        self.accepted.fetch_add(is_accepted.into(), SeqCst);
        is_accepted
    }
}

#[test]
fn many_producers_their_follow_ups_and_a_close_lose_no_task() {
    let _tidy = tidy();
    within(|| {
        let mut seed = 0x5eed;
        for round in 0..40 {
            let pool = pool(WIDTHS[round % WIDTHS.len()]);
            let count = Arc::new(Count::default());
            let start = Arc::new(Barrier::new(3));
            let close_after = next(&mut seed) % 200;
            let (close, may_close) = mpsc::channel();
            let producers = [0, 1, 2].map(|depth| {
                let (pool, count, start, close) = (pool.clone(), count.clone(), start.clone(), close.clone());
                thread::spawn(move || {
                    meet(&start);
                    // No more than the others can keep up with.
                    let mut sent = 0_usize;
                    while count.submit(&pool, depth) {
                        if sent == close_after {
                            close.send(()).unwrap();
                        }
                        sent += 1;
                        while count.ran.load(SeqCst) + 100 < sent && !pool.is_closed() {
                            thread::yield_now();
                        }
                    }
                })
            });
            may_close.recv().unwrap(); // All of them are at it.
            pool.close();
            producers.into_iter().for_each(|producer| producer.join().unwrap());
            let stats = pool.shutdown().stats().clone();
            let (accepted, ran) = (count.accepted.load(SeqCst), count.ran.load(SeqCst));
            assert_eq!((accepted, stats.completed), (ran, ran as u64), "{stats:?}");
            assert_adds_up(&stats);
        }
    });
}

#[test]
fn every_task_of_a_burst_runs_though_workers_have_dozed_or_slept_since_the_last() {
    let _tidy = tidy();
    within(|| {
        let mut seed = 0xb0b;
        for width in WIDTHS {
            let pool = pool(width);
            let (done, is_done) = mpsc::channel();
            for round in 0..300 {
                let tasks = 1 + next(&mut seed) % if round % 10 == 0 { 600 } else { 5 };
                (0..tasks).for_each(|_| pool.execute(reporter(&done)).unwrap());
                (0..tasks).for_each(|_| await_one(&is_done));
                // Not to wait for anything: it is the pause that decides how far the workers have got.
                match next(&mut seed) % 4 {
                    0 => {}
                    1 => (0..next(&mut seed) % 30).for_each(|_| thread::yield_now()),
                    2 => thread::sleep(Duration::from_micros(next(&mut seed) as u64 % 300)),
                    _ => pool.wait_idle(),
                }
            }
            assert!(pool.shutdown().stats().panicked == 0);
        }
    });
}

/// Queues a task that does not end before the five behind it have run, and then reports.
fn queue_behind_a_long_task(pool: &Pool, done: &Sender<()>) {
    let (inner, behind) = mpsc::channel();
    let end = reporter(done);
    let long = move || {
        (0..5).for_each(|_| await_one(&behind));
        end();
    };
    pool.execute(long).unwrap();
    (0..5).for_each(|_| pool.execute(reporter(&inner)).unwrap());
}

/// What the other worker of two does when a batch comes whose first task waits for all behind it.
fn run_behind_a_long_task(prepare: impl Fn(&Pool, &Sender<()>, &Receiver<()>) + Send + 'static) {
    within(move || {
        let pool = pool(2);
        drop(occupy_all(&pool, 2));
        let (done, is_done) = mpsc::channel();
        for _ in 0..200 {
            prepare(&pool, &done, &is_done);
            queue_behind_a_long_task(&pool, &done);
            await_one(&is_done);
        }
        pool.shutdown();
    });
}

#[test]
fn a_sleeping_worker_comes_for_what_lies_behind_a_long_task() {
    let _tidy = tidy();
    run_behind_a_long_task(|pool, _, _| {
        while pool.stats().idle < 2 {
            thread::yield_now();
        }
    });
}

#[test]
fn a_lingering_worker_comes_for_what_lies_behind_a_long_task() {
    let _tidy = tidy();
    run_behind_a_long_task(|pool, done, is_done| {
        pool.execute(reporter(done)).unwrap();
        await_one(is_done);
    });
}

#[test]
fn a_dozing_worker_comes_for_what_lies_behind_a_long_task() {
    let _tidy = tidy();
    run_behind_a_long_task(|pool, done, is_done| {
        // A stream of tasks that one of two keeps up with: the other looks away for a while.
        (0..300).for_each(|_| pool.execute(reporter(done)).unwrap());
        (0..300).for_each(|_| await_one(is_done));
    });
}

#[test]
fn a_busy_worker_comes_for_what_lies_behind_a_long_task() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let mut gates = occupy_all(&pool, 2);
        let (done, is_done) = mpsc::channel();
        queue_behind_a_long_task(&pool, &done);
        // One takes a batch, and is in its first task while the other is still busy.
        gates.pop();
        while pool.stats().running < 2 || pool.stats().completed < 1 {
            thread::yield_now();
        }
        drop(gates);
        await_one(&is_done);
        pool.shutdown();
    });
}

/// Tasks that submit themselves again until they are told to stop, as many at a time as there are workers.
struct Chains(Arc<AtomicBool>);

impl Chains {
    fn start(pool: &Pool, count: usize) -> Chains {
        fn link(stop: Arc<AtomicBool>, begun: Option<Sender<()>>) {
            if let Some(begun) = begun {
                begun.send(()).unwrap();
            }
            if !stop.load(SeqCst) {
                Pool::current().unwrap().execute(move || link(stop, None)).unwrap();
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, has_begun) = mpsc::channel();
        for _ in 0..count {
            let (stop, begun) = (stop.clone(), begun.clone());
            pool.execute(move || link(stop, Some(begun))).unwrap();
        }
        (0..count).for_each(|_| await_one(&has_begun));
        Chains(stop)
    }
}

impl Drop for Chains {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn endless_chains_of_follow_ups_do_not_starve_those_outside() {
    let _tidy = tidy();
    within(|| {
        for width in [1, 2] {
            let pool = pool(width);
            let chains = Chains::start(&pool, width);
            let (done, is_done) = mpsc::channel();
            for _ in 0..20 {
                (0..50).for_each(|_| pool.execute(reporter(&done)).unwrap());
                (0..50).for_each(|_| await_one(&is_done));
            }
            drop(chains);
            pool.shutdown();
        }
    });
}

#[test]
fn an_endless_chain_of_follow_ups_does_not_starve_those_of_a_task_that_waits_for_them() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        drop(occupy_all(&pool, 2));
        let chain = Chains::start(&pool, 1);
        let (done, is_done) = mpsc::channel();
        let waits = move || {
            let (inner, behind) = mpsc::channel();
            let pool = Pool::current().unwrap();
            (0..10).for_each(|_| pool.execute(reporter(&inner)).unwrap());
            (0..10).for_each(|_| await_one(&behind));
            done.send(()).unwrap();
        };
        pool.execute(waits).unwrap();
        await_one(&is_done);
        drop(chain);
        pool.shutdown();
    });
}

#[test]
fn an_endless_stream_from_outside_does_not_starve_those_of_a_task_that_waits_for_them() {
    let _tidy = tidy();
    within(|| {
        let pool = pool(2);
        let (began, has_begun) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let waits = move || {
            began.send(()).unwrap();
            wait.recv().unwrap_err();
            let (inner, behind) = mpsc::channel();
            let pool = Pool::current().unwrap();
            (0..10).for_each(|_| pool.execute(reporter(&inner)).unwrap());
            (0..10).for_each(|_| await_one(&behind));
        };
        let handle = pool.spawn(waits).unwrap();
        await_one(&has_begun);
        // The injector is never empty: a task of the stream ends when enough others are queued behind it.
        let queued = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let producer = {
            let (pool, queued, is_over) = (pool.clone(), queued.clone(), is_over.clone());
            thread::spawn(move || {
                while !is_over.load(SeqCst) {
                    if queued.load(SeqCst) >= 1000 {
                        thread::yield_now();
                        continue;
                    }
                    queued.fetch_add(1, SeqCst);
                    let queued = queued.clone();
                    let task = move || {
                        while queued.load(SeqCst) < 300 && !is_over_of(&queued) {
                            thread::yield_now();
                        }
                        queued.fetch_sub(1, SeqCst);
                    };
                    pool.execute(task).unwrap();
                }
                queued.fetch_add(OVER, SeqCst);
            })
        };
        while queued.load(SeqCst) < 500 {
            thread::yield_now();
        }
        drop(go);
        handle.join().unwrap();
        is_over.store(true, SeqCst);
        producer.join().unwrap();
        pool.shutdown();
    });
}

/// Added to a count to say that nothing is added any more.
const OVER: usize = 1 << 32;

fn is_over_of(queued: &AtomicUsize) -> bool {
    queued.load(SeqCst) >= OVER
}

#[test]
fn a_task_may_submit_more_follow_ups_than_its_worker_has_room_for() {
    let _tidy = tidy();
    const FOLLOW_UPS: usize = 10_000;
    within(|| {
        for width in WIDTHS {
            let pool = pool(width);
            let ran: Arc<Vec<AtomicUsize>> = Arc::new((0..FOLLOW_UPS).map(|_| AtomicUsize::new(0)).collect());
            let all = ran.clone();
            let parent = move || {
                let pool = Pool::current().unwrap();
                for n in 0..FOLLOW_UPS {
                    let all = all.clone();
                    let child = move || {
                        all[n].fetch_add(1, SeqCst);
                    };
                    pool.execute(child).unwrap();
                }
            };
            pool.execute(parent).unwrap();
            pool.close();
            let stats = pool.shutdown().stats().clone();
            assert_eq!(stats.completed, 1 + FOLLOW_UPS as u64);
            assert!(ran.iter().all(|runs| runs.load(SeqCst) == 1));
        }
    });
}

#[test]
fn one_thread_keeps_its_order_when_a_task_in_a_batch_is_blocked_and_comes_back() {
    let _tidy = tidy();
    within(|| {
        for _ in 0..20 {
            let (pool, other) = (pool(1), pool(1));
            let other_gate = occupy_all(&other, 1);
            let gates = occupy_all(&pool, 1);
            let order = Arc::new(Mutex::new(Vec::new()));
            let running = Arc::new(AtomicUsize::new(0));
            let note = |n: usize| {
                let (order, running) = (order.clone(), running.clone());
                move || {
                    order.lock().unwrap().push(n);
                    // The blocked task does not count.
                    assert_eq!(running.fetch_add(1, SeqCst), 0, "task {n} began while another ran");
                    (0..50).for_each(|_| thread::yield_now());
                    running.fetch_sub(1, SeqCst);
                }
            };
            let begin = note(0);
            let (came_back, is_back) = mpsc::channel();
            let blocked = move || {
                begin();
                other.wait_idle();
                came_back.send(()).unwrap();
            };
            pool.execute(blocked).unwrap();
            let first = note(1);
            // Runs on a substitute, and lets the blocked one go.
            let release = move || {
                drop(other_gate);
                await_one(&is_back);
                first();
            };
            pool.execute(release).unwrap();
            (2..400).for_each(|n| pool.execute(note(n)).unwrap());
            drop(gates);
            let stats = pool.shutdown().stats().clone();
            assert_eq!(stats.panicked, 0, "{stats:?}");
            assert_eq!(*order.lock().unwrap(), (0..400).collect::<Vec<_>>());
        }
    });
}
