//! Where there are no Unix signals: Ctrl-C and Ctrl-Break on Windows, which count as SIGINT. Not tested.

use super::SignalError;
use crate::os::Generation;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const SIGHUP: i32 = 1;
pub(super) const SIGINT: i32 = 2;
pub(super) const SIGTERM: i32 = 15;

/// Whether a Ctrl-C has come.
static HAS_COME: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
pub(super) struct Installed;

impl Installed {
    /// The number of the signal that a call of the callback is about. A second one ends the process here.
    pub(super) fn take(&self) -> Option<i32> {
        if HAS_COME.swap(true, Ordering::AcqRel) || Generation::now().is_ending() {
            std::process::exit(128 + SIGINT); // Runs no exit handlers on Windows.
        }
        Some(SIGINT)
    }

    pub(super) fn enter_thread(&self) {}
}

/// Has `callback` called on ctrlc's thread, once for each Ctrl-C.
pub(super) fn install(callback: impl Fn(&Installed) + Send + 'static) -> Result<(), SignalError> {
    ctrlc::try_set_handler(move || callback(&Installed)).map_err(SignalError::from)
}
