//! What signals do: promise 3 and section "signals" of the documentation.
#![cfg(all(unix, feature = "signals"))]
#![allow(unsafe_code)] // `kill`.

mod common;

use common::{tidy, Outcome};
use libc::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A program that runs and has said that it is ready.
struct Running {
    child: Child,
    pid: i32,
    start: Instant,
    /// What it has printed and the test has read.
    seen: String,
}

impl Running {
    fn start(case: &str, arguments: &[&str]) -> Running {
        let mut command = common::command(case);
        command.args(arguments);
        Running::command(command)
    }

    fn command(command: Command) -> Running {
        let mut running = Running::spawn(command);
        let line = running.wait_for("ready");
        // It may have been started by a shell.
        running.pid = line.trim_start_matches("ready ").parse().expect("a process id");
        running
    }

    fn spawn(mut command: Command) -> Running {
        command.stdin(Stdio::piped());
        let start = Instant::now();
        let child = command.spawn().expect("the child starts");
        let pid = child.id() as i32;
        Running { child, pid, start, seen: String::new() }
    }

    /// Waits until the child has printed a line that begins so, and reads no further.
    fn wait_for(&mut self, prefix: &str) -> String {
        let seen = self.seen.lines().find(|line| line.starts_with(prefix)).map(str::to_owned);
        seen.unwrap_or_else(|| loop {
            let line = self.next_line();
            if line.starts_with(prefix) {
                break line;
            }
        })
    }

    fn next_line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().expect("stdout is piped");
        let mut line = String::new();
        let read = BufReader::with_capacity(1, stdout).read_line(&mut line).expect("a line");
        assert_ne!(read, 0, "no more lines after {:?}", self.seen);
        self.seen += &line;
        line.trim_end().to_owned()
    }

    fn send(&self, signal: i32) -> &Running {
        // SAFETY: sends a signal to a child that nobody has waited for yet.
        unsafe { libc::kill(self.pid, signal) };
        self
    }

    /// Writes a line to the child.
    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_ref().expect("stdin is piped")).expect("the child reads");
    }

    /// Waits for its end. Standard input stays open until then.
    fn end(mut self) -> Outcome {
        let stdin = self.child.stdin.take();
        let mut outcome = common::watch(self.child, self.start);
        drop(stdin);
        outcome.stdout = self.seen + &outcome.stdout;
        outcome
    }
}

/// Sends one signal to a program that is ready, and waits for its end.
fn run(case: &str, arguments: &[&str], signal: i32) -> Outcome {
    let running = Running::start(case, arguments);
    running.send(signal);
    running.end()
}

#[track_caller]
fn assert_drained(outcome: &Outcome, code: i32) {
    outcome.assert_code(code).assert_silent();
    assert_eq!(outcome.count("task "), 60, "{outcome:#?}");
}

#[track_caller]
fn assert_killed(outcome: &Outcome, signal: i32) {
    assert_eq!(outcome.status.signal(), Some(signal), "{outcome:#?}");
}

const CODES: [(i32, i32); 3] = [(SIGTERM, 0), (SIGINT, 130), (SIGHUP, 129)];

// ---- the first signal ----

#[test]
fn each_signal_drains_everything_in_order_and_has_its_exit_code() {
    let _tidy = tidy();
    for (signal, code) in CODES {
        let outcome = run("signal_drains", &[], signal);
        assert_drained(&outcome, code);
        assert_eq!(outcome.count("private task"), 1, "{outcome:#?}");
        assert_eq!(outcome.count("before"), 1, "{outcome:#?}");
        assert_eq!(outcome.position("after"), 63, "{outcome:#?}"); // The last line.
    }
}

#[test]
#[cfg(feature = "exit-hook")]
fn the_code_is_the_signals_where_the_drain_lets_main_return() {
    let _tidy = tidy();
    for _ in 0..10 {
        for (signal, code) in CODES {
            assert_drained(&run("signal_in_joining_main", &[], signal), code);
        }
    }
}

#[test]
#[cfg(feature = "exit-hook")]
fn a_signal_changes_nothing_while_main_is_in_the_exit_net() {
    let _tidy = tidy();
    for signal in [SIGTERM, SIGHUP] {
        let mut running = Running::start("signal_in_returning_main", &[]);
        running.wait_for("busy");
        running.send(signal).send(signal);
        running.go_on();
        assert_drained(&running.end(), 5);
    }
}

/// Sends a signal to many programs at about the moment at which their `main` returns: that is a little sooner where the
/// signal came first, and a little later where it did not, so that it stays close. Says to `look` whether it came first.
#[cfg(feature = "exit-hook")]
fn race_the_return(signal: i32, look: impl Fn(&Outcome, bool)) {
    let (runs, mut first, mut returns) = (runs(170), 0, 500);
    for _ in 0..runs {
        let running = Running::start("signal_meets_return", &[&returns.to_string()]);
        spin(random() % 500);
        running.send(signal);
        let outcome = running.end();
        outcome.assert_silent();
        let is_first = outcome.count(&format!("ends for Signal({signal})")) == 1;
        look(&outcome, is_first);
        first += usize::from(is_first);
        returns = if is_first { returns * 4 / 5 } else { returns * 5 / 4 + 10 };
    }
    println!("signal {signal} came first {first} times of {runs}");
    assert!(
        0 < first && first < runs,
        "signal {signal} came first {first} times of {runs}: there was no race"
    );
}

/// At no moment is there a hang, or a task lost.
#[test]
#[cfg(feature = "exit-hook")]
fn a_signal_may_meet_the_return_from_main() {
    let _tidy = tidy();
    for (signal, code) in [(SIGTERM, 0), (SIGHUP, 129)] {
        race_the_return(signal, |outcome, is_first| assert_drained(outcome, if is_first { code } else { 0 }));
    }
}

#[test]
fn work_that_a_deadline_cuts_off_makes_sigterm_exit_with_1() {
    let _tidy = tidy();
    let outcome = run("signal_loses_work", &[], SIGTERM);
    outcome.assert_code(1).assert_silent();
    for (signal, code) in [(SIGINT, 130), (SIGHUP, 129)] {
        run("signal_loses_work", &[], signal).assert_code(code).assert_silent();
    }
}

#[test]
fn exit_code_decides_with_the_report() {
    let _tidy = tidy();
    for (signal, _) in CODES {
        let outcome = run("signal_with_code", &[], signal);
        assert_drained(&outcome, 42);
        assert_eq!(outcome.count(&format!("Signal({signal}), clean: true")), 1, "{outcome:#?}");
    }
}

#[test]
fn a_panic_in_exit_code_counts_as_a_loss() {
    let _tidy = tidy();
    for argument in ["park", if cfg!(feature = "exit-hook") { "join" } else { "park" }] {
        for (signal, code) in [(SIGTERM, 1), (SIGINT, 130), (SIGHUP, 129)] {
            let outcome = run("signal_with_panicking_code", &[argument], signal);
            outcome.assert_code(code);
            assert_eq!(outcome.count("task "), 60, "{outcome:#?}");
            assert_eq!(outcome.stderr.matches("no code").count(), 1, "{outcome:#?}");
        }
    }
}

#[test]
fn exit_code_may_exit_by_itself() {
    let _tidy = tidy();
    for argument in ["winddown::exit", "process::exit"] {
        assert_drained(&run("signal_with_exiting_code", &[argument], SIGTERM), 43);
    }
}

#[test]
fn a_signal_before_any_pool_ends_the_process() {
    let _tidy = tidy();
    for (signal, code) in CODES {
        run("signal_before_any_pool", &[], signal).assert_code(code).assert_silent();
    }
}

#[test]
fn a_signal_ends_a_process_whose_main_is_blocked_in_read_line() {
    let _tidy = tidy();
    for (signal, code) in CODES {
        assert_drained(&run("signal_in_read_line", &[], signal), code);
    }
}

#[test]
fn signals_do_not_interrupt_system_calls() {
    let _tidy = tidy();
    let outcome = Running::start("signal_in_system_calls", &[]).end();
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.count("Signal(15)"), 1, "{outcome:#?}");
}

#[test]
fn an_exit_in_a_hook_or_a_task_comes_second_to_the_signal() {
    let _tidy = tidy();
    for case in ["signal_and_hook_exits", "signal_and_task_exits"] {
        assert_drained(&run(case, &[], SIGINT), 130);
        if cfg!(feature = "exit-hook") {
            assert_drained(&run(case, &["process::exit"], SIGINT), 130);
        }
    }
}

// ---- the second ----

/// The drain hangs, and a SIGINT ends the process through `_exit`, whatever began the shutdown.
#[test]
fn a_second_sigint_ends_the_process_at_once() {
    let _tidy = tidy();
    for first in [SIGINT, SIGTERM, SIGHUP] {
        let mut command = common::command("signal_after_shutdown_began");
        command.arg("signal");
        let mut running = Running::spawn(command);
        running.wait_for("waiting");
        running.send(first);
        running.wait_for("ready");
        assert_forced(running);
    }
}

#[test]
fn a_first_sigint_does_so_after_shutdown_has_begun() {
    let _tidy = tidy();
    let net = ["return", "exit", "process::exit"];
    let mut ways = vec!["request", "shutdown"];
    if cfg!(feature = "exit-hook") {
        ways.extend(net);
    }
    for way in ways {
        assert_forced(Running::start("signal_after_shutdown_began", &[way]));
    }
}

#[track_caller]
fn assert_forced(running: Running) {
    let sent = Instant::now();
    running.send(SIGINT);
    let outcome = running.end();
    let took = sent.elapsed();
    outcome.assert_code(130).assert_silent();
    assert_eq!(outcome.count("exit handler"), 0, "{outcome:#?}");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}

#[test]
fn repeated_sigterms_and_sighups_change_nothing() {
    let _tidy = tidy();
    let mut running = Running::start("signal_amid_work", &[]);
    running.send(SIGTERM);
    for stage in ["before", "busy", "after"] {
        running.wait_for(stage);
        for _ in 0..20 {
            running.send(SIGTERM).send(SIGHUP);
        }
        running.go_on();
    }
    let outcome = running.end();
    assert_drained(&outcome, 0);
    assert_eq!((outcome.count("before"), outcome.count("after")), (1, 1), "{outcome:#?}");
}

#[test]
fn a_sigint_while_hooks_run_is_a_second_one() {
    let _tidy = tidy();
    for stage in ["before", "after"] {
        let mut running = Running::start("signal_amid_work", &[]);
        running.send(SIGTERM);
        for before in ["before", "busy", "after"] {
            running.wait_for(before);
            if before == stage {
                break;
            }
            running.go_on();
        }
        running.send(SIGINT);
        running.end().assert_code(130).assert_silent();
    }
}

#[test]
fn a_storm_of_a_thousand_signals_is_one_shutdown() {
    let _tidy = tidy();
    for signals in [&[SIGTERM][..], &[SIGTERM, SIGHUP]] {
        let mut running = Running::start("signal_amid_work", &[]);
        for n in 0..1000 {
            running.send(signals[n % signals.len()]);
        }
        for stage in ["before", "busy", "after"] {
            running.wait_for(stage);
            running.go_on();
        }
        let outcome = running.end();
        assert_drained(&outcome, 0);
        assert_eq!((outcome.count("before"), outcome.count("after")), (1, 1), "{outcome:#?}");
    }
    let mut running = Running::start("signal_amid_work", &[]);
    running.send(SIGINT);
    // Else the system may make one signal of them all.
    running.wait_for("before");
    for _ in 1..1000 {
        running.send(SIGINT);
    }
    running.end().assert_code(130).assert_silent();
}

/// Sends so many signals to a program whose logger, which the callback calls, panics each time. Returns the first.
fn send_in_a_row(running: &mut Running, count: usize) -> i32 {
    let (mut random, mut sent, mut took) = (random(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (signal, name) = [(SIGTERM, "DEBUG SIGTERM"), (SIGHUP, "DEBUG SIGHUP")][(random % 2) as usize];
        random = random.rotate_right(1);
        let start = Instant::now();
        running.send(signal);
        assert_eq!(running.next_line(), name);
        took.push(start.elapsed());
        sent.push(signal);
    }
    took.sort_unstable();
    // A busy machine delays some.
    assert!(took[count / 2] < Duration::from_millis(100), "{took:?}");
    sent[0]
}

/// The callback finds the number of the very signal that it was called for.
#[test]
fn each_of_500_signals_in_a_row_is_reported_by_its_number() {
    let _tidy = tidy();
    let mut running = Running::start("signal_log", &[]);
    let first = send_in_a_row(&mut running, 500);
    running.go_on();
    running.end().assert_code(if first == SIGTERM { 0 } else { 129 }).assert_silent();
}

#[test]
fn a_sigint_forces_the_end_after_panics_for_other_signals() {
    let _tidy = tidy();
    let mut running = Running::start("signal_log", &[]);
    send_in_a_row(&mut running, 20);
    assert_forced(running);
}

// ---- OnSignal::Request ----

#[test]
fn a_request_leaves_the_end_to_main() {
    let _tidy = tidy();
    for (signal, _) in CODES {
        let outcome = run("signal_requests", &[], signal);
        assert_drained(&outcome, 7);
        assert_eq!(outcome.count(&format!("Signal({signal}), clean: true")), 1, "{outcome:#?}");
    }
}

#[test]
#[cfg(feature = "exit-hook")]
fn a_main_that_returns_after_a_request_has_its_own_code() {
    let _tidy = tidy();
    assert_drained(&run("signal_requests", &["return"], SIGINT), 0);
}

#[test]
fn an_exit_in_a_hook_ends_the_process_after_a_request() {
    let _tidy = tidy();
    assert_drained(&run("signal_requests_and_hook_exits", &[], SIGTERM), 8);
}

// ---- whose signals they are ----

#[test]
fn nothing_is_handled_unless_it_is_asked_for() {
    let _tidy = tidy();
    for (signal, _) in CODES {
        assert_killed(&run("signal_not_asked_for", &[], signal), signal);
    }
}

#[test]
fn a_second_installation_is_refused_and_the_first_stays() {
    let _tidy = tidy();
    for (signal, code) in CODES {
        assert_drained(&run("signal_install_twice", &[], signal), code);
    }
}

#[test]
fn a_plain_handler_for_any_of_the_signals_is_left_alone() {
    let _tidy = tidy();
    assert_drained(&run("signal_and_plain_handler", &[], SIGTERM), 0);
}

#[test]
fn handlers_of_signal_hook_are_left_alone() {
    let _tidy = tidy();
    assert_killed(&run("signal_and_signal_hook", &[], SIGINT), SIGINT);
}

#[test]
fn handlers_of_tokio_and_ctrlc_are_left_alone() {
    let _tidy = tidy();
    for case in ["signal_and_tokio", "signal_and_ctrlc"] {
        Running::start(case, &[]).end().assert_code(0).assert_silent();
    }
}

#[test]
fn handlers_that_come_later_and_call_ours_work_beside_them() {
    let _tidy = tidy();
    Running::start("signal_and_later_handlers", &[]).end().assert_code(0).assert_silent();
}

/// A signal that is ignored does nothing, and the next one is the first.
#[track_caller]
fn assert_ignores(running: Running, ignored: i32) {
    running.send(ignored).send(ignored).send(SIGTERM);
    let outcome = running.end();
    assert_eq!(outcome.status.code(), Some(42), "{outcome:#?}");
    assert_eq!(outcome.count("task "), 60, "{outcome:#?}");
    assert_eq!(outcome.count("Signal(15), clean: true"), 1, "{outcome:#?}");
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    common::reset_signals(&mut command);
    command.args(["-c", script, "sh"]).arg(common::program());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn sighup_stays_ignored_under_nohup() {
    let _tidy = tidy();
    assert_ignores(Running::command(shell("exec nohup \"$1\" signal_with_code")), SIGHUP);
}

#[test]
fn sigint_stays_ignored_in_the_background_of_a_shell() {
    let _tidy = tidy();
    assert_ignores(Running::command(shell("\"$1\" signal_with_code & wait $!")), SIGINT);
}

// ---- what the system refuses ----

#[test]
#[cfg(target_os = "linux")]
fn an_installation_that_fails_half_way_changes_nothing() {
    let _tidy = tidy();
    for (signal, _) in CODES {
        assert_killed(&run("signal_no_thread_to_install", &[], signal), signal);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_installation_that_failed_may_be_tried_again() {
    let _tidy = tidy();
    for (signal, code) in CODES {
        assert_drained(&run("signal_no_thread_to_install", &["retry"], signal), code);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_shutdown_that_can_have_no_thread_runs_all_the_same_and_can_be_forced() {
    let _tidy = tidy();
    for forced in [false, true] {
        let mut running = Running::start("signal_no_thread_to_wind_down", &[]);
        running.send(SIGTERM);
        running.wait_for("busy");
        match forced {
            true => assert_forced(running),
            false => {
                running.go_on();
                assert_drained(&running.end(), 0);
            }
        }
    }
}

// ---- children ----

#[test]
fn a_forked_child_is_not_deaf() {
    let _tidy = tidy();
    let outcome = common::run("signal_children");
    outcome.assert_code(129).assert_silent();
    for (signal, _) in CODES {
        outcome.position(&format!("child: signal {signal}"));
        outcome.position(&format!("child with a pool: signal {signal}"));
    }
    assert_eq!(outcome.count("task of an early child"), 1, "{outcome:#?}");
    for line in [
        "early child: code 44",
        "child that installs: code 0",
        "grandchild: signal 2",
        "its parent: code 0",
        "exec: signal: 2",
    ] {
        assert_eq!(outcome.count(line), 1, "{line} in {outcome:#?}");
    }
}

#[test]
fn nor_is_one_that_is_forked_in_the_shutdown_for_a_signal() {
    let _tidy = tidy();
    let outcome = common::run("signal_children_in_hook");
    outcome.assert_code(0).assert_silent();
    for (signal, _) in CODES {
        outcome.position(&format!("child: signal {signal}"));
    }
    assert_eq!(outcome.count("exec: signal: 2"), 1, "{outcome:#?}");
}

#[test]
fn nor_is_one_robbed_of_the_handlers_that_it_brings() {
    let _tidy = tidy();
    let outcome = Running::start("signal_and_handlers_of_a_child", &[]).end();
    outcome.assert_code(0).assert_silent();
    outcome.position("child: code 0");
}

// ---- the journal ----

/// A signal at a random microsecond: each task that was accepted has run, and once.
#[test]
fn the_journals_of_accepted_and_finished_tasks_agree() {
    let _tidy = tidy();
    const SUBMITTERS: usize = 3;

    let mut tasks = 0;
    for n in 0..runs(50) {
        let folder = Folder::new(n);
        let (signal, code) = CODES[n % CODES.len()];
        let then = if cfg!(feature = "exit-hook") && n % 2 == 0 { "return" } else { "block" };
        let running = Running::start("signal_journal", &[folder.0.to_str().expect("a plain path"), then]);
        let after = random() % 20_000;
        spin(after);
        running.send(signal);
        let outcome = running.end();

        let context = format!("run {n}: signal {signal} after {after} us, then {then}: {outcome:#?}");
        assert_eq!(outcome.status.code(), Some(code), "{context}");
        assert!(outcome.stderr.is_empty(), "{context}");
        let [accepted, finished] = ["accepted", "finished"].map(|name| folder.tasks(name, &context));
        assert!(accepted.is_subset(&finished), "{context}\nlost: {:?}", accepted.difference(&finished));
        // Between a submission and its note the process may end, for each thread that nobody waits for.
        let unnoted: Vec<_> = finished.difference(&accepted).collect();
        assert!(unnoted.len() <= SUBMITTERS, "{context}\nnever accepted: {unnoted:?}");
        tasks += finished.len();
    }
    println!("{tasks} tasks");
    assert!(tasks > runs(50) * 10, "only {tasks} tasks: nothing was tested");
}

// ---- what is left ----

#[test]
fn a_signal_ends_a_process_whose_main_sleeps() {
    let _tidy = tidy();
    for (signal, code) in CODES {
        assert_drained(&run("signal_in_sleep", &[], signal), code);
    }
}

/// One that comes when `main` has returned is a second one and forces the end, which may cost tasks. Else none is lost.
#[test]
#[cfg(feature = "exit-hook")]
fn a_sigint_may_meet_the_return_from_main() {
    let _tidy = tidy();
    race_the_return(SIGINT, |outcome, is_first| match outcome.status.code() {
        Some(0) if !is_first => assert_drained(outcome, 0),
        Some(130) if !is_first => assert_eq!(outcome.count("main returns"), 1, "{outcome:#?}"),
        _ => assert_drained(outcome, 130),
    });
}

#[test]
fn hooks_run_once_over_a_signal_and_every_other_end() {
    let _tidy = tidy();
    let outcome = common::run("signal_with_every_other_end");
    assert_drained(&outcome, 0);
    assert_eq!((outcome.count("before"), outcome.count("after")), (1, 1), "{outcome:#?}");
}

#[test]
fn neither_the_handlers_nor_the_shutdown_need_a_descriptor() {
    let _tidy = tidy();
    for (signal, code) in CODES {
        assert_drained(&run("signal_without_descriptors", &[], signal), code);
    }
}

/// A folder for one run's journals, removed unless the test fails.
struct Folder(PathBuf);

impl Folder {
    fn new(run: usize) -> Folder {
        let name = format!("journal-{}-{run}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder for the journals");
        Folder(path)
    }

    /// The tasks that a journal names, each of which must be there once.
    fn tasks(&self, journal: &str, context: &str) -> BTreeSet<String> {
        let text = std::fs::read_to_string(self.0.join(journal)).expect("the journal is there");
        assert!(text.is_empty() || text.ends_with('\n'), "{journal} ends within a line; {context}");
        let mut tasks = BTreeSet::new();
        for task in text.lines() {
            assert!(tasks.insert(task.to_owned()), "{task:?} is {journal} twice; {context}");
        }
        tasks
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// How often to repeat what depends on chance: `usual`, or what `WINDDOWN_RUNS` says.
fn runs(usual: usize) -> usize {
    let runs = std::env::var("WINDDOWN_RUNS");
    runs.map_or(usual, |runs| runs.parse().expect("WINDDOWN_RUNS is a number"))
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Lets some microseconds pass, more exactly than a sleep: chance is what is wanted here, and nothing waits for it.
fn spin(microseconds: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(microseconds) {
        std::hint::spin_loop();
    }
}
