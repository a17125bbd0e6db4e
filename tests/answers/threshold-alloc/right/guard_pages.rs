//! Only stages 1 to 4. Every mapping is between two guard pages. One list of exact lengths.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::process::abort;
use std::ptr::{null_mut, with_exposed_provenance_mut};
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
    state: Mutex<State>,
}

struct State {
    config: Config,
    mapped_blocks: usize,
    mapped_bytes: usize,
    heap: Heap,
}

impl ThresholdAlloc {
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            state: Mutex::new(State {
                config,
                mapped_blocks: 0,
                mapped_bytes: 0,
                heap: Heap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.state();
        let large = layout.size() >= state.config.threshold;
        if large && let Some(block) = state.map(layout) {
            return block;
        }
        let reserve = state.config.reserve;
        match state.heap.alloc(layout, reserve) {
            Some(block) => with_exposed_provenance_mut(block),
            None => state.map(layout).unwrap_or(null_mut()),
        }
    }

    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut state = self.state();
        if state.heap.reserves(block.addr()) {
            return state.heap.dealloc(block.addr(), layout);
        }
        // SAFETY: the caller's contract, and every block outside the reservation is mapped.
        unsafe { state.unmap(block, layout) };
    }

    pub fn heap_range(&self) -> Option<Range<usize>> {
        let heap = &self.state().heap;
        (heap.start != 0).then_some(heap.start..heap.brk)
    }

    pub fn set_threshold(&self, bytes: usize) {
        self.state().config.threshold = bytes;
    }

    pub fn set_max_maps(&self, blocks: usize) {
        self.state().config.max_maps = blocks;
    }

    pub fn stats(&self) -> Stats {
        let state = self.state();
        Stats {
            mapped_blocks: state.mapped_blocks,
            mapped_bytes: state.mapped_bytes,
            threshold: state.config.threshold,
        }
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

/// Every mapping has a page without access at either end.
impl State {
    fn map(&mut self, layout: Layout) -> Option<*mut u8> {
        if self.mapped_blocks >= self.config.max_maps {
            return None;
        }
        let page = page_size();
        let len = layout.size().next_multiple_of(page);
        let spare = layout.align().saturating_sub(page);
        let whole = len + spare + 2 * page;
        let start = map(whole, libc::PROT_NONE)?;
        let block = (start + page).next_multiple_of(layout.align());
        if !set_accessible(block..block + len) {
            unmap(start..start + whole);
            return None;
        }
        unmap(start..block - page);
        unmap(block + len + page..start + whole);
        self.mapped_blocks += 1;
        self.mapped_bytes += len;
        Some(with_exposed_provenance_mut(block))
    }

    /// # Safety
    /// The block is a mapping with this layout, and is no longer used.
    unsafe fn unmap(&mut self, block: *mut u8, layout: Layout) {
        let page = page_size();
        let len = layout.size().next_multiple_of(page);
        let range = block.addr() - page..block.addr() + len + page;
        if !unmap(range) {
            // At least the pages go back to the kernel.
            // SAFETY: the caller's contract.
            unsafe { libc::madvise(block.cast(), len, libc::MADV_DONTNEED) };
        }
        self.mapped_blocks -= 1;
        self.mapped_bytes -= len;
    }
}

/// A reservation in which freed blocks are in one list, in the order in which they were freed. A block is used again only
/// for the same length. Blocks have no header, because the layout determines the length.
struct Heap {
    start: usize,
    end: usize,
    brk: usize,
    top: usize,
    /// The block that was freed last. A free block begins with its length and the address of the next one.
    free: usize,
}

const STEP: usize = 128 << 10;

impl Heap {
    const fn new() -> Heap {
        Heap {
            start: 0,
            end: 0,
            brk: 0,
            top: 0,
            free: 0,
        }
    }

    fn alloc(&mut self, layout: Layout, reserve: usize) -> Option<usize> {
        self.reserve(reserve)?;
        let len = length(layout)?;
        let mut previous = 0;
        let mut block = self.free;
        while block != 0 {
            let next = read(block + 8);
            if read(block) == len && block.is_multiple_of(layout.align()) {
                match previous {
                    0 => self.free = next,
                    previous => write(previous + 8, next),
                }
                return Some(block);
            }
            (previous, block) = (block, next);
        }
        let block = self.top.checked_next_multiple_of(layout.align().max(16))?;
        let end = block.checked_add(len)?;
        self.grow(end)?;
        self.top = end;
        Some(block)
    }

    fn dealloc(&mut self, block: usize, layout: Layout) {
        if self.free == block {
            abort();
        }
        let Some(len) = length(layout) else {
            abort();
        };
        write(block, len);
        write(block + 8, self.free);
        self.free = block;
    }
}

fn length(layout: Layout) -> Option<usize> {
    layout.size().checked_next_multiple_of(16)
}

impl Heap {
    fn reserves(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Reserves the heap's addresses, once.
    fn reserve(&mut self, bytes: usize) -> Option<()> {
        if self.start != 0 {
            return Some(());
        }
        let mut bytes = bytes.next_multiple_of(STEP);
        loop {
            if let Some(start) = map(bytes, libc::PROT_NONE) {
                (self.start, self.brk, self.top) = (start, start, start);
                self.end = start + bytes;
                return Some(());
            }
            if bytes <= STEP {
                return None;
            }
            bytes = (bytes / 2).next_multiple_of(STEP);
        }
    }

    /// Moves the break up, so that the heap is accessible up to `end`.
    fn grow(&mut self, end: usize) -> Option<()> {
        if end > self.end {
            return None;
        }
        if end > self.brk {
            let brk = self.start + (end - self.start).next_multiple_of(STEP);
            let brk = brk.min(self.end);
            if !set_accessible(self.brk..brk) {
                return None;
            }
            self.brk = brk;
        }
        Some(())
    }
}

fn read(address: usize) -> usize {
    // SAFETY: callers pass addresses of aligned words in the heap that only the allocator uses.
    unsafe { with_exposed_provenance_mut::<usize>(address).read() }
}

fn write(address: usize, value: usize) {
    // SAFETY: as for `read`.
    unsafe { with_exposed_provenance_mut::<usize>(address).write(value) }
}

fn map(len: usize, protection: libc::c_int) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
    (start != libc::MAP_FAILED).then(|| start.expose_provenance())
}

fn set_accessible(range: Range<usize>) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let start = with_exposed_provenance_mut(range.start);
    // SAFETY: callers pass a part of their own reservation.
    unsafe { libc::mprotect(start, range.len(), protection) == 0 }
}

/// Unmaps a range that nothing uses. Returns whether that has worked.
fn unmap(range: Range<usize>) -> bool {
    let start = with_exposed_provenance_mut(range.start);
    // SAFETY: callers pass a part of their own mapping that nothing uses.
    range.is_empty() || unsafe { libc::munmap(start, range.len()) == 0 }
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
