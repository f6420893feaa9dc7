//! Plays one peer with an allocator that counts, which the peers whose time is taken do not have to put up with.

#![allow(unsafe_code)] // For the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and a count of the bytes that were asked of it and not given back.
struct Counting;

// SAFETY: every call goes on to `System` as it came, and the count has no part in what is returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps what `GlobalAlloc::alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `System`, as all of them do here, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> io::Result<ExitCode> {
    peers::serve(Some(|| LIVE.load(Ordering::Relaxed)))
}
