//! What the tests share: child processes under a watchdog, and measures of what is left behind.
//!
//! Each test begins with `let _tidy = tidy();`, and makes its registries with [`registry`].
#![allow(dead_code, unreachable_pub)] // Each test file uses its part, and is a crate of its own.

pub mod delayed;
pub mod full;
pub mod gated;
pub mod ground;
pub mod journal;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Barrier, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{Pool, PoolStats, Registry};

/// Far longer than any case takes, even on a busy machine: reaching it means a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a child process ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Outcome {
    /// The lines of stdout that start with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.stdout.lines().filter(|line| line.starts_with(prefix)).count()
    }

    /// Where a line of stdout stands.
    pub fn position(&self, line: &str) -> usize {
        let found = self.stdout.lines().position(|found| found == line);
        found.unwrap_or_else(|| panic!("no line {line:?} in {self:#?}"))
    }

    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Outcome {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn assert_silent(&self) -> &Outcome {
        assert_eq!(self.stderr, "", "{self:#?}");
        self
    }

    /// It took less than the ten seconds after which idle workers leave by themselves: nobody waited for that.
    #[track_caller]
    pub fn assert_prompt(&self) -> &Outcome {
        assert!(self.elapsed < Duration::from_secs(9), "{self:#?}");
        self
    }
}

/// The program of `tests/cases`. Plain `cargo test` builds it, `cargo test --test NAME` does not, so this sees to it
/// that it is there and not an old one. `WINDDOWN_CASES` names another, built for another target or with a sanitizer.
pub fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || build_example("cases", &format!("cases{}", std::env::consts::EXE_SUFFIX));
    PROGRAM.get_or_init(|| std::env::var_os("WINDDOWN_CASES").map_or_else(build, PathBuf::from)).clone()
}

/// The same for the library that is to be loaded by one of them.
pub fn library() -> PathBuf {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    build_example("library", &format!("{DLL_PREFIX}library{DLL_SUFFIX}"))
}

fn build_example(name: &str, file: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--example", name, "--no-default-features", "--target-dir"]);
        build.arg(path.parent().expect("the profile's folder is in the target folder"));
        let features = [("exit-hook", cfg!(feature = "exit-hook")), ("signals", cfg!(feature = "signals"))];
        for (feature, _) in features.iter().filter(|(_, is_on)| *is_on) {
            build.args(["--features", feature]);
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().expect("cargo runs").success(), "{name} does not build");
    }
    path.push("examples");
    path.push(file);
    assert!(path.exists(), "{} is not built: run `cargo build --example {name}`", path.display());
    path
}

/// A command that runs one case; for tests that set up its standard streams themselves.
pub fn command(case: &str) -> Command {
    let mut command = Command::new(program());
    reset_signals(&mut command);
    command.arg(case).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Has the child start with signals as a terminal would start it. The tests may run in the background of a script, which
/// has SIGINT ignored, or under `nohup`, and what is ignored is inherited.
pub fn reset_signals(command: &mut Command) {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let reset = || {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                // SAFETY: fit for a signal handler, and so for a child between `fork` and `exec`.
                #[allow(unsafe_code)]
                unsafe {
                    libc::signal(signal, libc::SIG_DFL)
                };
            }
            Ok(())
        };
        // SAFETY: the closure calls nothing but what is fit for a signal handler.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(reset)
        };
    }
}

/// Runs one case to its end.
pub fn run(case: &str) -> Outcome {
    finish(command(case))
}

/// Runs a case that is to end in less than `limit`, and again while it does not: a busy machine delays some.
#[track_caller]
pub fn run_within(case: &str, limit: Duration) -> Outcome {
    let mut outcome = run(case);
    for _ in 0..4 {
        if outcome.elapsed >= limit {
            outcome = run(case);
        }
    }
    assert!(outcome.elapsed < limit, "it takes more than {limit:?} each time: {outcome:#?}");
    outcome
}

/// Runs a command to its end, reading what it prints. A child that hangs is killed, and the test fails with the
/// state of each of its threads.
pub fn finish(mut command: Command) -> Outcome {
    let start = Instant::now();
    let child = command.spawn().expect("the child starts");
    watch(child, start)
}

pub fn watch(mut child: Child, start: Instant) -> Outcome {
    advance();
    let stdout = child.stdout.take().map(reader);
    let stderr = child.stderr.take().map(reader);
    let read =
        |stream: Option<thread::JoinHandle<String>>| stream.map_or_else(String::new, |it| it.join().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let threads = threads_of(child.id());
            let _ = child.kill();
            let _ = child.wait();
            panic!("the child hangs\n{threads}\nstdout: {}\nstderr: {}", read(stdout), read(stderr));
        }
        thread::sleep(Duration::from_millis(2)); // Polling a foreign process, not synchronising with it.
    };
    let elapsed = start.elapsed();
    Outcome { status, stdout: read(stdout), stderr: read(stderr), elapsed }
}

fn reader(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What each thread of a process is doing, where the system tells.
fn threads_of(pid: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    threads.map(|thread| state_of(pid, thread) + "\n").collect()
}

fn state_of(pid: u32, thread: u32) -> String {
    let file = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/{name}")).unwrap_or_default();
        text.trim().to_owned()
    };
    format!("{thread}: {} in {} {}", file("comm"), file("wchan"), file("syscall"))
}

/// The threads of this process; `None` where the system does not tell.
pub fn thread_count() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// The threads of this process whose name begins so; none where the system does not tell.
pub fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

/// Waits until this process has at most `count` threads: an ended thread may be listed for a moment after its join.
#[track_caller]
pub fn assert_threads_at_most(count: usize) {
    let start = Instant::now();
    while let Some(now) = thread_count() {
        if now <= count {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{now} threads are left, {count} were there before"
        );
        thread::yield_now();
    }
}

/// The threads of this process by their numbers; none where the system does not tell.
fn threads() -> HashSet<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Tests that wait for their turn: the harness starts their threads whenever it likes.
static WAITING: Mutex<Option<HashSet<u32>>> = Mutex::new(None);
/// The registries of the test whose turn it is.
static REGISTRIES: Mutex<Vec<Registry>> = Mutex::new(Vec::new());
/// The name of the default pool. It is the process's, and nobody can drop it: it stays, idle, when a test has used it.
const DEFAULT: &str = "default";
/// How many [`Tracked`] values there are.
static TRACKED: AtomicUsize = AtomicUsize::new(0);

fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A registry that [`Tidy`] expects to be without pools at the end.
pub fn registry() -> Registry {
    let registry = Registry::new();
    unpoisoned(&REGISTRIES).push(registry.clone());
    registry
}

/// A value that [`Tidy`] expects to be gone at the end: what a task captures, returns or panics with.
pub struct Tracked<T>(pub T);

impl<T> Tracked<T> {
    pub fn new(value: T) -> Tracked<T> {
        TRACKED.fetch_add(1, SeqCst);
        Tracked(value)
    }
}

impl<T> Drop for Tracked<T> {
    fn drop(&mut self) {
        TRACKED.fetch_sub(1, SeqCst);
    }
}

/// How many pools the global registry has, but for the default pool.
fn global_pools() -> usize {
    Registry::global().stats().iter().filter(|pool| pool.name != DEFAULT).count()
}

/// Gives a test the process for itself, and expects, when the test has passed, that it left nothing behind: no thread, no
/// pool in a registry, no [`Tracked`] value.
#[must_use]
pub fn tidy() -> Tidy {
    static TURN: Mutex<()> = Mutex::new(());
    let me = this_thread();
    unpoisoned(&WAITING).get_or_insert_with(HashSet::new).extend(me);
    let turn = unpoisoned(&TURN);
    unpoisoned(&REGISTRIES).clear();
    advance();
    Tidy { threads: threads(), pools: global_pools(), tracked: TRACKED.load(SeqCst), _turn: turn }
}

pub struct Tidy {
    threads: HashSet<u32>,
    pools: usize,
    tracked: usize,
    _turn: MutexGuard<'static, ()>,
}

impl Tidy {
    /// What is there that was not there before.
    fn left(&self) -> Vec<String> {
        let waiting = unpoisoned(&WAITING);
        let known =
            |thread: &u32| self.threads.contains(thread) || waiting.iter().flatten().any(|it| it == thread);
        let mut left = Vec::new();
        let default = Registry::global().stats().into_iter().find(|pool| pool.name == DEFAULT);
        let is_idle = |pool: &PoolStats| (pool.queued, pool.delayed, pool.idle) == (0, 0, pool.threads);
        let mut may_stay = default.as_ref().filter(|pool| is_idle(pool)).map_or(0, |pool| pool.threads);
        left.extend(default.filter(|pool| !is_idle(pool)).map(|pool| format!("busy: {pool:?}")));
        for thread in threads().iter().filter(|thread| !known(thread)) {
            let state = state_of(std::process::id(), *thread);
            // As much of "default-worker-1" as a thread's name may be long.
            if state.contains(": default-worker-") && may_stay > 0 {
                may_stay -= 1;
            } else {
                left.push(state);
            }
        }
        let global = global_pools();
        if global > self.pools {
            left.push(format!("{} pools in the global registry", global - self.pools));
        }
        for registry in &*unpoisoned(&REGISTRIES) {
            left.extend(registry.stats().iter().map(|pool| format!("in a registry: {pool:?}")));
        }
        let tracked = TRACKED.load(SeqCst);
        if tracked != self.tracked {
            left.push(format!("{tracked} tracked values, {} before", self.tracked));
        }
        left
    }
}

impl Tidy {
    /// Waits until nothing is left of what was there in between; for a test that goes on with something else.
    pub fn expect_nothing(&self) {
        let start = Instant::now();
        // An ended thread may be listed for a moment after its join, and what was dropped ends in the background.
        while !self.left().is_empty() {
            assert!(start.elapsed() < PATIENCE / 2, "left behind:\n{}", self.left().join("\n"));
            thread::sleep(Duration::from_millis(1));
        }
        unpoisoned(&REGISTRIES).clear();
        advance();
    }
}

impl Drop for Tidy {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.expect_nothing();
        }
    }
}

/// The test whose turn it is has begun, or has come to its next program: the watchdog's time begins anew. A test that hangs
/// outside of [`within`] ends the run of its file, and what each thread is doing is told.
fn advance() {
    static WATCHDOG: OnceLock<Mutex<(String, Instant)>> = OnceLock::new();
    let now = || (thread::current().name().unwrap_or_default().to_owned(), Instant::now());
    let last = WATCHDOG.get_or_init(|| {
        let watchdog = thread::Builder::new().name("watchdog".into()).spawn(|| loop {
            thread::sleep(Duration::from_secs(1));
            let Some(last) = WATCHDOG.get() else { continue };
            let (test, since) = unpoisoned(last).clone();
            if since.elapsed() > 5 * PATIENCE {
                // Not for the harness, which keeps what a test prints until it ends; and an exit might hang as well.
                let threads = threads_of(std::process::id());
                let _ = writeln!(std::io::stderr(), "{test} hangs\n{threads}");
                std::process::abort();
            }
        });
        watchdog.unwrap();
        Mutex::new(now())
    });
    *unpoisoned(last) = now();
}

/// The number of this thread, where the system tells.
fn this_thread() -> Option<u32> {
    std::fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

/// Runs a test under a watchdog: one that hangs fails, and does not hang the end of the process either.
#[track_caller]
pub fn within<R: Send + 'static>(test: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, is_done) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _done = done;
        test()
    });
    if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        winddown::set_deadline(Some(Duration::from_secs(1)));
        panic!("the test hangs\n{}", threads_of(std::process::id()));
    }
    thread.join().unwrap_or_else(|payload| resume_unwind(payload))
}

pub fn meet(meeting: &Barrier) {
    meeting.wait();
}

pub fn pool_in(registry: &Registry, max_threads: usize) -> Pool {
    Pool::builder().registry(registry).max_threads(max_threads).build().unwrap()
}

/// Has `submit` submit a task, and waits until that has started. It goes on until the sender is dropped.
pub fn occupy_with<R>(submit: impl FnOnce(Box<dyn FnOnce() + Send>) -> R) -> (Sender<()>, R) {
    let (go, wait) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let submitted = submit(Box::new(move || {
        started.send(()).unwrap();
        let _ = wait.recv();
    }));
    has_started.recv().unwrap();
    (go, submitted)
}

/// Polls what comes about by itself some time after the last event that a test can wait for.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE / 2, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The identity of the counts, which holds at rest.
#[track_caller]
pub fn assert_adds_up(s: &PoolStats) {
    let settled = s.completed + s.panicked + s.cancelled + s.returned + s.abandoned;
    assert_eq!(s.accepted, settled + s.queued + s.delayed + s.running, "{s:?}");
}

/// Passes on what is logged at `warn` and above.
struct Tap(Mutex<Vec<Sender<String>>>);

impl log::Log for Tap {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{} {}", record.level(), record.args());
            self.0.lock().unwrap().retain(|listener| listener.send(line.clone()).is_ok());
        }
    }

    fn flush(&self) {}
}

pub fn listen() -> Receiver<String> {
    static TAP: OnceLock<&'static Tap> = OnceLock::new();
    let tap = TAP.get_or_init(|| {
        let tap: &'static Tap = Box::leak(Box::new(Tap(Mutex::default())));
        log::set_logger(tap).expect("no other logger is there");
        log::set_max_level(log::LevelFilter::Trace);
        tap
    });
    let (listener, lines) = mpsc::channel();
    tap.0.lock().unwrap().push(listener);
    lines
}
