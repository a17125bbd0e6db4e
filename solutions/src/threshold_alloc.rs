//! An allocator with two sources, as malloc has: a heap with a break of its own, and a mapping for each large block.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};

use heap::{Chunk, Heap};
use lock::lock;
use nix::libc;
use nix::unistd::{SysconfVar, sysconf};
use pages::{map_aligned, page_size, whole_pages};

/// What an allocator begins with.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Blocks of this many bytes and more have a mapping of their own.
    pub threshold: usize,
    /// At most that many blocks have one at a time; further ones come from the heap.
    pub max_maps: usize,
    /// Bytes of addresses to reserve for the heap. Where that is refused, half of it, and so on.
    pub reserve: usize,
}

impl Config {
    /// 128 KiB and 65,536 mappings, as glibc has them; 64 GiB of addresses.
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

/// What an allocator has given out, and not got back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Blocks with a mapping of their own.
    pub mapped_blocks: usize,
    /// Bytes in those mappings: whole pages.
    pub mapped_bytes: usize,
    /// The threshold of this moment, in bytes.
    pub threshold: usize,
}

/// The allocator. As a `static` it can be the program's `#[global_allocator]`.
///
/// No call unwinds. A heap that has been written over, or a block that is freed twice, ends the process by `abort`, where
/// it is noticed. What the reservation holds is never unmapped, also where the allocator is dropped.
///
/// Once it has given out a small block, a `fork` in one thread waits until no other thread is inside an allocator: the
/// child's heap is whole, and not locked. Fork handlers that were registered before that block must not allocate here.
pub struct ThresholdAlloc {
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    moving: AtomicBool,
    cached: AtomicUsize,
    mapped_blocks: AtomicUsize,
    mapped_bytes: AtomicUsize,
    /// The heap's reservation: written once, before the first block of it is given out.
    start: AtomicUsize,
    end: AtomicUsize,
    reserve: usize,
    heap: UnsafeCell<Heap>,
}

// SAFETY: `heap` is used under `LOCK` only, and the rest is atomic.
unsafe impl Sync for ThresholdAlloc {}

// SAFETY: the chunks that `heap` points to belong to it, whichever thread uses it.
unsafe impl Send for ThresholdAlloc {}

/// glibc's limit for a threshold that moves by itself: DEFAULT_MMAP_THRESHOLD_MAX.
const MOVES_UP_TO: usize = 32 << 20;

impl ThresholdAlloc {
    /// An allocator that has asked the kernel for nothing yet.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            threshold: AtomicUsize::new(config.threshold),
            max_maps: AtomicUsize::new(config.max_maps),
            moving: AtomicBool::new(false),
            cached: AtomicUsize::new(0),
            mapped_blocks: AtomicUsize::new(0),
            mapped_bytes: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            reserve: config.reserve,
            heap: UnsafeCell::new(Heap::new()),
        }
    }

    /// A block of that size and alignment, not initialised; null where there is no memory for it.
    ///
    /// # Safety
    /// The size is not zero. While a thread cache is on, the allocator stays where it is until every thread that has
    /// used it has ended: a `static` does.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let large = layout.size() >= self.threshold.load(Relaxed);
        if large && let Some(block) = self.map(layout) {
            return block;
        }
        if let Some(block) = cache::take(self, layout) {
            return block;
        }
        self.alloc_from_heap(layout)
    }

    /// Takes a block back. A block with a mapping of its own is unmapped at once.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and nothing uses it any more.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // The address tells, and not the size: the threshold may have changed since.
        if !self.in_heap(block) {
            return self.unmap(block, layout);
        }
        if !cache::keep(self, block, layout) {
            self.dealloc_to_heap(block);
        }
    }

    /// As `alloc`, and every byte is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let block = unsafe { self.alloc(layout) };
        // A fresh mapping is zero already, and stays untouched.
        if !block.is_null() && self.in_heap(block) {
            // SAFETY: the block is that long, and nobody else knows it yet.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    /// Makes a block `size` bytes long, and keeps its alignment and what it holds, up to the shorter of both lengths. The
    /// block may move. Null where there is no memory for it: then the old block stays as it was.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment is a layout's own, and the caller vouches for the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let large = size >= self.threshold.load(Relaxed);
        let resized = match (self.in_heap(block), large) {
            (false, true) => return self.remap(block, layout, wanted),
            (true, false) => self.with_heap(|heap| heap.resize(Chunk::of(block), size)),
            // It changes its kind.
            _ => false,
        };
        if resized {
            return block;
        }
        // SAFETY: as the caller's.
        let copy = unsafe { self.alloc(wanted) };
        if !copy.is_null() {
            let kept = size.min(layout.size());
            // SAFETY: both blocks are that long, and the copy is a new one.
            unsafe { ptr::copy_nonoverlapping(block, copy, kept) };
            // SAFETY: the caller's contract.
            unsafe { self.dealloc(block, layout) };
        }
        copy
    }

    /// From here on blocks of `bytes` and more have a mapping of their own. A moving threshold stands still.
    pub fn set_threshold(&self, bytes: usize) {
        self.moving.store(false, Relaxed);
        self.threshold.store(bytes, Relaxed);
    }

    /// From here on at most `blocks` have a mapping of their own at a time. Those that have one keep it.
    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, Relaxed);
    }

    /// Lets the threshold move, as glibc's does: past the size of each mapped block that is freed, up to 32 MiB.
    pub fn set_moving_threshold(&self, on: bool) {
        self.moving.store(on, Relaxed);
    }

    /// From here on each thread may keep that many bytes of small blocks that it has freed, for itself.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.cached.store(bytes, Relaxed);
    }

    /// The heap from its first byte to its break: all of it can be touched, and nothing beyond. `None` before the first
    /// small block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        self.with_heap(|heap| (heap.start != 0).then_some(heap.start..heap.brk))
    }

    /// What has been given out.
    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.mapped_blocks.load(Relaxed),
            mapped_bytes: self.mapped_bytes.load(Relaxed),
            threshold: self.threshold.load(Relaxed),
        }
    }

    /// Gives back to the kernel whatever lies free at the heap's end, and first what this thread has cached.
    pub fn trim(&self) {
        cache::empty(self);
        self.with_heap(|heap| heap.trim(0));
    }

    fn in_heap(&self, block: *mut u8) -> bool {
        block.addr() < self.end.load(Acquire) && self.start.load(Relaxed) <= block.addr()
    }

    fn with_heap<R>(&self, f: impl FnOnce(&mut Heap) -> R) -> R {
        let _locked = lock();
        // SAFETY: the lock is held, and `f` is given the only reference made under it.
        f(unsafe { &mut *self.heap.get() })
    }

    // Apart from `alloc`, so that a block from the cache does not pay for it.
    #[inline(never)]
    fn alloc_from_heap(&self, layout: Layout) -> *mut u8 {
        let block = self.with_heap(|heap| {
            if heap.start == 0 {
                heap.reserve(self.reserve)?;
                self.start.store(heap.start, Relaxed);
                self.end.store(heap.end, Release); // last, as `in_heap` looks at it first
            }
            heap.alloc(layout)
        });
        // A full heap leaves the block to a mapping.
        block
            .or_else(|| self.map(layout))
            .unwrap_or(ptr::null_mut())
    }

    #[inline(never)]
    fn dealloc_to_heap(&self, block: *mut u8) {
        self.with_heap(|heap| heap.dealloc(Chunk::of(block)));
    }

    /// A block with a mapping of its own, if the cap and the kernel allow one more.
    #[inline(never)]
    fn map(&self, layout: Layout) -> Option<*mut u8> {
        let max = self.max_maps.load(Relaxed);
        let one_more = |live: usize| (live < max).then(|| live + 1);
        // Counted before it is mapped: otherwise two threads could both find room for one.
        self.mapped_blocks
            .fetch_update(Relaxed, Relaxed, one_more)
            .ok()?;
        let len = whole_pages(layout.size());
        let Ok(block) = map_aligned(len, layout.align(), libc::PROT_READ | libc::PROT_WRITE) else {
            self.mapped_blocks.fetch_sub(1, Relaxed);
            return None;
        };
        self.mapped_bytes.fetch_add(len, Relaxed);
        Some(block)
    }

    #[inline(never)]
    fn unmap(&self, block: *mut u8, layout: Layout) {
        let len = whole_pages(layout.size());
        let one_less = |live: usize| live.checked_sub(1);
        let counted = self
            .mapped_blocks
            .fetch_update(Relaxed, Relaxed, one_less)
            .is_ok();
        if !counted || !block.addr().is_multiple_of(page_size()) {
            corrupted();
        }
        self.mapped_bytes.fetch_sub(len, Relaxed);
        if pages::unmap(block, len).is_err() {
            corrupted();
        }
        if self.moving.load(Relaxed) && len <= MOVES_UP_TO {
            let before = self.threshold.fetch_max(len + 1, Relaxed);
            if before <= len {
                self.with_heap(|heap| heap.slack = 2 * len);
            }
        }
    }

    /// Resizes a mapping. The kernel moves page-table entries, and copies nothing.
    fn remap(&self, block: *mut u8, layout: Layout, wanted: Layout) -> *mut u8 {
        let (old, new) = (whole_pages(layout.size()), whole_pages(wanted.size()));
        let align = layout.align();
        let moved = if align <= page_size() {
            pages::remap(block, old, new, libc::MREMAP_MAYMOVE, ptr::null_mut())
        } else {
            // Left to itself the kernel would move it to any page.
            pages::remap(block, old, new, 0, ptr::null_mut()).or_else(|_| {
                let place = map_aligned(new, align, libc::PROT_NONE)?;
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                pages::remap(block, old, new, flags, place).inspect_err(|_| {
                    // SAFETY: the place was mapped above, and is not used.
                    unsafe { libc::munmap(place.cast(), new) };
                })
            })
        };
        if moved.is_ok() {
            self.mapped_bytes.fetch_add(new.wrapping_sub(old), Relaxed);
        }
        moved.unwrap_or(ptr::null_mut())
    }
}

// SAFETY: a block is its owner's alone until it is freed, is as long and aligned as its layout says, and no call unwinds.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same; a global allocator is a static.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { self.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`.
        unsafe { self.realloc(block, layout, size) }
    }
}

/// Ends the process: nothing can be trusted any more, and to unwind would run more code on it.
#[cold]
fn corrupted() -> ! {
    let words = "threshold-alloc: freed twice, or the heap was written over\n";
    // SAFETY: the words are that long. Not `eprintln`, which might allocate.
    unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
    std::process::abort()
}

/// A heap of chunks inside a reservation, with boundary tags: each chunk knows its length and its neighbours.
mod heap {
    use super::pages::{commit, decommit, map_aligned, page_size};
    use super::*;

    pub const WORD: usize = size_of::<usize>();

    /// What every block is aligned to, and a multiple of which every chunk is long.
    pub const UNIT: usize = 2 * WORD;

    /// A free chunk holds its size twice, and two links.
    const MIN: usize = 2 * UNIT;

    /// In a header's low bits: this chunk is free; the chunk before it is.
    const FREE: usize = 1;
    const AFTER_FREE: usize = 2;

    /// The break moves in steps of so many bytes: a system call for each block would cost more than the block.
    const STEP: usize = 128 << 10;

    /// Chunks are found by size: up to 32 units each size has its own list, above that a quarter of each power of two.
    const BINS: usize = 128;
    const EXACT: usize = 32;

    /// How many chunks of a list that holds several sizes are looked at.
    const LOOKED_AT: usize = 16;

    /// A chunk, by its header's address: one word that holds the length and two flags. The block begins after it.
    ///
    /// A free chunk's block begins with two links, and its last word is the length again, for the neighbour to find.
    ///
    /// Invariant: it lies between the heap's start and its break, and `LOCK` is held.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub struct Chunk(*mut usize);

    impl Chunk {
        const NONE: Chunk = Chunk(ptr::null_mut());

        pub fn of(block: *mut u8) -> Chunk {
            Chunk(block.cast::<usize>().wrapping_sub(1))
        }

        fn block(self) -> *mut u8 {
            self.0.wrapping_add(1).cast()
        }

        fn address(self) -> usize {
            self.0.addr()
        }

        fn at(self, bytes: usize) -> Chunk {
            Chunk(self.0.wrapping_byte_add(bytes))
        }

        fn word(self, index: usize) -> usize {
            // SAFETY: the invariant; callers read words of the chunk, or the one before it.
            unsafe { self.0.wrapping_add(index).read() }
        }

        fn set_word(self, index: usize, value: usize) {
            // SAFETY: the invariant; callers write words of the chunk that no block's owner uses.
            unsafe { self.0.wrapping_add(index).write(value) }
        }

        fn len(self) -> usize {
            self.word(0) & !(UNIT - 1)
        }

        fn has(self, flag: usize) -> bool {
            self.word(0) & flag != 0
        }

        fn set(self, flag: usize, on: bool) {
            let others = self.word(0) & !flag;
            self.set_word(0, if on { others | flag } else { others });
        }

        fn set_len(self, len: usize) {
            self.set_word(0, len | self.word(0) & (UNIT - 1));
        }

        /// The chunk behind it; the heap's `top` where it is the last.
        fn after(self) -> Chunk {
            self.at(self.len())
        }

        /// The free chunk before it, which ends with its length.
        fn before(self) -> Chunk {
            Chunk(
                self.0
                    .wrapping_byte_sub(Chunk(self.0.wrapping_sub(1)).word(0)),
            )
        }

        fn link(self, index: usize) -> Chunk {
            Chunk(ptr::with_exposed_provenance_mut(self.word(index)))
        }

        fn set_link(self, index: usize, to: Chunk) {
            self.set_word(index, to.0.expose_provenance());
        }
    }

    /// Indices of a free chunk's links.
    const NEXT: usize = 1;
    const PREVIOUS: usize = 2;

    /// Chunks in a reservation of which the part up to the break can be touched.
    ///
    /// No two free chunks are neighbours. The free part at the end, from `top` to the break, is in no list, and has no header.
    pub struct Heap {
        pub start: usize,
        pub end: usize,
        pub brk: usize,
        top: Chunk,
        /// Bytes that may lie free at the end before the break moves down.
        pub slack: usize,
        bins: [Chunk; BINS],
        /// A bit for each list that is not empty.
        filled: u128,
    }

    impl Heap {
        pub const fn new() -> Heap {
            Heap {
                start: 0,
                end: 0,
                brk: 0,
                top: Chunk::NONE,
                slack: STEP,
                bins: [Chunk::NONE; BINS],
                filled: 0,
            }
        }

        /// Reserves addresses that cannot be touched yet. They cost nothing but the addresses, also where the kernel
        /// commits no more memory than it has.
        pub fn reserve(&mut self, bytes: usize) -> Option<()> {
            let mut bytes = bytes.min(isize::MAX as usize).next_multiple_of(STEP);
            let start = loop {
                match map_aligned(bytes, page_size(), libc::PROT_NONE) {
                    Ok(start) => break start,
                    Err(_) if bytes > STEP => bytes = (bytes / 2).next_multiple_of(STEP),
                    Err(_) => return None,
                }
            };
            self.start = start.expose_provenance();
            self.end = self.start + bytes;
            self.brk = self.start;
            // A header before the first block, so that the block is aligned.
            self.top = Chunk(start.cast::<usize>().wrapping_add(1));
            Some(())
        }

        pub fn alloc(&mut self, layout: Layout) -> Option<*mut u8> {
            let len = chunk_len(layout.size());
            if layout.align() <= UNIT {
                return Some(self.take(len)?.block());
            }
            // Room to move up to an aligned address, and to leave a whole chunk before it.
            let chunk = self.take(len + layout.align() + MIN)?;
            let mut skipped = chunk.block().align_offset(layout.align());
            if skipped != 0 && skipped < MIN {
                skipped += layout.align();
            }
            let aligned = chunk.at(skipped);
            if skipped != 0 {
                aligned.set_word(0, chunk.len() - skipped);
                chunk.set_len(skipped);
                self.give(chunk);
            }
            self.cut(aligned, len);
            Some(aligned.block())
        }

        pub fn dealloc(&mut self, chunk: Chunk) {
            let inside = (self.start..self.top.address()).contains(&chunk.address());
            if !inside || !chunk.block().addr().is_multiple_of(UNIT) {
                corrupted();
            }
            let room = self.top.address() - chunk.address();
            if chunk.has(FREE) || !(MIN..=room).contains(&chunk.len()) {
                corrupted();
            }
            if chunk.after() != self.top && chunk.after().has(AFTER_FREE) {
                corrupted();
            }
            self.give(chunk);
            if self.brk.saturating_sub(self.top.address()) > self.slack + STEP {
                self.trim(self.slack);
            }
        }

        /// Makes a block longer or shorter where it is, if that can be.
        pub fn resize(&mut self, chunk: Chunk, size: usize) -> bool {
            let len = chunk_len(size);
            let after = chunk.after();
            if len > chunk.len() && after == self.top {
                let more = len - chunk.len();
                if self.take_top(more).is_none() {
                    return false;
                }
                chunk.set_len(len);
            } else if len > chunk.len() && after.has(FREE) && len <= chunk.len() + after.len() {
                self.unlink(after);
                chunk.set_len(chunk.len() + after.len());
                self.mark_after(chunk, false);
            }
            let fits = len <= chunk.len();
            if fits {
                self.cut(chunk, len);
            }
            fits
        }

        /// A chunk of that length, or a little longer, out of the lists or from the top.
        fn take(&mut self, len: usize) -> Option<Chunk> {
            if let Some(chunk) = self.find(len) {
                self.unlink(chunk);
                chunk.set(FREE, false);
                self.mark_after(chunk, false);
                self.cut(chunk, len);
                return Some(chunk);
            }
            let chunk = self.take_top(len)?;
            chunk.set_word(0, len);
            Some(chunk)
        }

        /// The first `len` bytes of the top.
        fn take_top(&mut self, len: usize) -> Option<Chunk> {
            let top = self.top;
            if len > self.end - top.address() {
                return None;
            }
            let needed = top.address() + len;
            if needed > self.brk {
                let brk = (needed - self.start).next_multiple_of(STEP) + self.start;
                let brk = brk.min(self.end);
                commit(self.brk, brk - self.brk)?;
                self.brk = brk;
            }
            self.top = top.at(len);
            Some(top)
        }

        /// Takes a chunk back, joins it with free neighbours, and puts it where it will be found.
        fn give(&mut self, chunk: Chunk) {
            // Also where it will be the middle of a larger one: so that it is known if it is freed twice.
            chunk.set(FREE, true);
            let mut chunk = chunk;
            if chunk.has(AFTER_FREE) {
                let before = chunk.before();
                self.unlink(before);
                before.set_len(before.len() + chunk.len());
                chunk = before;
            }
            let after = chunk.after();
            if after == self.top {
                self.top = chunk;
                return;
            }
            if after.has(FREE) {
                self.unlink(after);
                chunk.set_len(chunk.len() + after.len());
            }
            self.mark_after(chunk, true);
            self.link(chunk);
        }

        /// Gives back what a chunk has beyond `len` bytes, if that makes a chunk.
        fn cut(&mut self, chunk: Chunk, len: usize) {
            let rest = chunk.len() - len;
            if rest >= MIN {
                chunk.set_len(len);
                chunk.after().set_word(0, rest);
                self.give(chunk.after());
            }
        }

        /// Tells the chunk behind `chunk` whether this one is free.
        fn mark_after(&mut self, chunk: Chunk, free: bool) {
            if chunk.after() != self.top {
                chunk.after().set(AFTER_FREE, free);
            }
        }

        /// A free chunk of at least `len` bytes.
        fn find(&self, len: usize) -> Option<Chunk> {
            let bin = bin_of(len);
            let mut chunk = self.bins[bin];
            for _ in 0..LOOKED_AT {
                if chunk == Chunk::NONE {
                    break;
                }
                if chunk.len() >= len {
                    return Some(chunk);
                }
                chunk = chunk.link(NEXT);
            }
            // Whatever is in a later list is long enough.
            let later = self.filled & (!1 << bin);
            (later != 0).then(|| self.bins[later.trailing_zeros() as usize])
        }

        fn link(&mut self, chunk: Chunk) {
            let len = chunk.len();
            // The last word is the length again.
            chunk.set_word(len / WORD - 1, len);
            let bin = bin_of(len);
            let first = self.bins[bin];
            chunk.set_link(NEXT, first);
            chunk.set_link(PREVIOUS, Chunk::NONE);
            if first != Chunk::NONE {
                first.set_link(PREVIOUS, chunk);
            }
            self.bins[bin] = chunk;
            self.filled |= 1 << bin;
        }

        fn unlink(&mut self, chunk: Chunk) {
            let bin = bin_of(chunk.len());
            let (next, previous) = (chunk.link(NEXT), chunk.link(PREVIOUS));
            // Links that do not lead back have been written over, and following them would spread the damage.
            if next != Chunk::NONE {
                if next.link(PREVIOUS) != chunk {
                    corrupted();
                }
                next.set_link(PREVIOUS, previous);
            }
            if previous != Chunk::NONE {
                if previous.link(NEXT) != chunk {
                    corrupted();
                }
                previous.set_link(NEXT, next);
            } else {
                self.bins[bin] = next;
                if next == Chunk::NONE {
                    self.filled &= !(1 << bin);
                }
            }
        }

        /// Moves the break down, and leaves `slack` bytes free below it.
        pub fn trim(&mut self, slack: usize) {
            if self.start == 0 {
                return;
            }
            let used = match self.top.address() - WORD == self.start {
                true => self.start,
                false => self.top.address(),
            };
            let brk = self.start + (used - self.start + slack).next_multiple_of(page_size());
            if brk < self.brk && decommit(brk, self.brk - brk).is_some() {
                self.brk = brk;
            }
        }
    }

    /// The length of a chunk for a block of `size` bytes, at most `isize::MAX`.
    pub fn chunk_len(size: usize) -> usize {
        (size + WORD).next_multiple_of(UNIT).max(MIN)
    }

    /// The list for chunks of that length: it grows with the length.
    fn bin_of(len: usize) -> usize {
        let units = len / UNIT;
        if units < EXACT {
            return units;
        }
        let power = units.ilog2();
        let quarter = (units >> (power - 2)) & 3;
        (EXACT + (power - EXACT.ilog2()) as usize * 4 + quarter).min(BINS - 1)
    }
}

/// What is asked of the kernel.
mod pages {
    use super::*;

    /// Fresh private anonymous memory, aligned to `align` bytes.
    pub fn map_aligned(len: usize, align: usize, protection: libc::c_int) -> io::Result<*mut u8> {
        // A mapping begins with a page: more than that must be looked for, in so much more.
        let spare = align.saturating_sub(page_size());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
        let start = unsafe { libc::mmap(ptr::null_mut(), len + spare, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = start.cast::<u8>();
        if spare == 0 {
            return Ok(start);
        }
        let before = start.align_offset(align);
        let block = start.wrapping_add(before);
        for (part, bytes) in [(start, before), (block.wrapping_add(len), spare - before)] {
            if bytes > 0 {
                // SAFETY: this part of the mapping just made is not used.
                unsafe { libc::munmap(part.cast(), bytes) };
            }
        }
        Ok(block)
    }

    /// mremap(2); `place` is used with MREMAP_FIXED only.
    pub fn remap(
        block: *mut u8,
        old: usize,
        new: usize,
        flags: libc::c_int,
        place: *mut u8,
    ) -> io::Result<*mut u8> {
        // SAFETY: the block has this mapping for itself, and its owner takes the new address; the place is unused memory.
        match unsafe { libc::mremap(block.cast(), old, new, flags, place) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            moved => Ok(moved.cast()),
        }
    }

    /// munmap(2). At the limit on mappings (vm.max_map_count) the kernel cannot cut one in two, and refuses: then the
    /// pages go back all the same, and only the addresses are lost.
    pub fn unmap(block: *mut u8, len: usize) -> io::Result<()> {
        // SAFETY: the block has this mapping for itself, and its owner has given it up.
        if unsafe { libc::munmap(block.cast(), len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::OutOfMemory {
            return Err(error);
        }
        // SAFETY: as above: nobody reads these pages again.
        match unsafe { libc::madvise(block.cast(), len, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes reserved addresses usable.
    pub fn commit(start: usize, len: usize) -> Option<()> {
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range belongs to the heap's reservation, and holds nothing yet.
        let result = unsafe { libc::mprotect(start, len, libc::PROT_READ | libc::PROT_WRITE) };
        (result == 0).then_some(())
    }

    /// Makes them a mere reservation again: a new mapping gives back pages and commit charge in one call.
    pub fn decommit(start: usize, len: usize) -> Option<()> {
        let start = ptr::with_exposed_provenance_mut(start);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the range belongs to the heap's reservation, and lies above its last block.
        let result = unsafe { libc::mmap(start, len, libc::PROT_NONE, flags, -1, 0) };
        (result != libc::MAP_FAILED).then_some(())
    }

    pub fn whole_pages(size: usize) -> usize {
        size.next_multiple_of(page_size())
    }

    /// Bytes in a page.
    pub fn page_size() -> usize {
        static SIZE: AtomicUsize = AtomicUsize::new(0);
        if SIZE.load(Relaxed) == 0 {
            let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
            SIZE.store(
                size.map_or_else(|| corrupted(), |size| size as usize),
                Relaxed,
            );
        }
        SIZE.load(Relaxed)
    }
}

/// The lock around every heap, and what a fork does with it.
mod lock {
    use super::*;

    /// Held while a heap is used. One for all allocators, because fork handlers are not told which; the value says whether
    /// they are registered.
    static LOCK: Mutex<bool> = Mutex::new(false);

    /// The lock that a fork holds.
    struct Held(UnsafeCell<Option<MutexGuard<'static, bool>>>);

    // SAFETY: it is used by the thread that holds `LOCK` only.
    unsafe impl Sync for Held {}

    static HELD: Held = Held(UnsafeCell::new(None));

    pub fn lock() -> MutexGuard<'static, bool> {
        let mut registered = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        if !*registered {
            // A fork copies a lock that another thread holds, and not the thread: the child would wait for ever.
            // SAFETY: the handlers may be called around any fork.
            *registered = unsafe {
                libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork))
            } == 0;
        }
        registered
    }

    extern "C" fn before_fork() {
        let guard = lock();
        // SAFETY: this thread holds the lock.
        unsafe { *HELD.0.get() = Some(guard) };
    }

    /// In the parent and in the child.
    extern "C" fn after_fork() {
        // SAFETY: this thread holds the lock since `before_fork`: in the child it is the copy of that thread.
        drop(unsafe { (*HELD.0.get()).take() });
    }
}

/// Small blocks that a thread has freed and keeps for itself: taking one needs no lock.
mod cache {
    use super::heap::{UNIT, WORD, chunk_len};
    use super::*;

    /// Chunks of up to that length are kept.
    const LONGEST: usize = 1 << 10;

    struct Cache {
        /// The allocator whose blocks these are, or null.
        owner: Cell<*const ThresholdAlloc>,
        bytes: Cell<usize>,
        /// Blocks by their chunk's length in units; each begins with the address of the next.
        lists: [Cell<*mut u8>; LONGEST / UNIT + 1],
    }

    thread_local! {
        static CACHE: Cache = const {
            Cache {
                owner: Cell::new(ptr::null()),
                bytes: Cell::new(0),
                lists: [const { Cell::new(ptr::null_mut()) }; LONGEST / UNIT + 1],
            }
        };
    }

    /// What a thread has kept when it ends goes back to the heap.
    impl Drop for Cache {
        fn drop(&mut self) {
            // SAFETY: null, or an allocator that stays where it is until this thread has ended.
            if let Some(owner) = unsafe { self.owner.get().as_ref() } {
                self.empty(owner);
            }
        }
    }

    impl Cache {
        /// The length of the chunk, if blocks of this kind are kept here.
        fn kept(&self, allocator: &ThresholdAlloc, layout: Layout) -> Option<usize> {
            if layout.size() > LONGEST - WORD || layout.align() > UNIT {
                return None;
            }
            if self.owner.get().is_null() {
                self.owner.set(allocator);
            }
            ptr::eq(self.owner.get(), allocator).then(|| chunk_len(layout.size()))
        }

        fn empty(&self, allocator: &ThresholdAlloc) {
            self.bytes.set(0);
            allocator.with_heap(|heap| {
                for list in &self.lists {
                    while let Some(block) = pop(list) {
                        heap.dealloc(Chunk::of(block));
                    }
                }
            });
        }
    }

    fn pop(list: &Cell<*mut u8>) -> Option<*mut u8> {
        let block = list.get();
        if block.is_null() {
            return None;
        }
        // SAFETY: a block in a list is free, and was given the next one's address when it was put there.
        list.set(unsafe { block.cast::<*mut u8>().read() });
        Some(block)
    }

    /// A block that this thread has kept.
    pub fn take(allocator: &ThresholdAlloc, layout: Layout) -> Option<*mut u8> {
        if allocator.cached.load(Relaxed) == 0 {
            return None;
        }
        // A thread that is ending has no cache any more.
        let take = |cache: &Cache| {
            let len = cache.kept(allocator, layout)?;
            let block = pop(&cache.lists[len / UNIT])?;
            cache.bytes.set(cache.bytes.get() - len);
            Some(block)
        };
        CACHE.try_with(take).ok().flatten()
    }

    /// Whether this thread has kept the block.
    #[inline(always)]
    pub fn keep(allocator: &ThresholdAlloc, block: *mut u8, layout: Layout) -> bool {
        let limit = allocator.cached.load(Relaxed);
        if limit == 0 {
            return false;
        }
        let keep = |cache: &Cache| {
            let len = cache.kept(allocator, layout)?;
            let bytes = cache.bytes.get() + len;
            if bytes > limit {
                return None;
            }
            let list = &cache.lists[len / UNIT];
            if list.get() == block {
                corrupted();
            }
            // SAFETY: the block is free, and long enough for an address.
            unsafe { block.cast::<*mut u8>().write(list.get()) };
            list.set(block);
            cache.bytes.set(bytes);
            Some(())
        };
        CACHE.try_with(keep).ok().flatten().is_some()
    }

    /// Gives back what this thread has kept.
    pub fn empty(allocator: &ThresholdAlloc) {
        let empty = |cache: &Cache| {
            if ptr::eq(cache.owner.get(), allocator) {
                cache.empty(allocator);
            }
        };
        let _ = CACHE.try_with(empty);
    }
}
