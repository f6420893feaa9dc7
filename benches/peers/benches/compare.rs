//! winddown side by side with other thread pools, in one run.
//!
//! ```text
//! cargo bench -p peers                       everything: some minutes
//! cargo bench -p peers -- burst cold         scenes whose names have one of these in them
//! cargo bench -p peers -- --widths 2,4       at these numbers of workers; default: 1, 2, 4 and 16
//! cargo bench -p peers -- --json FILE        writes the medians to a file as well, seen from this package
//! cargo bench -p peers -- --quick            few and small rounds: for a look, not for a verdict
//! ```
//!
//! # Who takes part
//!
//! rayon, threadpool, tokio's `spawn_blocking`, rusty_pool, blocking, futures' `ThreadPool`, a `std::thread` for each
//! task; and, where `java` with `javac` and `python3` are found, Java's `ThreadPoolExecutor` (a fixed pool) and
//! `ForkJoinPool`, and Python's `ThreadPoolExecutor`. `Cargo.toml` asks for the newest releases.
//!
//! # Rules
//!
//! * A task captures three words, which come from `black_box` and go into one.
//! * One build, in the release profile as it is by default. Every peer has its defaults in every scene; only the number
//!   of its threads is set (tokio: `max_blocking_threads`; rusty_pool: core and maximum; blocking:
//!   `BLOCKING_MAX_THREADS`).
//! * Every peer is called through its cheapest public call: rayon `ThreadPool::spawn`, threadpool `execute`, tokio
//!   `Runtime::spawn_blocking` with the handle dropped, rusty_pool `execute`, blocking `unblock(..).detach()`, futures
//!   `spawn_ok` of an async block, winddown `execute`.
//! * Results come back in each peer's natural way: winddown `spawn` and `join`; tokio `Handle::block_on` of the join
//!   handle; rusty_pool `evaluate` and `await_complete`; futures `spawn_with_handle` and `block_on`; blocking
//!   `block_on(unblock(..))`; std `spawn` and `join`; Java `submit` and `get`; Python `submit` and `result`; rayon and
//!   threadpool, which have no handles, with a std channel for each task (rayon's `install` takes longer).
//! * Every peer has a process of its own for each scene and width, all of the same program, so that none has another's
//!   heap or idle threads to bear. All these processes are there for the whole scene, and play their rounds in turn,
//!   each turn beginning with another peer. The first round is thrown away, for Java the first four. An untimed small
//!   one comes before each that is timed, so that a pool that lets idle threads go has them again; round trips begin a
//!   block of samples with a few untimed ones instead. What counts is the median of the rounds (17; seven in `drain`,
//!   27 in `spawn-join`, 135 of eight pools each in `create`), and the ratio of a peer's to winddown's.
//! * That a task has run is noticed in the same way for all: every thread counts on a cache line of its own, with a
//!   plain load and store, and the main thread adds these up, sleeping 50 µs in between. Java and Python do the same
//!   with what they have.
//! * The clock is read at the beginning and the end of a round; only the round trips are timed one by one.
//!
//! # Scenes
//!
//! | | |
//! |---|---|
//! | burst | One producer submits 200,000 tiny tasks; until all have run. |
//! | multi | The same from four producers. |
//! | fan-out | A binary tree of 2^18 - 1 tasks, each of which submits its two children to the pool in a `static`. |
//! | hot | One task and its result, back to back: 2,000 times, in blocks of 50 in turn. |
//! | cold | The same after a millisecond of sleep: 2,000 times at 2 and 4 workers, 500 times at 1 and 16. |
//! | spawn-join | 10,000 tasks with handles are spawned, then all are joined. |
//! | mixed | 4,000 tasks of 5 µs: how many times faster than the main thread alone. |
//! | create | A pool is made, runs a task that sends a message, and is ended as far as its API goes: winddown, rusty_pool, tokio, Java and Python join their threads, the others do not. std: a thread instead of the pool. |
//! | drain | A million tiny tasks are queued while all workers stand at a gate; it opens, and the pool is shut down. `drain`: from there to the end of the shutdown. `drain whole`: from the first submission. Making the pool is in neither. Only peers whose shutdown runs what is queued and waits for that. |
//! | bytes | Live bytes for each of 100,000 tasks queued behind the gate, in a program whose allocator counts. |
//!
//! A thread for each task, and Python, play smaller rounds. A dash says that a peer does not have the scene: rayon and
//! threadpool have no handles, rayon and futures do not wait at their end, tokio gives up what is queued, blocking's
//! one pool neither begins nor ends.
//!
//! # Floors
//!
//! What winddown is to keep, at 2 and 4 workers, is printed at the end. Three more are about winddown alone (`checks`
//! on the command line): 16 workers against 2, in turn; a queue of ten million tasks against one of a hundred thousand,
//! in turn, from the first submission behind a gate until the pool is idle; and the bytes of those ten million.

use peers::field::Programs;
use peers::Options;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = options(std::env::args().skip(1)).and_then(|options| {
        let programs = Programs {
            peer: env!("CARGO_BIN_EXE_peer").into(),
            peer_bytes: env!("CARGO_BIN_EXE_peer-bytes").into(),
            scratch: env!("CARGO_TARGET_TMPDIR").into(),
        };
        Ok(peers::compare(programs, &options)?)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut options = Options { filters: Vec::new(), widths: vec![1, 2, 4, 16], quick: false, json: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => {} // Cargo says so to every bench.
            "--quick" => options.quick = true,
            "--json" => options.json = Some(PathBuf::from(value()?)),
            "--widths" => {
                options.widths = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                if options.widths.contains(&0) {
                    return Err("a pool needs at least one worker".into());
                }
            }
            other if other.starts_with('-') => return Err(format!("unknown option {other}").into()),
            filter => options.filters.push(filter.to_owned()),
        }
    }
    Ok(options)
}
