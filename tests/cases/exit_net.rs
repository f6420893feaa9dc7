#![allow(unsafe_code)] // C's own `exit` and `atexit`.

use crate::{Case, Ended};
use std::cell::RefCell;
use std::ffi::c_int;
#[cfg(unix)]
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, LazyLock, OnceLock};
use std::thread;
use std::time::Duration;
use winddown::{Pool, Registry};

macro_rules! cases {
    ($($(#[$attribute:meta])* $case:ident),* $(,)?) => {
        pub const CASES: &[Case] = &[$($(#[$attribute])* (stringify!($case), $case)),*];
    };
}

cases![
    main_returns,
    main_returns_with_one_worker,
    main_fails,
    main_panics,
    main_exits,
    main_exits_with_crate,
    main_exits_in_c,
    main_shuts_down,
    main_joins_a_task_that_exits,
    main_joins_a_task_that_exits_with_crate,
    main_returns_while_a_thread_exits,
    main_returns_while_a_thread_exits_with_crate,
    main_returns_while_daemons_print,
    task_exits,
    task_exits_with_crate,
    task_exits_in_c,
    task_exits_while_main_exits,
    task_exits_with_crate_while_main_exits,
    tasks_exit_with_crate_while_main_exits,
    task_uses_std_while_main_exits,
    thread_exits_with_crate,
    hook_exits_with_crate_in_a_shutdown,
    hook_exits_with_crate_while_main_exits,
    guard_is_dropped,
    guard_is_dropped_in_a_panic,
    handle_is_dropped,
    handle_is_forgotten,
    handle_is_leaked,
    pool_in_a_static,
    pool_in_a_thread_local,
    pool_of_a_lost_registry,
    hooks_of_a_lost_registry,
    registry_made_after_the_shutdown,
    first_pool_on_a_thread,
    first_pool_in_a_handler,
    handlers_around_the_drain,
    print_without_newline,
    print_without_newline_before_exit_in_c,
    stdout_locked_by_a_task,
    stdout_locked_by_a_daemon,
    tasks_and_hooks_panic,
    tasks_and_hooks_panic_and_are_logged,
    pools_are_idle,
    process_aborts,
    last_task_says_so,
    tasks_write_files,
    #[cfg(unix)]
    library_is_unloaded,
];

extern "C" {
    fn atexit(handler: extern "C" fn()) -> c_int;
    fn exit(code: c_int) -> !;
}

fn exit_in_c(code: i32) -> ! {
    // SAFETY: no other thread of these programs calls it, and their handlers do not unwind.
    unsafe { exit(code) }
}

fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler lives as long as the program.
    assert_eq!(unsafe { atexit(handler) }, 0);
}

/// Queues 50 tasks that each print a line.
fn fifty(pool: &Pool) {
    for n in 0..50 {
        pool.execute(move || {
            thread::sleep(Duration::from_millis(2)); // the work
            println!("task {n}");
        })
        .expect("an open pool takes tasks");
    }
}

/// Queues a task and 50 on either side of it.
fn amid_a_hundred(pool: &Pool, task: impl FnOnce() + Send + 'static) {
    fifty(pool);
    pool.execute(task).expect("an open pool takes tasks");
    fifty(pool);
}

fn block_for_ever() -> ! {
    loop {
        thread::park();
    }
}

// ---- how the process ends ----

fn main_returns() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    Ok(())
}

/// Nothing of what is queued has begun when `main` returns.
fn main_returns_with_one_worker() -> Ended {
    let pool = Pool::new(1);
    pool.execute(|| winddown::token().wait())?;
    for n in 0..100 {
        pool.execute(move || println!("task {n}"))?;
    }
    Ok(())
}

fn main_fails() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    Err("no luck".into())
}

fn main_panics() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    panic!("no luck");
}

fn main_exits() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    process::exit(3)
}

fn main_exits_with_crate() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    winddown::exit(7)
}

fn main_exits_in_c() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    exit_in_c(3)
}

fn main_shuts_down() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    assert!(winddown::shutdown().is_clean());
    println!("shut down");
    Ok(())
}

fn main_joins_a_task_that_exits() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    pool.spawn(|| -> () { process::exit(4) })?.join()?;
    unreachable!("the task does not end before the process")
}

fn main_joins_a_task_that_exits_with_crate() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    pool.spawn(|| -> () { winddown::exit(7) })?.join()?;
    unreachable!("the task does not end before the process")
}

fn main_returns_while_a_thread_exits() -> Ended {
    race(|| process::exit(3))
}

fn main_returns_while_a_thread_exits_with_crate() -> Ended {
    race(|| winddown::exit(3))
}

fn race(exit: fn()) -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    winddown::after_join("last", || println!("drained"))?;
    let start = Arc::new(Barrier::new(2));
    let other = start.clone();
    thread::spawn(move || {
        other.wait();
        exit();
    });
    start.wait();
    Err("main fails".into())
}

fn main_returns_while_daemons_print() -> Ended {
    let daemons = Pool::builder().daemon().max_threads(40).build()?;
    let all_run = Arc::new(Barrier::new(41));
    for _ in 0..40 {
        let all_run = all_run.clone();
        daemons.execute(move || {
            all_run.wait();
            loop {
                println!("daemon");
            }
        })?;
    }
    all_run.wait();
    main_returns()
}

fn task_exits() -> Ended {
    amid_a_hundred(&Pool::new(2), || process::exit(4));
    block_for_ever()
}

fn task_exits_with_crate() -> Ended {
    amid_a_hundred(&Pool::new(2), || winddown::exit(7));
    block_for_ever()
}

fn task_exits_in_c() -> Ended {
    amid_a_hundred(&Pool::new(2), || exit_in_c(4));
    block_for_ever()
}

fn task_exits_while_main_exits() -> Ended {
    winddown::set_deadline(Some(Duration::from_secs(1)));
    amid_a_hundred(&Pool::new(2), || {
        winddown::token().wait();
        process::exit(4);
    });
    Ok(())
}

fn task_exits_with_crate_while_main_exits() -> Ended {
    let pool = Pool::new(1);
    amid_a_hundred(&pool, || {
        winddown::token().wait();
        winddown::exit(7);
    });
    Ok(())
}

fn tasks_exit_with_crate_while_main_exits() -> Ended {
    let (pool, other) = (Pool::new(2), Pool::new(2));
    for pool in [&pool, &other, &pool, &other, &pool] {
        amid_a_hundred(pool, || {
            winddown::token().wait();
            winddown::exit(7);
        });
    }
    Ok(())
}

/// What std offers still works in a task while the C runtime runs exit handlers.
fn task_uses_std_while_main_exits() -> Ended {
    static LAZY: LazyLock<u32> = LazyLock::new(|| 7);
    let pool = Pool::new(1);
    pool.execute(|| {
        winddown::token().wait();
        let (send, receive) = channel();
        thread::scope(|scope| {
            scope.spawn(|| send.send(*LAZY));
        });
        let received = receive.recv().expect("the scoped thread has sent");
        println!("{received} on {:?}", thread::current().name());
    })?;
    Ok(())
}

fn thread_exits_with_crate() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    thread::spawn(|| winddown::exit(7));
    block_for_ever()
}

fn hook_exits_with_crate_in_a_shutdown() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    winddown::before_join("exit", || winddown::exit(7))?;
    winddown::shutdown();
    unreachable!("a hook has asked for the end of the process")
}

fn hook_exits_with_crate_while_main_exits() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    winddown::after_join("last", || println!("the hooks after it run"))?;
    winddown::after_join("exit", || winddown::exit(7))?;
    winddown::before_join("exit", || winddown::exit(7))?;
    process::exit(3)
}

fn guard_is_dropped() -> Ended {
    let _guard = winddown::guard();
    main_returns()
}

fn guard_is_dropped_in_a_panic() -> Ended {
    let _guard = winddown::guard();
    main_panics()
}

fn process_aborts() -> Ended {
    let pool = Pool::new(1);
    pool.execute(|| winddown::token().wait())?;
    fifty(&pool);
    process::abort()
}

// ---- where the pool is ----

fn handle_is_dropped() -> Ended {
    let pool = Pool::new(2);
    let (begun, has_begun) = channel();
    pool.execute(move || begun.send(()).expect("main listens"))?;
    fifty(&pool);
    drop(pool);
    has_begun.recv()?;
    Ok(())
}

fn handle_is_forgotten() -> Ended {
    let pool = Pool::new(2);
    fifty(&pool);
    std::mem::forget(pool);
    Ok(())
}

fn handle_is_leaked() -> Ended {
    static LEAKED: OnceLock<&Pool> = OnceLock::new(); // so that a leak check knows where it is
    fifty(LEAKED.get_or_init(|| Box::leak(Box::new(Pool::new(2)))));
    Ok(())
}

static POOL: OnceLock<Pool> = OnceLock::new();

fn pool_in_a_static() -> Ended {
    fifty(POOL.get_or_init(|| Pool::new(2)));
    Ok(())
}

fn pool_in_a_thread_local() -> Ended {
    thread_local!(static POOL: RefCell<Option<Pool>> = const { RefCell::new(None) });
    POOL.with_borrow_mut(|pool| fifty(pool.insert(Pool::new(2))));
    Ok(())
}

fn pool_of_a_lost_registry() -> Ended {
    let pool = Pool::builder().max_threads(2).registry(&Registry::new()).build()?;
    fifty(&pool);
    Ok(())
}

fn hooks_of_a_lost_registry() -> Ended {
    let registry = Registry::new();
    registry.before_join("before", || println!("before"))?;
    registry.after_join("after", || println!("after"))?;
    drop(registry.clone());
    drop(registry);
    let _guard = winddown::guard();
    Ok(())
}

fn registry_made_after_the_shutdown() -> Ended {
    winddown::shutdown();
    pool_of_a_lost_registry()
}

fn first_pool_on_a_thread() -> Ended {
    thread::spawn(|| fifty(&Pool::new(2))).join().expect("the thread has not panicked");
    Ok(())
}

// ---- handlers of others ----

fn first_pool_in_a_handler() -> Ended {
    extern "C" fn handler() {
        fifty(POOL.get_or_init(|| Pool::new(2)));
    }
    at_exit(handler);
    Ok(())
}

/// C runs handlers in the reverse order of their registration, and winddown's is registered with the first pool.
fn handlers_around_the_drain() -> Ended {
    extern "C" fn before() {
        println!("handler before");
        fifty(POOL.get().expect("main has made it"));
    }
    extern "C" fn after() {
        println!("handler after");
        let pool = POOL.get().expect("main has made it");
        println!("submitting: {:?}", pool.execute(|| println!("lost")).map_err(|refused| refused.reason()));
        println!(
            "a new pool: {:?}",
            Pool::new(1).execute(|| println!("lost")).map_err(|refused| refused.reason())
        );
        let report = winddown::wait_finished();
        println!("report: {:?}, {}", report.reason(), report.is_clean());
    }
    at_exit(after);
    POOL.get_or_init(|| Pool::new(2));
    at_exit(before);
    Ok(())
}

/// The library that is given has a copy of the crate, and of its net, of its own.
#[cfg(unix)]
fn library_is_unloaded() -> Ended {
    let path = CString::new(std::env::args().nth(2).expect("a library"))?;
    // SAFETY: what runs when the library is loaded and unloaded is std's and the crate's. The function is there, of this type,
    // and called before that.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "the library can be loaded");
        let queue_fifty = libc::dlsym(library, c"queue_fifty".as_ptr());
        assert!(!queue_fifty.is_null(), "the function is there");
        std::mem::transmute::<*mut libc::c_void, extern "C" fn()>(queue_fifty)();
        assert_eq!(libc::dlclose(library), 0);
    }
    println!("main returns");
    Ok(())
}

// ---- output ----

fn print_without_newline() -> Ended {
    let pool = Pool::new(1);
    pool.execute(|| {
        winddown::token().wait();
        print!("no newline");
    })?;
    Ok(())
}

/// Here std has had no chance to flush.
fn print_without_newline_before_exit_in_c() -> Ended {
    print!("main, ");
    print_without_newline()?;
    exit_in_c(3)
}

/// std flushes when `main` returns, if it can: here it cannot.
fn stdout_locked_by_a_task() -> Ended {
    let pool = Pool::new(1);
    let (locked, is_locked) = channel();
    pool.execute(move || {
        let mut stdout = io::stdout().lock();
        write!(stdout, "before, ").expect("stdout is open");
        locked.send(()).expect("main listens");
        winddown::token().wait();
        write!(stdout, "after").expect("stdout is open");
    })?;
    is_locked.recv()?;
    Ok(())
}

fn stdout_locked_by_a_daemon() -> Ended {
    let pool = Pool::builder().daemon().max_threads(1).build()?;
    let (locked, is_locked) = channel();
    pool.execute(move || {
        let _stdout = io::stdout().lock();
        locked.send(()).expect("main listens");
        block_for_ever();
    })?;
    is_locked.recv()?;
    Ok(())
}

/// Begins when the parent process has closed our stdin.
fn tasks_and_hooks_panic() -> Ended {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let pool = Pool::new(2);
    amid_a_hundred(&pool, || panic!("a task"));
    winddown::before_join("panics", || panic!("a hook"))?;
    winddown::after_join("panics", || panic!("a hook"))?;
    Ok(())
}

/// The same in a program that logs to stderr, at exit too: what cannot be written there panics in the logger.
fn tasks_and_hooks_panic_and_are_logged() -> Ended {
    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            eprintln!("{} {}", record.level(), record.args());
        }
        fn flush(&self) {}
    }
    log::set_logger(&Stderr).expect("there is no other logger");
    log::set_max_level(log::LevelFilter::Debug);
    tasks_and_hooks_panic()
}

/// With the keep-alive that pools have unless told otherwise, and without end.
fn pools_are_idle() -> Ended {
    let registry = Registry::new();
    for _ in 0..4 {
        let pool = Pool::builder().max_threads(2);
        let private = Pool::builder().max_threads(2).keep_alive(Duration::MAX).registry(&registry);
        for pool in [pool.build()?, private.build()?] {
            let both_run = Arc::new(Barrier::new(2));
            for _ in 0..2 {
                let both_run = both_run.clone();
                pool.execute(move || {
                    both_run.wait();
                })?;
            }
            pool.wait_idle();
            std::mem::forget(pool);
        }
    }
    Ok(())
}

/// Says when the last task ends: what comes after that is the exit's own time.
fn last_task_says_so() -> Ended {
    let pool = Pool::new(2);
    for n in 0..2 {
        pool.execute(move || {
            winddown::token().wait();
            if n == 1 {
                thread::sleep(Duration::from_millis(30)); // the work, longer than the other's
                println!("the last task ends");
            }
        })?;
    }
    Ok(())
}

/// Forty tasks that run at the same time each write a file into the folder that is given, through a buffer.
fn tasks_write_files() -> Ended {
    let folder = std::path::PathBuf::from(std::env::args().nth(2).expect("a folder"));
    let pool = Pool::new(40);
    for n in 0..40 {
        let path = folder.join(n.to_string());
        pool.execute(move || {
            winddown::token().wait();
            let mut file = BufWriter::new(File::create(path).expect("the folder is there"));
            for line in 0..1000 {
                writeln!(file, "line {line} of {n}").expect("the file takes it");
            }
        })?;
    }
    Ok(())
}
