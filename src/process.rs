//! The process's own registry, one for each line of forks, and the net under its exit.

use crate::context::{self, Frame};
use crate::os::{self, Generation};
use crate::registry::report::Reason;
use crate::registry::Registry;
use once_cell::race::OnceBox;

/// The registry of one process in a line of forks: a child starts afresh, with the next era.
///
/// Eras are linked and never freed, so `Registry::global` can hand out references for ever. They are made without a
/// lock: one that another thread held at the moment of a fork could never be taken in the child.
struct Era {
    generation: Generation,
    registry: Registry,
    next: OnceBox<Era>,
}

static FIRST: OnceBox<Era> = OnceBox::new();

fn era() -> &'static Era {
    os::watch_forks();
    #[cfg(feature = "exit-hook")]
    os::at_exit(at_exit);
    let now = Generation::now();
    let new = || Box::new(Era { generation: now, registry: Registry::root(), next: OnceBox::new() });
    let mut era = FIRST.get_or_init(new);
    while era.generation != now {
        era = era.next.get_or_init(new);
    }
    era
}

/// Whether this process, and not one that it was forked from, has anything to wind down.
#[cfg(feature = "exit-hook")]
fn has_era() -> bool {
    let mut era = FIRST.get();
    while let Some(found) = era {
        if found.generation == Generation::now() {
            return true;
        }
        era = found.next.get();
    }
    false
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
    /// that was forked at such a moment can start no thread; so fork while no pool is growing, or fork first.
    pub fn global() -> &'static Registry {
        &era().registry
    }
}

/// Winds down whatever is not, for the end of the process, and sees to it that its output is not lost.
pub(crate) fn wind_down(reason: Reason) {
    // A hook that ends the process must not be waited for by the shutdown that its thread now waits for.
    context::with(|frame| {
        if let Some(Frame::Hook(hook)) = frame {
            hook.leave();
        }
    });
    Registry::global().wind_down(reason);
}

/// The net: called by the C runtime when the process exits, on the thread that exits.
///
/// That is the main thread, its thread-locals gone, or any thread that called `std::process::exit`, a worker
/// included, whose task then counts as finished. In a forked child it finds the child's own era. A second call finds
/// everything wound down.
#[cfg(feature = "exit-hook")]
extern "C" fn at_exit() {
    use crate::contain;

    // A forked child that made nothing of its own leaves at once, and does not write out the parent's output again.
    if !has_era() {
        return;
    }
    if let Err(payload) = contain::run(|| wind_down(Reason::Exit)) {
        let message = contain::message(&*payload).to_owned();
        contain::log(log::Level::Error, format_args!("the shutdown at exit panicked: {message}"));
        contain::drop_quietly(payload);
    }
    if let Err(payload) = contain::run(flush_stdout) {
        contain::drop_quietly(payload);
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
    use std::time::{Duration, Instant};

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
