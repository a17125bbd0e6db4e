//! The answer that is measured: the learner's, if this was built for it, otherwise the solution.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

#[cfg(not(feature = "learner"))]
use solutions::threshold_alloc as answer;
#[cfg(feature = "learner")]
use threshold_alloc as answer;

use answer::{Config, ThresholdAlloc};

/// Whose it is.
pub const NAME: &str = match cfg!(feature = "learner") {
    true => "yours",
    false => "solution",
};

/// Bonus stages that the answer does not solve.
pub type Lacks = Vec<String>;

static SUBJECT: ThresholdAlloc = ThresholdAlloc::new(Config::new());

/// The answer, as far as it goes.
pub fn allocator(lacks: &Lacks) -> &'static (dyn GlobalAlloc + Sync) {
    let has = |stage: &str| !lacks.iter().any(|lacked| lacked == stage);
    match (has("global"), has("resize")) {
        (true, _) => &SUBJECT,
        (false, true) => &OfStages::<true>,
        (false, false) => &OfStages::<false>,
    }
}

pub fn set_thread_cache(bytes: usize) {
    SUBJECT.set_thread_cache(bytes);
}

/// Bytes between the heap's first and its break.
pub fn heap_bytes() -> usize {
    SUBJECT.heap_range().map_or(0, |heap| heap.len())
}

/// An answer without the stage `global`, and with or without `resize`: what is missing costs a copy.
struct OfStages<const RESIZE: bool>;

// SAFETY: every call is the answer's own, or made of them; one thread at a time calls.
unsafe impl<const RESIZE: bool> GlobalAlloc for OfStages<RESIZE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { SUBJECT.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { SUBJECT.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if RESIZE {
            // SAFETY: the caller's contract is the same.
            return unsafe { SUBJECT.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's contract is the same.
        let block = unsafe { SUBJECT.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block is that long.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if RESIZE {
            // SAFETY: the caller's contract is the same.
            return unsafe { SUBJECT.realloc(block, layout, size) };
        }
        // SAFETY: the alignment is a layout's own, and the caller vouches for the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller's contract is the same.
        let copy = unsafe { SUBJECT.alloc(wanted) };
        if !copy.is_null() {
            // SAFETY: both blocks are that long, and the copy is a new one.
            unsafe { ptr::copy_nonoverlapping(block, copy, size.min(layout.size())) };
            // SAFETY: the caller has given the block up.
            unsafe { SUBJECT.dealloc(block, layout) };
        }
        copy
    }
}
