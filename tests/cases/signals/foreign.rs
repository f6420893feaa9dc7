//! Programs in which somebody else handles signals, too.

use super::{block_for_ever, raise, ready, sixty, SIGNALS};
use crate::fork::unix::child;
use crate::Ended;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use winddown::signals::{self, OnSignal, SignalError};
use winddown::*;

static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

/// Has `count` called for a signal, or nothing but the default if `handler` is `SIG_DFL`. Returns what was there.
fn set(signal: i32, handler: usize) -> usize {
    // SAFETY: all zeroes are a valid `sigaction`, and the pointers are valid. The handler is async-signal-safe.
    unsafe {
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = (mem::zeroed(), mem::zeroed());
        action.sa_sigaction = handler;
        assert_eq!(libc::sigaction(signal, &action, &mut before), 0);
        before.sa_sigaction
    }
}

fn handler() -> usize {
    count as extern "C" fn(i32) as usize
}

fn assert_refused() {
    let error = signals::install().unwrap_err();
    assert!(matches!(error, SignalError::AlreadyInstalled), "{error}");
}

/// One handler for one signal is enough.
pub fn plain() -> Ended {
    for signal in SIGNALS {
        set(signal, handler());
        assert_refused();
        let seen = SEEN.load(Ordering::SeqCst);
        raise(signal);
        assert_eq!(SEEN.load(Ordering::SeqCst), seen + 1);
        // Nothing else was touched, this included.
        for other in SIGNALS {
            let expected = if other == signal { handler() } else { libc::SIG_DFL };
            assert_eq!(set(other, libc::SIG_DFL), expected);
        }
    }
    // Nobody is there any more.
    signals::install()?;
    sixty(&Pool::new(2));
    ready();
    block_for_ever()
}

pub fn signal_hook() -> Ended {
    // SAFETY: the action is async-signal-safe.
    unsafe { signal_hook_registry::register(libc::SIGTERM, || count(0))? };
    assert_refused();
    raise(libc::SIGTERM);
    assert_eq!(SEEN.load(Ordering::SeqCst), 1);
    assert!(!token().is_triggered());
    ready();
    block_for_ever()
}

fn runtime() -> ::tokio::runtime::Runtime {
    ::tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub fn tokio() -> Ended {
    use ::tokio::signal::unix::{signal, SignalKind};
    runtime().block_on(async {
        let mut hangups = signal(SignalKind::hangup())?;
        assert_refused();
        raise(libc::SIGHUP);
        assert!(hangups.recv().await.is_some());
        assert!(!token().is_triggered());
        ready();
        Ok(())
    })
}

pub fn ctrlc() -> Ended {
    let (told, has_come) = channel();
    ::ctrlc::set_handler(move || told.send(()).unwrap())?;
    assert_refused();
    raise(libc::SIGINT);
    has_come.recv()?;
    assert!(!token().is_triggered());
    ready();
    Ok(())
}

/// Those that come later and call whom they find.
pub fn later() -> Ended {
    use ::tokio::signal::unix::{signal, SignalKind};
    signals::Builder::new().on_signal(OnSignal::Request).install()?;
    // SAFETY: the action is async-signal-safe.
    unsafe { signal_hook_registry::register(libc::SIGTERM, || count(0))? };
    runtime().block_on(async {
        let mut terms = signal(SignalKind::terminate())?;
        raise(libc::SIGTERM);
        assert!(terms.recv().await.is_some());
        Ok::<(), std::io::Error>(())
    })?;
    assert_eq!(SEEN.load(Ordering::SeqCst), 1);
    assert_eq!(wait_finished().reason(), Reason::Signal(libc::SIGTERM));
    assert_refused();
    ready();
    Ok(())
}

/// A child that is forked from a process with our handlers and brings its own.
pub fn of_child() -> Ended {
    signals::install()?;
    let owns = child(|| {
        // SAFETY: the action is async-signal-safe.
        unsafe { signal_hook_registry::register(libc::SIGTERM, || count(0)).unwrap() };
        raise(libc::SIGTERM);
        assert_eq!(SEEN.load(Ordering::SeqCst), 1);
    });
    println!("child: {}", owns.end());
    ready();
    Ok(())
}
