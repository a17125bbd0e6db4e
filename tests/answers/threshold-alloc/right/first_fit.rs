//! K&R's allocator, up to stage 6: one free list in address order, first fit, coalescing at each free, raw calls.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;

/// The initial settings of an allocator.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Size in bytes from which a block gets a separate mapping.
    pub threshold: usize,
    /// Cap on the number of mapped blocks that are live. Further large blocks come from the heap.
    pub max_maps: usize,
    /// Bytes of address space to reserve for the heap. If the kernel refuses, half of it is tried, and so on.
    pub reserve: usize,
}

impl Config {
    /// Returns glibc's defaults of 128 KiB and 65,536 mappings, with 64 GiB of address space.
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

/// The mapped blocks that are live, and the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Number of mapped blocks.
    pub mapped_blocks: usize,
    /// Total length of their mappings in bytes: whole pages.
    pub mapped_bytes: usize,
    /// Current threshold in bytes.
    pub threshold: usize,
}

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
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
    /// Creates an allocator. It makes no system call.
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

    /// Stages 1, 2 and 4: allocates a block with this size and alignment. Returns null if there is no memory.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.inner().alloc(layout).unwrap_or(ptr::null_mut())
    }

    /// Stages 1 and 3: frees a block. A mapped block is unmapped immediately.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.inner().dealloc(block, layout);
    }

    /// Stage 2: returns the accessible part of the heap, from its start to its break. `None` before the first small
    /// block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let heap = &self.inner().heap;
        (!heap.start.is_null()).then(|| heap.start.addr()..heap.start.addr() + heap.brk)
    }

    /// Stage 4: sets the threshold. From now on blocks of at least `bytes` bytes get a separate mapping.
    pub fn set_threshold(&self, bytes: usize) {
        self.inner().config.threshold = bytes;
    }

    /// Stage 4: sets the cap on mapped blocks. Blocks that are already mapped stay mapped.
    pub fn set_max_maps(&self, blocks: usize) {
        self.inner().config.max_maps = blocks;
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        let inner = self.inner();
        Stats {
            mapped_blocks: inner.mapped_blocks,
            mapped_bytes: inner.mapped_bytes,
            threshold: inner.config.threshold,
        }
    }

    /// Stage 5, bonus: returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        self.inner().heap.trim(0);
    }

    /// Stage 6, bonus: like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let mut inner = self.inner();
        let Some(block) = inner.alloc(layout) else {
            return ptr::null_mut();
        };
        // A new mapping is already zero.
        if inner.heap.reserves(block) {
            // SAFETY: the block has this length, and nobody else uses it yet.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    /// Stage 6, bonus: changes the size of a block to `size` bytes. Alignment and contents are kept, up to the shorter
    /// of both sizes. The block may move. Returns null if there is no memory; the old block is still valid then.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment comes from a layout, and the size is valid by the caller's contract.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let mut inner = self.inner();
        let resized = inner.resize(block, layout, wanted);
        let Some(moved) = resized.or_else(|| inner.alloc(wanted)) else {
            return ptr::null_mut();
        };
        if resized.is_none() {
            let kept = size.min(layout.size());
            // SAFETY: both blocks are at least this long, and the new one does not overlap the old one.
            unsafe { ptr::copy_nonoverlapping(block, moved, kept) };
            inner.dealloc(block, layout);
        }
        moved
    }

    /// Stage 8, bonus: turns a dynamic threshold like glibc's on or off. It moves just past the size of each mapped
    /// block that is freed, up to 32 MiB. `set_threshold` turns it off.
    pub fn set_moving_threshold(&self, on: bool) {
        todo!("a moving threshold: {on}")
    }

    /// Stage 9, bonus: sets how many bytes of small blocks that it has freed each thread may cache.
    pub fn set_thread_cache(&self, bytes: usize) {
        todo!("a cache of {bytes} bytes for each thread")
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Stage 7, bonus. These functions must not unwind, so replace each `todo!` before the allocator is in use.
// SAFETY: until that stage, nobody uses this type as the global allocator.
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
        if self.mapped_blocks == 0 {
            corrupted();
        }
        // SAFETY: nothing else lies in the block's mapping, and the caller no longer uses the block.
        if unsafe { libc::munmap(block.cast(), len) } != 0 {
            // The kernel could not split a mapping. At least the pages go back.
            // SAFETY: as above.
            unsafe { libc::madvise(block.cast(), len, libc::MADV_DONTNEED) };
        }
        self.mapped_blocks -= 1;
        self.mapped_bytes -= len;
    }

    /// Maps a block. Returns `None` if the cap is reached or the kernel refuses.
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

    /// Resizes a block without copying it. Returns `None` if that is not possible.
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
            // The block moves between the heap and a mapping.
            _ => None,
        }
    }
}

/// Length of a header and alignment of blocks. Chunk lengths are multiples of it, so every header is aligned.
const UNIT: usize = size_of::<Header>();

/// The break moves in steps of this many bytes, because each step is a system call.
const STEP: usize = 128 << 10;

/// The start of every chunk, free or in use. The block follows it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// Length of the chunk in bytes, including the header.
    len: usize,
    /// The next free chunk. Null if this chunk is in use or the last free one.
    next: *mut Header,
}

/// Adjacent chunks from the start of a reservation to the break.
///
/// Invariant: the free chunks are in one list, in address order, and no two of them are adjacent.
struct Heap {
    start: *mut u8,
    /// Lengths of the reservation and of its accessible part in bytes.
    reserved: usize,
    brk: usize,
    free: *mut Header,
}

// SAFETY: the memory that the pointers point to is not tied to a thread.
unsafe impl Send for Heap {}

fn header(chunk: *mut Header) -> Header {
    // SAFETY: every caller passes a chunk of the heap, and a chunk begins with a header.
    unsafe { chunk.read() }
}

fn set_header(chunk: *mut Header, len: usize, next: *mut Header) {
    // SAFETY: every caller passes an address in the heap that no block uses.
    unsafe { chunk.write(Header { len, next }) };
}

fn end(chunk: *mut Header) -> *mut Header {
    chunk.wrapping_byte_add(header(chunk).len)
}

/// Returns the length of a chunk for a block of `size` bytes. `size` is at most `isize::MAX`.
fn chunk_len(size: usize) -> usize {
    UNIT + size.next_multiple_of(UNIT)
}

/// Returns how many bytes of a free chunk to skip so that the block is aligned: 0, or enough for a header.
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

    /// Reserves address space with `PROT_NONE`. If the kernel refuses, half of it is tried, and so on.
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

    /// Returns whether the block is in the reservation.
    fn reserves(&self, block: *mut u8) -> bool {
        block.addr().wrapping_sub(self.start.addr()) < self.reserved
    }

    fn brk(&self) -> *mut Header {
        self.start.wrapping_add(self.brk).cast()
    }

    /// Takes the first free chunk that is long enough. If there is none, grows the heap until the last chunk is long
    /// enough.
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
            // `before` is now the last free chunk.
            let at_the_end = !before.is_null() && end(before) == self.brk();
            let last = if at_the_end { before } else { self.brk() };
            let needed = last.addr() - self.start.addr() + skipped(last, layout.align()) + len;
            self.grow(needed)?;
        }
    }

    /// Takes `len` bytes out of a free chunk, after `skipped` bytes. The rest on both sides stays free.
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

    /// Frees a chunk, and joins it with free neighbours.
    fn give(&mut self, chunk: *mut Header) {
        let (before, after) = self.neighbours(chunk);
        let len = header(chunk).len;
        let limit = if after.is_null() { self.brk() } else { after };
        let free_before = !before.is_null() && end(before) > chunk;
        // If `chunk` is already free, the previous free chunk contains it. A length out of range was overwritten.
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

    /// Returns the free chunks before and after a chunk in the list. Either can be null.
    fn neighbours(&self, chunk: *mut Header) -> (*mut Header, *mut Header) {
        let (mut before, mut after) = (ptr::null_mut(), self.free);
        while !after.is_null() && after < chunk {
            (before, after) = (after, header(after).next);
        }
        // The chunk is already free.
        if after == chunk {
            corrupted();
        }
        (before, after)
    }

    /// Joins a free chunk with the next free one if they are adjacent.
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

    /// Resizes a block in place. Returns whether that was possible.
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

    /// Moves the break up to at least `needed` bytes. The new memory becomes a free chunk.
    fn grow(&mut self, needed: usize) -> Option<()> {
        if needed > self.reserved {
            return None;
        }
        let (chunk, more) = (self.brk(), needed.next_multiple_of(STEP) - self.brk);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: this part of the reservation is above the break.
        if unsafe { libc::mprotect(chunk.cast(), more, protection) } != 0 {
            return None;
        }
        self.brk += more;
        set_header(chunk, more, ptr::null_mut());
        self.give(chunk);
        Some(())
    }

    /// If more than twice `slack` bytes are free below the break, moves the break down and leaves `slack` bytes free.
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
        // SAFETY: the range is part of the last chunk, which is free.
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

/// Maps private anonymous memory, aligned to `align` bytes.
fn map_aligned(len: usize, align: usize, protection: libc::c_int) -> Option<*mut u8> {
    // mmap aligns to a page. For more, map a longer range and unmap both ends.
    let spare = if align > page_size() { align } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), len + spare, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start = start.cast::<u8>();
    let before = start.addr().next_multiple_of(align) - start.addr();
    let block = start.wrapping_add(before);
    if before > 0 {
        // SAFETY: this part of the new mapping is not used.
        unsafe { libc::munmap(start.cast(), before) };
    }
    if before < spare {
        // SAFETY: as above.
        unsafe { libc::munmap(block.wrapping_add(len).cast(), spare - before) };
    }
    Some(block)
}

/// Resizes a mapping, and keeps its alignment. The kernel moves page-table entries and copies no data.
fn remap(block: *mut u8, old: usize, new: usize, align: usize) -> Option<*mut u8> {
    if align <= page_size() {
        // SAFETY: nothing else lies in the block's mapping, and the caller uses only the new address afterwards.
        let moved = unsafe { libc::mremap(block.cast(), old, new, libc::MREMAP_MAYMOVE) };
        return (moved != libc::MAP_FAILED).then(|| moved.cast());
    }
    // SAFETY: as above, and without MREMAP_MAYMOVE the block stays at its address.
    if unsafe { libc::mremap(block.cast(), old, new, 0) } != libc::MAP_FAILED {
        return Some(block);
    }
    let place = map_aligned(new, align, libc::PROT_NONE)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: as above, and nothing uses the new mapping that the block replaces.
    let moved = unsafe { libc::mremap(block.cast(), old, new, flags, place) };
    if moved == libc::MAP_FAILED {
        // SAFETY: nothing uses the new mapping.
        unsafe { libc::munmap(place.cast(), new) };
        return None;
    }
    Some(moved.cast())
}

fn whole_pages(size: usize) -> usize {
    size.next_multiple_of(page_size())
}

/// Returns the page size in bytes.
fn page_size() -> usize {
    // SAFETY: sysconf accepts any name.
    match unsafe { libc::sysconf(libc::_SC_PAGESIZE) } {
        ..=0 => corrupted(),
        size => size as usize,
    }
}

/// Aborts the process. Unwinding would run more code on a corrupted heap.
#[cold]
fn corrupted() -> ! {
    let words = b"threshold-alloc: freed twice, or the heap was written over\n";
    // `eprintln!` is not used because it might allocate.
    // SAFETY: the message has this length.
    unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
    std::process::abort()
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
