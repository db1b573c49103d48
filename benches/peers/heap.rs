//! Counts the memory that the process allocates, while counting is on.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

#[global_allocator]
static HEAP: Counting = Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);

/// Starts counting. Until then an allocation costs one load more than usual, so other figures are
/// not affected.
pub(crate) fn start_counting() {
    BYTES.store(0, Ordering::Relaxed);
    COUNTS.store(true, Ordering::Relaxed);
}

/// Returns the bytes in use that were not in use when counting began.
pub(crate) fn counted() -> i64 {
    BYTES.load(Ordering::Relaxed)
}

struct Counting;

fn count(more: usize, less: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        BYTES.fetch_add(more as i64 - less as i64, Ordering::Relaxed);
    }
}

// SAFETY: every call is forwarded unchanged to the system's allocator. Counting uses two atomics
// and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract of `realloc`; `old` came from `System`, as all
        // memory does.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`; `old` came from `System`, as all
        // memory does.
        unsafe { System.dealloc(old, layout) }
    }
}
