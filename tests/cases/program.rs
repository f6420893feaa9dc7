//! Programs that end in every way a process can end; the tests run them as children and look at what they left.
//!
//! `cases NAME` runs one. Each module has the cases of the test file of the same name.

#![allow(unreachable_pub)] // Modules of a program: there is no outside.

mod back_pressure;
mod caller_runs;
mod cancelling;
mod daemons;
mod deadline;
mod default_pool;
mod delays;
mod endings;
mod exit_net;
mod fork;
#[cfg(feature = "exit-hook")]
mod hooks;
mod order;
#[cfg(feature = "exit-hook")]
mod panics;
mod regressions;
mod resources;
mod self_calls;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod submissions;
#[cfg(unix)]
mod undrained;
mod waiting;
mod worker_state;

use std::error::Error;
use std::process::exit;

/// What a case's `main` returns.
type Ended = Result<(), Box<dyn Error>>;

/// A case by its name.
type Case = (&'static str, fn() -> Ended);

fn main() -> Ended {
    let name = std::env::args().nth(1).unwrap_or_default();
    let cases = [
        back_pressure::CASES,
        caller_runs::CASES,
        cancelling::CASES,
        daemons::CASES,
        deadline::CASES,
        default_pool::CASES,
        delays::CASES,
        endings::CASES,
        exit_net::CASES,
        fork::CASES,
        #[cfg(feature = "exit-hook")]
        hooks::CASES,
        order::CASES,
        #[cfg(feature = "exit-hook")]
        panics::CASES,
        regressions::CASES,
        resources::CASES,
        self_calls::CASES,
        #[cfg(all(unix, feature = "signals"))]
        signals::CASES,
        submissions::CASES,
        #[cfg(unix)]
        undrained::CASES,
        waiting::CASES,
        worker_state::CASES,
    ];
    match cases.concat().into_iter().find(|(known, _)| *known == name) {
        Some((_, case)) => case(),
        None => {
            eprintln!("there is no case {name:?}");
            exit(100);
        }
    }
}
