//! Only stages 1 to 4. Block lengths are powers of two, each with its own free list, and blocks have no headers.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::process::abort;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;

#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub threshold: usize,
    pub max_maps: usize,
    pub reserve: usize,
}

impl Config {
    pub const fn new() -> Config {
        Config {
            threshold: 128 << 10,
            max_maps: 65_536,
            reserve: 64 << 30,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub mapped_blocks: usize,
    pub mapped_bytes: usize,
    pub threshold: usize,
}

pub struct ThresholdAlloc {
    reserve: usize,
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    mapped_blocks: AtomicUsize,
    mapped_bytes: AtomicUsize,
    heap: Mutex<Heap>,
}

impl ThresholdAlloc {
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            reserve: config.reserve,
            threshold: AtomicUsize::new(config.threshold),
            max_maps: AtomicUsize::new(config.max_maps),
            mapped_blocks: AtomicUsize::new(0),
            mapped_bytes: AtomicUsize::new(0),
            heap: Mutex::new(Heap {
                start: 0,
                end: 0,
                brk: 0,
                top: 0,
                free: [null_mut(); 64],
            }),
        }
    }

    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let large = layout.size() >= self.threshold.load(Relaxed);
        let mapped = if large { self.map(layout) } else { None };
        mapped
            .or_else(|| self.heap().alloc(layout, self.reserve))
            .or_else(|| self.map(layout))
            .unwrap_or(null_mut())
    }

    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut heap = self.heap();
        if (heap.start..heap.end).contains(&block.addr()) {
            return heap.dealloc(block, layout);
        }
        let len = whole_pages(layout.size());
        // SAFETY: nothing else lies in the block's mapping, and the caller no longer uses the block.
        unsafe { libc::munmap(block.cast(), len) };
        self.mapped_blocks.fetch_sub(1, Relaxed);
        self.mapped_bytes.fetch_sub(len, Relaxed);
    }

    pub fn heap_range(&self) -> Option<Range<usize>> {
        let heap = self.heap();
        (heap.start != 0).then_some(heap.start..heap.brk)
    }

    pub fn set_threshold(&self, bytes: usize) {
        self.threshold.store(bytes, Relaxed);
    }

    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, Relaxed);
    }

    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.mapped_blocks.load(Relaxed),
            mapped_bytes: self.mapped_bytes.load(Relaxed),
            threshold: self.threshold.load(Relaxed),
        }
    }

    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self, layout: Layout) -> Option<*mut u8> {
        let max = self.max_maps.load(Relaxed);
        let one_more = |live: usize| (live < max).then_some(live + 1);
        let counted = self.mapped_blocks.fetch_update(Relaxed, Relaxed, one_more);
        counted.ok()?;
        let len = whole_pages(layout.size());
        let spare = layout.align().saturating_sub(page_size());
        let Some(start) = map(len + spare, libc::PROT_READ | libc::PROT_WRITE) else {
            self.mapped_blocks.fetch_sub(1, Relaxed);
            return None;
        };
        let before = start.align_offset(layout.align());
        let block = start.wrapping_add(before);
        if before > 0 {
            // SAFETY: these pages lie before the block, and are not used.
            unsafe { libc::munmap(start.cast(), before) };
        }
        if spare > before {
            let after = block.wrapping_add(len).cast();
            // SAFETY: these pages lie after the block, and are not used.
            unsafe { libc::munmap(after, spare - before) };
        }
        self.mapped_bytes.fetch_add(len, Relaxed);
        Some(block)
    }

    // Bonus stages, not part of this answer.
    pub fn trim(&self) {
        todo!("trim")
    }

    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        todo!("zeros for {layout:?}")
    }

    /// # Safety
    /// As for `dealloc`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        todo!("resize {block:p}, {layout:?}, to {size}")
    }

    pub fn set_moving_threshold(&self, on: bool) {
        todo!("moving: {on}")
    }

    pub fn set_thread_cache(&self, bytes: usize) {
        todo!("a cache of {bytes}")
    }
}

// SAFETY: nobody uses this type as the global allocator.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        todo!("{layout:?}")
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        todo!("{block:p}, {layout:?}")
    }
}

/// A reservation with a break and one free list for each power of two. Blocks are aligned to their length.
struct Heap {
    start: usize,
    end: usize,
    brk: usize,
    top: usize,
    free: [*mut u8; 64],
}

// SAFETY: the memory of free blocks is not tied to a thread.
unsafe impl Send for Heap {}

const STEP: usize = 256 << 10;

fn class(layout: Layout) -> usize {
    let bytes = layout.size().max(layout.align()).max(16);
    bytes.next_power_of_two().ilog2() as usize
}

impl Heap {
    fn alloc(&mut self, layout: Layout, reserve: usize) -> Option<*mut u8> {
        if self.start == 0 {
            self.reserve(reserve)?;
        }
        let class = class(layout);
        let first = self.free[class];
        if !first.is_null() {
            // SAFETY: a free block begins with the address of the next one.
            self.free[class] = unsafe { first.cast::<*mut u8>().read() };
            return Some(first);
        }
        let bytes = 1usize << class;
        // A later user of this block may need any alignment up to its length.
        let start = self.top.checked_next_multiple_of(bytes)?;
        let end = start.checked_add(bytes)?;
        if end > self.end {
            return None;
        }
        if end > self.brk {
            let brk = (end - self.start).next_multiple_of(STEP) + self.start;
            let brk = brk.min(self.end);
            let from = std::ptr::with_exposed_provenance_mut(self.brk);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: this part of the reservation is above the break.
            if unsafe { libc::mprotect(from, brk - self.brk, protection) } != 0 {
                return None;
            }
            self.brk = brk;
        }
        self.top = end;
        Some(std::ptr::with_exposed_provenance_mut(start))
    }

    fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        let class = class(layout);
        if self.free[class] == block || block.addr() >= self.top {
            abort();
        }
        // SAFETY: the block is free, aligned to 16 bytes, and at least that long.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }

    fn reserve(&mut self, bytes: usize) -> Option<()> {
        let mut bytes = bytes;
        let start = loop {
            match map(bytes, libc::PROT_NONE) {
                Some(start) => break start,
                None if bytes > STEP => bytes = (bytes / 2).next_multiple_of(STEP),
                None => return None,
            }
        };
        self.start = start.expose_provenance();
        self.end = self.start + bytes;
        (self.brk, self.top) = (self.start, self.start);
        Some(())
    }
}

fn map(len: usize, protection: libc::c_int) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
    (start != libc::MAP_FAILED).then_some(start.cast())
}

fn whole_pages(size: usize) -> usize {
    size.next_multiple_of(page_size())
}

fn page_size() -> usize {
    // SAFETY: sysconf accepts any name.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

impl ThresholdAlloc {
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        todo!("{size}")
    }

    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        todo!("{count} {size}")
    }

    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        todo!("{align} {size}")
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        todo!("{block:p} {count} {size}")
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn free(&self, block: *mut u8) {
        todo!("{block:p}")
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        todo!("{block:p}")
    }
}
