//! The baselines: what the kernel charges for a large block, and what writing to memory costs in any case.

use std::alloc::{GlobalAlloc, Layout};
use std::fs;
use std::ptr;
use std::sync::{Mutex, OnceLock};

use nix::libc;

/// Maps and unmaps each block. No allocator that returns freed memory to the kernel immediately can be faster.
pub struct Mapping;

// SAFETY: each block is a separate mapping of its size. It is aligned to a page, and no workload asks for more.
unsafe impl GlobalAlloc for Mapping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        map(layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up the block, which is a mapping of that size.
        unsafe { unmap(block, layout.size()) };
    }
}

/// Like [`Mapping`], with blocks that are aligned to huge pages and advised to use them.
pub struct HugePages;

/// Returns the kernel's setting for transparent huge pages: `always`, `madvise` or `never`.
pub fn huge_page_mode() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    // The current mode is in brackets: "always [madvise] never".
    let (_, rest) = modes.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    Some(mode.to_owned())
}

/// Returns the size of a huge page in bytes, if the kernel has them enabled.
pub fn huge_page_size() -> Option<usize> {
    if huge_page_mode()? == "never" {
        return None;
    }
    let size = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    size.trim().parse().ok()
}

// SAFETY: as for `Mapping`.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        static SIZE: OnceLock<Option<usize>> = OnceLock::new();
        let len = layout.size();
        let Some(huge) = *SIZE.get_or_init(huge_page_size) else {
            return ptr::null_mut();
        };
        let mut block = map(len);
        if !block.addr().is_multiple_of(huge) {
            // Only recent kernels align such a mapping themselves.
            // SAFETY: this mapping has just been made, and nothing uses it.
            unsafe { unmap(block, len) };
            block = map_aligned(len, huge);
        }
        // SAFETY: MADV_HUGEPAGE does not change the contents of the mapping.
        unsafe { libc::madvise(block.cast(), len, libc::MADV_HUGEPAGE) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up the block, which is a mapping of that size.
        unsafe { unmap(block, layout.size()) };
    }
}

/// Always returns the same block, which is resident after its first use, so that only the caller's own work is left.
///
/// Two blocks at the same time overlap, so no caller may rely on what it has written.
pub struct SameBlock;

const SAME_BLOCK: usize = 8 << 20;

// SAFETY: the block is valid for every size up to its own, and aligned to a page. Blocks overlap, but the workloads
// read none of them.
unsafe impl GlobalAlloc for SameBlock {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        static ADDRESS: OnceLock<usize> = OnceLock::new();
        if layout.size() > SAME_BLOCK {
            return ptr::null_mut();
        }
        let address = *ADDRESS.get_or_init(|| map(SAME_BLOCK).expose_provenance());
        ptr::with_exposed_provenance_mut(address)
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// Like [`SameBlock`], but takes a lock at each call. No allocator with one lock for all threads can be faster.
pub struct Locked;

static LOCK: Mutex<()> = Mutex::new(());

// SAFETY: as for `SameBlock`.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _guard = LOCK.lock();
        // SAFETY: the caller's contract is the same.
        unsafe { SameBlock.alloc(layout) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {
        let _guard = LOCK.lock();
    }
}

/// Maps `len` bytes, or panics.
fn map(len: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED no existing mapping is replaced.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "mmap of {len} bytes failed");
    start.cast()
}

/// Maps `len` bytes at a multiple of `align`, by mapping more and unmapping the rest.
fn map_aligned(len: usize, align: usize) -> *mut u8 {
    let start = map(len + align);
    let before = start.align_offset(align);
    let block = start.wrapping_add(before);
    // SAFETY: these pages lie in the new mapping, before the block.
    unsafe { unmap(start, before) };
    // SAFETY: these pages lie in the new mapping, after the block.
    unsafe { unmap(block.wrapping_add(len), align - before) };
    block
}

/// Unmaps `len` bytes, which may be 0.
///
/// # Safety
/// The pages must have been mapped by [`map`], and nothing may use them.
unsafe fn unmap(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: the caller has given up these pages.
        unsafe { libc::munmap(start.cast(), len) };
    }
}
