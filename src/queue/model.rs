//! The queue's protocols, in every order in which threads may take their steps and see each other's writes.
//!
//! `cargo test --profile models -p models --features loom queue::model` builds the queue itself, not a copy of it,
//! with [loom](https://docs.rs/loom)'s primitives: injector, deques and [`Queue`] are those of the pool, with blocks of
//! two slots and deques of two, so that both wrap. What stands in for the pool here is the lock, the sleep, and the order
//! in which the pool calls the queue's methods: `submit` and `work` below are `Core::submit` and `Core::next` without
//! their bookkeeping. A lost wake-up shows as a deadlock, a lost task as a count, a torn one as overlapping accesses of a
//! cell.
//!
//! Whoever waits for a task to be run is blocked, so that every execution ends; a time-out is something that a thread does
//! whenever it likes. The searches are bounded: each model says how many switches away from a thread that could go on it
//! tries, two or three in most of them, which loom's authors found to be where bugs show. `tests/mutations/run` breaks the protocols one at a
//! time and expects a model to fail.
#![allow(unsafe_code)]

use super::deque::{Deque, OwnEnd};
use super::injector::{Draft, Haul, Injector, Pushed};
use super::{Intake, Queue, Supply, BELL};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;

type Task = Box<usize>;

struct Plain(Task);

// SAFETY: `make_in` writes a task.
unsafe impl Draft<Task> for Plain {
    unsafe fn make_in(self, place: *mut Task) {
        // SAFETY: the caller says that the place is valid for a write.
        unsafe { place.write(self.0) };
    }

    unsafe fn unmake(place: *mut Task) -> Plain {
        // SAFETY: the caller says that the task was made there, and nobody else uses it.
        Plain(unsafe { place.read() })
    }
}

fn task(n: usize) -> Plain {
    Plain(Box::new(n))
}

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// The pool around a queue.
struct Pool {
    injector: Injector<Task>,
    queue: Mutex<Queue<Task>>,
    beds: [Condvar; 2],
    /// Tasks that have begun, and that have ended.
    progress: Mutex<(usize, usize)>,
    progressed: Condvar,
}

/// What a worker does that has found nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It lies down.
    Sleep,
    /// It is on the lookout for a while first: it lingers, or dozes until its time is up.
    LookOut,
}

impl Pool {
    /// A pool with threads that are there already, and their own ends. Its first block is full and taken; the second is
    /// linked.
    fn new<const N: usize>() -> (Arc<Pool>, [OwnEnd<Task>; N]) {
        Pool::with_history(2)
    }

    /// The same, after so many tasks.
    fn with_history<const N: usize>(tasks: usize) -> (Arc<Pool>, [OwnEnd<Task>; N]) {
        let (mut queue, injector) = Queue::new(false, None);
        // The first block comes with the first task, which is there before the gate opens.
        for n in 0..tasks {
            queue.push(&injector, task(n));
            assert_eq!(queue.take_one(&injector).as_deref(), Some(&n));
        }
        let ends = std::array::from_fn(|_| queue.add_worker(false));
        queue.open(&injector);
        injector.clear(BELL);
        for end in &ends {
            end.deque().clear(BELL);
        }
        let pool = Pool {
            injector,
            queue: Mutex::new(queue),
            beds: [Condvar::new(), Condvar::new()],
            progress: Mutex::new((0, 0)),
            progressed: Condvar::new(),
        };
        (Arc::new(pool), ends)
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Task>> {
        self.queue.lock().unwrap()
    }

    /// Says whether the task was accepted.
    fn submit(&self, n: usize) -> bool {
        match self.injector.push(task(n)) {
            Pushed::Quietly => true,
            Pushed::WithBell => self.answer_bell(None),
            Pushed::Refused(_) => self.submit_at_gate(n),
        }
    }

    fn submit_to_own(&self, own: &OwnEnd<Task>, n: usize) -> bool {
        match own.push(task(n)) {
            Pushed::Quietly => true,
            Pushed::WithBell => self.answer_bell(Some(own.deque())),
            Pushed::Refused(back) => {
                assert_eq!(*back.0, n, "what comes back is what was given");
                self.submit(n)
            }
        }
    }

    fn submit_at_gate(&self, n: usize) -> bool {
        let mut queue = self.lock();
        if queue.intake() == Intake::Closed {
            return false;
        }
        queue.push(&self.injector, task(n));
        self.call(queue);
        true
    }

    fn answer_bell(&self, deque: Option<&Deque<Task>>) -> bool {
        let mut queue = self.lock();
        let called = queue.settle(&self.injector);
        if !queue.needs_bell() {
            match deque {
                None => self.injector.clear(BELL),
                Some(deque) => deque.clear(BELL),
            }
        }
        self.wake(queue, called);
        true
    }

    fn call(&self, mut queue: MutexGuard<'_, Queue<Task>>) {
        let called = queue.settle(&self.injector);
        self.wake(queue, called);
    }

    fn wake(&self, queue: MutexGuard<'_, Queue<Task>>, called: Option<usize>) {
        drop(queue);
        if let Some(called) = called {
            self.beds[called].notify_one();
        }
    }

    /// A worker's life, until the pool is closed and empty.
    fn work(&self, id: usize, own: &OwnEnd<Task>, rest: Rest, run: impl Fn(Task)) {
        loop {
            while let Some(task) = own.pop() {
                self.run(task, &run);
            }
            let mut queue = self.lock();
            let mut has_looked_out = rest == Rest::Sleep;
            loop {
                if let Some(supply) = queue.refill(&self.injector, own) {
                    self.run(self.begin(queue, supply, own), &run);
                    break;
                }
                if queue.intake() == Intake::Closed {
                    return;
                }
                if !has_looked_out && queue.look_out(id) {
                    has_looked_out = true;
                    drop(queue);
                    queue = self.lock();
                    queue.answer(id);
                    continue;
                }
                if !queue.lie_down(&self.injector, id) {
                    drop(queue);
                    thread::yield_now();
                    queue = self.lock();
                    continue;
                }
                queue = self.sleep(id, queue);
            }
        }
    }

    /// A worker that has lain down waits until it is called, or the pool is closed.
    fn sleep<'a>(&'a self, id: usize, mut queue: MutexGuard<'a, Queue<Task>>) -> MutexGuard<'a, Queue<Task>> {
        loop {
            if queue.answer(id) {
                return queue;
            }
            if queue.intake() == Intake::Closed {
                queue.get_up(id);
                return queue;
            }
            queue = self.beds[id].wait(queue).unwrap();
        }
    }

    /// Ends the critical section in which a worker has taken these. Returns the first.
    fn begin(
        &self,
        mut queue: MutexGuard<'_, Queue<Task>>,
        supply: Supply<'_, Task>,
        own: &OwnEnd<Task>,
    ) -> Task {
        let called = queue.settle_with(&self.injector, supply.has_more());
        self.wake(queue, called);
        let (task, has_bell) = supply.unload(own);
        if has_bell {
            self.answer_bell(Some(own.deque()));
        }
        task
    }

    fn run(&self, task: Task, run: &impl Fn(Task)) {
        self.change(|(begun, _)| *begun += 1);
        run(task);
        self.change(|(_, ended)| *ended += 1);
    }

    fn change(&self, change: impl FnOnce(&mut (usize, usize))) {
        change(&mut self.progress.lock().unwrap());
        self.progressed.notify_all();
    }

    fn wait_until(&self, holds: impl Fn((usize, usize)) -> bool) {
        let mut progress = self.progress.lock().unwrap();
        while !holds(*progress) {
            progress = self.progressed.wait(progress).unwrap();
        }
    }

    /// Waits until so many tasks have run. Then closes the pool: not before, since that wakes everybody.
    fn close_after(&self, tasks: usize) {
        self.wait_until(|(_, ended)| ended == tasks);
        self.close();
    }

    /// Closes for good, for a pool that everything was submitted to. What is queued stays there.
    fn close(&self) {
        self.lock().narrow(&self.injector, Intake::Closed, true);
        self.beds.iter().for_each(Condvar::notify_one);
    }
}

#[test]
fn a_push_comes_before_the_gate_or_is_refused() {
    explore(3, || {
        let (pool, []) = Pool::with_history(1);
        let producers = [1, 2].map(|n| {
            let pool = pool.clone();
            thread::spawn(move || usize::from(matches!(pool.injector.push(task(n)), Pushed::Quietly)))
        });
        let taken = {
            let mut queue = pool.lock();
            queue.narrow(&pool.injector, Intake::Closed, true);
            let accepted = queue.accepted(&pool.injector) - 1;
            let taken = queue.take_all(&pool.injector).len();
            assert_eq!(accepted, taken as u64, "who shuts the gate finds all that came before it");
            taken
        };
        let accepted: usize = producers.into_iter().map(|producer| producer.join().unwrap()).sum();
        assert_eq!(accepted, taken);
    });
}

#[test]
fn blocks_are_linked_and_given_back_while_producers_push() {
    explore(3, || {
        let (pool, []) = Pool::with_history(1);
        let producer = {
            let pool = pool.clone();
            thread::spawn(move || (1..=4).for_each(|n| assert!(pool.submit(n))))
        };
        let mut taken = Vec::new();
        while taken.len() < 2 {
            match pool.lock().take_one(&pool.injector) {
                Some(task) => taken.push(*task),
                None => thread::yield_now(),
            }
        }
        producer.join().unwrap();
        taken.extend(pool.lock().take_all(&pool.injector).into_iter().map(|task| *task));
        assert_eq!(taken, [1, 2, 3, 4], "in order, each once");
    });
}

/// Two take the items of one block, and a producer that needs a block gets that one.
#[test]
fn a_block_is_given_back_when_all_have_done_with_it() {
    explore(2, || {
        let (pool, []) = Pool::new();
        assert!(pool.submit(1) && pool.submit(2));
        let take = |pool: &Pool| {
            let haul = pool.injector.haul(&mut pool.lock().front, 1);
            haul.and_then(Haul::unload_one).map(|task| *task)
        };
        let taker = {
            let pool = pool.clone();
            thread::spawn(move || take(&pool))
        };
        let producer = {
            let pool = pool.clone();
            thread::spawn(move || (3..=5).for_each(|n| assert!(pool.submit(n))))
        };
        let taken = [take(&pool), taker.join().unwrap()];
        assert!(matches!(taken, [Some(1), Some(2)] | [Some(2), Some(1)]), "{taken:?}");
        producer.join().unwrap();
        let rest = pool.lock().take_all(&pool.injector);
        assert!(rest.into_iter().map(|task| *task).eq(3..=5));
    });
}

#[test]
fn a_worker_that_rests_misses_no_push() {
    for rest in [Rest::Sleep, Rest::LookOut] {
        explore(3, move || {
            let (pool, [own]) = Pool::new();
            let worker = {
                let pool = pool.clone();
                thread::spawn(move || pool.work(0, &own, rest, |_| ()))
            };
            assert!(pool.submit(1));
            assert!(pool.submit(2));
            pool.close_after(2);
            worker.join().unwrap();
        });
    }
}

#[test]
fn a_worker_that_lies_down_misses_none_of_two_producers() {
    explore(2, || {
        let (pool, [own]) = Pool::new();
        let worker = {
            let pool = pool.clone();
            thread::spawn(move || pool.work(0, &own, Rest::Sleep, |_| ()))
        };
        let producer = {
            let pool = pool.clone();
            thread::spawn(move || assert!(pool.submit(1)))
        };
        assert!(pool.submit(2));
        pool.close_after(2);
        producer.join().unwrap();
        worker.join().unwrap();
    });
}

/// A push that finds the bell set may come for the lock when the worker that another one called has long run both tasks, and
/// sleeps again: then the bell is for the next push.
#[test]
fn a_bell_that_is_answered_late_is_left_to_one_who_sleeps_again() {
    explore(1, || {
        let (pool, [own]) = Pool::new();
        assert!(pool.lock().lie_down(&pool.injector, 0));
        let late = {
            let pool = pool.clone();
            thread::spawn(move || assert!(pool.submit(1)))
        };
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                assert!(pool.submit(2));
                pool.wait_until(|(_, ended)| ended == 2);
                assert!(pool.submit(3));
                pool.close_after(3);
            })
        };
        drop(pool.sleep(0, pool.lock()));
        pool.work(0, &own, Rest::Sleep, |_| ());
        late.join().unwrap();
        other.join().unwrap();
    });
}

/// Who lies down meanwhile relies on the one that is on the lookout to arm the queue.
#[test]
fn a_worker_that_lies_down_beside_one_on_the_lookout_misses_no_push() {
    explore(2, || {
        let (pool, [first, second]) = Pool::new();
        let workers = [(0, first, Rest::LookOut), (1, second, Rest::Sleep)].map(|(id, own, rest)| {
            let pool = pool.clone();
            thread::spawn(move || pool.work(id, &own, rest, |_| ()))
        });
        assert!(pool.submit(1));
        pool.close_after(1);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn what_a_task_pushes_to_its_own_worker_calls_another() {
    for rest in [Rest::Sleep, Rest::LookOut] {
        explore(4, move || {
            let (pool, [own, other]) = Pool::new();
            let sleeper = {
                let pool = pool.clone();
                thread::spawn(move || pool.work(1, &other, rest, |_| ()))
            };
            // A task that submits another and then does not end before that one has run elsewhere.
            assert!(pool.submit_to_own(&own, 1));
            pool.close_after(1);
            sleeper.join().unwrap();
        });
    }
}

#[test]
fn one_called_worker_calls_the_next() {
    explore(1, || {
        let (pool, ends) = Pool::new::<2>();
        let mut id = 0;
        let workers = ends.map(|own| {
            let (pool, worker) = (pool.clone(), id);
            id += 1;
            // Neither task ends before both have begun.
            thread::spawn(move || {
                pool.work(worker, &own, Rest::Sleep, |_| pool.wait_until(|(begun, _)| begun == 2));
            })
        });
        assert!(pool.submit(1));
        assert!(pool.submit(2));
        pool.close_after(2);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

/// The first task of a batch does not end before the second has run: on another worker, which sleeps, or looks for tasks
/// while these are in nobody's queue.
#[test]
fn the_rest_of_a_batch_calls_another_worker() {
    for rest in [Rest::Sleep, Rest::LookOut] {
        explore(3, move || {
            let (pool, [own, other]) = Pool::new();
            assert!(pool.submit(1) && pool.submit(2));
            let supply = |queue: &mut Queue<Task>| pool.injector.haul(&mut queue.front, 2).map(Supply::Many);
            let mut queue = pool.lock();
            let supply = supply(&mut queue).unwrap();
            assert!(supply.has_more());
            drop(queue);
            let worker = {
                let pool = pool.clone();
                thread::spawn(move || pool.work(1, &other, rest, |_| ()))
            };
            let queue = pool.lock();
            assert_eq!(*pool.begin(queue, supply, &own), 1);
            pool.close_after(1);
            worker.join().unwrap();
        });
    }
}

/// A deadline takes what is queued while a worker is on its way with some of it.
#[test]
fn a_deadline_finds_what_a_worker_hauls() {
    explore(5, || {
        let (pool, [own]) = Pool::new();
        assert!(pool.submit(1) && pool.submit(2));
        let worker = {
            let pool = pool.clone();
            thread::spawn(move || pool.work(0, &own, Rest::Sleep, |_| ()))
        };
        let mut queue = pool.lock();
        queue.narrow(&pool.injector, Intake::Closed, true);
        let taken = queue.take_all(&pool.injector).len();
        assert!(queue.is_empty(&pool.injector));
        drop(queue);
        pool.beds[0].notify_one();
        worker.join().unwrap();
        assert_eq!(pool.progress.lock().unwrap().1 + taken, 2, "each was run or is cancelled");
    });
}

/// It was on its way to a task, so that nobody else was called for one, nor did the other that lay down look whether there is one.
#[test]
fn what_a_worker_leaves_behind_is_run_by_another() {
    for tasks in [1, 2] {
        explore(2, move || {
            let (pool, [own, other]) = Pool::new();
            assert!(pool.lock().look_out(0));
            let worker = {
                let pool = pool.clone();
                thread::spawn(move || pool.work(1, &other, Rest::Sleep, |_| ()))
            };
            assert!(pool.submit_to_own(&own, 1));
            let producer = (tasks == 2).then(|| {
                let pool = pool.clone();
                thread::spawn(move || assert!(pool.submit(2)))
            });
            let mut queue = pool.lock();
            queue.remove_worker(own.deque());
            queue.set_bells(&pool.injector);
            queue.answer(0);
            pool.call(queue);
            pool.close_after(tasks);
            producer.into_iter().for_each(|producer| producer.join().unwrap());
            worker.join().unwrap();
        });
    }
}

/// A task counts as finished while it is blocked. When it is back it submits, without the lock, to a pool that somebody
/// closes who has seen it blocked: that is refused, or keeps the pool open.
#[test]
fn a_task_that_is_back_from_a_wait_does_not_submit_to_a_pool_that_was_quiet() {
    explore(5, || {
        let (pool, [own]) = Pool::new();
        pool.lock().narrow(&pool.injector, Intake::Own, false);
        let accepted = pool.lock().accepted(&pool.injector);
        let is_back = Arc::new(AtomicBool::new(false));
        let closer = {
            let (pool, is_back) = (pool.clone(), is_back.clone());
            thread::spawn(move || {
                let mut queue = pool.lock();
                // As `Core::close_if_quiet`: the task that is blocked, then all that were accepted.
                let is_quiet = |queue: &Queue<Task>| {
                    !is_back.load(Ordering::Acquire) && queue.accepted(&pool.injector) == accepted
                };
                queue.gate_own(true);
                let is_closed = is_quiet(&queue);
                if is_closed {
                    queue.narrow(&pool.injector, Intake::Closed, true);
                } else {
                    queue.gate_own(false);
                }
                is_closed
            })
        };
        is_back.store(true, Ordering::Release);
        let is_accepted = pool.submit_to_own(&own, 1);
        let is_closed = closer.join().unwrap();
        assert!(is_accepted != is_closed);
        assert_eq!(pool.lock().accepted(&pool.injector), accepted + u64::from(is_accepted));
        drop(pool.lock().take_all(&pool.injector));
    });
}

#[test]
fn an_item_is_taken_once_from_either_end_of_a_deque() {
    explore(3, || {
        let (pool, [own]) = Pool::new();
        let thief = {
            let (pool, deque) = (pool.clone(), own.deque().clone());
            thread::spawn(move || {
                let mut stolen = Vec::new();
                for _ in 0..2 {
                    deque.steal(&mut pool.lock().front, |_| 1, |task| stolen.push(*task));
                }
                stolen
            })
        };
        let mut kept = Vec::new();
        // Four through a deque of two: places are used again while the thief may still read them.
        for n in 1..=4 {
            if matches!(own.push(task(n)), Pushed::Refused(_)) {
                kept.push(n);
            }
            if n % 2 == 0 {
                kept.extend(own.pop().map(|task| *task));
            }
        }
        while let Some(task) = own.pop_front() {
            kept.push(*task);
        }
        let mut batch = own.batch();
        (5..=6).for_each(|n| batch.add(task(n).0));
        batch.publish();
        while let Some(task) = own.pop() {
            kept.push(*task);
        }
        kept.extend(thief.join().unwrap());
        kept.sort_unstable();
        assert_eq!(kept, [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn a_push_to_a_deque_comes_before_its_gate_or_comes_back() {
    explore(5, || {
        let (pool, [own]) = Pool::with_history(1);
        let closer = {
            let pool = pool.clone();
            thread::spawn(move || {
                let mut queue = pool.lock();
                queue.narrow(&pool.injector, Intake::Closed, true);
                let accepted = queue.accepted(&pool.injector) - 1;
                let taken = queue.take_all(&pool.injector).len() as u64;
                assert!(accepted >= taken);
                taken
            })
        };
        let mut accepted = 0;
        for n in 1..=2 {
            match own.push(task(n)) {
                Pushed::Refused(back) => assert_eq!(*back.0, n),
                Pushed::Quietly | Pushed::WithBell => accepted += 1,
            }
        }
        assert_eq!(closer.join().unwrap(), accepted);
        assert_eq!(pool.lock().accepted(&pool.injector) - 1, accepted);
        assert!(own.pop().is_none());
    });
}

/// The last worker's keep-alive runs out, here whenever it likes, while somebody submits.
#[test]
fn the_last_worker_leaves_only_an_empty_queue_behind_a_gate() {
    explore(5, || {
        let (pool, [own]) = Pool::with_history(1);
        let worker = {
            let pool = pool.clone();
            thread::spawn(move || {
                let mut queue = pool.lock();
                let mut ran = 0;
                loop {
                    while let Some(supply) = queue.refill(&pool.injector, &own) {
                        supply.unload(&own);
                        ran += 1;
                    }
                    if !queue.lie_down(&pool.injector, 0) {
                        drop(queue);
                        thread::yield_now();
                        queue = pool.lock();
                        continue;
                    }
                    // Asleep, and the time is up.
                    drop(queue);
                    queue = pool.lock();
                    if queue.answer(0) {
                        continue;
                    }
                    queue.get_up(0);
                    if queue.gate_if_empty(&pool.injector) {
                        queue.remove_worker(own.deque());
                        return ran;
                    }
                }
            })
        };
        // At the gate, with no thread left, a task starts one. All that came before that is the worker's.
        let is_refused = match pool.injector.push(task(1)) {
            Pushed::Refused(_) => true,
            Pushed::Quietly => false,
            Pushed::WithBell => !pool.answer_bell(None),
        };
        assert_eq!(worker.join().unwrap(), usize::from(!is_refused));
        assert!(matches!(pool.injector.push(task(2)), Pushed::Refused(_)), "whoever comes finds the gate");
    });
}
