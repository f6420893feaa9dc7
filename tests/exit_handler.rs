//! A C runtime that takes no more exit handlers: this program has an `atexit` of its own, which refuses.
#![cfg(all(target_os = "linux", target_env = "gnu", feature = "exit-hook"))]
#![allow(unsafe_code)] // A function of C.

mod common;

use common::{listen, registry, tidy};
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use winddown::Pool;

static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Takes the place of C's for this whole program.
///
/// # Safety
///
/// The pointer is not used.
#[no_mangle]
pub unsafe extern "C" fn atexit(_: extern "C" fn()) -> c_int {
    REFUSED.fetch_add(1, SeqCst);
    1
}

#[test]
fn a_refused_exit_handler_is_an_error_in_the_log_that_names_the_remedy_and_pools_work() {
    let log = listen(); // Before anything else: whatever touches the crate first has the handler registered.
    let _tidy = tidy();
    assert!(REFUSED.load(SeqCst) > 0);
    let lines: Vec<_> = log.try_iter().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("ERROR ") && lines[0].contains("winddown::shutdown()"), "{lines:?}");
    let registry = registry();
    let pool = Pool::builder().registry(&registry).build().unwrap();
    assert_eq!(pool.spawn(|| 7).unwrap().join().unwrap(), 7);
    assert!(registry.shutdown().is_clean());
    assert!(log.try_iter().next().is_none(), "it is said once");
}
