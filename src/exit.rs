//! Ending the process, and the global registry's verbs as free functions.

use crate::context::{self, Wait, Whose};
use crate::registry::report::{Reason, Report};
use crate::registry::shutdown::EndOfHook;
use crate::registry::token::ShutdownToken;
use crate::registry::{Hold, HookId, Registry, ShuttingDown};
use crate::rejected::Rejected;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Drains everything and exits the process with `code`, from wherever it is called.
///
/// In a task: that task counts as finished, everything else is drained. In a hook: the code is recorded, the hook
/// ends, and the process exits when the shutdown is over; so does a task that the hook runs itself, for a
/// [full queue](crate::WhenFull::CallerRuns). While the process exits already its code stands: the
/// calling thread sleeps until it has. The first code wins, that of a [signal](crate::signals) that ends the process
/// included.
///
/// On Unix `std::process::exit` drains as well, with the feature `exit-hook`; but called in a task or a hook while the
/// process exits already it would never let that end, which only a deadline helps against. On Windows it drains
/// nothing: use this.
///
/// ```no_run
/// let pool = winddown::Pool::new(2);
/// pool.execute(|| println!("still runs"))?;
/// winddown::exit(3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn exit(code: i32) -> ! {
    let is_in_hook = context::with_hook(|hook| hook.exit_with(code));
    if is_in_hook && !context::in_worker() {
        // Unwinds without a message; whoever runs the hook knows it.
        std::panic::resume_unwind(Box::new(EndOfHook));
    }
    // From here on this thread only waits. It is marked before the process begins to exit: if another thread is about
    // to begin that, std parks this one for ever, and then the drain must not wait for it.
    std::mem::forget(context::block(Wait::End { of: Whose::Process, over: Default::default(), ends: false }));
    if is_in_hook {
        // A task runs in the hook's place, which would take an unwinding for its own panic. The shutdown, which knows the
        // code, goes on without this thread.
        context::with_hook(|hook| hook.leave());
        loop {
            std::thread::park();
        }
    }
    #[cfg(not(all(unix, feature = "exit-hook")))]
    {
        // Nothing is drained by exiting here, so that is done first.
        if !crate::process::begin_exit_here() {
            loop {
                std::thread::park();
            }
        }
        crate::process::wind_down(Reason::Exit, None);
    }
    // Registers the net if this is the first that the process hears of this crate; else there is nothing to do.
    Registry::global();
    std::process::exit(code)
}

/// Shuts the global registry down when it is dropped: the explicit form of what exit does by itself.
///
/// For platforms and settings where nothing runs at exit: Windows' `std::process::exit`, the feature `exit-hook`
/// turned off. See [`guard`].
#[must_use = "the shutdown happens when this is dropped: bind it to a name, `let _guard = winddown::guard();`"]
pub struct ShutdownGuard(());

impl Drop for ShutdownGuard {
    fn drop(&mut self) {
        if context::in_hook() {
            crate::contain::log(
                log::Level::Error,
                format_args!("a ShutdownGuard was dropped inside a hook, where it would wait for itself"),
            );
        } else {
            Registry::global().wind_down(Reason::Call, None);
        }
    }
}

impl fmt::Debug for ShutdownGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShutdownGuard")
    }
}

/// Returns a guard that shuts the global registry down when it is dropped, at the end of `main` or in a panic.
///
/// ```
/// let _guard = winddown::guard(); // first thing in main
/// let pool = winddown::Pool::new(2);
/// pool.execute(|| println!("drained when the guard is dropped"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn guard() -> ShutdownGuard {
    ShutdownGuard(())
}

/// [`Registry::before_join`] of the global registry.
///
/// # Errors
///
/// As there.
pub fn before_join<F>(name: impl Into<Cow<'static, str>>, f: F) -> Result<HookId, Rejected<F>>
where
    F: FnOnce() + Send + 'static,
{
    Registry::global().before_join(name, f)
}

/// [`Registry::after_join`] of the global registry.
///
/// # Errors
///
/// As there.
pub fn after_join<F>(name: impl Into<Cow<'static, str>>, f: F) -> Result<HookId, Rejected<F>>
where
    F: FnOnce() + Send + 'static,
{
    Registry::global().after_join(name, f)
}

/// [`Registry::hold`] of the global registry.
///
/// # Errors
///
/// As there.
pub fn hold(name: impl Into<Cow<'static, str>>) -> Result<Hold, ShuttingDown> {
    Registry::global().hold(name)
}

/// [`Registry::shutdown`] of the global registry.
///
/// # Panics
///
/// As there.
pub fn shutdown() -> Report {
    Registry::global().shutdown()
}

/// [`Registry::shutdown_timeout`] of the global registry.
///
/// # Panics
///
/// As there.
pub fn shutdown_timeout(timeout: Duration) -> Report {
    Registry::global().shutdown_timeout(timeout)
}

/// [`Registry::request_shutdown`] of the global registry.
pub fn request_shutdown() {
    Registry::global().request_shutdown();
}

/// [`Registry::wait_finished`] of the global registry.
///
/// # Panics
///
/// As there.
pub fn wait_finished() -> Report {
    Registry::global().wait_finished()
}

/// [`Registry::token`] of the global registry.
pub fn token() -> ShutdownToken {
    Registry::global().token()
}

/// [`Registry::set_deadline`] of the global registry.
pub fn set_deadline(deadline: Option<Duration>) {
    Registry::global().set_deadline(deadline);
}
