//! Programs that signals end. Each prints `ready`, and its process id, when the test may send one; the rest it is told
//! in arguments and on standard input.
#![allow(unsafe_code)] // Plain handlers, `fork` and `raise`.

mod foreign;
mod journal;

use crate::fork::unix::child;
#[cfg(target_os = "linux")]
use crate::resources::limited;
use crate::{Case, Ended};
use std::io::{self, BufRead};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{exit, Command};
use std::sync::mpsc::channel;
#[cfg(target_os = "linux")]
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use winddown::signals::{self, OnSignal, SignalError};
use winddown::*;

pub const CASES: &[Case] = &[
    ("signal_drains", drains),
    ("signal_in_joining_main", in_joining_main),
    ("signal_in_returning_main", in_returning_main),
    ("signal_meets_return", meets_return),
    ("signal_loses_work", loses_work),
    ("signal_with_code", with_code),
    ("signal_with_panicking_code", with_panicking_code),
    ("signal_with_exiting_code", with_exiting_code),
    ("signal_after_shutdown_began", after_shutdown_began),
    ("signal_amid_work", amid_work),
    ("signal_requests", requests),
    ("signal_requests_and_hook_exits", requests_and_hook_exits),
    ("signal_and_hook_exits", and_hook_exits),
    ("signal_and_task_exits", and_task_exits),
    ("signal_before_any_pool", before_any_pool),
    ("signal_in_read_line", in_read_line),
    ("signal_in_sleep", in_sleep),
    ("signal_in_system_calls", in_system_calls),
    ("signal_log", log_of_signals),
    ("signal_not_asked_for", not_asked_for),
    ("signal_install_twice", install_twice),
    ("signal_children", children),
    ("signal_children_in_hook", children_in_hook),
    #[cfg(target_os = "linux")]
    ("signal_no_thread_to_install", no_thread_to_install),
    #[cfg(target_os = "linux")]
    ("signal_no_thread_to_wind_down", no_thread_to_wind_down),
    ("signal_and_plain_handler", foreign::plain),
    ("signal_and_signal_hook", foreign::signal_hook),
    ("signal_and_tokio", foreign::tokio),
    ("signal_and_ctrlc", foreign::ctrlc),
    ("signal_and_later_handlers", foreign::later),
    ("signal_and_handlers_of_a_child", foreign::of_child),
    ("signal_journal", journal::run),
    ("signal_with_every_other_end", with_every_other_end),
    ("signal_without_descriptors", without_descriptors),
];

/// The argument after the case's name.
fn argument() -> String {
    std::env::args().nth(2).unwrap_or_default()
}

/// The test may be waiting for a line of this program when it hangs.
fn end_in_a_minute() {
    // SAFETY: has the system send a signal later, which ends the process.
    unsafe { libc::alarm(60) };
}

fn ready() {
    end_in_a_minute();
    println!("ready {}", std::process::id());
}

/// Waits for the test to write a line.
fn read_line() {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).expect("stdin can be read");
}

fn block_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// Queues 60 tasks, of which the first two wait until shutdown has begun: at most they have started when it does.
fn sixty(pool: &Pool) -> Vec<JoinHandle<()>> {
    let task = |n| {
        move || {
            if n < 2 {
                token().wait();
            }
            println!("task {n}");
        }
    };
    (0..60).map(|n| pool.spawn(task(n)).expect("an open pool takes tasks")).collect()
}

/// A task that is still running when shutdown has begun, which it says, and ends when the test writes a line.
fn busy(pool: &Pool) {
    let task = || {
        token().wait();
        println!("busy");
        read_line();
        println!("no longer busy");
    };
    pool.execute(task).expect("an open pool takes tasks");
}

fn drains() -> Ended {
    signals::install()?;
    let (pool, registry) = (Pool::new(2), Registry::new());
    let private = Pool::builder().registry(&registry).build()?;
    private.execute(|| {
        token().wait();
        println!("private task");
    })?;
    sixty(&pool);
    before_join("before", || println!("before"))?;
    after_join("after", || println!("after"))?;
    ready();
    block_for_ever()
}

/// The signal's shutdown lets `main` return.
fn in_joining_main() -> Ended {
    signals::install()?;
    let handles = sixty(&Pool::new(2));
    ready();
    handles.into_iter().try_for_each(JoinHandle::join)?;
    Ok(())
}

/// The signal comes while `main` is in the exit net.
fn in_returning_main() -> Ended {
    signals::install()?;
    let pool = Pool::new(2);
    busy(&pool);
    sixty(&pool);
    before_join("ready", ready)?;
    exit(5)
}

/// The signal comes about when `main` returns, so many microseconds after the program is ready.
fn meets_return() -> Ended {
    let code = |report: &Report| {
        println!("ends for {:?}", report.reason());
        match report.reason() {
            Reason::Signal(libc::SIGTERM) => 0,
            Reason::Signal(signal) => 128 + signal,
            _ => 1,
        }
    };
    signals::Builder::new().exit_code(code).install()?;
    let pool = Pool::new(2);
    for n in 0..60 {
        pool.execute(move || println!("task {n}"))?;
    }
    let returns = Duration::from_micros(argument().parse()?);
    ready();
    let start = Instant::now();
    while start.elapsed() < returns {
        std::hint::spin_loop();
    }
    println!("main returns");
    Ok(())
}

fn loses_work() -> Ended {
    signals::Builder::new().deadline(Duration::from_millis(300)).install()?;
    Pool::new(1).execute(|| block_for_ever())?;
    ready();
    block_for_ever()
}

fn with_code() -> Ended {
    let code = |report: &Report| {
        println!("{:?}, clean: {}", report.reason(), report.is_clean());
        42
    };
    signals::Builder::new().exit_code(code).deadline(Duration::MAX).install()?;
    sixty(&Pool::new(2));
    ready();
    block_for_ever()
}

fn with_panicking_code() -> Ended {
    signals::Builder::new().exit_code(|_| panic!("no code")).install()?;
    let handles = sixty(&Pool::new(2));
    ready();
    if argument() == "join" {
        handles.into_iter().try_for_each(JoinHandle::join)?;
        return Ok(());
    }
    block_for_ever()
}

fn with_exiting_code() -> Ended {
    let code = |report: &Report| {
        // The crate answers here, too.
        assert_eq!(shutdown().elapsed(), report.elapsed());
        assert_eq!(Pool::new(1).execute(|| ()).unwrap_err().reason(), RejectReason::ShuttingDown);
        if argument() == "process::exit" {
            exit(43);
        }
        winddown::exit(43)
    };
    signals::Builder::new().exit_code(code).install()?;
    sixty(&Pool::new(2));
    ready();
    block_for_ever()
}

/// Something other than a signal begins the shutdown, which then hangs.
fn after_shutdown_began() -> Ended {
    extern "C" fn at_exit() {
        println!("exit handler");
    }
    // SAFETY: the handler lives as long as the program.
    unsafe { libc::atexit(at_exit) };
    signals::install()?;
    let pool = Pool::new(1);
    pool.execute(|| {
        token().wait();
        ready();
        block_for_ever()
    })?;
    match argument().as_str() {
        "return" => return Ok(()),
        "exit" => winddown::exit(3),
        "process::exit" => exit(3),
        "request" => request_shutdown(),
        "shutdown" => drop(shutdown()),
        "signal" => println!("waiting"),
        other => panic!("{other:?} is not known"),
    }
    block_for_ever()
}

/// A task is at work, and hooks, until the test writes a line to each.
fn amid_work() -> Ended {
    signals::install()?;
    let pool = Pool::new(2);
    busy(&pool);
    sixty(&pool);
    for stage in ["before", "after"] {
        let hook = move || {
            println!("{stage}");
            read_line();
        };
        match stage {
            "before" => drop(before_join(stage, hook)?),
            _ => drop(after_join(stage, hook)?),
        }
    }
    ready();
    block_for_ever()
}

fn requests() -> Ended {
    signals::Builder::new().on_signal(OnSignal::Request).exit_code(|_| 42).install()?;
    let handles = sixty(&Pool::new(2));
    ready();
    if argument() == "return" {
        handles.into_iter().try_for_each(JoinHandle::join)?;
        return Ok(());
    }
    let report = wait_finished();
    println!("{:?}, clean: {}", report.reason(), report.is_clean());
    exit(7)
}

fn requests_and_hook_exits() -> Ended {
    signals::Builder::new().on_signal(OnSignal::Request).install()?;
    sixty(&Pool::new(2));
    before_join("exits", || winddown::exit(8))?;
    ready();
    block_for_ever()
}

fn and_hook_exits() -> Ended {
    signals::install()?;
    sixty(&Pool::new(2));
    let std_too = argument() == "process::exit";
    before_join("exits", move || if std_too { exit(8) } else { winddown::exit(8) })?;
    ready();
    block_for_ever()
}

fn and_task_exits() -> Ended {
    signals::install()?;
    let pool = Pool::new(3);
    let std_too = argument() == "process::exit";
    pool.execute(move || {
        token().wait();
        if std_too {
            exit(8)
        }
        winddown::exit(8)
    })?;
    sixty(&pool);
    ready();
    block_for_ever()
}

fn before_any_pool() -> Ended {
    signals::install()?;
    ready();
    block_for_ever()
}

fn in_read_line() -> Ended {
    signals::install()?;
    sixty(&Pool::new(2));
    ready();
    read_line();
    unreachable!("nothing is written, and a signal does not interrupt it")
}

/// Signals land on workers that are in system calls.
fn in_system_calls() -> Ended {
    signals::Builder::new().on_signal(OnSignal::Request).install()?;
    let pool = Pool::new(3);
    let (tell, told) = channel();
    let on_worker = |call: Box<dyn FnOnce() -> bool + Send>| {
        let tell = tell.clone();
        let task = move || {
            // SAFETY: asks for the thread's own name.
            tell.send(unsafe { libc::pthread_self() } as usize).unwrap();
            call()
        };
        pool.spawn(task).expect("an open pool takes tasks")
    };
    let mut ends = [0; 2];
    // SAFETY: the pointer is valid for a write of two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, socket) = (listener.local_addr()?, listener.as_raw_fd());
    let (slept, wait) = channel::<()>();
    let calls = [
        on_worker(Box::new(move || {
            let mut byte = 0_u8;
            // SAFETY: the pointer is valid for a write of a byte.
            unsafe { libc::read(ends[0], std::ptr::from_mut(&mut byte).cast(), 1) == 1 }
        })),
        on_worker(Box::new(move || {
            // SAFETY: null pointers ask for nothing.
            unsafe { libc::accept(socket, std::ptr::null_mut(), std::ptr::null_mut()) >= 0 }
        })),
        on_worker(Box::new(move || {
            let (start, time) = (Instant::now(), Duration::from_millis(200));
            thread::sleep(time);
            wait.recv().is_err() && start.elapsed() >= time
        })),
    ];
    let workers = [told.recv()?, told.recv()?, told.recv()?];
    for _ in 0..1000 {
        for worker in workers {
            // SAFETY: the thread has not ended: its task does not end before what comes below.
            unsafe { libc::pthread_kill(worker as libc::pthread_t, libc::SIGTERM) };
        }
        thread::yield_now();
    }
    // SAFETY: the pointer is valid for a read of a byte.
    unsafe { libc::write(ends[1], b"x".as_ptr().cast(), 1) };
    drop((TcpStream::connect(address)?, slept));
    assert_eq!(calls.map(|call| call.join().unwrap()), [true; 3], "a call was interrupted");
    ready();
    println!("{:?}", wait_finished().reason());
    Ok(())
}

/// Prints what the crate logs about each signal. The shutdown that the first begins ends with standard input.
fn log_of_signals() -> Ended {
    struct Printer;
    impl log::Log for Printer {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let text = record.args().to_string();
            if let (true, Some((name, _))) = (text.starts_with("SIG"), text.split_once(':')) {
                println!("{} {name}", record.level());
                // What a logger does is nothing that signals depend on.
                panic!("a logger panics");
            }
        }
        fn flush(&self) {}
    }
    std::panic::set_hook(Box::new(|_| ()));
    log::set_logger(&Printer).expect("there is no other logger");
    log::set_max_level(log::LevelFilter::Debug);
    signals::install()?;
    Pool::new(1).execute(read_line)?;
    ready();
    block_for_ever()
}

fn not_asked_for() -> Ended {
    sixty(&Pool::new(2));
    ready();
    block_for_ever()
}

fn install_twice() -> Ended {
    signals::install()?;
    sixty(&Pool::new(2));
    for _ in 0..2 {
        let error = signals::Builder::new().on_signal(OnSignal::Request).install().unwrap_err();
        assert!(matches!(error, SignalError::AlreadyInstalled), "{error}");
    }
    ready();
    block_for_ever()
}

fn raise(signal: i32) {
    // SAFETY: sends a signal to the calling thread.
    unsafe { libc::raise(signal) };
}

const SIGNALS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Children that are forked and do not call `exec`, before and after the installation.
fn children() -> Ended {
    let early = child(|| {
        signals::Builder::new().exit_code(|_| 44).install().unwrap();
        Pool::new(1).execute(|| println!("task of an early child")).unwrap();
        raise(libc::SIGTERM);
        block_for_ever()
    });
    println!("early child: {}", early.end());
    signals::install()?;
    for signal in SIGNALS {
        println!("child: {}", child(|| raise(signal)).end());
        let with_pool = child(|| {
            Pool::new(1).execute(|| ()).unwrap();
            raise(signal);
        });
        println!("child with a pool: {}", with_pool.end());
    }
    let refused = child(|| {
        let error = signals::install().unwrap_err();
        assert!(matches!(error, SignalError::Forked), "{error}");
    });
    println!("child that installs: {}", refused.end());
    let grandchild = child(|| println!("grandchild: {}", child(|| raise(libc::SIGINT)).end()));
    println!("its parent: {}", grandchild.end());
    println!("exec: {}", Command::new("sh").args(["-c", "kill -INT $$"]).status()?);
    // The parent's own still work.
    raise(libc::SIGHUP);
    block_for_ever()
}

/// The same in a hook of the shutdown that a signal began.
fn children_in_hook() -> Ended {
    signals::install()?;
    before_join("forks", || {
        for signal in SIGNALS {
            println!("child: {}", child(|| raise(signal)).end());
        }
        println!("exec: {}", Command::new("sh").args(["-c", "kill -INT $$"]).status().unwrap());
    })?;
    raise(libc::SIGTERM);
    block_for_ever()
}

/// ctrlc's handlers are installed, and then it cannot have its thread.
#[cfg(target_os = "linux")]
fn no_thread_to_install() -> Ended {
    end_in_a_minute();
    let pool = pool_of_two_threads();
    sixty(&pool);
    for _ in 0..2 {
        let error = limited::without_threads(signals::install).unwrap_err();
        let SignalError::System(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
    if argument() == "retry" {
        signals::install()?;
    }
    ready();
    block_for_ever()
}

/// A pool whose threads have mapped what a thread maps for itself when it starts: from then on the process needs no more
/// address space, nor does it give any back.
#[cfg(target_os = "linux")]
fn pool_of_two_threads() -> Pool {
    let pool = Pool::new(2);
    let both = Arc::new(Barrier::new(3));
    for _ in 0..2 {
        let both = both.clone();
        let start = move || {
            drop(std::hint::black_box(vec![0; 1000]));
            both.wait();
        };
        pool.execute(start).expect("an open pool takes tasks");
    }
    both.wait();
    pool
}

#[cfg(target_os = "linux")]
fn no_thread_to_wind_down() -> Ended {
    end_in_a_minute();
    signals::install()?;
    let pool = pool_of_two_threads();
    busy(&pool);
    sixty(&pool);
    limited::without_threads(|| -> Ended {
        ready();
        block_for_ever()
    })
}

fn in_sleep() -> Ended {
    signals::install()?;
    sixty(&Pool::new(2));
    ready();
    thread::sleep(Duration::MAX);
    unreachable!("a signal does not interrupt it")
}

/// Everything that winds the process down, one upon the other: a request, a signal, calls, a guard, the exit.
fn with_every_other_end() -> Ended {
    signals::Builder::new().on_signal(OnSignal::Request).install()?;
    sixty(&Pool::new(2));
    before_join("before", || println!("before"))?;
    after_join("after", || println!("after"))?;
    let _guard = guard();
    request_shutdown();
    raise(libc::SIGTERM);
    let report = shutdown();
    assert!(report.is_clean() && report.hooks().len() == 2, "{report}");
    raise(libc::SIGHUP);
    drop(guard());
    winddown::exit(i32::from(shutdown().elapsed() != report.elapsed()))
}

/// No file, pipe or socket can be opened, neither for the installation nor when the signal comes.
fn without_descriptors() -> Ended {
    end_in_a_minute();
    sixty(&Pool::new(2));
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for a write of an `rlimit`.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = 0;
    // SAFETY: the pointer is valid for a read of an `rlimit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    assert!(std::fs::File::open("/dev/null").is_err());
    signals::install()?;
    ready();
    block_for_ever()
}
