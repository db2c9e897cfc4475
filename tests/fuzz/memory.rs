//! How much memory this thread has taken, and the most that it had at one time. The only file of these tests with `unsafe`.
#![allow(unsafe_code, reason = "an allocator is unsafe by its trait; this one passes every call on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Begins to look for the peak; what is taken now.
pub(crate) fn begin() -> usize {
    let taken = TAKEN.get();
    PEAK.set(taken);
    taken
}

/// The most since [`begin`].
pub(crate) fn peak() -> usize {
    PEAK.get()
}

fn took(bytes: usize) {
    // A thread that ends may free after its counters have gone.
    let _ = TAKEN.try_with(|taken| {
        taken.set(taken.get().wrapping_add(bytes));
        PEAK.with(|peak| peak.set(peak.get().max(taken.get())));
    });
}

/// Memory may be freed by another thread than the one that took it: then this one stands below nothing for a while.
fn gave(bytes: usize) {
    let _ = TAKEN.try_with(|taken| taken.set(taken.get().saturating_sub(bytes)));
}

struct Counting;

// SAFETY: every call is passed on as it came to the system's allocator, whose answers are returned unchanged; the counters
// neither allocate nor panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are those that it asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        took(bytes);
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
