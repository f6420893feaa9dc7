//! The examples do what their headers and the README say.

mod common;

use common::{tidy, Outcome};
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{mpsc, Once};
use std::thread;
use std::time::{Duration, Instant};

/// Whether the server handles signals.
const SIGTERM_STOPS: bool = cfg!(all(unix, feature = "signals"));

/// A command that runs an example, which it builds unless `cargo test` just did.
fn example(name: &str) -> Command {
    static BUILD: Once = Once::new();
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    BUILD.call_once(|| {
        let Some(cargo) = std::env::var_os("CARGO") else { return };
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet"]);
        for example in ["hello", "retry", "scope", "map", "worker_state", "graceful_server"] {
            build.args(["--example", example]);
        }
        build.arg("--no-default-features");
        let features = [("exit-hook", cfg!(feature = "exit-hook")), ("signals", cfg!(feature = "signals"))];
        for (feature, _) in features.iter().filter(|(_, is_on)| *is_on) {
            build.args(["--features", feature]);
        }
        build.arg("--target-dir").arg(path.parent().expect("the profile's folder is in the target folder"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().expect("cargo runs").success(), "the examples do not build");
    });
    path.push("examples");
    path.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built: run `cargo build --examples`", path.display());
    let mut command = Command::new(path);
    common::reset_signals(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The numbers of the lines that start with `word`, each of which must be there once.
fn numbers(outcome: &Outcome, word: &str) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    for line in outcome.stdout.lines() {
        if let Some(number) = line.strip_prefix(word) {
            let number =
                number.trim().parse().unwrap_or_else(|_| panic!("odd line {line:?} in {outcome:#?}"));
            assert!(numbers.insert(number), "{line:?} is there twice in {outcome:#?}");
        }
    }
    numbers
}

#[cfg(feature = "exit-hook")]
#[test]
fn hello_loses_nothing() {
    let _tidy = tidy();
    let outcome = common::finish(example("hello"));
    outcome.assert_code(0).assert_silent();
    assert_eq!(
        outcome.stdout,
        "main returns\nthe task that was running has ended\nthe task that was queued has run\n"
    );
}

#[cfg(feature = "exit-hook")]
#[test]
fn worker_state_opens_a_connection_for_each_worker_and_closes_all() {
    let _tidy = tidy();
    let outcome = common::finish(example("worker_state"));
    outcome.assert_code(0).assert_silent();
    assert_eq!(outcome.stdout, "main returns\nrows in 2 connections: 6, all closed\n");
}

#[test]
fn the_readme_opens_with_hello() {
    let _tidy = tidy();
    let code = include_str!("../examples/hello.rs");
    let code = &code[code.find("fn main").expect("hello has a main")..];
    let readme = include_str!("../README.md");
    let first = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(first, Some(code));
}

/// Runs an example and compares what it prints with what its header promises.
#[track_caller]
fn assert_prints_its_header(name: &str, code: &str) {
    let outcome = common::finish(example(name));
    outcome.assert_code(0).assert_silent();
    let promised: String = code
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .skip_while(|line| !line.starts_with("$ cargo run"))
        .skip(1)
        .take_while(|line| *line != "```")
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(outcome.stdout, promised);
}

#[test]
fn scope_prints_what_its_header_says() {
    let _tidy = tidy();
    assert_prints_its_header("scope", include_str!("../examples/scope.rs"));
}

#[test]
fn retry_prints_what_its_header_says() {
    let _tidy = tidy();
    assert_prints_its_header("retry", include_str!("../examples/retry.rs"));
}

#[test]
fn map_prints_what_its_header_says() {
    let _tidy = tidy();
    assert_prints_its_header("map", include_str!("../examples/map.rs"));
}

#[test]
fn graceful_server_ends_all_51_jobs() {
    let _tidy = tidy();
    let outcome = common::finish(example("graceful_server"));
    outcome.assert_code(0).assert_silent();
    let all: BTreeSet<usize> = (1..=51).collect();
    assert_eq!(numbers(&outcome, "starting "), all);
    assert_eq!(numbers(&outcome, "ending "), all);
    let reason = if SIGTERM_STOPS { "Signal(15)" } else { "Call" };
    assert_eq!(outcome.count(&format!("shutdown ({reason}): clean")), 1, "{outcome:#?}");
    assert_eq!(outcome.count("jobs "), 1, "{outcome:#?}");
}

#[test]
fn graceful_server_refuses_arguments_that_it_does_not_know() {
    let _tidy = tidy();
    for arguments in
        [&["--prot", "80"][..], &["--port"], &["--port", "65536"], &["--port", "80", "-v"], &["80"]]
    {
        let mut command = example("graceful_server");
        command.args(arguments);
        let outcome = common::finish(command);
        outcome.assert_code(2);
        assert_eq!(outcome.stdout, "");
        assert!(outcome.stderr.contains("usage: graceful_server [--port PORT]"), "{outcome:#?}");
    }
}

#[test]
fn graceful_server_ends_its_jobs_when_nobody_reads_what_it_prints() {
    let _tidy = tidy();
    let start = Instant::now();
    let mut server = example("graceful_server").spawn().expect("the server starts");
    address_of(&mut server);
    drop(server.stdout.take());
    common::watch(server, start).assert_code(0).assert_silent();
}

/// Clients of several threads send requests, and one of them stops the server while the others are at it.
#[test]
fn graceful_server_runs_the_job_of_every_request_that_it_answered() {
    let _tidy = tidy();
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 15; // By each client, at most.
    const BEFORE_THE_STOP: usize = 20;

    let start = Instant::now();
    let mut server = example("graceful_server").args(["--port", "0"]).spawn().expect("the server starts");
    let address = address_of(&mut server);
    let (answers, answered) = mpsc::channel();
    for _ in 0..CLIENTS {
        let answers = answers.clone();
        thread::spawn(move || {
            for _ in 0..REQUESTS {
                match get(address, "/job") {
                    Ok(answer) if answer.starts_with("HTTP/1.1 202 ") => {
                        answers.send(job_of(&answer)).unwrap()
                    }
                    _ => break, // It has stopped.
                }
            }
        });
    }
    drop(answers);
    let mut accepted: BTreeSet<usize> = answered.iter().take(BEFORE_THE_STOP).collect();
    assert_eq!(accepted.len(), BEFORE_THE_STOP);
    let answer = get(address, "/shutdown").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    accepted.extend(answered);

    let outcome = common::watch(server, start);
    outcome.assert_code(0).assert_silent();
    let ended = numbers(&outcome, "ending ");
    assert!(accepted.is_subset(&ended), "answered {accepted:?}, but {outcome:#?}");
    assert_eq!(numbers(&outcome, "starting "), ended);
    assert_eq!(outcome.count("shutdown (Call): clean"), 1, "{outcome:#?}");
}

/// The same with SIGTERM at a random moment, so that it may find the server anywhere between receiving a request and
/// answering it.
#[test]
#[cfg(all(unix, feature = "signals"))]
#[allow(unsafe_code)] // `kill`.
fn graceful_server_runs_the_job_of_every_request_that_it_answered_before_sigterm() {
    let _tidy = tidy();
    use std::hash::{BuildHasher, RandomState};

    const CLIENTS: usize = 4;
    const REQUESTS: usize = 15; // By each client, at most.

    for _ in 0..runs(5) {
        let start = Instant::now();
        let mut server = example("graceful_server").args(["--port", "0"]).spawn().expect("the server starts");
        let address = address_of(&mut server);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                thread::spawn(move || {
                    let answers = (0..REQUESTS).map_while(|_| get(address, "/job").ok());
                    // Until it has stopped: then it refuses, or closes the connection without an answer.
                    let accepted = answers.take_while(|answer| answer.starts_with("HTTP/1.1 202 "));
                    accepted.map(|answer| job_of(&answer)).collect::<Vec<_>>()
                })
            })
            .collect();
        // Chance is what is wanted: nothing waits for this.
        thread::sleep(Duration::from_micros(RandomState::new().hash_one(0) % 20_000));
        // SAFETY: sends a signal to a child that nobody has waited for yet.
        unsafe { libc::kill(server.id() as i32, libc::SIGTERM) };
        // Read while the clients are at it: a full pipe would stop the server.
        let outcome = common::watch(server, start);
        let accepted: BTreeSet<usize> =
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        outcome.assert_code(0).assert_silent();
        let ended = numbers(&outcome, "ending ");
        assert!(accepted.is_subset(&ended), "answered {accepted:?}, but {outcome:#?}");
        assert_eq!(numbers(&outcome, "starting "), ended);
        assert_eq!(outcome.count("shutdown (Signal(15)): clean"), 1, "{outcome:#?}");
    }
}

/// How often to repeat what depends on chance: `usual`, or what `WINDDOWN_RUNS` says.
#[cfg(all(unix, feature = "signals"))]
fn runs(usual: usize) -> usize {
    std::env::var("WINDDOWN_RUNS").map_or(usual, |runs| runs.parse().expect("WINDDOWN_RUNS is a number"))
}

/// Reads the first line that the server prints, and no further.
fn address_of(server: &mut Child) -> SocketAddr {
    let mut line = String::new();
    let stdout = server.stdout.as_mut().expect("stdout is piped");
    BufReader::with_capacity(1, stdout).read_line(&mut line).expect("a line");
    let address =
        line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("odd first line {line:?}"));
    address.trim().parse().expect("an address")
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn job_of(answer: &str) -> usize {
    let line = answer.lines().last().unwrap_or_default();
    let number = line.strip_prefix("job ").and_then(|rest| rest.strip_suffix(" accepted"));
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("odd answer {answer:?}"))
}
