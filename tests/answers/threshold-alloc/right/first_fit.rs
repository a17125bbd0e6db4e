//! K&R's allocator: one list of free chunks in the order of their addresses, first fit, joined at each free; raw calls.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;

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

/// The allocator. No call unwinds; a heap that has been written over ends the process by `abort`, where it is noticed.
pub struct ThresholdAlloc {
    inner: Mutex<Inner>,
}

struct Inner {
    config: Config,
    mapped_blocks: usize,
    mapped_bytes: usize,
    heap: Heap,
}

impl ThresholdAlloc {
    /// An allocator that has asked the kernel for nothing yet.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            inner: Mutex::new(Inner {
                config,
                mapped_blocks: 0,
                mapped_bytes: 0,
                heap: Heap::EMPTY,
            }),
        }
    }

    /// Stages 1, 2 and 4: a block of that size and alignment; null where there is no memory for it.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.inner().alloc(layout).unwrap_or(ptr::null_mut())
    }

    /// Stages 1 and 3: takes a block back. A block with a mapping of its own is unmapped at once.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and nothing uses it any more.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.inner().dealloc(block, layout);
    }

    /// Stage 2: the heap from its first byte to its break: all of it can be touched, and nothing beyond. `None` before
    /// the first small block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let heap = &self.inner().heap;
        (!heap.start.is_null()).then(|| heap.start.addr()..heap.start.addr() + heap.brk)
    }

    /// Stage 4: from here on blocks of `bytes` and more have a mapping of their own.
    pub fn set_threshold(&self, bytes: usize) {
        self.inner().config.threshold = bytes;
    }

    /// Stage 4: from here on at most `blocks` have a mapping of their own at a time. Those that have one keep it.
    pub fn set_max_maps(&self, blocks: usize) {
        self.inner().config.max_maps = blocks;
    }

    /// Stage 4: what has been given out.
    pub fn stats(&self) -> Stats {
        let inner = self.inner();
        Stats {
            mapped_blocks: inner.mapped_blocks,
            mapped_bytes: inner.mapped_bytes,
            threshold: inner.config.threshold,
        }
    }

    /// Stage 5, bonus: gives back to the kernel whatever lies free at the heap's end.
    pub fn trim(&self) {
        self.inner().heap.trim(0);
    }

    /// Stage 6, bonus: as `alloc`, and every byte is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let mut inner = self.inner();
        let Some(block) = inner.alloc(layout) else {
            return ptr::null_mut();
        };
        // A fresh mapping is zero already.
        if inner.heap.reserves(block) {
            // SAFETY: the block is that long, and nobody else knows it yet.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    /// Stage 6, bonus: makes a block `size` bytes long, and keeps its alignment and what it holds, up to the shorter of
    /// both lengths. The block may move. Null where there is no memory for it: then the old block stays as it was.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment is a layout's own, and the caller vouches for the size.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let mut inner = self.inner();
        let resized = inner.resize(block, layout, wanted);
        let Some(moved) = resized.or_else(|| inner.alloc(wanted)) else {
            return ptr::null_mut();
        };
        if resized.is_none() {
            let kept = size.min(layout.size());
            // SAFETY: both blocks are that long, and the new one is nobody else's.
            unsafe { ptr::copy_nonoverlapping(block, moved, kept) };
            inner.dealloc(block, layout);
        }
        moved
    }

    /// Stage 8, bonus: lets the threshold move, as glibc's does: past the size of each mapped block that is freed, up to
    /// 32 MiB. `set_threshold` makes it stand still.
    pub fn set_moving_threshold(&self, on: bool) {
        todo!("a moving threshold: {on}")
    }

    /// Stage 9, bonus: from here on each thread may keep that many bytes of small blocks that it has freed, for itself.
    pub fn set_thread_cache(&self, bytes: usize) {
        todo!("a cache of {bytes} bytes for each thread")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Stage 7, bonus. A panic must not leave these functions, so `todo!` must not stay here when the allocator is in use.
// SAFETY: until that stage nobody makes this the global allocator.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        todo!("a block for {layout:?}, whatever the other threads do")
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        todo!("take back {block:p}, a block for {layout:?}")
    }
}

impl Inner {
    fn alloc(&mut self, layout: Layout) -> Option<*mut u8> {
        if layout.size() >= self.config.threshold {
            self.map(layout).or_else(|| self.alloc_in_heap(layout))
        } else {
            self.alloc_in_heap(layout).or_else(|| self.map(layout))
        }
    }

    fn alloc_in_heap(&mut self, layout: Layout) -> Option<*mut u8> {
        if self.heap.start.is_null() {
            self.heap.reserve(self.config.reserve)?;
        }
        self.heap.alloc(layout)
    }

    fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        if self.heap.reserves(block) {
            return self.heap.dealloc(block);
        }
        let len = whole_pages(layout.size());
        // SAFETY: the block has this mapping for itself, and its owner has given it up.
        if self.mapped_blocks == 0 || unsafe { libc::munmap(block.cast(), len) } != 0 {
            corrupted();
        }
        self.mapped_blocks -= 1;
        self.mapped_bytes -= len;
    }

    /// A block with a mapping of its own, if the cap and the kernel allow one more.
    fn map(&mut self, layout: Layout) -> Option<*mut u8> {
        if self.mapped_blocks >= self.config.max_maps {
            return None;
        }
        let len = whole_pages(layout.size());
        let block = map_aligned(len, layout.align(), libc::PROT_READ | libc::PROT_WRITE)?;
        self.mapped_blocks += 1;
        self.mapped_bytes += len;
        Some(block)
    }

    /// Makes a block longer or shorter without copying it; `None` where that cannot be.
    fn resize(&mut self, block: *mut u8, layout: Layout, wanted: Layout) -> Option<*mut u8> {
        let large = wanted.size() >= self.config.threshold;
        match (self.heap.reserves(block), large) {
            (true, false) => self.heap.resize(block, wanted.size()).then_some(block),
            (false, true) => {
                let (old, new) = (whole_pages(layout.size()), whole_pages(wanted.size()));
                let moved = remap(block, old, new, layout.align())?;
                self.mapped_bytes = self.mapped_bytes - old + new;
                Some(moved)
            }
            // It changes its kind.
            _ => None,
        }
    }
}

/// What chunks are multiples of, and blocks are aligned to: a header, so that a chunk can begin behind any other.
const UNIT: usize = size_of::<Header>();

/// The break moves in steps of so many bytes: a system call for each block would cost more than the block.
const STEP: usize = 128 << 10;

/// Before each chunk's block, whether it is free or in use.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// Bytes of the chunk, with the header.
    len: usize,
    /// The next free chunk, if this one is free and not the last.
    next: *mut Header,
}

/// Chunks without a gap from the start to the break, inside a reservation. The free ones are in one list, by address, and
/// no two of them are neighbours.
struct Heap {
    start: *mut u8,
    /// Bytes that are reserved, and bytes that can be touched.
    reserved: usize,
    brk: usize,
    free: *mut Header,
}

// SAFETY: what its pointers point to belongs to the heap, whichever thread uses it.
unsafe impl Send for Heap {}

fn header(chunk: *mut Header) -> Header {
    // SAFETY: the heap's callers come here with a chunk of its own, which begins with a header.
    unsafe { chunk.read() }
}

fn set_header(chunk: *mut Header, len: usize, next: *mut Header) {
    // SAFETY: as above; what is written is the heap's, and no block.
    unsafe { chunk.write(Header { len, next }) };
}

fn end(chunk: *mut Header) -> *mut Header {
    chunk.wrapping_byte_add(header(chunk).len)
}

/// The length of a chunk for a block of `size` bytes, at most `isize::MAX`.
fn chunk_len(size: usize) -> usize {
    UNIT + size.next_multiple_of(UNIT)
}

/// Bytes of a chunk to leave free, so that the block behind them is aligned: room for a header, or none.
fn skipped(chunk: *mut Header, align: usize) -> usize {
    let block = chunk.addr() + UNIT;
    block.next_multiple_of(align) - block
}

impl Heap {
    const EMPTY: Heap = Heap {
        start: ptr::null_mut(),
        reserved: 0,
        brk: 0,
        free: ptr::null_mut(),
    };

    /// Reserves addresses that cannot be touched yet: half as many, and so on, where the kernel refuses.
    fn reserve(&mut self, bytes: usize) -> Option<()> {
        let mut bytes = bytes.clamp(STEP, isize::MAX as usize);
        loop {
            bytes = bytes.next_multiple_of(STEP);
            if let Some(start) = map_aligned(bytes, STEP, libc::PROT_NONE) {
                (self.start, self.reserved) = (start, bytes);
                return Some(());
            }
            if bytes == STEP {
                return None;
            }
            bytes /= 2;
        }
    }

    /// Whether an address lies in the reservation.
    fn reserves(&self, block: *mut u8) -> bool {
        block.addr().wrapping_sub(self.start.addr()) < self.reserved
    }

    fn brk(&self) -> *mut Header {
        self.start.wrapping_add(self.brk).cast()
    }

    /// First fit. If nothing fits, the heap grows, and then the last chunk does.
    fn alloc(&mut self, layout: Layout) -> Option<*mut u8> {
        let len = chunk_len(layout.size());
        loop {
            let (mut before, mut chunk) = (ptr::null_mut(), self.free);
            while !chunk.is_null() {
                let skipped = skipped(chunk, layout.align());
                if skipped + len <= header(chunk).len {
                    return Some(self.take(before, chunk, skipped, len));
                }
                (before, chunk) = (chunk, header(chunk).next);
            }
            // `before` is the last free chunk now.
            let at_the_end = !before.is_null() && end(before) == self.brk();
            let last = if at_the_end { before } else { self.brk() };
            let needed = last.addr() - self.start.addr() + skipped(last, layout.align()) + len;
            self.grow(needed)?;
        }
    }

    /// Takes `len` bytes out of a free chunk, behind as many as are skipped. What is left on both sides stays free.
    fn take(
        &mut self,
        before: *mut Header,
        chunk: *mut Header,
        skipped: usize,
        len: usize,
    ) -> *mut u8 {
        let Header { len: whole, next } = header(chunk);
        let taken = chunk.wrapping_byte_add(skipped);
        let mut rest = next;
        if whole > skipped + len {
            rest = taken.wrapping_byte_add(len);
            set_header(rest, whole - skipped - len, next);
        }
        if skipped > 0 {
            set_header(chunk, skipped, rest);
        } else {
            self.set_next(before, rest);
        }
        set_header(taken, len, ptr::null_mut());
        taken.wrapping_add(1).cast()
    }

    fn dealloc(&mut self, block: *mut u8) {
        let chunk = block.cast::<Header>().wrapping_sub(1);
        let inside = self.start.addr()..self.brk().addr();
        if !inside.contains(&chunk.addr()) || !chunk.addr().is_multiple_of(UNIT) {
            corrupted();
        }
        self.give(chunk);
        self.trim(STEP);
    }

    /// Takes a chunk back, and joins it with free neighbours.
    fn give(&mut self, chunk: *mut Header) {
        let (before, after) = self.neighbours(chunk);
        let len = header(chunk).len;
        let limit = if after.is_null() { self.brk() } else { after };
        let free_before = !before.is_null() && end(before) > chunk;
        // What is free already lies in a free chunk. A length that has been written over may lead anywhere.
        if free_before || len < UNIT || len > limit.addr() - chunk.addr() {
            corrupted();
        }
        set_header(chunk, len, after);
        self.join(chunk);
        self.set_next(before, chunk);
        if !before.is_null() {
            self.join(before);
        }
    }

    /// The free chunks around a chunk, or null.
    fn neighbours(&self, chunk: *mut Header) -> (*mut Header, *mut Header) {
        let (mut before, mut after) = (ptr::null_mut(), self.free);
        while !after.is_null() && after < chunk {
            (before, after) = (after, header(after).next);
        }
        // The chunk itself is free already.
        if after == chunk {
            corrupted();
        }
        (before, after)
    }

    /// Joins a free chunk with the next one, if that begins where this one ends.
    fn join(&mut self, chunk: *mut Header) {
        let Header { len, next } = header(chunk);
        if !next.is_null() && end(chunk) == next {
            set_header(chunk, len + header(next).len, header(next).next);
        }
    }

    fn set_next(&mut self, chunk: *mut Header, next: *mut Header) {
        match chunk.is_null() {
            true => self.free = next,
            false => set_header(chunk, header(chunk).len, next),
        }
    }

    /// Makes a block longer or shorter where it is, if that can be.
    fn resize(&mut self, block: *mut u8, size: usize) -> bool {
        let (len, chunk) = (chunk_len(size), block.cast::<Header>().wrapping_sub(1));
        let (before, after) = self.neighbours(chunk);
        let mut old = header(chunk).len;
        if len > old && !after.is_null() && end(chunk) == after && len <= old + header(after).len {
            old += header(after).len;
            self.set_next(before, header(after).next);
        }
        if len > old {
            return false;
        }
        set_header(chunk, len, ptr::null_mut());
        if len < old {
            let rest = chunk.wrapping_byte_add(len);
            set_header(rest, old - len, ptr::null_mut());
            self.give(rest);
        }
        true
    }

    /// Moves the break up, to `needed` bytes or more. What is new is a free chunk.
    fn grow(&mut self, needed: usize) -> Option<()> {
        if needed > self.reserved {
            return None;
        }
        let (chunk, more) = (self.brk(), needed.next_multiple_of(STEP) - self.brk);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range belongs to the reservation, and nothing lies beyond the break.
        if unsafe { libc::mprotect(chunk.cast(), more, rights) } != 0 {
            return None;
        }
        self.brk += more;
        set_header(chunk, more, ptr::null_mut());
        self.give(chunk);
        Some(())
    }

    /// Moves the break down, and leaves `slack` bytes free below it, if more than twice as many are free there.
    fn trim(&mut self, slack: usize) {
        let (mut before, mut last) = (ptr::null_mut(), self.free);
        while !last.is_null() && !header(last).next.is_null() {
            (before, last) = (last, header(last).next);
        }
        if last.is_null() || end(last) != self.brk() {
            return;
        }
        let used = last.addr() - self.start.addr();
        let brk = whole_pages(used + slack);
        if brk + slack >= self.brk {
            return;
        }
        let beyond = self.start.wrapping_add(brk).cast();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the range belongs to the reservation, and to its last chunk, which is free.
        let fresh = unsafe { libc::mmap(beyond, self.brk - brk, libc::PROT_NONE, flags, -1, 0) };
        if fresh == libc::MAP_FAILED {
            return;
        }
        self.brk = brk;
        match brk - used {
            0 => self.set_next(before, ptr::null_mut()),
            left => set_header(last, left, ptr::null_mut()),
        }
    }
}

/// Fresh private anonymous memory, aligned to `align` bytes.
fn map_aligned(len: usize, align: usize, rights: libc::c_int) -> Option<*mut u8> {
    // A mapping begins with a page: more than that must be looked for, in so much more.
    let spare = if align > page_size() { align } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe { libc::mmap(ptr::null_mut(), len + spare, rights, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = start.cast::<u8>();
    let before = start.addr().next_multiple_of(align) - start.addr();
    let block = start.wrapping_add(before);
    if before > 0 {
        // SAFETY: this part of the mapping just made is not used.
        unsafe { libc::munmap(start.cast(), before) };
    }
    if before < spare {
        // SAFETY: as above.
        unsafe { libc::munmap(block.wrapping_add(len).cast(), spare - before) };
    }
    Some(block)
}

/// Resizes a mapping, and keeps its alignment. The kernel moves page-table entries, and copies nothing.
fn remap(block: *mut u8, old: usize, new: usize, align: usize) -> Option<*mut u8> {
    if align <= page_size() {
        // SAFETY: the block has this mapping for itself, and its owner takes the new address.
        let moved = unsafe { libc::mremap(block.cast(), old, new, libc::MREMAP_MAYMOVE) };
        return (moved != libc::MAP_FAILED).then(|| moved.cast());
    }
    // SAFETY: as above; here it cannot move.
    if unsafe { libc::mremap(block.cast(), old, new, 0) } != libc::MAP_FAILED {
        return Some(block);
    }
    let place = map_aligned(new, align, libc::PROT_NONE)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: as above, and what it replaces was mapped for that just now.
    let moved = unsafe { libc::mremap(block.cast(), old, new, flags, place) };
    if moved == libc::MAP_FAILED {
        // SAFETY: the place is not used.
        unsafe { libc::munmap(place.cast(), new) };
        return None;
    }
    Some(moved.cast())
}

fn whole_pages(size: usize) -> usize {
    size.next_multiple_of(page_size())
}

/// Bytes in a page.
fn page_size() -> usize {
    // SAFETY: any name may be asked for.
    match unsafe { libc::sysconf(libc::_SC_PAGESIZE) } {
        ..=0 => corrupted(),
        size => size as usize,
    }
}

/// Ends the process: nothing can be trusted any more, and to unwind would run more code on it.
#[cold]
fn corrupted() -> ! {
    let words = b"threshold-alloc: freed twice, or the heap was written over\n";
    // SAFETY: the words are that long. Not `eprintln`, which might allocate.
    unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
    std::process::abort()
}
