#![allow(unsafe_code)] // C's own `atexit`.

use crate::{Case, Ended};
use std::ffi::c_int;
use std::process::exit;
use std::thread;
use std::time::Duration;
use winddown::{HookReport, Pool};

pub const CASES: &[Case] = &[
    ("hook_never_ends", hook_never_ends),
    ("hook_calls_process_exit_at_exit", hook_calls_process_exit),
    ("hook_starts_threads_at_exit", hook_starts_threads),
];

extern "C" {
    fn atexit(handler: extern "C" fn()) -> c_int;
}

/// Has the report of the shutdown at exit printed, which only an exit handler from before the first pool can see.
pub fn print_report_at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler lives as long as the program.
    assert_eq!(unsafe { atexit(handler) }, 0);
}

extern "C" fn print_hooks() {
    let report = winddown::wait_finished();
    let outcome = |hook: &HookReport| format!("{} {:?}", hook.name(), hook.outcome());
    let outcomes: Vec<_> = report.hooks().iter().map(outcome).collect();
    println!("report: {}, clean: {}", outcomes.join(", "), report.is_clean());
}

/// A pool with twenty tasks and a hook on either side of `hook`, under a deadline.
fn around(hook: fn()) -> Ended {
    print_report_at_exit(print_hooks);
    winddown::set_deadline(Some(Duration::from_secs(1)));
    let pool = Pool::new(1);
    for n in 0..20 {
        pool.execute(move || println!("task {n}"))?;
    }
    winddown::before_join("older", || println!("older"))?;
    winddown::before_join("bad", hook)?;
    winddown::before_join("newer", || println!("newer"))?;
    winddown::after_join("last", || println!("last"))?;
    Ok(())
}

fn hook_never_ends() -> Ended {
    around(|| loop {
        thread::park();
    })
}

/// std lets the hook's thread sleep for ever, since the process exits already.
fn hook_calls_process_exit() -> Ended {
    around(|| exit(9))
}

fn hook_starts_threads() -> Ended {
    let main = thread::current().id();
    let start = move |stage: &'static str| {
        let thread = thread::Builder::new().name(format!("for {stage}")).spawn(move || {
            println!("{stage}: a thread with the name {:?}", thread::current().name().unwrap_or_default());
        });
        thread.expect("a thread may be started").join().expect("it does not panic");
        println!(
            "{stage}: on main: {}, named: {}",
            thread::current().id() == main,
            thread::current().name().is_some()
        );
    };
    winddown::before_join("before", move || start("before"))?;
    winddown::after_join("after", move || start("after"))?;
    Ok(())
}
