//! The pool that is there without being built.

use super::Pool;
use crate::process::eras::Eras;
use crate::rejected::Rejected;
use crate::task::JoinHandle;

/// As many threads as are of use for tasks that also wait, but not hundreds on a large machine.
const MOST_THREADS: usize = 32;
/// So many more than processors, for those that wait.
const EXTRA_THREADS: usize = 4;

static POOLS: Eras<Pool> = Eras::new();

/// A pool that is always there, for [`execute`] and [`spawn`]: for programs that need nothing particular, and libraries that
/// want no threads of their own.
///
/// It is made when it is first asked for, is called `default`, and belongs to the [global registry](crate::Registry::global):
/// the process waits for its tasks at exit. It has at most `min(32, cpus + 4)` threads, like the default executor of Python's
/// asyncio (`ThreadPoolExecutor` without a number), and in all else the defaults of [`PoolBuilder`](crate::PoolBuilder). As
/// with every pool no thread starts before the first task.
///
/// Everybody shares it, so nobody should [close](Pool::close) it: it would refuse all tasks from then on. Nor should tasks that
/// wait for a long time fill it: for these, build a pool. If the registry drains already when it is first asked for, it refuses
/// every task. A forked child has another one, in its own global registry. Never blocks.
///
/// ```
/// let pool = winddown::default_pool();
/// assert_eq!(pool.name(), "default");
/// pool.execute(|| println!("in the background"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn default_pool() -> &'static Pool {
    // Where threads race, a pool that came too late is dropped, unused: it had no thread and takes itself out of the registry.
    POOLS.get_or_make(|| {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let max_threads = MOST_THREADS.min(processors.saturating_add(EXTRA_THREADS));
        let builder = Pool::builder().name("default").max_threads(max_threads);
        builder.build_or_refuse().unwrap_or_else(|error| unreachable!("the default pool: {error}"))
    })
}

/// [`Pool::execute`] of the [default pool](default_pool).
///
/// # Errors
///
/// As there.
///
/// ```
/// winddown::execute(|| println!("in the background, and before the process is gone"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn execute<F>(f: F) -> Result<(), Rejected<F>>
where
    F: FnOnce() + Send + 'static,
{
    default_pool().execute(f)
}

/// [`Pool::spawn`] of the [default pool](default_pool).
///
/// # Errors
///
/// As there.
///
/// ```
/// let sum = winddown::spawn(|| (1..=100).sum::<u32>())?;
/// assert_eq!(sum.join()?, 5050);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn spawn<F, T>(f: F) -> Result<JoinHandle<T>, Rejected<F>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    default_pool().spawn(f)
}
