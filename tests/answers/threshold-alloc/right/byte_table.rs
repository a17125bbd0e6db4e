//! Only stages 1 to 4. A byte for each 32 bytes of the heap, in a table that becomes accessible as the break moves.

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

/// A reservation of units of 32 bytes. A second reservation is a table with a byte for each unit: whether it is in use.
struct Heap {
    start: usize,
    end: usize,
    brk: usize,
    /// The number of units up to the last one that is in use.
    used: usize,
    /// No unit before this one is free.
    first_free: usize,
    table: usize,
    /// The end of the table's accessible part.
    table_end: usize,
}

const STEP: usize = 128 << 10;
const UNIT: usize = 32;

impl Heap {
    const fn new() -> Heap {
        Heap {
            start: 0,
            end: 0,
            brk: 0,
            used: 0,
            first_free: 0,
            table: 0,
            table_end: 0,
        }
    }

    /// The table's bytes for these units.
    fn units(&mut self, units: Range<usize>) -> &mut [bool] {
        let start = with_exposed_provenance_mut(self.table + units.start);
        // SAFETY: these units are below the break, so the table is accessible here. Its bytes are 0 or 1.
        unsafe { std::slice::from_raw_parts_mut(start, units.len()) }
    }

    fn alloc(&mut self, layout: Layout, reserve: usize) -> Option<usize> {
        self.reserve(reserve)?;
        let len = layout.size().div_ceil(UNIT);
        let used = self.used;
        let free = |unit: &bool| !unit;
        let first = self.first_free;
        self.first_free = first
            + self
                .units(first..used)
                .iter()
                .take_while(|unit| **unit)
                .count();
        let mut unit = self.aligned(self.first_free, layout.align())?;
        // First fit. Behind the last unit in use, everything is free.
        while unit < used {
            let end = unit.checked_add(len)?.min(used);
            let Some(last) = self.units(unit..end).iter().rposition(|unit| *unit) else {
                break;
            };
            let next = unit + last + 1;
            let skipped = self.units(next..used).iter().position(free);
            unit = self.aligned(skipped.map_or(used, |units| next + units), layout.align())?;
        }
        let end = unit.checked_add(len)?;
        self.grow(end.checked_mul(UNIT)?.checked_add(self.start)?)?;
        self.units(unit..end).fill(true);
        self.used = used.max(end);
        Some(self.start + unit * UNIT)
    }

    /// The first unit from this one on whose address is a multiple of `align`.
    fn aligned(&self, unit: usize, align: usize) -> Option<usize> {
        let address = self.start + unit * UNIT;
        Some((address.checked_next_multiple_of(align.max(UNIT))? - self.start) / UNIT)
    }

    fn dealloc(&mut self, block: usize, layout: Layout) {
        let unit = (block - self.start) / UNIT;
        let units = unit..unit + layout.size().div_ceil(UNIT);
        if units.end > self.used || !self.units(units.clone()).iter().all(|unit| *unit) {
            abort(); // It was free already.
        }
        self.units(units).fill(false);
        self.first_free = self.first_free.min(unit);
        let used = self.used;
        let last = self.units(0..used).iter().rposition(|unit| *unit);
        self.used = last.map_or(0, |last| last + 1);
    }

    fn reserves(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Reserves the addresses of the heap and of the table, once.
    fn reserve(&mut self, bytes: usize) -> Option<()> {
        if self.start != 0 {
            return Some(());
        }
        let mut bytes = bytes.next_multiple_of(page_size());
        loop {
            let table = (bytes / UNIT).next_multiple_of(page_size());
            // One mapping for both: the heap, and the table behind it.
            if let Some(start) = map(bytes + table, libc::PROT_NONE) {
                (self.start, self.brk, self.end) = (start, start, start + bytes);
                (self.table, self.table_end) = (self.end, self.end);
                return Some(());
            }
            if bytes <= page_size() {
                return None;
            }
            bytes = (bytes / 2).next_multiple_of(page_size());
        }
    }

    /// Moves the break up, so that the heap is accessible up to `end`, and its table, too.
    fn grow(&mut self, end: usize) -> Option<()> {
        if end > self.end {
            return None;
        }
        if end > self.brk {
            let brk = self.start + (end - self.start).next_multiple_of(STEP);
            let brk = brk.min(self.end);
            let table_end = self.table + ((brk - self.start) / UNIT).next_multiple_of(page_size());
            if table_end > self.table_end && !set_accessible(self.table_end..table_end) {
                return None;
            }
            self.table_end = table_end;
            if !set_accessible(self.brk..brk) {
                return None;
            }
            self.brk = brk;
        }
        Some(())
    }
}

fn map(len: usize, protection: libc::c_int) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
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
