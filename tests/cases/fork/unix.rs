//! What ends and how, wherever it was forked.

use super::before::{self, gate, is_abandoned, Before};
use super::{scopes, storm};
use crate::{Case, Ended};
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use winddown::*;

pub const CASES: &[Case] = &[
    ("fork_old_things", before::old_things),
    ("fork_hooks", hooks),
    ("fork_child_ends", child_ends),
    ("fork_child_drains", child_drains),
    ("fork_after_shutdown", after_shutdown),
    ("fork_in_executed_task", || in_task(Submit::Execute)),
    ("fork_in_spawned_task", || in_task(Submit::Spawn)),
    ("fork_in_task_new_pools", in_task_new_pools),
    ("fork_in_joined_task", in_joined_task),
    ("fork_in_hook", in_hook),
    ("fork_in_hook_at_exit", in_hook_at_exit),
    ("fork_in_task_at_exit", in_task_at_exit),
    ("fork_grandchildren", grandchildren),
    ("fork_storm", storm::storm),
    ("fork_storm_in_tasks", storm::storm_in_tasks),
    ("fork_storm_old_registry", storm::storm_old_registry),
    ("fork_prefork", prefork),
    ("fork_output", output),
    ("fork_untouched_output", untouched_output),
    ("fork_guard", guarded),
    ("fork_in_scope", scopes::in_closure),
    ("fork_in_scoped_task", scopes::in_task),
    ("fork_storm_in_scopes", scopes::storm),
];

/// A child that has not ended by then hangs.
const ALARM_SECONDS: u32 = 10;

pub struct Child(libc::pid_t);

/// Forks; `None` in the child.
pub fn fork() -> Option<Child> {
    // SAFETY: what the child may rely on after a fork is what these cases are about.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed: {}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: an alarm without a handler ends the process.
            unsafe { libc::alarm(ALARM_SECONDS) };
            None
        }
        pid => Some(Child(pid)),
    }
}

impl Child {
    /// Waits for its end and tells it: `code 0`, `signal 14`.
    pub fn end(self) -> String {
        let mut status = 0;
        // SAFETY: the pointer is valid for a write of the status.
        let pid = unsafe { libc::waitpid(self.0, &mut status, 0) };
        assert_eq!(pid, self.0, "{}", std::io::Error::last_os_error());
        match libc::WIFEXITED(status) {
            true => format!("code {}", libc::WEXITSTATUS(status)),
            false => format!("signal {}", libc::WTERMSIG(status)),
        }
    }
}

/// Forks a child that runs `f` and exits; one in which `f` panics ends with code 101.
pub fn child(f: impl FnOnce()) -> Child {
    fork().unwrap_or_else(|| match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => std::process::exit(0),
        // SAFETY: ends the process.
        Err(_) => unsafe { libc::_exit(101) },
    })
}

pub fn whoami(parent: u32) -> &'static str {
    match std::process::id() == parent {
        true => "parent",
        false => "child",
    }
}

/// Without the exit net a program shuts down by itself.
pub fn before_end() {
    if !cfg!(feature = "exit-hook") {
        shutdown();
    }
}

/// The ways in which a child can end.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Return,
    ProcessExit,
    LibcExit,
    WinddownExit,
    Panic,
}

const ENDS: [End; 5] = [End::Return, End::ProcessExit, End::LibcExit, End::WinddownExit, End::Panic];

impl End {
    fn go(self) {
        match self {
            End::Return => {}
            End::ProcessExit => std::process::exit(0),
            // SAFETY: nothing of this program relies on anything else at exit.
            End::LibcExit => unsafe { libc::exit(0) },
            End::WinddownExit => winddown::exit(0),
            End::Panic => std::panic::resume_unwind(Box::new("ends the child without a message")),
        }
    }
}

fn hooks() -> Ended {
    let parent = std::process::id();
    let registry = Registry::new();
    before_join("before", move || println!("global before in {}", whoami(parent)))?;
    after_join("after", move || println!("global after in {}", whoami(parent)))?;
    registry.before_join("before", move || println!("private before in {}", whoami(parent)))?;
    registry.after_join("after", move || println!("private after in {}", whoami(parent)))?;
    for end in ENDS {
        match fork() {
            Some(child) => println!("{end:?}: {}", child.end()),
            None => {
                before_end();
                end.go();
                return Ok(());
            }
        }
    }
    before_end();
    Ok(())
}

/// The parent has idle workers, a task that runs and tasks behind it.
fn child_ends() -> Ended {
    let before = Before::new()?;
    for end in ENDS {
        match fork() {
            Some(child) => println!("{end:?}: {}", child.end()),
            None => {
                end.go();
                return Ok(());
            }
        }
    }
    drop(before);
    before_end();
    Ok(())
}

fn child_drains() -> Ended {
    let before = Before::new()?;
    for end in ENDS {
        match fork() {
            Some(child) => println!("{end:?}: {}", child.end()),
            None => {
                before_join("before", move || println!("{end:?} child: before"))?;
                let registry = Registry::new();
                registry.after_join("after", move || println!("{end:?} child: private after"))?;
                for pool in [Pool::new(2), Pool::builder().registry(&registry).max_threads(1).build()?] {
                    for _ in 0..20 {
                        pool.execute(move || {
                            thread::sleep(Duration::from_millis(1)); // the work
                            println!("{end:?} child: task");
                        })?;
                    }
                }
                after_join("after", move || println!("{end:?} child: after"))?;
                before_end();
                end.go();
                return Ok(());
            }
        }
    }
    drop(before);
    before_end();
    Ok(())
}

fn after_shutdown() -> Ended {
    Pool::new(2).spawn(|| ())?.join()?;
    shutdown();
    let child = child(|| {
        assert_eq!(Registry::global().phase(), Phase::Running);
        assert!(!token().is_triggered());
        after_join("after", || println!("child: after")).unwrap();
        Pool::new(1).execute(|| println!("child: task")).unwrap();
        before_end();
    });
    println!("child: {}", child.end());
    assert_eq!(Pool::new(1).execute(|| ()).unwrap_err().reason(), RejectReason::ShuttingDown);
    Ok(())
}

#[derive(Clone, Copy)]
enum Submit {
    Execute,
    Spawn,
}

/// Each child is forked on the only worker, with tasks queued behind it.
fn in_task(submit: Submit) -> Ended {
    let parent = std::process::id();
    for end in [End::Return, End::ProcessExit, End::LibcExit, End::WinddownExit, End::Panic] {
        let builder = Pool::builder().max_threads(1);
        let pool =
            builder.on_thread_start(move || println!("{end:?}: a thread of {}", whoami(parent))).build()?;
        let (open, wait) = gate();
        let (tell, told) = channel();
        let task = move || {
            wait();
            match fork() {
                Some(child) => tell.send(child.end()).unwrap(),
                None => end.go(),
            }
        };
        match submit {
            Submit::Execute => pool.execute(task)?,
            Submit::Spawn => drop(pool.spawn(task)?),
        }
        for _ in 0..3 {
            pool.execute(move || println!("{end:?}: a task of {}", whoami(parent)))?;
        }
        drop(open);
        println!("{end:?}: {}", told.recv()?);
        pool.shutdown();
    }
    before_end();
    Ok(())
}

fn in_task_new_pools() -> Ended {
    let pool = Pool::new(1);
    let old = pool.clone();
    let ended = pool.spawn(move || {
        child(|| {
            assert_eq!(old.execute(|| ()).unwrap_err().reason(), RejectReason::Forked);
            old.wait_idle();
            old.shutdown();
            let pool = Pool::new(2);
            assert_eq!(pool.spawn(|| 3).unwrap().join().unwrap(), 3);
            pool.execute(|| ()).unwrap();
            pool.wait_idle();
            assert_eq!(pool.shutdown().stats().completed, 2);
            let registry = Registry::new();
            let pool = Pool::builder().registry(&registry).build().unwrap();
            pool.execute(|| println!("child: shut down")).unwrap();
            assert!(registry.shutdown().is_clean());
            after_join("after", || println!("child: after")).unwrap();
            Pool::new(1).execute(|| println!("child: drained")).unwrap();
            before_end();
        })
        .end()
    })?;
    pool.execute(|| ())?;
    println!("child: {}", ended.join()?);
    before_end();
    Ok(())
}

/// The child comes out of a task that another task ran in its place.
fn in_joined_task() -> Ended {
    let pool = Pool::new(1);
    let ended = pool.spawn(|| {
        let inner = Pool::current().unwrap().spawn(fork).unwrap();
        match inner.join() {
            Ok(Some(child)) => println!("child: {}", child.end()),
            // The child: the task belongs to the parent.
            other => return assert!(is_abandoned(other)),
        }
        let inner = [Pool::current().unwrap().spawn(fork).unwrap()];
        match as_completed(inner).next() {
            Some(Ok(Some(child))) => println!("child among several: {}", child.end()),
            other => assert!(other.is_some_and(is_abandoned)),
        }
    })?;
    ended.join()?;
    before_end();
    Ok(())
}

fn in_hook() -> Ended {
    for end in [End::ProcessExit, End::LibcExit, End::Return, End::Panic] {
        let registry = Registry::new();
        let pool = Pool::builder().registry(&registry).max_threads(1).build()?;
        pool.execute(|| ())?;
        let fork_in = move |stage| {
            move || match fork() {
                Some(child) => println!("{stage} {end:?}: {}", child.end()),
                None => end.go(),
            }
        };
        registry.before_join("forks", fork_in("pre-join"))?;
        registry.after_join("forks", fork_in("post-join"))?;
        println!("clean: {}", registry.shutdown().is_clean());
    }
    before_end();
    Ok(())
}

/// `std::process::exit` is not among the ends: std parks whoever calls it while another thread, be it of the
/// parent, is in it.
fn in_hook_at_exit() -> Ended {
    Pool::new(1).execute(|| ())?;
    for end in [End::LibcExit, End::Return] {
        let forks = move || match fork() {
            Some(child) => println!("{end:?}: {}", child.end()),
            None => end.go(),
        };
        before_join("forks", forks)?;
        after_join("forks", forks)?;
    }
    before_end();
    Ok(())
}

fn in_task_at_exit() -> Ended {
    let (open, wait) = gate();
    let pool = Pool::new(1);
    pool.execute(wait)?;
    for end in [End::LibcExit, End::Return] {
        pool.execute(move || match fork() {
            Some(child) => println!("{end:?}: {}", child.end()),
            None => end.go(),
        })?;
    }
    before_join("open", move || drop(open))?;
    before_end();
    Ok(())
}

fn grandchildren() -> Ended {
    let mut pools = Vec::new();
    for generation in 0..4 {
        let pool = Pool::new(2);
        assert_eq!(pool.spawn(move || generation).unwrap().join()?, generation);
        let refusals = pools.iter().filter(|old: &&Pool| old.execute(|| ()).is_err()).count();
        assert_eq!(refusals, generation, "the pools of every ancestor refuse");
        after_join("after", move || println!("generation {generation} drained"))?;
        pool.execute(|| thread::sleep(Duration::from_millis(1)))?; // work
        pools.push(pool);
        if let Some(child) = fork() {
            println!("child of generation {generation}: {}", child.end());
            break;
        }
    }
    before_end();
    Ok(())
}

/// A server that forks its processes before any of them starts a thread.
fn prefork() -> Ended {
    before_join("the parent's", || println!("the parent's hook"))?;
    let mut children = Vec::new();
    for n in 0..4 {
        match fork() {
            Some(child) => children.push(child),
            None => return serve(n),
        }
    }
    for child in children {
        println!("child: {}", child.end());
    }
    before_end();
    Ok(())
}

fn serve(n: usize) -> Ended {
    let done = Arc::new(AtomicUsize::new(0));
    let (counted, feed) = (done.clone(), feed());
    let tell = move || {
        // At exit std's stdout is not buffered any more, and the children share it: one write for the line.
        let line = format!("server {n}: {} requests\n", counted.load(Ordering::Relaxed));
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    };
    after_join("tell", tell)?;
    let pool = Pool::new(3);
    for _request in feed {
        let _hold = hold("a request")?;
        let done = done.clone();
        pool.execute(move || {
            done.fetch_add(1, Ordering::Relaxed);
        })?;
    }
    before_end();
    Ok(())
}

fn feed() -> Receiver<u32> {
    let (send, receive) = channel();
    thread::spawn(move || (0..100).for_each(|n| send.send(n).unwrap()));
    receive
}

fn output() -> Ended {
    let pool = Pool::new(2);
    println!("a line before the fork");
    pool.spawn(|| println!("a task before the fork"))?.join()?;
    print!("half a line ");
    std::io::stdout().flush()?;
    for end in ENDS {
        match fork() {
            Some(child) => assert!(["code 0", "code 101"].contains(&&*child.end())),
            None => {
                before_end();
                end.go();
                return Ok(());
            }
        }
    }
    println!("and the rest");
    pool.execute(|| print!("a task at the end"))?;
    before_end();
    Ok(())
}

/// The child ends as a C program does and has not touched the crate: nobody but the crate could write out what
/// it has inherited.
fn untouched_output() -> Ended {
    Pool::new(1).spawn(|| print!("not flushed yet"))?.join()?;
    match fork() {
        Some(child) => assert_eq!(child.end(), "code 0"),
        None => End::LibcExit.go(),
    }
    before_end();
    Ok(())
}

/// A guard made by the parent is one of the child's registry in the child.
fn guarded() -> Ended {
    let _guard = guard();
    let parent = std::process::id();
    before_join("before", move || println!("hook in {}", whoami(parent)))?;
    if let Some(child) = fork() {
        println!("child: {}", child.end());
        return Ok(());
    }
    Pool::new(1).execute(move || println!("task in {}", whoami(parent)))?;
    Ok(())
}
