//! Only stages 1 to 4. A buddy allocator. A full heap may exceed the cap, and a refused mapping is null.

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
        let under_cap = state.mapped_blocks < state.config.max_maps;
        if large && under_cap {
            // If mmap fails, the heap is not tried.
            return state.map(layout).unwrap_or(null_mut());
        }
        let reserve = state.config.reserve;
        match state.heap.alloc(layout, reserve) {
            Some(block) => with_exposed_provenance_mut(block),
            // A full heap may exceed the cap.
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

impl State {
    fn map(&mut self, layout: Layout) -> Option<*mut u8> {
        let len = layout.size().next_multiple_of(page_size());
        let spare = layout.align().saturating_sub(page_size());
        let start = map(len + spare, libc::PROT_READ | libc::PROT_WRITE)?;
        let block = start.next_multiple_of(layout.align());
        unmap(start..block);
        unmap(block + len..start + len + spare);
        self.mapped_blocks += 1;
        self.mapped_bytes += len;
        Some(with_exposed_provenance_mut(block))
    }

    /// # Safety
    /// The block is a mapping with this layout, and is no longer used.
    unsafe fn unmap(&mut self, block: *mut u8, layout: Layout) {
        let len = layout.size().next_multiple_of(page_size());
        unmap(block.addr()..block.addr() + len);
        self.mapped_blocks -= 1;
        self.mapped_bytes -= len;
    }
}

/// A reservation in which every block is a power of two long and aligned to its length, relative to a base. A free block
/// joins its buddy, the other half of the block that was split, if that is free. The free lists are searched linearly.
struct Heap {
    start: usize,
    end: usize,
    brk: usize,
    top: usize,
    /// The first free block of each length. The first word of a free block is the address of the next one.
    free: [usize; ORDERS],
}

const STEP: usize = 512 << 10;
const ORDERS: usize = 48;
const MIN_ORDER: usize = 4;

impl Heap {
    const fn new() -> Heap {
        Heap {
            start: 0,
            end: 0,
            brk: 0,
            top: 0,
            free: [0; ORDERS],
        }
    }

    fn alloc(&mut self, layout: Layout, reserve: usize) -> Option<usize> {
        self.reserve(reserve)?;
        let wanted = order(layout);
        if wanted >= ORDERS {
            return None;
        }
        let found = (wanted..ORDERS).find(|order| self.free[*order] != 0);
        let Some(found) = found else {
            return self.from_top(wanted);
        };
        let block = self.free[found];
        self.free[found] = read(block);
        // Split it until it has the wanted length.
        for half in (wanted..found).rev() {
            self.insert(block + (1 << half), half);
        }
        Some(block)
    }

    /// Cuts a block off at the top. What is skipped to align it becomes free.
    fn from_top(&mut self, order: usize) -> Option<usize> {
        let block = self.top.next_multiple_of(1 << order);
        self.grow(block.checked_add(1 << order)?)?;
        while self.top < block {
            let order = self.top.trailing_zeros() as usize;
            self.insert(self.top, order);
            self.top += 1 << order;
        }
        self.top = block + (1 << order);
        Some(block)
    }

    fn dealloc(&mut self, block: usize, layout: Layout) {
        // A block that is freed twice is in a free block, maybe in a longer one that it has joined.
        for order in MIN_ORDER..ORDERS {
            let mut free = self.free[order];
            while free != 0 {
                if (free..free + (1 << order)).contains(&block) {
                    abort();
                }
                free = read(free);
            }
        }
        let (mut block, mut order) = (block, order(layout));
        while order + 1 < ORDERS && self.remove(block ^ (1 << order), order) {
            block &= !(1 << order);
            order += 1;
        }
        self.insert(block, order);
    }

    fn insert(&mut self, block: usize, order: usize) {
        write(block, self.free[order]);
        self.free[order] = block;
    }

    /// Removes a block from the list of its length. Returns whether it was there.
    fn remove(&mut self, block: usize, order: usize) -> bool {
        let mut previous = 0;
        let mut free = self.free[order];
        while free != 0 {
            let next = read(free);
            if free == block {
                match previous {
                    0 => self.free[order] = next,
                    previous => write(previous, next),
                }
                return true;
            }
            (previous, free) = (free, next);
        }
        false
    }
}

fn order(layout: Layout) -> usize {
    let bytes = layout.size().max(layout.align()).max(1 << MIN_ORDER);
    bytes.next_power_of_two().ilog2() as usize
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
