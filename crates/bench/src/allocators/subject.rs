//! The answer that is measured: the learner's with the feature `learner`, otherwise the solution.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

#[cfg(not(feature = "learner"))]
use solutions::threshold_alloc as answer;
#[cfg(feature = "learner")]
use threshold_alloc as answer;

use answer::{Config, ThresholdAlloc};
use serde::{Deserialize, Serialize};

pub const NAME: &str = match cfg!(feature = "learner") {
    true => "yours",
    false => "solution",
};

/// The names of the bonus stages that the answer does not solve.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lacks(pub Vec<String>);

impl Lacks {
    pub fn contains(&self, stage: &str) -> bool {
        self.0.iter().any(|lacked| lacked == stage)
    }
}

static SUBJECT: ThresholdAlloc = ThresholdAlloc::new(Config::new());

/// Returns the answer. Unsolved stages are replaced by a fallback.
pub fn allocator(lacks: &Lacks) -> &'static (dyn GlobalAlloc + Sync) {
    match (lacks.contains("global"), lacks.contains("resize")) {
        (false, _) => &SUBJECT,
        (true, false) => &Fallback::<true>,
        (true, true) => &Fallback::<false>,
    }
}

pub fn set_thread_cache(bytes: usize) {
    SUBJECT.set_thread_cache(bytes);
}

/// Returns the size of the heap, up to its break.
pub fn heap_bytes() -> usize {
    SUBJECT.heap_range().map_or(0, |heap| heap.len())
}

/// An answer without the stage `global`. Without `resize`, `realloc` copies and `alloc_zeroed` writes zeros.
struct Fallback<const RESIZE: bool>;

// SAFETY: every block comes from the answer. Only workloads with one thread run without the stage `global`.
unsafe impl<const RESIZE: bool> GlobalAlloc for Fallback<RESIZE> {
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
            // SAFETY: the block is valid for `layout.size()` bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if RESIZE {
            // SAFETY: the caller's contract is the same.
            return unsafe { SUBJECT.realloc(block, layout, size) };
        }
        // SAFETY: the alignment comes from a layout, and the caller's contract covers the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller's contract is the same.
        let copy = unsafe { SUBJECT.alloc(wanted) };
        if !copy.is_null() {
            // SAFETY: both blocks are at least that long. They do not overlap, because the copy is new.
            unsafe { ptr::copy_nonoverlapping(block, copy, size.min(layout.size())) };
            // SAFETY: the caller gives up the block.
            unsafe { SUBJECT.dealloc(block, layout) };
        }
        copy
    }
}
