//! Programs that can start no more threads: a limit on the address space leaves room for small data and none for a
//! thread's stack.

use super::*;
use std::sync::Mutex;

/// Runs `f` while no thread can be started.
pub fn without_threads<R>(f: impl FnOnce() -> R) -> R {
    let _limit = Limit::new();
    f()
}

struct Limit(libc::rlim_t);

impl Limit {
    fn new() -> Limit {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: libc::rlim_t = pages.split(' ').next().unwrap().parse().unwrap();
        // Less than the stack of a thread, more than anything here allocates.
        let limit = Limit(set(pages * 4096 + (1 << 20)));
        let error = thread::Builder::new().spawn(|| ()).expect_err("the limit is in force");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        limit
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        set(self.0);
    }
}

/// Sets the limit and returns what it was.
fn set(limit: libc::rlim_t) -> libc::rlim_t {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for a write of an `rlimit`.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut now) }, 0);
    let before = std::mem::replace(&mut now.rlim_cur, limit);
    // SAFETY: the pointer is valid for a read of an `rlimit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &now) }, 0);
    before
}

/// A pool of one worker that exists and waits until the sender is dropped.
fn busy(builder: PoolBuilder) -> (Pool, Sender<()>) {
    let pool = builder.build().unwrap();
    let ((open, closed), (started, has_started)) = (channel::<()>(), channel());
    pool.execute(move || {
        // Whatever a thread maps for itself when it starts, it has now.
        let _ = started.send(vec![0; 1000]);
        let _ = closed.recv();
    })
    .unwrap();
    has_started.recv().unwrap();
    (pool, open)
}

pub fn no_first_thread() -> Ended {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let pool = Pool::new(2);
    let ballast = Arc::new(());
    let captured = ballast.clone();
    let task = move || {
        let _ballast = captured;
        RUNS.fetch_add(1, Ordering::Relaxed) + 1
    };
    let refused = without_threads(|| pool.spawn(task)).unwrap_err();
    assert_eq!(refused.reason(), RejectReason::NoThread);
    let stats = pool.stats();
    assert_eq!((stats.accepted, stats.queued, stats.threads, stats.rejected), (0, 0, 0, 1));
    assert!(pool.wait_idle_timeout(Duration::ZERO));
    let refusal = without_threads(|| pool.execute(|| ())).unwrap_err().to_string();
    assert!(refusal.contains("raise the limit"), "{refusal}");

    // The limit is lifted: the same pool runs the same closure, once.
    assert_eq!(pool.spawn(refused.into_inner())?.join()?, 1);
    assert_eq!(Arc::strong_count(&ballast), 1);
    let stats = pool.shutdown().stats().clone();
    assert_eq!((stats.accepted, stats.completed, stats.rejected), (1, 1, 2));
    assert_eq!(RUNS.load(Ordering::Relaxed), 1);
    Ok(())
}

pub fn no_second_thread() -> Ended {
    let (pool, open) = busy(Pool::builder().max_threads(4));
    let _limit = Limit::new();
    let done = Arc::new(AtomicUsize::new(0));
    let submit = || {
        let done = done.clone();
        pool.execute(move || drop(done.fetch_add(1, Ordering::Relaxed).to_string())).unwrap();
    };
    (0..500).for_each(|_| submit());
    let used = cpu_time();
    thread::sleep(Duration::from_millis(500)); // what is measured: nothing can happen
    let used = cpu_time() - used;
    println!("{} us while 500 tasks waited", used.as_micros());
    assert!(used < Duration::from_millis(50), "waiting without threads cost {used:?}");
    drop(open);
    (0..500).for_each(|_| submit());
    pool.wait_idle();
    assert_eq!(done.load(Ordering::Relaxed), 1000);
    let stats = pool.stats();
    assert_eq!((stats.peak_threads, stats.completed, stats.rejected), (1, 1001, 0));
    assert!(pool.shutdown().is_clean());
    Ok(())
}

/// Everything that a shutdown does on threads of its own, it does in place.
pub fn no_helper() -> Ended {
    let (pool, open) = busy(Pool::builder().max_threads(1));
    let (daemon, daemon_open) = busy(Pool::builder().max_threads(1).daemon());
    daemon.execute(|| println!("a daemon's task"))?;
    (0..20).for_each(|n| pool.execute(move || println!("task {n}")).unwrap());
    let inner = pool.clone();
    before_join("before", move || {
        inner.execute(|| println!("from a hook")).unwrap();
        println!("before");
        drop(open);
        inner.wait_idle();
    })?;
    before_join("panics", || std::panic::resume_unwind(Box::new("without a message")))?;
    after_join("after", || println!("after"))?;
    std::mem::forget((Limit::new(), daemon_open));
    before_end();
    Ok(())
}

pub fn no_helper_deadline() -> Ended {
    let registry = Registry::new();
    let (pool, open) = busy(Pool::builder().max_threads(1).registry(&registry));
    let queued = pool.spawn(|| ())?;
    let captured = Arc::new(());
    let ballast = captured.clone();
    pool.execute(move || drop(ballast))?;
    registry.after_join("after", || println!("after"))?;
    let _limit = Limit::new();
    let report = registry.shutdown_timeout(Duration::from_secs(3));
    assert!(!report.is_clean());
    assert_eq!((report.totals().abandoned, report.totals().cancelled), (1, 2));
    assert!(queued.join().unwrap_err().is_cancelled());
    assert_eq!(Arc::strong_count(&captured), 1);
    drop(open);
    Ok(())
}

fn requested() -> Result<Pool, Box<dyn std::error::Error>> {
    let (pool, open) = busy(Pool::builder().max_threads(1));
    pool.execute(|| println!("task"))?;
    before_join("before", move || {
        println!("before");
        drop(open);
    })?;
    after_join("after", || println!("after"))?;
    Ok(pool)
}

pub fn no_shutdown_thread() -> Ended {
    let _pool = requested()?;
    let _limit = Limit::new();
    request_shutdown();
    assert!(token().is_triggered() && hold("late").is_err() && before_join("late", || ()).is_err());
    request_shutdown();
    assert_eq!(Registry::global().phase(), Phase::PreJoin);
    println!("requested");
    assert!(wait_finished().is_clean());
    assert!(shutdown().is_clean());
    Ok(())
}

/// The waiter was there first.
pub fn no_shutdown_thread_waiter() -> Ended {
    let pool = requested()?;
    let (waits, is_waiting) = channel();
    let waiter = thread::spawn(move || {
        waits.send(vec![0; 1000]).unwrap();
        wait_finished().is_clean()
    });
    is_waiting.recv()?;
    let _limit = Limit::new();
    request_shutdown();
    println!("requested");
    assert!(waiter.join().unwrap());
    drop(pool);
    Ok(())
}

/// Nobody waits: the end of the process runs it.
pub fn no_shutdown_thread_exit() -> Ended {
    let pool = requested()?;
    std::mem::forget(Limit::new());
    request_shutdown();
    println!("requested");
    pool.execute(|| println!("still accepted"))?;
    before_end();
    Ok(())
}

/// The only worker is blocked in a wait for the pool, nobody can stand in for it: it runs the queue itself.
pub fn no_substitute(block: fn(&Pool)) -> Ended {
    let registry = Registry::new();
    let (pool, open) = busy(Pool::builder().registry(&registry).max_threads(1));
    let order = Arc::new(Mutex::new(Vec::new()));
    let inner = pool.clone();
    let blocked = pool.spawn(move || block(&inner))?;
    let submit = |n| {
        let order = order.clone();
        pool.spawn(move || order.lock().unwrap().push(n)).unwrap()
    };
    let handles: Vec<_> = (0..10).map(submit).collect();
    let limit = Limit::new();
    drop(open);
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    blocked.join()?;
    drop(limit);
    assert!(order.lock().unwrap().iter().copied().eq(0..10));
    assert_eq!(pool.stats().peak_threads, 1);
    assert!(registry.shutdown().is_clean());
    Ok(())
}

/// It sleeps in its wait when the tasks come.
pub fn no_substitute_asleep() -> Ended {
    let registry = Registry::new();
    let (pool, open) = busy(Pool::builder().registry(&registry).max_threads(1));
    let inner = registry.clone();
    let blocked = pool.spawn(move || inner.wait_finished().is_clean())?;
    let _limit = Limit::new();
    drop(open);
    for n in 0..10 {
        assert_eq!(pool.spawn(move || n)?.join()?, n);
    }
    let used = cpu_time();
    thread::sleep(Duration::from_millis(200)); // what is measured: nothing can happen
    let used = cpu_time() - used;
    assert!(used < Duration::from_millis(50), "waiting without threads cost {used:?}");
    assert_eq!(pool.stats().peak_threads, 1);
    assert!(registry.shutdown().is_clean());
    assert!(blocked.join()?);
    Ok(())
}

/// The same in a task that ends the process.
pub fn no_substitute_exit() -> Ended {
    let (pool, open) = busy(Pool::builder().max_threads(1));
    pool.execute(|| winddown::exit(3))?;
    (0..10).for_each(|n| pool.execute(move || println!("task {n}")).unwrap());
    std::mem::forget(Limit::new());
    drop(open);
    wait_finished();
    loop {
        thread::park(); // The process ends in the task.
    }
}

/// A pool has no thread yet when the process exits, and can have none then: who submits to it has the task back.
pub fn no_first_thread_at_exit() -> Ended {
    let late = Pool::new(1);
    let (pool, open) = busy(Pool::builder().max_threads(1));
    let from_task = late.clone();
    pool.execute(move || run_refused(&from_task, "a task"))?;
    before_join("submits", move || {
        run_refused(&late, "a hook");
        drop(open);
    })?;
    after_join("after", || println!("after"))?;
    std::mem::forget(Limit::new());
    before_end();
    Ok(())
}

fn run_refused(pool: &Pool, from: &'static str) {
    let refused = pool.execute(move || println!("run by {from}")).unwrap_err();
    assert_eq!(refused.reason(), RejectReason::NoThread);
    refused.into_inner()();
}
