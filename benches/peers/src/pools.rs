//! The pools, each through its cheapest calls. Where that took a choice, a comment says so.

use crate::peer::{Drains, Ends, Handles, Peer};
use crate::task::{compute, Words};
use futures::executor::block_on;
use futures::task::SpawnExt;
use std::sync::{mpsc, OnceLock};
use std::thread;

pub(crate) struct Winddown(winddown::Pool);

impl Peer for Winddown {
    fn start(width: usize) -> Winddown {
        Winddown(winddown::Pool::new(width))
    }

    fn home() -> &'static OnceLock<Winddown> {
        static HOME: OnceLock<Winddown> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        self.0.execute(task).expect("the pool is open");
    }

    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| self.spawn(words).join().expect("no task panics")
    }
}

impl Winddown {
    /// The pool itself, for what only winddown is asked.
    pub(crate) fn pool(&self) -> &winddown::Pool {
        &self.0
    }
}

impl Handles for Winddown {
    type Handle = winddown::JoinHandle<u64>;

    #[inline]
    fn spawn(&self, words: Words) -> winddown::JoinHandle<u64> {
        self.0.spawn(move || compute(words)).expect("the pool is open")
    }

    fn join(&self, handles: Vec<winddown::JoinHandle<u64>>) -> u64 {
        handles.into_iter().map(|handle| handle.join().expect("no task panics")).sum()
    }
}

impl Ends for Winddown {
    fn end(self) {
        self.0.shutdown();
    }
}

impl Drains for Winddown {}

pub(crate) struct Rayon(rayon::ThreadPool);

impl Peer for Rayon {
    fn start(width: usize) -> Rayon {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(width);
        Rayon(builder.build().expect("threads can be started"))
    }

    fn home() -> &'static OnceLock<Rayon> {
        static HOME: OnceLock<Rayon> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        self.0.spawn(task);
    }

    /// A channel for each task: the result is back in half the time that `install`, or one channel for all tasks,
    /// takes, back to back; and no later after a pause.
    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| {
            let (sender, result) = mpsc::channel();
            self.0.spawn(move || sender.send(compute(words)).expect("the caller waits"));
            result.recv().expect("the task sends")
        }
    }
}

/// Dropping the pool tells its threads to end and does not wait for them.
impl Ends for Rayon {
    fn end(self) {}
}

pub(crate) struct Threadpool(threadpool::ThreadPool);

impl Peer for Threadpool {
    fn start(width: usize) -> Threadpool {
        Threadpool(threadpool::ThreadPool::new(width))
    }

    fn home() -> &'static OnceLock<Threadpool> {
        static HOME: OnceLock<Threadpool> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        self.0.execute(task);
    }

    /// As for rayon; here it matters less.
    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| {
            let (sender, result) = mpsc::channel();
            self.0.execute(move || sender.send(compute(words)).expect("the caller waits"));
            result.recv().expect("the task sends")
        }
    }
}

/// `join` waits for the tasks; the threads end by themselves once the pool was dropped.
impl Ends for Threadpool {
    fn end(self) {
        self.0.join();
    }
}

impl Drains for Threadpool {}

/// The runtime of the current thread, as `spawn_blocking` needs no other threads than its own. Its handle waits a little
/// faster than the runtime does, which would run other tasks meanwhile.
pub(crate) struct Tokio(tokio::runtime::Runtime);

impl Peer for Tokio {
    fn start(width: usize) -> Tokio {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(width).build();
        Tokio(runtime.expect("a runtime can be built"))
    }

    fn home() -> &'static OnceLock<Tokio> {
        static HOME: OnceLock<Tokio> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        self.0.spawn_blocking(task);
    }

    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| self.0.handle().block_on(self.spawn(words)).expect("no task panics")
    }
}

impl Handles for Tokio {
    type Handle = tokio::task::JoinHandle<u64>;

    #[inline]
    fn spawn(&self, words: Words) -> tokio::task::JoinHandle<u64> {
        self.0.spawn_blocking(move || compute(words))
    }

    fn join(&self, handles: Vec<tokio::task::JoinHandle<u64>>) -> u64 {
        self.0.handle().block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.expect("no task panics");
            }
            sum
        })
    }
}

/// Dropping the runtime joins its threads, but tasks that are queued are given up.
impl Ends for Tokio {
    fn end(self) {}
}

pub(crate) struct RustyPool(rusty_pool::ThreadPool);

impl Peer for RustyPool {
    fn start(width: usize) -> RustyPool {
        RustyPool(rusty_pool::Builder::new().core_size(width).max_size(width).build())
    }

    fn home() -> &'static OnceLock<RustyPool> {
        static HOME: OnceLock<RustyPool> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        self.0.execute(task);
    }

    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| self.spawn(words).await_complete()
    }
}

impl Handles for RustyPool {
    type Handle = rusty_pool::JoinHandle<u64>;

    #[inline]
    fn spawn(&self, words: Words) -> rusty_pool::JoinHandle<u64> {
        self.0.evaluate(move || compute(words))
    }

    fn join(&self, handles: Vec<rusty_pool::JoinHandle<u64>>) -> u64 {
        handles.into_iter().map(rusty_pool::JoinHandle::await_complete).sum()
    }
}

impl Ends for RustyPool {
    fn end(self) {
        self.0.shutdown_join();
    }
}

impl Drains for RustyPool {}

/// The one pool of the process. `BLOCKING_MAX_THREADS` sets its width, and whoever starts the process sets that.
pub(crate) struct Blocking;

impl Peer for Blocking {
    fn start(_width: usize) -> Blocking {
        Blocking
    }

    fn home() -> &'static OnceLock<Blocking> {
        static HOME: OnceLock<Blocking> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        blocking::unblock(task).detach();
    }

    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| block_on(self.spawn(words))
    }
}

impl Handles for Blocking {
    type Handle = blocking::Task<u64>;

    #[inline]
    fn spawn(&self, words: Words) -> blocking::Task<u64> {
        blocking::unblock(move || compute(words))
    }

    fn join(&self, handles: Vec<blocking::Task<u64>>) -> u64 {
        block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += handle.await;
            }
            sum
        })
    }
}

pub(crate) struct Futures(futures::executor::ThreadPool);

impl Peer for Futures {
    fn start(width: usize) -> Futures {
        let pool = futures::executor::ThreadPoolBuilder::new().pool_size(width).create();
        Futures(pool.expect("threads can be started"))
    }

    fn home() -> &'static OnceLock<Futures> {
        static HOME: OnceLock<Futures> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        self.0.spawn_ok(async { task() });
    }

    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| block_on(self.spawn(words))
    }
}

impl Handles for Futures {
    type Handle = futures::future::RemoteHandle<u64>;

    #[inline]
    fn spawn(&self, words: Words) -> futures::future::RemoteHandle<u64> {
        self.0.spawn_with_handle(async move { compute(words) }).expect("the pool takes tasks")
    }

    fn join(&self, handles: Vec<futures::future::RemoteHandle<u64>>) -> u64 {
        block_on(async {
            let mut sum = 0;
            for handle in handles {
                sum += handle.await;
            }
            sum
        })
    }
}

/// Dropping the pool tells its threads to end and does not wait for them.
impl Ends for Futures {
    fn end(self) {}
}

/// No pool: a thread for each task.
pub(crate) struct BareThreads;

impl Peer for BareThreads {
    fn start(_width: usize) -> BareThreads {
        BareThreads
    }

    fn home() -> &'static OnceLock<BareThreads> {
        static HOME: OnceLock<BareThreads> = OnceLock::new();
        &HOME
    }

    #[inline]
    fn execute<F: FnOnce() + Send + 'static>(&self, task: F) {
        thread::spawn(task);
    }

    fn caller(&'static self) -> impl FnMut(Words) -> u64 {
        |words| self.spawn(words).join().expect("no task panics")
    }
}

impl Handles for BareThreads {
    type Handle = thread::JoinHandle<u64>;

    #[inline]
    fn spawn(&self, words: Words) -> thread::JoinHandle<u64> {
        thread::spawn(move || compute(words))
    }

    fn join(&self, handles: Vec<thread::JoinHandle<u64>>) -> u64 {
        handles.into_iter().map(|handle| handle.join().expect("no task panics")).sum()
    }
}
