//! Signal handlers: a counting one on top of ctrlc's.
//!
//! ctrlc's own handler wakes ctrlc's thread and says nothing about which signal came. The handler here runs in its place,
//! first notes the number, and only then calls the one it replaced: whenever the thread wakes up, the number of the
//! signal that woke it is there. So is what must not depend on any thread: the forced end, and the default in a child.
#![allow(unsafe_code)]

use super::SignalError;
use crate::os::Generation;
use libc::c_int;
pub(super) use libc::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

/// The exit code of a process that a second SIGINT ends.
const FORCED: c_int = 128 + SIGINT;

/// What is handled: all that ctrlc takes over, in the order of [`COUNTS`].
const SIGNALS: [c_int; 3] = [SIGINT, SIGTERM, SIGHUP];

/// How often each signal has come and was not [taken](take) yet.
static COUNTS: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// The number of the first signal, zero before.
static FIRST: AtomicI32 = AtomicI32::new(0);

/// ctrlc's handler, as an address; zero before there is one.
static BELOW: AtomicUsize = AtomicUsize::new(0);

/// The address under which [`on_signal`] is installed.
static OWN: AtomicUsize = AtomicUsize::new(0);

/// The generation in which the handler was installed, and one; zero before.
static HOME: AtomicU64 = AtomicU64::new(0);

/// Runs in the place of ctrlc's handler, on whatever thread the signal has interrupted, and so does nothing but atomics
/// and calls that POSIX lists as async-signal-safe.
extern "C" fn on_signal(signal: c_int) {
    let process = Generation::now();
    if HOME.load(Ordering::Relaxed) != process.number() + 1 {
        return die(signal);
    }
    let is_first = FIRST.compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire).is_ok();
    if signal == SIGINT && (!is_first || process.is_ending()) {
        // SAFETY: ends the process; it is async-signal-safe, where `exit` is not.
        unsafe { libc::_exit(FORCED) }
    }
    if let Some(at) = SIGNALS.iter().position(|known| *known == signal) {
        COUNTS[at].fetch_add(1, Ordering::Release); // pairs with the load in `take`
    }
    let below = BELOW.load(Ordering::Acquire);
    if below != 0 {
        let errno = errno();
        // SAFETY: the address is that of a handler that was installed for one argument, as `cover` has checked.
        let below = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(below) };
        below(signal);
        set_errno(errno);
    }
}

/// What a signal does in a process that was forked from the one with the handlers, and has not called `exec`: nobody
/// waits for ctrlc's calls there, so it does what it would have done without any handler. Where another handler, which
/// the child may have installed, has called this one, the signal is that one's.
fn die(signal: c_int) {
    // SAFETY: all zeroes are a valid `sigaction`: no flags, an empty mask, the default disposition.
    let (mut now, default): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
    // SAFETY: the calls are async-signal-safe, and the pointers are valid. The signal is blocked as long as its handler
    // runs, so it comes again when that returns, and ends the process then.
    unsafe {
        let status = libc::sigaction(signal, ptr::null(), &mut now);
        if status == 0 && now.sa_sigaction == OWN.load(Ordering::Acquire) {
            libc::sigaction(signal, &default, ptr::null_mut());
            libc::raise(signal);
        }
    }
}

#[cfg(any(target_os = "illumos", target_os = "solaris"))]
use libc::___errno as errno_location;
#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno_location;
#[cfg(any(target_os = "linux", target_os = "hurd", target_os = "redox", target_os = "emscripten"))]
use libc::__errno_location as errno_location;
#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "dragonfly"))]
use libc::__error as errno_location;

fn errno() -> c_int {
    // SAFETY: the C runtime's pointer to this thread's own variable.
    unsafe { *errno_location() }
}

fn set_errno(value: c_int) {
    // SAFETY: the C runtime's pointer to this thread's own variable.
    unsafe { *errno_location() = value }
}

/// Takes the number of one signal that has come: the first that came if nothing was taken, else any.
fn take() -> Option<i32> {
    let take = |at: &usize| {
        let less = |count: usize| count.checked_sub(1);
        COUNTS[*at].fetch_update(Ordering::Acquire, Ordering::Relaxed, less).is_ok()
    };
    let first = FIRST.load(Ordering::Acquire);
    let first = SIGNALS.iter().position(|known| *known == first);
    first.into_iter().chain(0..SIGNALS.len()).find(take).map(|at| SIGNALS[at])
}

/// The signals that the calling thread does not take.
#[derive(Clone, Copy)]
struct Mask(libc::sigset_t);

impl Mask {
    /// Has the calling thread take none of the [`SIGNALS`]; returns what it did not take before.
    fn block() -> io::Result<Mask> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set to which the other calls then add and from which they read.
        let status = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in SIGNALS {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr())
        };
        match status {
            // SAFETY: a call that succeeds has written the set.
            0 => Ok(Mask(unsafe { before.assume_init() })),
            _ => Err(io::Error::from_raw_os_error(status)),
        }
    }

    /// Makes this the mask of the calling thread.
    fn set(&self) {
        // SAFETY: the pointer is valid for a read, a null one says that the old mask is not wanted. It cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

/// Keeps the signals away from the calling thread, and from the threads that it starts, until it is dropped.
struct Blocked(Mask);

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// What the process does on each of the [`SIGNALS`].
struct Dispositions([libc::sigaction; 3]);

impl Dispositions {
    fn read() -> io::Result<Dispositions> {
        // SAFETY: all zeroes are a valid `sigaction`.
        let mut all = Dispositions(unsafe { mem::zeroed() });
        for (signal, place) in SIGNALS.iter().zip(&mut all.0) {
            // SAFETY: a null pointer changes nothing, the other is valid for a write.
            check(unsafe { libc::sigaction(*signal, ptr::null(), place) })?;
        }
        Ok(all)
    }

    /// Whether somebody handles one of them.
    fn has_handler(&self) -> bool {
        self.0.iter().any(|one| one.sa_sigaction != libc::SIG_DFL && one.sa_sigaction != libc::SIG_IGN)
    }

    fn is_ignored(&self) -> [bool; 3] {
        [0, 1, 2].map(|at| self.0[at].sa_sigaction == libc::SIG_IGN)
    }

    /// Puts these back, those of the signals for which `wanted` holds.
    fn restore(&self, wanted: [bool; 3]) {
        for ((signal, one), _) in SIGNALS.iter().zip(&self.0).zip(wanted).filter(|(_, wanted)| *wanted) {
            // SAFETY: the disposition is one that the system has returned; the null pointer asks for nothing.
            unsafe { libc::sigaction(*signal, one, ptr::null_mut()) };
        }
    }
}

fn check(status: c_int) -> io::Result<()> {
    match status {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What has been installed.
#[derive(Clone, Copy)]
pub(super) struct Installed {
    /// That of the thread that installed it.
    mask: Mask,
    /// Whether one of the [`SIGNALS`] stays ignored.
    ignores_some: bool,
}

impl Installed {
    /// The number of the signal that a call of the callback is about, to be asked once in each call.
    ///
    /// A call without a number is about a signal that came while ctrlc's handler was there alone. Where none is ignored
    /// it counts as the one that asks most gently: losing it would be worse. Else it may be the ignored one, and is
    /// left out: ending what `nohup` is to protect would be worse.
    pub(super) fn take(&self) -> Option<i32> {
        take().or_else(|| {
            if self.ignores_some {
                return None;
            }
            let _ = FIRST.compare_exchange(0, SIGTERM, Ordering::AcqRel, Ordering::Relaxed);
            Some(SIGTERM)
        })
    }

    /// Prepares a thread for winding down. ctrlc's thread, and what it starts, takes no signals; but hooks start threads
    /// and processes, and those are to take what any other would.
    pub(super) fn enter_thread(&self) {
        self.mask.set();
    }
}

/// Has `callback` called on ctrlc's thread, once for each signal that comes.
///
/// On an error every disposition is what it was. For a moment ctrlc's handler is there alone, in place of an ignored
/// signal too. The calling thread does not take the signals meanwhile, so a program of one thread loses none; what else
/// comes in that moment is a call without a number.
pub(super) fn install(callback: impl Fn(&Installed) + Send + 'static) -> Result<(), SignalError> {
    let process = Generation::now().number() + 1;
    match HOME.load(Ordering::Acquire) {
        0 => {}
        home if home == process => return Err(SignalError::AlreadyInstalled),
        _ => return Err(SignalError::Forked),
    }
    let mask = Mask::block()?;
    let _blocked = Blocked(mask);
    let before = Dispositions::read()?;
    if before.has_handler() {
        return Err(SignalError::AlreadyInstalled);
    }
    let ignored = before.is_ignored();
    let installed = Installed { mask, ignores_some: ignored != [false; 3] };
    // Only the one that overwrites works where a signal is ignored. The other leaves alone what a third thread may have
    // installed since the look above.
    let result = match installed.ignores_some {
        true => ctrlc::set_handler(move || callback(&installed)),
        false => ctrlc::try_set_handler(move || callback(&installed)),
    };
    match result {
        Ok(()) => {}
        // Nothing was changed.
        Err(ctrlc::Error::MultipleHandlers) => return Err(SignalError::AlreadyInstalled),
        Err(error) => {
            // It had installed its handler when it found that it could have no thread.
            before.restore([true; 3]);
            return Err(SignalError::from(error));
        }
    }
    before.restore(ignored);
    HOME.store(process, Ordering::Release); // before the first call of the handler, which reads it
    cover(ignored.map(|ignored| !ignored)).inspect_err(|_| {
        before.restore([true; 3]);
        HOME.store(0, Ordering::Release);
    })?;
    Ok(())
}

/// Puts [`on_signal`] in the place of ctrlc's handler, for the signals for which `wanted` holds.
fn cover(wanted: [bool; 3]) -> io::Result<()> {
    let below = Dispositions::read()?;
    for (at, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted) {
        let mut action = below.0[at];
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            return Err(io::Error::other("ctrlc's handler takes other arguments than it did"));
        }
        BELOW.store(action.sa_sigaction, Ordering::Release); // the same for all
        action.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
        OWN.store(action.sa_sigaction, Ordering::Release);
        // SAFETY: the handler is async-signal-safe, takes what it is given without `SA_SIGINFO`, and lives as long as
        // the program; flags and mask are those of the handler that it calls.
        check(unsafe { libc::sigaction(SIGNALS[at], &action, ptr::null_mut()) })?;
    }
    Ok(())
}
