//! The queue's protocols, in every order in which threads may take their steps and see each other's writes.
//!
//! `RUSTFLAGS="--cfg winddown_model" cargo test --release --lib queue::model` builds the queue itself, not a copy of it,
//! with [loom](https://docs.rs/loom)'s primitives: injector, deques and [`Queue`] are those of the pool, with blocks of
//! two slots and deques of two, so that both wrap. What stands in for the pool here is the lock, the sleep, and the order
//! in which the pool calls the queue's methods: `submit` and `work` below are `Core::submit` and `Core::next` without
//! their bookkeeping. A lost wake-up shows as a deadlock, a lost task as a count, a torn one as overlapping accesses of a
//! cell.
//!
//! The searches are bounded: at most [`PREEMPTIONS`] switches away from a thread that could go on, which loom's authors
//! found to be where bugs show.
#![allow(unsafe_code)]

use super::deque::{Deque, OwnEnd};
use super::injector::{Draft, Injector, Pushed};
use super::{Intake, Queue, BELL};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
use loom::thread;

const PREEMPTIONS: usize = 3;

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

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// The pool around a queue.
struct Pool {
    injector: Injector<Task>,
    queue: Mutex<Queue<Task>>,
    beds: [Condvar; 2],
    /// Tasks that were run.
    ran: AtomicUsize,
}

impl Pool {
    /// A pool with threads that are there already, and their own ends.
    fn new<const N: usize>() -> (Arc<Pool>, [OwnEnd<Task>; N]) {
        let (mut queue, injector) = Queue::new(false, None);
        // The first block comes with the first task, which is there before the gate opens.
        queue.push(&injector, task(0));
        assert_eq!(queue.take_one(&injector).as_deref(), Some(&0));
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
            ran: AtomicUsize::new(0),
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
        if queue.intake() != Intake::Open {
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
    fn work(&self, id: usize, own: &OwnEnd<Task>, run: impl Fn(Task)) {
        loop {
            while let Some(task) = own.pop() {
                self.run(task, &run);
            }
            let mut queue = self.lock();
            loop {
                if let Some(supply) = queue.refill(&self.injector, own) {
                    let called = queue.settle_with(&self.injector, supply.has_more());
                    self.wake(queue, called);
                    let (task, has_bell) = supply.unload(own);
                    if has_bell {
                        self.answer_bell(Some(own.deque()));
                    }
                    self.run(task, &run);
                    break;
                }
                if queue.intake() == Intake::Closed {
                    return;
                }
                if !queue.lie_down(&self.injector, id) {
                    drop(queue);
                    thread::yield_now();
                    queue = self.lock();
                    continue;
                }
                loop {
                    if queue.answer(id) {
                        break;
                    }
                    if queue.intake() == Intake::Closed {
                        queue.get_up(id);
                        break;
                    }
                    queue = self.beds[id].wait(queue).unwrap();
                }
            }
        }
    }

    fn run(&self, task: Task, run: &impl Fn(Task)) {
        run(task);
        self.ran.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes for good, for a pool that everything was submitted to. What is queued stays there.
    fn close(&self) {
        self.lock().narrow(&self.injector, Intake::Closed, true);
        self.beds.iter().for_each(Condvar::notify_one);
    }

    fn ran(&self) -> usize {
        self.ran.load(Ordering::Relaxed)
    }
}

#[test]
fn a_push_comes_before_the_gate_or_is_refused() {
    explore(|| {
        let (pool, []) = Pool::new();
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
    explore(|| {
        let (pool, []) = Pool::new();
        let producer = {
            let pool = pool.clone();
            thread::spawn(move || (1..=3).for_each(|n| assert!(pool.submit(n))))
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
        assert_eq!(taken, [1, 2, 3], "in order, each once");
    });
}

#[test]
fn a_worker_that_lies_down_misses_no_push() {
    explore(|| {
        let (pool, [own]) = Pool::new();
        let worker = {
            let pool = pool.clone();
            thread::spawn(move || pool.work(0, &own, |_| ()))
        };
        let producer = {
            let pool = pool.clone();
            thread::spawn(move || assert!(pool.submit(1)))
        };
        assert!(pool.submit(2));
        producer.join().unwrap();
        // Not closed before they have run: that nobody wakes the worker but the pushes is the point.
        while pool.ran() < 2 {
            thread::yield_now();
        }
        pool.close();
        worker.join().unwrap();
    });
}

#[test]
fn what_a_task_pushes_to_its_own_worker_calls_a_sleeping_one() {
    explore(|| {
        let (pool, [own, other]) = Pool::new();
        let sleeper = {
            let pool = pool.clone();
            thread::spawn(move || pool.work(1, &other, |_| ()))
        };
        // A task that submits another and then does not end before that one has run elsewhere.
        assert!(pool.submit_to_own(&own, 1));
        while pool.ran() < 1 {
            thread::yield_now();
        }
        pool.close();
        sleeper.join().unwrap();
    });
}

#[test]
fn one_called_worker_calls_the_next() {
    explore(|| {
        let (pool, ends) = Pool::new::<2>();
        let mut id = 0;
        let workers = ends.map(|own| {
            let (pool, worker) = (pool.clone(), id);
            id += 1;
            // Neither task ends before both have begun.
            thread::spawn(move || {
                pool.work(worker, &own, |_| {
                    pool.ran.fetch_add(10, Ordering::Relaxed);
                    while pool.ran() < 20 {
                        thread::yield_now();
                    }
                });
            })
        });
        assert!(pool.submit(1));
        assert!(pool.submit(2));
        while pool.ran() < 22 {
            thread::yield_now();
        }
        pool.close();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn an_item_is_taken_once_from_either_end_of_a_deque() {
    explore(|| {
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
        kept.extend(thief.join().unwrap());
        kept.sort_unstable();
        assert_eq!(kept, [1, 2, 3, 4]);
    });
}

#[test]
fn a_push_to_a_deque_comes_before_its_gate_or_comes_back() {
    explore(|| {
        let (pool, [own]) = Pool::new();
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
    explore(|| {
        let (pool, [own]) = Pool::new();
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
        // At the gate, with no thread left, a task would start one: here it is left for the count below.
        assert!(pool.submit(1));
        let ran = worker.join().unwrap();
        let left = pool.lock().take_all(&pool.injector).len();
        assert_eq!(ran + left, 1);
        if left == 1 {
            assert!(
                matches!(pool.injector.push(task(2)), Pushed::Refused(_)),
                "whoever comes finds the gate"
            );
        }
    });
}
