//! SIGTERM, SIGINT and SIGHUP drain before they end the process. For applications only.
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     winddown::signals::install()?; // first thing in main
//!     let pool = winddown::Pool::new(4);
//!     pool.execute(|| println!("runs, though Ctrl-C was pressed meanwhile"))?;
//!     Ok(())
//! }
//! ```
//!
//! The first signal shuts the global registry down, and with it everything, and then ends the process:
//!
//! | signal | sent by | exit code |
//! |---|---|---|
//! | SIGTERM | supervisors: systemd, Kubernetes, docker, `kill` | 0 if the [report](Report) is clean, else 1 |
//! | SIGINT | Ctrl-C | 130, as shells count: 128 and the signal's number |
//! | SIGHUP | the terminal that is closed | 129 |
//!
//! [`Builder::exit_code`] decides otherwise. The code stands whatever `main` does then, which goes on running: it may
//! well return as soon as the drain has finished what it waits for. Only where the process was exiting before the
//! signal came, its own code stands, and the signal changes nothing but to bring the [deadline](Builder::deadline)
//! nearer.
//!
//! A *second* SIGINT ends the process at once, with 130 and without waiting for anything: the way out for a person at
//! the keyboard. Any SIGINT is a second one once shutdown has begun, whatever began it: another signal, a call of
//! [`shutdown`](crate::shutdown), the return from `main`. A repeated SIGTERM or SIGHUP changes nothing, since
//! supervisors send them more than once.
//!
//! On Windows Ctrl-C and Ctrl-Break do what SIGINT does here. That is not tested.
//!
//! # Who owns the signals
//!
//! A process has one disposition for each signal, so one part of the program has to own it.
//!
//! * **The application**, in `main`, calls [`install`], or has handlers of its own: a handler thread or a
//!   `tokio::signal` task that calls [`request_shutdown`](crate::request_shutdown) or [`exit`](crate::exit()). (On an
//!   ordinary thread. In the handler itself hardly anything is allowed.)
//! * **A server framework** that handles signals by itself (actix-web, Rocket, pingora) has to be told not to, and to
//!   stop when [`token`](crate::token) fires; or it keeps them, `install` is not called, and `main` returns after the
//!   server, which drains too. With [`OnSignal::Request`] the signal fires the token, and `main` ends the process.
//! * **A library** never calls it. This crate installs nothing unless it is asked to.
//!
//! Where somebody handles one of the three signals already (tokio, signal-hook, ctrlc, plain `sigaction`), [`install`]
//! refuses with [`SignalError::AlreadyInstalled`], and that handler keeps working. What asks *later* is free to: tokio
//! and signal-hook call the handlers they find, so both work; plain `sigaction` replaces them. There is no way to
//! uninstall.
//!
//! A signal that is ignored when [`install`] is called stays ignored: SIGHUP under `nohup`, SIGINT in `program &` in a
//! shell script.
//!
//! In a forked child the signals do what they would do without handlers: they end it, and nothing is drained. A child
//! that is to drain calls [`install`] itself, which works if its parent had not called it before the fork, and is
//! [`SignalError::Forked`] else. After `exec` the default holds, as always.
//!
//! # Exit codes, by whom they are read
//!
//! * **systemd** takes code 0 after `systemctl stop` for success, and marks the unit as failed on any other code, 143
//!   included, that `SuccessExitStatus=` does not list: so a SIGTERM that lost nothing is 0.
//! * **Kubernetes, a Service** (a Deployment's pod): the code is shown, and nothing depends on it.
//! * **Kubernetes, a Job**: code 0 means that the work is *done*, even if SIGTERM cut it short. A batch program has
//!   [`exit_code`](Builder::exit_code) return something else when work remains: `|_| 143`, or what the program knows of
//!   its progress. Then the Job runs it again.
//! * **A shell** shows 130 and 129 as `$?` and tells by them that a signal ended the command, so a loop in a script
//!   ends on Ctrl-C too.
//!
//! # The deadline belongs below the platform's
//!
//! Whoever sends SIGTERM sends SIGKILL when its patience is over: docker after 10 s, Kubernetes after 30 s (the
//! `preStop` hook's time included), systemd after 90 s. SIGKILL leaves no report, no post-join hook and no code. With a
//! [`deadline`](Builder::deadline) some seconds below that the process itself decides what is lost, says so, and exits
//! with 1. There is none unless it is set here or with [`set_deadline`](crate::set_deadline); the nearer one holds. A
//! server's own timeout for open connections, which runs in a pre-join hook or a [hold](crate::hold), belongs below
//! half of the deadline, as that is what they get. 25 s go with Kubernetes' 30 s.

#[cfg(not(unix))]
#[path = "signals/other.rs"]
mod system;
#[cfg(unix)]
#[path = "signals/unix.rs"]
mod system;

use crate::contain;
use crate::process;
use crate::registry::report::Report;
use crate::registry::Registry;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use system::Installed;

/// Handles SIGTERM, SIGINT and SIGHUP with the defaults: [`Builder::new`]`().`[`install`](Builder::install)`()`.
///
/// # Errors
///
/// As there.
///
/// ```no_run
/// winddown::signals::install()?;
/// # Ok::<(), winddown::signals::SignalError>(())
/// ```
pub fn install() -> Result<(), SignalError> {
    Builder::new().install()
}

/// What the first signal does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum OnSignal {
    /// It shuts everything down and then ends the process, wherever `main` is.
    Exit,
    /// It begins the shutdown, and `main` ends the process, with a code of its own: for a `main` that has something to
    /// do when everything is over. It learns of the shutdown from [`wait_finished`](crate::wait_finished) or the
    /// [token](crate::token). One that does not end keeps the process until a SIGINT forces the end.
    Request,
}

/// Why the handlers were not installed. Every signal does what it did before.
#[derive(Debug)]
#[non_exhaustive]
pub enum SignalError {
    /// Somebody handles one of the signals already: tokio, signal-hook, ctrlc, plain `sigaction`, or an earlier call.
    AlreadyInstalled,
    /// The process is a forked child, and its parent had the handlers installed. Fork first, install then.
    Forked,
    /// The operating system refused: no thread could be had, for one.
    System(io::Error),
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignalError::AlreadyInstalled => {
                f.write_str("signals are handled already: let one part of the program own them")
            }
            SignalError::Forked => f.write_str(
                "the process was forked from one with signal handlers: install them in the child alone, or in the \
                 parent after the fork",
            ),
            SignalError::System(error) => write!(f, "signal handlers could not be installed: {error}"),
        }
    }
}

impl Error for SignalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SignalError::System(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for SignalError {
    fn from(error: io::Error) -> SignalError {
        SignalError::System(error)
    }
}

impl From<ctrlc::Error> for SignalError {
    fn from(error: ctrlc::Error) -> SignalError {
        match error {
            ctrlc::Error::MultipleHandlers => SignalError::AlreadyInstalled,
            ctrlc::Error::System(error) => SignalError::System(error),
            error => SignalError::System(io::Error::other(error.to_string())),
        }
    }
}

type ExitCodeOf = Box<dyn Fn(&Report) -> i32 + Send + Sync>;

/// How signals are handled.
///
/// ```no_run
/// use std::time::Duration;
/// use winddown::signals::Builder;
///
/// Builder::new()
///     .deadline(Duration::from_secs(25)) // Kubernetes kills after 30
///     .exit_code(|report| if report.is_clean() { 0 } else { 75 })
///     .install()?;
/// # Ok::<(), winddown::signals::SignalError>(())
/// ```
#[must_use = "nothing is handled until `install` is called"]
pub struct Builder {
    deadline: Option<Duration>,
    exit_code: Option<ExitCodeOf>,
    on_signal: OnSignal,
}

impl Builder {
    /// The defaults, each stated at its method.
    pub fn new() -> Builder {
        Builder { deadline: None, exit_code: None, on_signal: OnSignal::Exit }
    }

    /// How long the shutdown may take, counted from the signal. Default: what [`set_deadline`](crate::set_deadline)
    /// says, and that is for ever unless it is called. The nearer one holds.
    ///
    /// How the time is spent stands there.
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = Some(deadline);
        self
    }

    /// What to exit with, whichever of the three signals came first; [`Report::reason`] tells. Default: the table at
    /// the [top](self).
    ///
    /// It is called after the shutdown, on a thread of its own. If it panics, the code is that of a shutdown that lost
    /// something. It has no part in [`OnSignal::Request`], nor where a second SIGINT forces the end.
    ///
    /// ```no_run
    /// use winddown::{signals::Builder, Reason};
    ///
    /// // A batch program: what is not done must not look done.
    /// Builder::new()
    ///     .exit_code(|report| match report.reason() {
    ///         Reason::Signal(signal) => 128 + signal,
    ///         _ => 1, // a shutdown that ran already when the signal came
    ///     })
    ///     .install()?;
    /// # Ok::<(), winddown::signals::SignalError>(())
    /// ```
    pub fn exit_code(mut self, f: impl Fn(&Report) -> i32 + Send + Sync + 'static) -> Builder {
        self.exit_code = Some(Box::new(f));
        self
    }

    /// What the first signal does. Default: [`OnSignal::Exit`].
    ///
    /// ```no_run
    /// use winddown::signals::{Builder, OnSignal};
    ///
    /// fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    ///     Builder::new().on_signal(OnSignal::Request).install()?;
    ///     // Start what serves, and then:
    ///     let report = winddown::wait_finished();
    ///     eprintln!("{report}");
    ///     Ok(std::process::ExitCode::from(&report))
    /// }
    /// ```
    pub fn on_signal(mut self, on_signal: OnSignal) -> Builder {
        self.on_signal = on_signal;
        self
    }

    /// Installs the handlers. They stay for as long as the process runs.
    ///
    /// A thread is started here, for the signals to be handed to. A signal that is ignored stays so.
    ///
    /// # Errors
    ///
    /// [`SignalError::AlreadyInstalled`] where one of the signals has a handler, which then stays; the other variants
    /// where a handler cannot be had. Either way everything is as before, and after a
    /// [`System`](SignalError::System) error another call may succeed.
    pub fn install(self) -> Result<(), SignalError> {
        // Before any handler: the registry, the exit net and the count of forks are not to be made amid a signal.
        Registry::global();
        let plan = Arc::new(Plan { has_begun: AtomicBool::new(false), how: self });
        system::install(move |installed| plan.on_call(installed))
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("deadline", &self.deadline)
            .field("exit_code", &self.exit_code.as_ref().map(|_| ".."))
            .field("on_signal", &self.on_signal)
            .finish()
    }
}

struct Plan {
    has_begun: AtomicBool,
    how: Builder,
}

impl Plan {
    /// What ctrlc's thread does for each signal. It returns at once, so that no signal waits for another.
    fn on_call(self: &Arc<Plan>, installed: &Installed) {
        // A panic would end that thread, and with it the handling of signals.
        if let Err(payload) = contain::run(|| self.handle(installed)) {
            contain::drop_quietly(payload);
        }
    }

    fn handle(self: &Arc<Plan>, installed: &Installed) {
        let Some(signal) = installed.take() else { return };
        if self.has_begun.swap(true, Ordering::Relaxed) {
            contain::log(
                log::Level::Debug,
                format_args!("{}: the shutdown for a signal runs already", Name(signal)),
            );
            return;
        }
        // Here, and not on the thread below: `main` may return before that has started.
        let ends = self.how.on_signal == OnSignal::Exit && process::begin_end_for_signal(signal);
        let (plan, entering) = (self.clone(), *installed);
        let run = move || {
            entering.enter_thread();
            plan.wind_down(signal, ends);
        };
        if let Err(error) = thread::Builder::new().name("winddown-signal".into()).spawn(run) {
            contain::log(
                log::Level::Warn,
                format_args!("no thread for the shutdown, it runs on that of ctrlc: {error}"),
            );
            installed.enter_thread();
            self.wind_down(signal, ends);
        } else {
            contain::log(log::Level::Debug, format_args!("{}: shutting down", Name(signal)));
        }
    }

    /// Shuts everything down and, if the process `ends` for the signal, exits.
    fn wind_down(&self, signal: i32, ends: bool) {
        let deadline = self.how.deadline;
        if ends {
            process::exit_for_signal(signal, deadline, |report| self.exit_code(signal, report));
        }
        Registry::global().shut_down_for(signal, deadline);
    }

    fn exit_code(&self, signal: i32, report: &Report) -> i32 {
        let default = |is_clean: bool| match signal {
            system::SIGINT | system::SIGHUP => 128 + signal,
            _ => i32::from(!is_clean),
        };
        let Some(exit_code) = &self.how.exit_code else { return default(report.is_clean()) };
        contain::run(|| exit_code(report)).unwrap_or_else(|payload| {
            contain::drop_quietly(payload);
            default(false)
        })
    }
}

/// A signal's name for people.
struct Name(i32);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            system::SIGINT => "SIGINT",
            system::SIGTERM => "SIGTERM",
            _ => "SIGHUP",
        })
    }
}
