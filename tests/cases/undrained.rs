#![allow(unsafe_code)] // Ways out of a process that only C offers.

use crate::{Case, Ended};
use std::cell::RefCell;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use winddown::Pool;

pub const CASES: &[Case] = &[
    ("undrained_kill", || undrained(|| raise(libc::SIGKILL))),
    ("undrained_term", || undrained(|| raise(libc::SIGTERM))),
    ("undrained_exit", || undrained(exit_at_once)),
    ("undrained_exec", || undrained(exec)),
    ("undrained_overflow", || undrained(overflow)),
    ("undrained_panic_in_panic", || undrained(panic_in_panic)),
    ("undrained_panic_in_destructor", || undrained(panic_in_destructor)),
];

/// Tasks and hooks that would say so if anything were drained. The first task runs, and waits for a shutdown.
fn undrained(end: fn()) -> Ended {
    let pool = Pool::new(1);
    let (begun, has_begun) = channel();
    pool.execute(move || {
        begun.send(()).expect("main listens");
        winddown::token().wait();
    })?;
    for n in 0..50 {
        pool.execute(move || println!("task {n}"))?;
    }
    winddown::before_join("before", || println!("before"))?;
    winddown::after_join("after", || println!("after"))?;
    has_begun.recv()?;
    end();
    unreachable!("the process has ended")
}

fn raise(signal: i32) {
    // SAFETY: sends a signal to the calling thread.
    unsafe { libc::raise(signal) };
}

fn exit_at_once() {
    // SAFETY: ends the process.
    unsafe { libc::_exit(3) }
}

fn exec() {
    let error = Command::new("sh").args(["-c", "exit 9"]).exec();
    panic!("there is no shell: {error}");
}

/// On a thread with a small stack, whatever the limit of the main thread's.
fn overflow() {
    fn dig(depth: usize) -> usize {
        let ballast = std::hint::black_box([depth; 100]);
        match std::hint::black_box(usize::MAX) {
            0 => 0,
            _ => dig(depth + 1) + ballast[depth % 100],
        }
    }
    let thread = thread::Builder::new().stack_size(1 << 18).spawn(|| dig(0)).expect("a thread");
    thread.join().expect("the process has ended");
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a drop panics");
    }
}

/// What a task has captured is dropped while its panic unwinds.
fn panic_in_panic() {
    let bomb = Bomb;
    let task = move || -> () {
        let _bomb = &bomb;
        panic!("a task panics");
    };
    Pool::new(1).spawn(task).expect("an open pool takes tasks").join().expect("the process has ended");
}

fn panic_in_destructor() {
    thread_local!(static BOMB: RefCell<Option<Bomb>> = const { RefCell::new(None) });
    let pool = Pool::new(1);
    pool.execute(|| BOMB.set(Some(Bomb))).expect("an open pool takes tasks");
    pool.shutdown();
}
