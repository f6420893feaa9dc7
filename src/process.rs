//! The process's own registry, one for each line of forks, and the net under its exit.

pub(crate) mod eras;

#[cfg(any(feature = "exit-hook", feature = "signals"))]
use crate::contain;
use crate::context;
use crate::os;
use crate::registry::report::{Reason, Report};
#[cfg(feature = "signals")]
use crate::registry::token::Once;
use crate::registry::Registry;
use eras::Eras;
#[cfg(feature = "signals")]
use std::cell::Cell;
#[cfg(feature = "signals")]
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// What one process in a line of forks has.
struct Own {
    registry: Registry,
    #[cfg(not(all(unix, feature = "exit-hook")))]
    is_exiting: std::sync::atomic::AtomicBool,
    #[cfg(feature = "signals")]
    ending: Ending,
}

/// Who ends the process, where a signal and an exit meet: whoever comes first, and its exit code stands.
///
/// A signal's shutdown lets whatever `main` waits for finish, so `main` commonly returns in the middle of it. Without
/// this the code would depend on who gets to the C runtime's `exit` first.
#[cfg(feature = "signals")]
struct Ending {
    /// `NOBODY`, `EXIT` or the number of a signal; written once.
    by: AtomicI32,
    /// The code of a process that a signal ends, once its shutdown is over.
    code: Once<i32>,
}

#[cfg(feature = "signals")]
impl Ending {
    const NOBODY: i32 = 0;
    const EXIT: i32 = -1;

    fn new() -> Ending {
        Ending { by: AtomicI32::new(Ending::NOBODY), code: Once::new() }
    }

    /// Enters `who`, if there is nobody yet. Returns who it is now.
    fn begin(&self, who: i32) -> i32 {
        let order = Ordering::Relaxed; // No other memory hangs on it.
        self.by.compare_exchange(Ending::NOBODY, who, order, order).map_or_else(|by| by, |_| who)
    }
}

#[cfg(feature = "signals")]
thread_local! {
    /// Whether this thread ends the process for a signal. Without a destructor, so that exit handlers can read it.
    static ENDS_FOR_SIGNAL: Cell<bool> = const { Cell::new(false) };
}

static ERAS: Eras<Own> = Eras::new();

fn era() -> &'static Own {
    os::watch_forks();
    #[cfg(feature = "exit-hook")]
    os::at_exit(at_exit);
    ERAS.get_or_make(|| Own {
        registry: Registry::root(),
        #[cfg(not(all(unix, feature = "exit-hook")))]
        is_exiting: Default::default(),
        #[cfg(feature = "signals")]
        ending: Ending::new(),
    })
}

impl Registry {
    /// Makes a registry of its own.
    ///
    /// The end of the process winds it down too, before the global one.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// let pool = winddown::Pool::builder().registry(&registry).build()?;
    /// pool.execute(|| ())?;
    /// assert!(registry.shutdown().is_clean()); // this one alone
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[allow(clippy::new_without_default)] // Two defaults would not be the same registry.
    pub fn new() -> Registry {
        Registry::global().child()
    }

    /// The registry of the process, which pools join unless their builder says otherwise.
    ///
    /// A forked child has one of its own. std itself holds a lock for a moment when a thread starts or ends, and a child
    /// that was forked at such a moment may be unable to start one; so fork while no pool is growing, or fork first.
    pub fn global() -> &'static Registry {
        &era().registry
    }
}

/// Notes that the process exits. Says which signal came first, if one did: then the exit's code does not stand.
#[cfg(feature = "signals")]
pub(crate) fn begin_exit() -> Option<i32> {
    Some(era().ending.begin(Ending::EXIT)).filter(|by| *by != Ending::EXIT)
}

/// Whether this thread is the first to exit the process, where it is not the C runtime that lets one alone do so.
#[cfg(not(all(unix, feature = "exit-hook")))]
fn is_first_to_exit() -> bool {
    thread_local! {
        /// Without a destructor, so that exit handlers can read it.
        static IS_FIRST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if !IS_FIRST.get() {
        IS_FIRST.set(!era().is_exiting.swap(true, std::sync::atomic::Ordering::AcqRel));
    }
    IS_FIRST.get()
}

/// Whether this thread, which has called [`exit`](crate::exit), is to end the process.
#[cfg(not(all(unix, feature = "exit-hook")))]
pub(crate) fn begin_exit_here() -> bool {
    // A signal ends the process, and what decides on the code does so by itself.
    #[cfg(feature = "signals")]
    if ENDS_FOR_SIGNAL.get() {
        return true;
    }
    let is_first = is_first_to_exit();
    #[cfg(feature = "signals")]
    let is_first = is_first && begin_exit().is_none();
    is_first
}

/// Notes that a signal ends the process, through [`exit_for_signal`]. Says whether it does: not where the process exits
/// already.
#[cfg(feature = "signals")]
pub(crate) fn begin_end_for_signal(signal: i32) -> bool {
    era().ending.begin(signal) == signal
}

/// Winds everything down and exits with what `code` makes of the report, whoever has called `exit` in the meantime.
#[cfg(feature = "signals")]
pub(crate) fn exit_for_signal(
    signal: i32,
    timeout: Option<Duration>,
    code: impl FnOnce(&Report) -> i32,
) -> ! {
    // `code` may exit by itself, and an exit handler on this thread must not wait for this thread.
    ENDS_FOR_SIGNAL.set(true);
    let code = contain::run(|| code(&wind_down(Reason::Signal(signal), timeout))).unwrap_or_else(|payload| {
        say_panic("the shutdown for a signal", payload);
        1
    });
    era().ending.code.set(code);
    std::process::exit(code)
}

/// Winds down whatever is not, for the end of the process, in at most `timeout`.
pub(crate) fn wind_down(reason: Reason, timeout: Option<Duration>) -> Report {
    // A hook that ends the process must not be waited for by the shutdown that its thread now waits for.
    context::with_hook(|hook| hook.leave());
    Registry::global().wind_down(reason, timeout)
}

#[cfg(any(feature = "exit-hook", feature = "signals"))]
fn say_panic(what: &str, payload: contain::Payload) {
    let message = contain::message(&*payload).to_owned();
    contain::log(log::Level::Error, format_args!("{what} panicked: {message}"));
    contain::drop_quietly(payload);
}

/// The net: called by the C runtime when the process exits, on the thread that exits.
///
/// That is the main thread, its thread-locals gone, or any thread that called `std::process::exit`, a worker
/// included, whose task then counts as finished. In a forked child it finds the child's own era. A second call finds
/// everything wound down.
#[cfg(feature = "exit-hook")]
extern "C" fn at_exit() {
    // A forked child that made nothing of its own leaves at once, and does not write out the parent's output again.
    if ERAS.get().is_none() {
        return;
    }
    #[cfg(not(unix))]
    if !is_first_to_exit() {
        // Whoever has called `exit` ends the process with its own code, when everything is drained.
        loop {
            std::thread::park();
        }
    }
    #[cfg(not(feature = "signals"))]
    let reason = Reason::Exit;
    // A signal that came first is the reason, though this thread may begin the shutdown before that of the signal does.
    #[cfg(feature = "signals")]
    let reason = begin_exit().map_or(Reason::Exit, Reason::Signal);
    if let Err(payload) = contain::run(|| wind_down(reason, None)) {
        say_panic("the shutdown at exit", payload);
    }
    if let Err(payload) = contain::run(flush_stdout) {
        contain::drop_quietly(payload);
    }
    #[cfg(feature = "signals")]
    if reason != Reason::Exit && !ENDS_FOR_SIGNAL.get() {
        let code = &era().ending.code;
        code.wait(|| false);
        if let Some(code) = code.get() {
            os::exit_in_handler(code);
        }
    }
}

/// Writes out what tasks have printed.
///
/// When `main` returns, std flushes stdout and makes it unbuffered, but only if no task holds its lock at that
/// moment. One that was left behind may hold it for ever, so another thread does this, and is not waited for long.
#[cfg(feature = "exit-hook")]
fn flush_stdout() {
    use crate::registry::helper::Helper;
    use std::io::Write;
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::Arc;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_millis(100);
    const BEGUN: u8 = 1;
    const LOCKED: u8 = 2;
    let registry = Registry::global();
    let event = registry.event();
    let step = Arc::new(AtomicU8::new(0));
    let pending = Helper::new("winddown-flush").start(event, {
        let (step, event) = (step.clone(), event.clone());
        let reach = move |reached| {
            step.store(reached, Ordering::Release);
            event.signal();
        };
        move || {
            reach(BEGUN);
            let mut stdout = std::io::stdout().lock();
            reach(LOCKED);
            // The error, a reader that is gone, cannot be told to anyone any more.
            drop(stdout.flush());
        }
    });
    // On a busy machine the thread may take longer to start than another one may hold the lock.
    event.wait(|| None, || step.load(Ordering::Acquire) >= BEGUN);
    let until = crate::sync::deadline(PATIENCE);
    if event.wait(|| until, || step.load(Ordering::Acquire) >= LOCKED) {
        // What is written now is what tasks have printed: a slow reader gets it, as long as there is time.
        let until = registry.ends_at().map(|end| end.max(Instant::now() + PATIENCE));
        event.wait(|| until, || pending.is_done());
    }
}
