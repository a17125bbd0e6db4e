//! The functions of C on an answer that has no stage `c_interface`, with the same names and contracts.
//!
//! `dealloc` needs the layout of a block, and free(3) does not get it. So there is a header in front of each block: the
//! layout of the answer's block that both are in.

use std::alloc::Layout;
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use crate::ALLOC;

type Header = Layout;

/// malloc's alignment, which is enough for every fundamental type of C.
const ALIGN: usize = align_of::<libc::max_align_t>();

/// Returns the distance of a block from the start of the answer's block: the header, and what the alignment adds.
fn offset(align: usize) -> usize {
    size_of::<Header>().next_multiple_of(align)
}

fn with_header(align: usize, size: usize) -> Option<Layout> {
    let total = size.checked_add(offset(align))?;
    Layout::from_size_align(total, align).ok()
}

/// # Safety
/// `block` is a live block of this module.
unsafe fn header(block: *mut u8) -> Header {
    // SAFETY: the header is in front of the block.
    unsafe { block.cast::<Header>().wrapping_sub(1).read() }
}

/// Writes the header, and returns the block behind it. Sets errno if `start` is null.
///
/// # Safety
/// `start` is null, or a block of the answer with this layout.
unsafe fn begin(start: *mut u8, layout: Layout) -> *mut u8 {
    if start.is_null() {
        return no_memory();
    }
    let block = start.wrapping_add(offset(layout.align()));
    // SAFETY: the offset leaves room for the header.
    unsafe { block.cast::<Header>().wrapping_sub(1).write(layout) };
    block
}

fn no_memory() -> *mut u8 {
    Errno::ENOMEM.set();
    ptr::null_mut()
}

pub struct Shim;

impl Shim {
    pub fn malloc(&self, size: usize) -> *mut u8 {
        self.aligned_alloc(ALIGN, size)
    }

    pub fn aligned_alloc(&self, align: usize, size: usize) -> *mut u8 {
        let Some(layout) = with_header(align.max(ALIGN), size) else {
            return no_memory();
        };
        // SAFETY: the size is not zero, because of the header.
        let start = unsafe { ALLOC.alloc(layout) };
        // SAFETY: the answer has returned it.
        unsafe { begin(start, layout) }
    }

    pub fn calloc(&self, count: usize, size: usize) -> *mut u8 {
        let size = count.checked_mul(size);
        let Some(layout) = size.and_then(|size| with_header(ALIGN, size)) else {
            return no_memory();
        };
        // SAFETY: as in `aligned_alloc`.
        let start = unsafe { alloc_zeroed(layout) };
        // SAFETY: as in `aligned_alloc`.
        unsafe { begin(start, layout) }
    }

    /// # Safety
    /// `block` is null, or a live block of this module that is no longer used if the result is not null.
    pub unsafe fn reallocarray(&self, block: *mut u8, count: usize, size: usize) -> *mut u8 {
        let Some(size) = count.checked_mul(size) else {
            return no_memory();
        };
        if block.is_null() {
            return self.malloc(size);
        }
        if size == 0 {
            // As in glibc.
            // SAFETY: the caller's contract.
            unsafe { self.free(block) };
            return ptr::null_mut();
        }
        // SAFETY: the caller's contract.
        let old = unsafe { header(block) };
        let Some(new) = with_header(old.align(), size) else {
            return no_memory();
        };
        let start = block.wrapping_sub(offset(old.align()));
        // SAFETY: the answer's block has this layout, and the new size is not zero.
        let moved = unsafe { realloc(start, old, new) };
        // SAFETY: the answer has returned it.
        unsafe { begin(moved, new) }
    }

    /// # Safety
    /// `block` is null, or a live block of this module that is no longer used.
    pub unsafe fn free(&self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        let errno = Errno::last_raw();
        // SAFETY: the caller's contract.
        let layout = unsafe { header(block) };
        let start = block.wrapping_sub(offset(layout.align()));
        // SAFETY: the answer's block has this layout.
        unsafe { ALLOC.dealloc(start, layout) };
        Errno::set_raw(errno);
    }

    /// # Safety
    /// `block` is null, or a live block of this module.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        // SAFETY: the caller's contract.
        let layout = unsafe { header(block) };
        layout.size() - offset(layout.align())
    }
}

#[cfg(feature = "resize")]
unsafe fn alloc_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's contract is the same.
    unsafe { ALLOC.alloc_zeroed(layout) }
}

#[cfg(not(feature = "resize"))]
unsafe fn alloc_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: the caller's contract is the same.
    let start = unsafe { ALLOC.alloc(layout) };
    if !start.is_null() {
        // SAFETY: the block has this size.
        unsafe { start.write_bytes(0, layout.size()) };
    }
    start
}

#[cfg(feature = "resize")]
unsafe fn realloc(start: *mut u8, old: Layout, new: Layout) -> *mut u8 {
    // SAFETY: the caller's contract is the same.
    unsafe { ALLOC.realloc(start, old, new.size()) }
}

#[cfg(not(feature = "resize"))]
unsafe fn realloc(start: *mut u8, old: Layout, new: Layout) -> *mut u8 {
    // SAFETY: the size is not zero, because of the header.
    let copy = unsafe { ALLOC.alloc(new) };
    if !copy.is_null() {
        let kept = old.size().min(new.size());
        // SAFETY: both blocks have at least this size, and do not overlap.
        unsafe { ptr::copy_nonoverlapping(start, copy, kept) };
        // SAFETY: the caller gives up the block.
        unsafe { ALLOC.dealloc(start, old) };
    }
    copy
}
