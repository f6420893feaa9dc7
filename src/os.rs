//! What the operating system is asked for directly: the exit handler, the fork handler, a clock that costs nothing.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);
/// The last generation, and one, that began to end; see [`Generation::begin_to_end`].
static ENDING: AtomicU64 = AtomicU64::new(0);
static WATCHING: AtomicBool = AtomicBool::new(false);
#[cfg(feature = "exit-hook")]
static ARMED: AtomicBool = AtomicBool::new(false);

/// The process's place in its line of forks: every forked child has a number of its own, read without a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Generation(u64);

impl Generation {
    #[inline]
    pub(crate) fn now() -> Generation {
        Generation(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this was noted in a process of which the present one is a forked child. The threads of that process
    /// are gone here and its locks may be held for ever, so this is asked before any lock is taken.
    ///
    /// Relaxed is enough: only the child handler writes, on the one thread that the child has.
    #[inline]
    pub(crate) fn is_past(self) -> bool {
        self != Generation::now()
    }

    #[cfg(all(unix, feature = "signals"))]
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// Notes that the process winds everything down: from here on a SIGINT that is handled forces the end.
    pub(crate) fn begin_to_end(self) {
        ENDING.store(self.0 + 1, Ordering::Release);
    }

    /// Whether [`begin_to_end`](Generation::begin_to_end) was called in this process. Fit for a signal handler.
    #[cfg(feature = "signals")]
    pub(crate) fn is_ending(self) -> bool {
        ENDING.load(Ordering::Acquire) == self.0 + 1
    }
}

/// Has forks counted from here on.
///
/// Two first callers may both register, and a fork then counts twice, which is as good as once. A lock here instead
/// could be held by another thread at the moment of a fork.
#[cfg(unix)]
pub(crate) fn watch_forks() {
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    if !WATCHING.load(Ordering::Acquire) {
        // SAFETY: the handler lives as long as the program and does nothing but an atomic addition.
        let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if status != 0 {
            let error = std::io::Error::from_raw_os_error(status);
            crate::contain::log(
                log::Level::Error,
                format_args!("cannot watch for forks, so a forked child must not use pools: {error}"),
            );
        }
        WATCHING.store(true, Ordering::Release);
    }
}

#[cfg(not(unix))]
pub(crate) fn watch_forks() {
    WATCHING.store(true, Ordering::Relaxed);
}

/// Has the C runtime call `handler` when the process exits. A handler may be registered twice (see
/// [`watch_forks`]), so it must be one that does nothing the second time.
#[cfg(feature = "exit-hook")]
pub(crate) fn at_exit(handler: extern "C" fn()) {
    #[cfg(unix)]
    use libc::atexit;
    #[cfg(not(unix))]
    extern "C" {
        // The C runtime that std itself links on every other platform with processes has it.
        fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
    }
    if !ARMED.load(Ordering::Acquire) {
        // SAFETY: the handler lives as long as the program; that it does not unwind is its type's promise.
        let status = unsafe { atexit(handler) };
        if status != 0 {
            crate::contain::log(
                log::Level::Error,
                format_args!("the C runtime refused the exit handler: call winddown::shutdown() before exit"),
            );
        }
        ARMED.store(true, Ordering::Release);
    }
}

/// Ends the process with `code`, inside an exit handler: what the C runtime has left to do comes first where calling
/// `exit` again is known to go on from there, and is left out where it is not.
#[cfg(all(feature = "exit-hook", feature = "signals"))]
pub(crate) fn exit_in_handler(code: i32) -> ! {
    #[cfg(all(unix, any(target_env = "gnu", target_vendor = "apple")))]
    // SAFETY: both runtimes take each handler off their list before they call it and go on with the rest when a handler
    // calls `exit`; this thread is the one that they run handlers on.
    unsafe {
        libc::exit(code)
    }
    #[cfg(all(unix, not(any(target_env = "gnu", target_vendor = "apple"))))]
    // SAFETY: ends the process and returns to nobody.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    {
        // What exit handlers run for there is the return from `main`.
        extern "C" {
            fn _exit(code: std::ffi::c_int) -> !;
        }
        // SAFETY: ends the process and returns to nobody.
        unsafe { _exit(code) }
    }
}

/// Nanoseconds on a monotonic clock, never zero: some milliseconds late where such a clock is nearly free.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn now() -> u64 {
    let mut time = std::mem::MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for a write of a `timespec`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, time.as_mut_ptr()) };
    // SAFETY: a `timespec` is two integers, which are initialised, to zero if not by the call.
    let time = unsafe { time.assume_init() };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 + 1
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn now() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
}

/// [`now`] where reading it costs next to nothing, else zero for "not known": cheap enough for every task.
#[inline]
pub(crate) fn now_if_cheap() -> u64 {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        now()
    } else {
        0
    }
}
