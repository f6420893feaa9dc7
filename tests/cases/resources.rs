//! Programs that run out of threads, and programs that make and drop a lot.
#![allow(unsafe_code)] // An allocator that counts; limits and times of the process.

#[cfg(target_os = "linux")]
pub mod limited;
#[cfg(target_os = "linux")]
pub mod threads;

use crate::{Case, Ended};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::future::Future;
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::task::{Context, Wake};
use std::thread;
use std::time::{Duration, Instant};
use winddown::*;

pub const CASES: &[Case] = &[
    ("leak_dropped_pools", || leak(10_000, dropped_pool)),
    ("leak_very_many_dropped_pools", || leak(100_000, dropped_pool)), // run by .ci/deep
    ("leak_closed_pools", || leak(10_000, closed_pool)),
    ("leak_shut_down_pools", || leak(10_000, shut_down_pool)),
    ("leak_unused_pools", || leak(100_000, || drop(Pool::new(1)))),
    ("leak_registries", || leak(100_000, || drop(Registry::new()))),
    ("leak_used_registries", || leak(10_000, used_registry)),
    ("leak_shut_down_registries", || leak(2_000, shut_down_registry)),
    ("leak_hooks", || leak(100_000, hooks)),
    ("leak_waiters", || leak(100_000, waiters)),
    ("leak_handles", leak_handles),
    ("expiry", expiry),
    ("expiry_at_exit", expiry_at_exit),
    ("last_destructor_of_pool", || last_destructor(Pool::builder(), false)),
    ("last_destructor_of_registry", || last_destructor(Pool::builder().registry(&Registry::new()), false)),
    ("last_destructor_of_expired", || last_destructor(Pool::builder().keep_alive(Duration::ZERO), true)),
    ("idle", idle),
    #[cfg(target_os = "linux")]
    ("sleep", threads::sleep),
    #[cfg(target_os = "linux")]
    ("many_hooks", threads::many_hooks),
    ("memory_of_shutdown", memory_of_shutdown),
    ("memory_of_scopes", memory_of_scopes),
    ("pool_after_shutdown", pool_after_shutdown),
    #[cfg(target_os = "linux")]
    ("no_first_thread", limited::no_first_thread),
    #[cfg(target_os = "linux")]
    ("no_first_thread_at_exit", limited::no_first_thread_at_exit),
    #[cfg(target_os = "linux")]
    ("no_second_thread", limited::no_second_thread),
    #[cfg(target_os = "linux")]
    ("no_helper", limited::no_helper),
    #[cfg(target_os = "linux")]
    ("no_helper_deadline", limited::no_helper_deadline),
    #[cfg(target_os = "linux")]
    ("no_shutdown_thread", limited::no_shutdown_thread),
    #[cfg(target_os = "linux")]
    ("no_shutdown_thread_waiter", limited::no_shutdown_thread_waiter),
    #[cfg(target_os = "linux")]
    ("no_shutdown_thread_exit", limited::no_shutdown_thread_exit),
    #[cfg(target_os = "linux")]
    ("no_substitute_wait_idle", || limited::no_substitute(|pool| pool.wait_idle())),
    #[cfg(target_os = "linux")]
    ("no_substitute_pool", || limited::no_substitute(|pool| drop(pool.shutdown()))),
    #[cfg(target_os = "linux")]
    ("no_substitute_registry", || limited::no_substitute(|pool| drop(pool.registry().shutdown()))),
    #[cfg(target_os = "linux")]
    ("no_substitute_asleep", limited::no_substitute_asleep),
    #[cfg(target_os = "linux")]
    ("no_substitute_exit", limited::no_substitute_exit),
];

// ---- what is in use ----

/// The bytes that are allocated.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most that has been alive at once.
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The processor time that this process has used.
fn cpu_time() -> Duration {
    #[cfg(unix)]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is valid for a write of an `rusage`, which is integers and may be all zeros.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let time =
            |it: libc::timeval| Duration::from_micros(it.tv_sec as u64 * 1_000_000 + it.tv_usec as u64);
        time(usage.ru_utime) + time(usage.ru_stime)
    }
    #[cfg(not(unix))]
    Duration::ZERO
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Waits until what was dropped has ended: its last threads do so by themselves.
fn settle() {
    let start = Instant::now();
    while threads() > 1 || !Registry::global().stats().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "{} threads, {:?}", threads(), Registry::global());
        thread::yield_now();
    }
}

/// Does something a tenth of `count` times and looks, then the rest and looks again.
pub fn leak(count: usize, act: fn()) -> Ended {
    let look = |times| {
        (0..times).for_each(|_| act());
        settle();
        LIVE.load(Ordering::Relaxed)
    };
    let before = look(count / 10);
    let after = look(count - count / 10);
    let grown = after.saturating_sub(before);
    println!("{count} times: {before} bytes, then {after}: {grown} more");
    assert!(grown < 64 << 10, "{grown} bytes more");
    Ok(())
}

fn dropped_pool() {
    let pool = Pool::new(1);
    assert_eq!(pool.spawn(|| 5).unwrap().join().unwrap(), 5);
}

fn closed_pool() {
    let pool = Pool::new(2);
    pool.execute(|| ()).unwrap();
    pool.close();
    pool.wait_idle();
}

fn shut_down_pool() {
    let pool = Pool::new(2);
    pool.execute(|| ()).unwrap();
    assert_eq!(pool.shutdown().workers_joined(), 1);
}

fn used_registry() {
    let registry = Registry::new();
    let pool = Pool::builder().registry(&registry).max_threads(1).build().unwrap();
    pool.execute(|| ()).unwrap();
}

fn shut_down_registry() {
    let registry = Registry::new();
    registry.before_join("before", || ()).unwrap();
    let pool = Pool::builder().registry(&registry).max_threads(1).build().unwrap();
    pool.execute(|| ()).unwrap();
    assert!(registry.shutdown().is_clean());
}

fn hooks() {
    let ballast = [0_u64; 16];
    let before = before_join("hook", move || drop(Box::new(ballast))).unwrap();
    let after = after_join("hook", move || drop(Box::new(ballast))).unwrap();
    drop(hold("hold").unwrap());
    assert!(Registry::global().remove(before) && Registry::global().remove(after));
    let registry = Registry::new();
    registry
        .before_join("its hook goes with it once it is removed", || ())
        .map(|id| registry.remove(id))
        .unwrap();
}

fn poll_pending<F: Future>(future: Pin<&mut F>) {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Nobody>) {}
    }
    assert!(future.poll(&mut Context::from_waker(&Arc::new(Nobody).into())).is_pending());
}

fn waiters() {
    let mut token = pin!(token());
    poll_pending(token.as_mut());
    poll_pending(token.as_mut());
    poll_pending(pin!(token.clone()));
    poll_pending(pin!(Registry::global().finished()));
    assert!(!token.wait_timeout(Duration::ZERO));
}

/// Handles that are cancelled, dropped, polled and dropped, on a pool that stays; its worker takes the remains out.
fn leak_handles() -> Ended {
    static POOL: std::sync::OnceLock<Pool> = std::sync::OnceLock::new();
    fn round() {
        let pool =
            POOL.get_or_init(|| Pool::builder().max_threads(1).keep_alive(Duration::ZERO).build().unwrap());
        let (open, closed) = channel::<()>();
        let first = pool.spawn(move || closed.recv().is_err()).unwrap();
        for n in 0..100 {
            let ballast = [n; 32];
            let handle = pool.spawn(move || std::hint::black_box(ballast)).unwrap();
            match n % 4 {
                0 => assert!(handle.cancel()),
                1 => drop(handle.cancel_on_drop()),
                2 => poll_pending(pin!(handle)),
                _ => drop(handle.canceller()),
            }
        }
        drop(open);
        assert!(first.join().unwrap());
        pool.wait_idle();
    }
    fn settled() -> usize {
        let pool = POOL.get().unwrap();
        while pool.stats().threads > 0 || threads() > 1 {
            thread::yield_now();
        }
        LIVE.load(Ordering::Relaxed)
    }
    (0..100).for_each(|_| round());
    let before = settled();
    (0..900).for_each(|_| round());
    let after = settled();
    println!("100,000 handles: {before} bytes, then {after}");
    assert!(after.saturating_sub(before) < 64 << 10, "{before} bytes, then {after}");
    Ok(())
}

// ---- threads that come and go ----

static STARTED: AtomicUsize = AtomicUsize::new(0);
static DESTROYED: AtomicUsize = AtomicUsize::new(0);

struct Local(#[allow(dead_code)] Vec<u8>);

impl Drop for Local {
    fn drop(&mut self) {
        thread::yield_now(); // Its thread has left the pool by now: let the others see that.
        DESTROYED.fetch_add(1, Ordering::Relaxed);
    }
}

thread_local!(static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) });

fn short_lived() -> Pool {
    let pool = Pool::builder().max_threads(4).keep_alive(Duration::ZERO).on_thread_start(|| {
        STARTED.fetch_add(1, Ordering::Relaxed);
        LOCAL.with(|local| *local.borrow_mut() = Some(Local(vec![0; 1000])));
    });
    pool.build().unwrap()
}

/// Has at least so many workers expire. Each task that finds no worker starts one.
fn expire(pool: &Pool, workers: usize) {
    let goal = STARTED.load(Ordering::Relaxed) + workers;
    while STARTED.load(Ordering::Relaxed) < goal {
        (0..4).for_each(|_| pool.execute(thread::yield_now).unwrap());
        while pool.stats().threads > 0 {
            thread::yield_now();
        }
    }
}

fn expiry() -> Ended {
    let pool = short_lived();
    let look = |workers| {
        expire(&pool, workers);
        while threads() > 1 {
            thread::yield_now();
        }
        LIVE.load(Ordering::Relaxed)
    };
    let (before, after) = (look(1000), look(9000));
    println!("{before} bytes after 1,000 workers, {after} after 10,000");
    assert!(after.saturating_sub(before) < 64 << 10);
    let report = pool.shutdown();
    let started = STARTED.load(Ordering::Relaxed);
    assert_eq!(DESTROYED.load(Ordering::Relaxed), started);
    assert_eq!(report.workers_joined(), started);
    assert!(report.stats().peak_threads <= 4);
    Ok(())
}

fn expiry_at_exit() -> Ended {
    after_join("count", || {
        assert!(STARTED.load(Ordering::Relaxed) >= 1000);
        let (started, destroyed) = (STARTED.load(Ordering::Relaxed), DESTROYED.load(Ordering::Relaxed));
        println!("all destructors have run: {}", started == destroyed);
    })?;
    let pool = short_lived();
    expire(&pool, 1000);
    (0..4).for_each(|_| pool.execute(|| ()).unwrap());
    before_end();
    Ok(())
}

/// The last worker of a pool, which is dropped or kept, is in a destructor when the process ends.
fn last_destructor(builder: PoolBuilder, is_kept: bool) -> Ended {
    struct Slow(Sender<()>);
    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.send(());
            thread::sleep(Duration::from_millis(200)); // work
            println!("destroyed");
        }
    }
    thread_local!(static SLOW: RefCell<Option<Slow>> = const { RefCell::new(None) });
    let (tell, told) = channel();
    let slow = Slow(tell);
    let pool = builder.max_threads(1).build()?;
    pool.execute(move || SLOW.with(|place| *place.borrow_mut() = Some(slow)))?;
    let _kept = is_kept.then_some(pool);
    told.recv()?;
    before_end();
    Ok(())
}

/// Without the exit net a program shuts down by itself.
fn before_end() {
    if !cfg!(feature = "exit-hook") {
        shutdown();
    }
}

/// Pools with idle workers, one of each kind, and threads that wait for them, for a second.
fn idle() -> Ended {
    let pools = [
        Pool::new(4),
        Pool::builder().max_threads(2).min_threads(2).build()?,
        Pool::builder().max_threads(2).min_threads(2).keep_alive(Duration::ZERO).build()?,
        Pool::builder().max_threads(2).keep_alive(Duration::MAX).daemon().build()?,
    ];
    for pool in &pools {
        (0..8).map(|_| pool.spawn(thread::yield_now).unwrap()).for_each(|handle| handle.join().unwrap());
    }
    let (open, closed) = channel::<()>();
    let blocked = pools[0].spawn(move || closed.recv().is_err())?;
    let pool = pools[0].clone();
    let waiters = [
        thread::spawn(move || pool.wait_idle()),
        thread::spawn(|| drop(wait_finished())),
        thread::spawn(|| token().wait()),
        thread::spawn(move || assert!(blocked.join().unwrap())),
    ];
    let used = cpu_time();
    thread::sleep(Duration::from_secs(1)); // what is measured: a second in which nothing happens
    let used = cpu_time() - used;
    println!("{} us", used.as_micros());
    assert!(used < Duration::from_millis(50), "an idle second cost {used:?}");
    drop(open);
    drop(shutdown());
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    Ok(())
}

/// The shutdown of pools that never ran a task: what it needs for each is the same for few and for many.
fn memory_of_shutdown() -> Ended {
    let of_each = |count: usize| {
        let registry = Registry::new();
        let make = |n| Pool::builder().name(format!("pool {n:6}")).registry(&registry).build().unwrap();
        let pools: Vec<_> = (0..count).map(make).collect();
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        assert_eq!(registry.shutdown().pools().len(), pools.len());
        (PEAK.load(Ordering::Relaxed) - before) / count
    };
    let (few, many) = (of_each(1 << 9), of_each(1 << 14));
    println!("{few} bytes for each of 512 pools, {many} for each of 16,384");
    assert!(many <= few + few / 10, "{few} bytes for each of a few, {many} for each of many");
    Ok(())
}

/// Very many tasks in one scope, of which few are queued at once: what is over is not kept.
fn memory_of_scopes() -> Ended {
    const TASKS: usize = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
    let pool = Pool::builder().max_threads(2).queue_capacity(1000).build()?;
    let count = AtomicUsize::new(0);
    let grown = |act: &(dyn Fn() + Sync)| {
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        act();
        (PEAK.load(Ordering::Relaxed) - before) >> 10
    };
    let run = || count.fetch_add(1, Ordering::Relaxed);
    let outside = grown(&|| pool.scope(|s| (0..TASKS).for_each(|_| drop(s.spawn(run)))));
    // Inside a task nothing blocks for the bound, and the scope keeps a list.
    let paced = || {
        pool.scope(|s| {
            for n in 0..TASKS {
                s.spawn(run);
                if n % 1000 == 0 {
                    while count.load(Ordering::Relaxed) + 1000 < TASKS + n {
                        thread::yield_now();
                    }
                }
            }
        });
    };
    let inside = grown(&|| pool.scope(|s| drop(s.spawn(paced))));
    println!("{outside} KiB from outside, {inside} KiB from inside a task");
    assert_eq!(count.load(Ordering::Relaxed), 2 * TASKS);
    assert!(outside.max(inside) < 4 << 10, "{outside} KiB, {inside} KiB");
    drop(shutdown());
    Ok(())
}

fn pool_after_shutdown() -> Ended {
    let open = Pool::new(1);
    open.execute(|| ())?;
    shutdown();
    for pool in [&open, &Pool::new(1), &Pool::new(usize::MAX)] {
        let refused = pool.spawn(|| 5).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::ShuttingDown);
        assert_eq!(refused.into_inner()(), 5);
        pool.wait_idle();
        assert!(pool.is_closed() && pool.shutdown().is_clean());
    }
    assert_eq!(Pool::builder().build().unwrap_err(), BuildError::ShuttingDown);
    assert_eq!(before_join("late", || ()).unwrap_err().reason(), RejectReason::ShuttingDown);
    assert_eq!(after_join("late", || ()).unwrap_err().reason(), RejectReason::ShuttingDown);
    assert!(hold("late").unwrap_err().to_string().contains("shutdown has begun"));
    Ok(())
}
