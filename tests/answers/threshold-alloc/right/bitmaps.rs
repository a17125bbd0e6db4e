//! Only stages 1 to 4. Pages with bitmaps.

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

/// A reservation of pages of 64 KiB. A page has blocks of one length, and begins with a bitmap of those that are in use. A
/// longer block has several pages. The table of pages is at the start of the heap.
struct Heap {
    start: usize,
    end: usize,
    brk: usize,
    /// The end of the pages that have been used.
    top: usize,
}

const STEP: usize = 1 << 20;
const PAGE: usize = 64 << 10;
/// The length of a page's entry in the table: what it is used for, and the number of blocks in use, or of pages.
const ENTRY: usize = 16;
/// The length of a page's bitmap, with a bit for each block.
const BITMAP: usize = PAGE / SHORTEST / 8;
const SHORTEST: usize = 32;
/// A page is free, or the first of a long block, or belongs to the page before it. Otherwise: the length of its blocks.
const FREE: usize = 0;
const LONG: usize = 1;
const LATER: usize = 2;

impl Heap {
    const fn new() -> Heap {
        Heap {
            start: 0,
            end: 0,
            brk: 0,
            top: 0,
        }
    }

    fn entry(&self, page: usize) -> usize {
        self.start + page * ENTRY
    }

    /// The address of the first page, after a table that is long enough for all of them.
    fn base(&self) -> usize {
        let most = (self.end - self.start) / PAGE;
        (self.start + most * ENTRY).next_multiple_of(PAGE)
    }

    /// The number of pages that have been used.
    fn pages(&self) -> usize {
        self.top.saturating_sub(self.base()) / PAGE
    }

    fn address(&self, page: usize) -> usize {
        self.base() + page * PAGE
    }

    fn alloc(&mut self, layout: Layout, reserve: usize) -> Option<usize> {
        self.reserve(reserve)?;
        let len = layout.size().max(layout.align()).max(SHORTEST);
        let len = len.checked_next_power_of_two()?;
        if len > PAGE / 2 {
            return self.alloc_pages(layout);
        }
        let page = (0..self.pages()).find(|page| {
            let entry = self.entry(*page);
            read(entry) == len && read(entry + 8) < PAGE / len
        });
        let page = match page {
            Some(page) => page,
            None => self.new_page_of(len)?,
        };
        let entry = self.entry(page);
        for bit in 0..PAGE / len {
            let word = self.address(page) + bit / 64 * 8;
            if read(word) & 1 << (bit % 64) == 0 {
                write(word, read(word) | 1 << (bit % 64));
                write(entry + 8, read(entry + 8) + 1);
                return Some(self.address(page) + bit * len);
            }
        }
        abort() // The counter and the bitmap differ.
    }

    /// Takes a page for blocks of this length. Those that the bitmap covers are never free.
    fn new_page_of(&mut self, len: usize) -> Option<usize> {
        let page = self.new_pages(1, PAGE, len)?;
        for word in 0..BITMAP / 8 {
            write(self.address(page) + word * 8, 0);
        }
        let covered = BITMAP.div_ceil(len);
        write(self.address(page), (1 << covered) - 1);
        write(self.entry(page) + 8, covered);
        Some(page)
    }

    fn alloc_pages(&mut self, layout: Layout) -> Option<usize> {
        let count = layout.size().div_ceil(PAGE);
        let page = self.new_pages(count, layout.align(), LONG)?;
        write(self.entry(page) + 8, count);
        Some(self.address(page))
    }

    /// Takes free pages, of which the first is aligned, and enters what they are used for.
    fn new_pages(&mut self, count: usize, align: usize, used_for: usize) -> Option<usize> {
        let most = (self.end - self.base()) / PAGE;
        let is_free = |page: usize| page >= self.pages() || read(self.entry(page)) == FREE;
        let fits = |page: usize| {
            self.address(page).is_multiple_of(align)
                && (page..page.saturating_add(count)).all(is_free)
        };
        // Beyond the last used page all are free, so the search ends there, and at an aligned address.
        let mut page = 0;
        while page < self.pages() && !fits(page) {
            page += 1;
        }
        if page == self.pages() {
            let address = self.address(page).checked_next_multiple_of(align)?;
            page = (address - self.base()) / PAGE;
        }
        let end = page.checked_add(count).filter(|end| *end <= most)?;
        self.grow(self.address(end))?;
        for new in self.pages()..end {
            write(self.entry(new), FREE);
        }
        self.top = self.top.max(self.address(end));
        for later in page + 1..end {
            write(self.entry(later), LATER);
        }
        write(self.entry(page), used_for);
        Some(page)
    }

    fn dealloc(&mut self, block: usize, _: Layout) {
        let page = (block.wrapping_sub(self.base())) / PAGE;
        if page >= self.pages() {
            abort();
        }
        let entry = self.entry(page);
        let len = read(entry);
        if len == LONG {
            for page in page..page + read(entry + 8) {
                write(self.entry(page), FREE);
            }
            return;
        }
        if len == FREE || len == LATER {
            abort();
        }
        let bit = (block - self.address(page)) / len;
        let word = self.address(page) + bit / 64 * 8;
        if read(word) & 1 << (bit % 64) == 0 {
            abort(); // It is free already.
        }
        write(word, read(word) & !(1 << (bit % 64)));
        write(entry + 8, read(entry + 8) - 1);
        if read(entry + 8) == BITMAP.div_ceil(len) {
            write(entry, FREE);
        }
    }
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
