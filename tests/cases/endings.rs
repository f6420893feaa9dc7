//! Programs that end in one way and another, and say what has become of their work.
#![allow(unsafe_code)] // C's own `atexit`, and what it flushes.

use crate::{Case, Ended};
use std::panic::resume_unwind;
use std::process::exit;
use std::sync::mpsc::channel;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use winddown::{Pool, Registry, Report};

pub const CASES: &[Case] = &[
    ("mixed_work_and_shutdown", || mixed_work(|| drop(winddown::shutdown()))),
    ("mixed_work_and_main_returns", || mixed_work(|| ())),
    ("mixed_work_and_process_exits", || mixed_work(|| exit(0))),
    ("mixed_work_and_winddown_exits", || mixed_work(|| winddown::exit(0))),
    #[cfg(all(unix, feature = "signals"))]
    ("mixed_work_and_signal", signals::mixed_work_and_signal),
    #[cfg(all(unix, feature = "signals"))]
    ("ends_of_all_sorts_at_once", signals::all_at_once),
    ("twenty_stuck_pools", twenty_stuck_pools),
    ("deadline_of_nothing", || deadline(Duration::ZERO)),
    ("deadline_without_end", || deadline(Duration::MAX)),
    ("deadline_in_an_hour", || deadline(Duration::from_secs(3600))),
    #[cfg(target_os = "linux")]
    ("stuck_in_c_stdio", stuck_in_c_stdio),
];

fn block_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// Has a task of the pool run for ever.
fn stick(pool: &Pool) {
    let (started, has_started) = channel();
    let task = move || {
        started.send(()).unwrap();
        block_for_ever()
    };
    pool.execute(task).unwrap();
    has_started.recv().unwrap();
}

/// What of a report does not depend on how long things took, nor on what began the shutdown.
fn tell(report: &Report) {
    let totals = report.totals();
    let settled = totals.completed
        + totals.panicked
        + totals.cancelled
        + totals.returned
        + totals.abandoned
        + totals.running;
    println!(
        "clean: {}, adds up: {}",
        report.is_clean(),
        totals.accepted == settled + totals.queued + totals.delayed
    );
    println!(
        "accepted {}, completed {}, panicked {}, cancelled {}, abandoned {}, rejected {}",
        totals.accepted,
        totals.completed,
        totals.panicked,
        totals.cancelled,
        totals.abandoned,
        totals.rejected
    );
    for hook in report.hooks() {
        println!("hook {:?} {}: {:?}", hook.stage(), hook.name(), hook.outcome());
    }
    for pool in report.pools() {
        let abandoned: Vec<_> =
            pool.abandoned().iter().map(|task| (task.label(), task.location().line())).collect();
        println!("pool {}: {} tasks, abandoned {abandoned:?}", pool.name(), pool.stats().accepted);
    }
}

extern "C" fn tell_at_exit() {
    let report = winddown::wait_finished();
    eprintln!("{:?}", report.reason());
    tell(&report);
}

/// C runs handlers in the reverse order of their registration, and the crate's comes with its first use.
fn tell_when_all_is_over() {
    extern "C" {
        fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
    }
    // SAFETY: the handler lives as long as the program, and does not unwind.
    assert_eq!(unsafe { atexit(tell_at_exit) }, 0);
}

/// Tasks that end in every way, and hooks.
fn work() -> Ended {
    winddown::set_deadline(Some(Duration::from_millis(500)));
    winddown::before_join("fine", || ())?;
    winddown::before_join("fails", || resume_unwind(Box::new("no luck")))?;
    winddown::after_join("fine, too", || ())?;
    let pool = Pool::builder().name("busy").max_threads(2).build()?;
    for n in 0..10 {
        // Silently: the test looks at what is printed.
        pool.execute(move || {
            if n % 5 == 0 {
                resume_unwind(Box::new("no luck"))
            }
        })?;
    }
    pool.wait_idle();
    static KEPT: OnceLock<Pool> = OnceLock::new(); // one that is gone is in no report
    KEPT.set(pool).expect("this is done once");
    let stuck = Pool::builder().name("stuck").max_threads(1).queue_capacity(3).build()?;
    let (started, has_started) = channel();
    stuck.execute(move || {
        winddown::task::set_label("invoice 4711");
        started.send(()).unwrap();
        block_for_ever()
    })?;
    has_started.recv()?;
    assert!(stuck.spawn(|| ())?.cancel());
    (0..3).for_each(|_| stuck.execute(|| ()).unwrap());
    assert!(stuck.try_execute(|| ()).is_err());
    Ok(())
}

fn mixed_work(end: fn()) -> Ended {
    tell_when_all_is_over();
    work()?;
    end();
    Ok(())
}

/// Ten are stuck in the process's registry, and ten in one each.
fn twenty_stuck_pools() -> Ended {
    winddown::set_deadline(Some(Duration::from_millis(1500)));
    for _ in 0..10 {
        stick(&Pool::builder().max_threads(1).registry(&Registry::new()).build()?);
        stick(&Pool::new(1));
    }
    winddown::after_join("after", || println!("after"))?;
    winddown::exit(0)
}

fn deadline(deadline: Duration) -> Ended {
    winddown::set_deadline(Some(deadline));
    let pool = Pool::new(1);
    if deadline.is_zero() {
        stick(&pool);
    }
    pool.execute(|| println!("task"))?;
    winddown::before_join("before", || println!("before"))?;
    winddown::after_join("after", || println!("after"))?;
    winddown::exit(3)
}

/// A task that never ends holds the lock of C's stdout, which the C runtime flushes at the very end.
#[cfg(target_os = "linux")]
fn stuck_in_c_stdio() -> Ended {
    #[repr(C)]
    struct Stream([u8; 0]);
    extern "C" {
        static stdout: *mut Stream;
        fn flockfile(stream: *mut Stream);
    }
    winddown::set_deadline(Some(Duration::from_millis(300)));
    let pool = Pool::new(1);
    let (locked, is_locked) = channel();
    pool.execute(move || {
        // SAFETY: the stream is C's own and always there; its lock is what this is about.
        unsafe { flockfile(stdout) };
        locked.send(()).unwrap();
        block_for_ever()
    })?;
    is_locked.recv()?;
    println!("locked");
    winddown::exit(9)
}

#[cfg(all(unix, feature = "signals"))]
mod signals {
    use super::*;
    use std::sync::{Arc, Barrier};
    use winddown::signals::Builder;

    fn raise() {
        // SAFETY: sends a signal to the calling thread.
        unsafe { libc::raise(libc::SIGTERM) };
    }

    pub fn mixed_work_and_signal() -> Ended {
        let tell = |report: &Report| {
            eprintln!("{:?}", report.reason());
            tell(report);
            0
        };
        Builder::new().exit_code(tell).install()?;
        work()?;
        raise();
        block_for_ever()
    }

    /// Two threads and a signal begin the end at once, and main waits for it.
    pub fn all_at_once() -> Ended {
        winddown::signals::install()?;
        let (pool, start) = (Pool::new(2), Arc::new(Barrier::new(4)));
        for n in 0..50 {
            pool.execute(move || println!("task {n}"))?;
        }
        winddown::before_join("before", || println!("before"))?;
        winddown::after_join("after", || println!("after"))?;
        let ends: [fn(); 3] = [|| winddown::exit(3), || assert!(winddown::shutdown().is_clean()), raise];
        for end in ends {
            let start = start.clone();
            thread::spawn(move || {
                start.wait();
                end();
            });
        }
        start.wait();
        assert!(winddown::wait_finished().is_clean());
        block_for_ever()
    }
}
