//! A block of memory, as the workloads use it.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::ptr::NonNull;

pub type Alloc = dyn GlobalAlloc + Sync;

/// An allocated block of at least one byte. It has no `Drop`, because that would need a pointer to the allocator in
/// every block, which costs memory traffic in the small churn.
pub struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

impl Block {
    /// # Panics
    /// Panics if the layout is empty or the allocator returns null.
    pub fn new(alloc: &Alloc, layout: Layout) -> Block {
        assert_ne!(layout.size(), 0);
        // SAFETY: the size is not 0.
        Block::checked(unsafe { alloc.alloc(layout) }, layout)
    }

    /// # Panics
    /// Panics if the layout is empty or the allocator returns null.
    pub fn zeroed(alloc: &Alloc, layout: Layout) -> Block {
        assert_ne!(layout.size(), 0);
        // SAFETY: the size is not 0.
        Block::checked(unsafe { alloc.alloc_zeroed(layout) }, layout)
    }

    fn checked(start: *mut u8, layout: Layout) -> Block {
        // The optimizer could otherwise remove a block that is never read.
        match NonNull::new(black_box(start)) {
            Some(start) => Block { start, layout },
            None => panic!("the allocator returned null for {layout:?}"),
        }
    }

    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Resizes the block.
    ///
    /// # Safety
    /// The block must have been allocated by `alloc`.
    ///
    /// # Panics
    /// Panics if `bytes` is 0 or the allocator returns null.
    pub unsafe fn resized(self, alloc: &Alloc, bytes: usize) -> Block {
        assert_ne!(bytes, 0);
        let resized = layout(bytes);
        // SAFETY: the caller vouches for `alloc`; the new size is valid for a layout, and is not 0.
        let start = unsafe { alloc.realloc(self.start.as_ptr(), self.layout, bytes) };
        Block::checked(start, resized)
    }

    /// Frees the block.
    ///
    /// # Safety
    /// The block must have been allocated by `alloc`.
    pub unsafe fn free(self, alloc: &Alloc) {
        // SAFETY: the caller vouches for `alloc`, and `self` is gone afterwards.
        unsafe { alloc.dealloc(self.start.as_ptr(), self.layout) };
    }

    /// Writes to the first and the last byte.
    pub fn touch_ends(&self) {
        self.write(0);
        self.write(self.len() - 1);
    }

    /// Writes to one byte in every `step` bytes.
    pub fn touch_every(&self, step: usize) {
        (0..self.len()).step_by(step).for_each(|at| self.write(at));
    }

    fn write(&self, at: usize) {
        // SAFETY: both callers pass an offset below the block's size.
        unsafe { self.start.as_ptr().wrapping_add(at).write_volatile(1) };
    }

    /// Writes to every byte from `from` on.
    pub fn fill(&self, from: usize) {
        let start = self.start.as_ptr().wrapping_add(from);
        let len = self.len().checked_sub(from).expect("the offset is inside");
        // SAFETY: `len` bytes of the block lie after `start`.
        unsafe { start.write_bytes(1, len) };
        black_box(start);
    }
}

/// Returns a layout with the alignment of a `usize`, like that of most collections.
pub fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, align_of::<usize>()).expect("the size is below isize::MAX")
}
