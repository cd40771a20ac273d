//! An allocator that counts, so that "bounded" is something to check.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What any input may take: the largest buffer is the dictionary of `xz -9`, 64 MiB; other compressors
/// have windows of 8 MiB, twice, and a diagnosis holds three times its limit of 4 MiB.
const BYTES_MAX: usize = 96 << 20;
/// What each byte of input may take. A JSON value of three bytes (`1,`, and a place in a tree) takes about
/// a hundred.
const BYTES_MAX_PER_BYTE: usize = 256;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the rest is counting.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `target`, which must not hold more memory at once than an input of this length may take.
pub(crate) fn bounded(input_bytes: usize, target: impl FnOnce()) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    target();
    let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let most = BYTES_MAX + BYTES_MAX_PER_BYTE * input_bytes;
    assert!(taken <= most, "{taken} bytes for an input of {input_bytes}; {most} are allowed");
}
