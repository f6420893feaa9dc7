//! Programs that look at what delays cost, at the thread that waits for them, and at what is left of them at exit.

use crate::resources::{leak, live};
use crate::{Case, Ended};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use winddown::*;

pub const CASES: &[Case] = &[
    ("delays_cost", cost),
    ("delays_leak", || leak(1_000, dropped_with_delays)),
    #[cfg(target_os = "linux")]
    ("delays_thread", linux::thread_of_the_timer),
    #[cfg(target_os = "linux")]
    ("delays_at_exit", linux::pending_at_exit),
    #[cfg(target_os = "linux")]
    ("delays_without_timer", linux::no_timer),
    #[cfg(target_os = "linux")]
    ("delays_without_worker", linux::no_worker),
    #[cfg(target_os = "linux")]
    ("delays_without_worker_at_exit", linux::no_worker_at_exit),
    #[cfg(unix)]
    ("delays_in_fork", forked),
];

const HOUR: Duration = Duration::from_secs(3600);

const COUNT: usize = 1_000_000;

/// Delays in no order, so that the heap has to work.
fn delay(n: usize) -> Duration {
    HOUR + Duration::from_nanos((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 30)
}

/// Delays of closures of one type, whose handles are detached.
fn cost_of<F: FnOnce() + Send + 'static>(make: impl Fn(usize) -> F) {
    let pool = Pool::new(1);
    // Whatever is allocated once.
    assert!(pool.spawn_after(HOUR, || ()).unwrap().cancel());
    let empty = live();
    (0..COUNT).for_each(|n| drop(pool.spawn_after(delay(n), make(n)).unwrap()));
    let each = (live() - empty) as f64 / COUNT as f64;
    let closure = size_of::<F>();
    println!("{each:.1} bytes for each delay of a closure of {closure}");
    assert!(each - closure as f64 <= 100.0, "{each} bytes for a closure of {closure}");
    assert_eq!(pool.stats().delayed, COUNT as u64);
    pool.close();
    assert_eq!((pool.stats().delayed, pool.stats().cancelled), (0, COUNT as u64 + 1));
    assert!(live() < empty + COUNT, "{} bytes more than before", live() - empty);
}

/// Delays that are cancelled, but for one in a hundred: their cells and entries go while the others are there.
fn cancelled() {
    let pool = Pool::new(1);
    assert!(pool.spawn_after(HOUR, || ()).unwrap().cancel());
    let empty = live();
    let handles: Vec<_> =
        (0..COUNT).map(|n| pool.spawn_after(delay(n), move || assert!(n < COUNT)).unwrap()).collect();
    let full = live();
    let mut handles = handles.into_iter();
    let mut kept = Vec::with_capacity(COUNT / 100);
    for n in 0..COUNT {
        let handle = handles.next().unwrap();
        match n % 100 {
            0 => kept.push(handle),
            _ => assert!(handle.cancel()),
        }
    }
    drop(handles);
    let left = live() - empty;
    println!("of {} bytes {left} are left when 99 of 100 delays are cancelled", full - empty);
    // Up to as many dead as there are alive, and the vector up to four times as long as it need be.
    let each = 2 * (100 + size_of::<usize>()) + 4 * 24 + size_of::<JoinHandle<()>>();
    assert!(left < kept.len() * each + (64 << 10), "{left} bytes are left for {}", kept.len());
    assert_eq!(pool.stats().delayed, kept.len() as u64);
    kept.drain(..).for_each(|handle| assert!(handle.cancel()));
    drop(kept);
    let left = live().saturating_sub(empty);
    assert!(left < 64 << 10, "{left} bytes are left when all are cancelled");
}

fn cost() -> Ended {
    cost_of(|_| || ());
    cost_of(|n| {
        let captured = [n; 3];
        move || assert!(captured[2] < COUNT)
    });
    cancelled();
    Ok(())
}

fn dropped_with_delays() {
    let registry = Registry::new();
    let pool = Pool::builder().registry(&registry).max_threads(1).build().unwrap();
    pool.spawn_after(Duration::from_nanos(1), || ()).unwrap().join().unwrap();
    let ballast = vec![0; 100];
    for n in 0..100 {
        let ballast = ballast.clone();
        let handle = pool.spawn_after(HOUR, move || drop(ballast)).unwrap();
        if n % 2 == 0 {
            assert!(handle.cancel());
        }
    }
}

/// The child refuses delays, what was delayed is abandoned there, and its own pools have a timer of their own.
#[cfg(unix)]
fn forked() -> Ended {
    use crate::fork::unix::{before_end, child};
    let pool = Pool::new(1);
    let soon = pool.spawn_after(Duration::from_millis(100), || 5)?;
    let late = pool.spawn_after(HOUR, || 6)?;
    let (mut soon, mut late) = (Some(soon), Some(late));
    let child = child(|| {
        let refused = pool.spawn_after(Duration::ZERO, || 7).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::Forked);
        assert_eq!(refused.into_inner()(), 7);
        let (soon, late) = (soon.take().unwrap(), late.take().unwrap());
        assert!(!late.cancel() && soon.is_finished());
        assert!(soon.join().unwrap_err().is_abandoned());
        assert!(late.join().unwrap_err().is_abandoned());
        pool.close();
        assert_eq!(pool.stats().delayed, 0);
        let own = Pool::new(1);
        let own_late = own.spawn_after(HOUR, || ()).unwrap();
        assert_eq!(own.spawn_after(Duration::from_millis(1), || 8).unwrap().join().unwrap(), 8);
        assert!(shutdown().is_clean());
        assert!(own_late.join().unwrap_err().is_cancelled());
    });
    assert_eq!(child.end(), "code 0");
    assert_eq!(soon.unwrap().join()?, 5);
    assert!(late.unwrap().cancel());
    before_end();
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use crate::resources::limited::without_threads;
    use std::thread;

    /// How many threads of this process are called so.
    fn threads_named(name: &str) -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|found| found.trim() == name).count()
    }

    /// It ends by itself some time after nothing is left to wait for.
    fn await_timers(count: usize) {
        let start = Instant::now();
        while threads_named("winddown-timer") != count {
            assert!(start.elapsed() < Duration::from_secs(20), "not {count} timers");
            thread::yield_now();
        }
    }

    pub fn thread_of_the_timer() -> Ended {
        let pools: Vec<_> = (0..50).map(|_| Pool::new(1)).collect();
        assert_eq!(threads_named("winddown-timer"), 0);
        // What never ends, and what ends at once, needs nobody to wait for it.
        let never = pools[0].spawn_after(Duration::MAX, || ())?;
        pools[0].spawn_after(Duration::ZERO, || ())?.join()?;
        assert_eq!(threads_named("winddown-timer"), 0);
        let handles: Vec<_> = pools.iter().map(|pool| pool.spawn_after(HOUR, || ()).unwrap()).collect();
        await_timers(1);
        // No worker waits for them.
        assert!(pools[1..].iter().all(|pool| pool.stats().threads == 0 && pool.stats().delayed == 1));
        let registry = Registry::new();
        let other = Pool::builder().registry(&registry).max_threads(1).build()?;
        let in_other = other.spawn_after(HOUR, || ())?;
        await_timers(2);
        assert!(in_other.cancel());
        await_timers(1);
        // All but one: cancelled, closed, dropped.
        for (n, (pool, handle)) in pools.iter().zip(&handles).enumerate().skip(2) {
            match n % 2 {
                0 => assert!(handle.cancel()),
                _ => pool.close(),
            }
        }
        let mut pools = pools.into_iter();
        drop(pools.next());
        assert!(never.join().unwrap_err().is_cancelled());
        assert_eq!(threads_named("winddown-timer"), 1);
        let last = pools.next().unwrap();
        drop(last);
        await_timers(0);
        // It comes again.
        let pool = Pool::new(1);
        pool.spawn_after(Duration::from_millis(1), || ())?.join()?;
        await_timers(0);
        let _left = pool.spawn_after(HOUR, || ())?;
        await_timers(1);
        // No thread is left when a shutdown has ended, not for an instant: joined is joined.
        assert!(shutdown().is_clean());
        assert!(registry.shutdown().is_clean());
        await_timers(0);
        Ok(())
    }

    /// The drop of what they captured is all that is seen of them.
    pub fn pending_at_exit() -> Ended {
        struct Say(&'static str);
        impl Drop for Say {
            fn drop(&mut self) {
                println!("{}", self.0);
            }
        }
        fn run(say: Say) {
            println!("a delayed task ran: {}", say.0);
        }
        static POOL: std::sync::OnceLock<Pool> = std::sync::OnceLock::new();
        static DAEMON: std::sync::OnceLock<Pool> = std::sync::OnceLock::new();
        let pool = POOL.get_or_init(|| Pool::new(1));
        let daemon = DAEMON.get_or_init(|| Pool::builder().max_threads(1).daemon().build().unwrap());
        let (say, say_daemon) = (Say("the pool's was dropped"), Say("the daemon's was dropped"));
        drop(pool.spawn_after(HOUR, move || run(say))?);
        drop(daemon.spawn_after(HOUR, move || run(say_daemon))?);
        let soon = Duration::from_millis(20);
        before_join("wait", move || {
            pool.spawn_after(soon, || println!("due in a hook")).unwrap().join().unwrap()
        })?;
        after_join("look", || println!("{} timers", threads_named("winddown-timer")))?;
        if !cfg!(feature = "exit-hook") {
            shutdown();
        }
        Ok(())
    }

    pub fn no_timer() -> Ended {
        let pool = Pool::new(1);
        let (told, tell) = channel();
        let refused =
            without_threads(|| pool.spawn_after(Duration::from_millis(1), move || told.send(5))).unwrap_err();
        assert_eq!(refused.reason(), RejectReason::NoThread);
        let stats = pool.stats();
        assert_eq!((stats.accepted, stats.delayed, stats.rejected), (0, 0, 1));
        // The limit is lifted: the same pool takes the same closure.
        pool.spawn_after(Duration::from_millis(1), refused.into_inner())?.join()??;
        assert_eq!(tell.recv()?, 5);
        assert!(pool.shutdown().is_clean());
        Ok(())
    }

    /// The timer is there, and whatever it maps when it starts; no thread ends, which would leave its stack to another.
    fn warm_timer() -> Result<(Pool, JoinHandle<()>), Box<dyn std::error::Error>> {
        let pool = Pool::builder().max_threads(1).keep_alive(Duration::MAX).build()?;
        let stays = pool.spawn_after(HOUR, || ())?;
        pool.spawn_after(Duration::from_millis(1), || ())?.join()?;
        Ok((pool, stays))
    }

    /// What is due waits for a thread; where none comes before the pool closes, that is a loss.
    pub fn no_worker() -> Ended {
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let pools = [Pool::new(1), Pool::new(1)];
        let _warm = warm_timer()?;
        let due = Duration::from_secs(1);
        let handles = pools
            .each_ref()
            .map(|pool| pool.spawn_after(due, || RUNS.fetch_add(1, Ordering::Relaxed)).unwrap());
        let not_due = pools[1].spawn_after(HOUR, || ())?;
        without_threads(|| {
            thread::sleep(due + Duration::from_millis(100)); // what is measured: nothing can happen
            assert!(pools.iter().all(|pool| pool.stats().threads == 0 && pool.stats().delayed >= 1));
            let report = pools[1].shutdown();
            assert!(!report.is_clean());
            assert_eq!((report.stats().cancelled, report.stats().delayed), (2, 0));
        });
        let [run, lost] = handles;
        assert_eq!(run.join()?, 0);
        assert!(lost.join().unwrap_err().is_cancelled() && not_due.join().unwrap_err().is_cancelled());
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
        assert!(pools[0].shutdown().is_clean());
        Ok(())
    }

    /// The same at the end of the process, which does not wait for what nobody is left to run.
    pub fn no_worker_at_exit() -> Ended {
        struct Dropped;
        impl Drop for Dropped {
            fn drop(&mut self) {
                println!("dropped");
            }
        }
        let _warm = warm_timer()?;
        let pool = Pool::new(1);
        let (dropped, due) = (Dropped, Duration::from_millis(500));
        let lost = pool.spawn_after(due, move || {
            let _dropped = dropped;
            println!("run");
        })?;
        let of_hook = pool.clone();
        after_join("look", move || {
            let stats = of_hook.stats();
            let left = stats.queued + stats.delayed + stats.running;
            println!("{}, {} cancelled, {left} left", lost.join().unwrap_err(), stats.cancelled);
        })?;
        without_threads(|| {
            thread::sleep(due + Duration::from_millis(100)); // what is measured: nothing can happen
            assert_eq!((pool.stats().threads, pool.stats().completed), (0, 0));
            exit(3)
        })
    }
}
