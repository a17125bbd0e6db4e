//! What an allocator is compared with: the kernel's own price for a large block, and what writing to memory costs anyway.

use std::alloc::{GlobalAlloc, Layout};
use std::fs;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use nix::libc;

/// A mapping for each block, and nothing else: no allocator that returns memory at once can be faster.
pub struct Mapped;

// SAFETY: each block is a mapping of its own, which is aligned to a page; large blocks here ask for no more.
unsafe impl GlobalAlloc for Mapped {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        map(layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unmap(block, layout.size());
    }
}

/// As `Mapped`, on huge pages: blocks are aligned to them.
pub struct Huge;

/// Bytes of a huge page, where the kernel has them for those who ask.
pub fn huge_page() -> Option<usize> {
    let folder = "/sys/kernel/mm/transparent_hugepage";
    let enabled = fs::read_to_string(format!("{folder}/enabled")).ok()?;
    if enabled.contains("[never]") {
        return None;
    }
    let size = fs::read_to_string(format!("{folder}/hpage_pmd_size")).ok()?;
    size.trim().parse().ok()
}

// SAFETY: as for `Mapped`.
unsafe impl GlobalAlloc for Huge {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let len = layout.size();
        let Some(huge) = huge_page() else {
            return ptr::null_mut();
        };
        let mut block = map(len);
        if !block.addr().is_multiple_of(huge) {
            // New kernels align such a mapping themselves. Elsewhere an aligned address lies inside a longer one.
            unmap(block, len);
            let start = map(len + huge);
            let before = start.align_offset(huge);
            block = start.wrapping_add(before);
            unmap(start, before);
            unmap(block.wrapping_add(len), huge - before);
        }
        // SAFETY: advice on a mapping just made changes none of its bytes.
        unsafe { libc::madvise(block.cast(), len, libc::MADV_HUGEPAGE) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unmap(block, layout.size());
    }
}

/// Always the same block, all of it resident after its first use: what is left is the caller's own work.
///
/// Two blocks at a time would be one: it is for callers that do not read what they wrote.
pub struct Kept;

/// Bytes of the block.
const KEPT: usize = 8 << 20;

// SAFETY: the block is as long and aligned as any caller here asks, and none relies on what it holds.
unsafe impl GlobalAlloc for Kept {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        static BLOCK: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
        if layout.size() > KEPT {
            return ptr::null_mut();
        }
        if BLOCK.load(Relaxed).is_null() {
            BLOCK.store(map(KEPT), Relaxed);
        }
        BLOCK.load(Relaxed)
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

fn map(len: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "the kernel maps no {len} bytes");
    start.cast()
}

fn unmap(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: these pages were mapped above, and their owner has given them up.
        unsafe { libc::munmap(start.cast(), len) };
    }
}
