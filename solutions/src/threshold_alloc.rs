//! An allocator with two sources, like malloc: a mapping for each large block, and a heap for the small ones.
//!
//! The first part is a complete allocator: stages 1 to 4. Each bonus stage is a module below it. A comment marks each
//! line of the first part that calls a bonus stage.

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, iter, process};

use nix::libc;
use nix::unistd::{SysconfVar, sysconf};

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
    /// Returns glibc's 128 KiB and 65,536 mappings, with 64 GiB of address space.
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
    /// Total length of their mappings: whole pages.
    pub mapped_bytes: usize,
    /// Current threshold in bytes.
    pub threshold: usize,
}

/// The allocator. No method unwinds; a double free or a corrupted heap aborts the process if it is detected.
///
/// The reservation is never unmapped, even if the allocator is dropped.
pub struct ThresholdAlloc {
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    mapped_blocks: AtomicUsize,
    mapped_bytes: AtomicUsize,
    reserve: usize,
    /// Bounds of the reservation, set once, before the first block of the heap is returned.
    start: AtomicUsize,
    end: AtomicUsize,
    heap: UnsafeCell<Heap>,
    moving: AtomicBool,       // Stage 8.
    cache_limit: AtomicUsize, // Stage 9.
}

// SAFETY: `heap` is only accessed under `LOCK`. The other fields are atomic or never change.
unsafe impl Sync for ThresholdAlloc {}

// SAFETY: the memory that `heap` points to is not tied to a thread.
unsafe impl Send for ThresholdAlloc {}

/// Held while a heap is in use. All allocators share it, because fork handlers (stage 7) take no argument.
static LOCK: Mutex<()> = Mutex::new(());

fn lock() -> MutexGuard<'static, ()> {
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    global::register_fork_handlers(&guard); // Stage 7.
    guard
}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            threshold: AtomicUsize::new(config.threshold),
            max_maps: AtomicUsize::new(config.max_maps),
            mapped_blocks: AtomicUsize::new(0),
            mapped_bytes: AtomicUsize::new(0),
            reserve: config.reserve,
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            heap: UnsafeCell::new(Heap::new()),
            moving: AtomicBool::new(false),
            cache_limit: AtomicUsize::new(0),
        }
    }

    /// Returns an uninitialised block, or null if there is no memory.
    ///
    /// # Safety
    /// The size is not zero. If thread caches are on (stage 9), the allocator stays at its address until every thread
    /// that has used it has ended. A `static` does.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let large = layout.size() >= self.threshold.load(Relaxed);
        if large && let Some(block) = self.map(layout) {
            return block;
        }
        if let Some(block) = cache::take(self, layout) {
            return block; // Stage 9.
        }
        let block = self.with_heap(|heap| {
            if heap.start.is_null() {
                heap.reserve(self.reserve)?;
                self.start.store(heap.start.addr(), Relaxed);
                self.end.store(heap.end, Release); // Last, because `in_heap` reads it first.
            }
            heap.alloc(layout)
        });
        // If the heap is full, small blocks are mapped too.
        block
            .or_else(|| self.map(layout))
            .unwrap_or(ptr::null_mut())
    }

    /// Frees a block. A mapped block is unmapped immediately.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Decide by address, not by size: the threshold may have changed since the block was allocated.
        if !self.in_heap(block) {
            // SAFETY: the caller's contract, and every block outside the heap is mapped.
            return unsafe { self.unmap(block, layout) };
        }
        // SAFETY: the caller's contract, and the block is in the heap. Stage 9.
        if !unsafe { cache::keep(self, block, layout) } {
            // SAFETY: as above, and the cache has not kept it.
            self.with_heap(|heap| unsafe { heap.dealloc(block) });
        }
    }

    /// Sets the threshold, and stops it from moving (stage 8).
    pub fn set_threshold(&self, bytes: usize) {
        self.moving.store(false, Relaxed);
        self.threshold.store(bytes, Relaxed);
    }

    /// Sets the cap. Blocks that are already mapped stay mapped.
    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, Relaxed);
    }

    /// Returns the accessible part of the heap, from its start to its break. `None` before the first small block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        self.with_heap(|heap| (!heap.start.is_null()).then_some(heap.start.addr()..heap.brk))
    }

    /// Returns the counters and the threshold.
    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.mapped_blocks.load(Relaxed),
            mapped_bytes: self.mapped_bytes.load(Relaxed),
            threshold: self.threshold.load(Relaxed),
        }
    }

    fn in_heap(&self, block: *mut u8) -> bool {
        block.addr() < self.end.load(Acquire) && self.start.load(Relaxed) <= block.addr()
    }

    #[inline(never)] // Keeps the path of cached blocks short.
    fn with_heap<R>(&self, f: impl FnOnce(&mut Heap) -> R) -> R {
        let _guard = lock();
        // SAFETY: the lock is held, and this is the only reference made under it.
        f(unsafe { &mut *self.heap.get() })
    }

    /// Returns `None` if the cap is reached or the kernel refuses.
    #[inline(never)]
    fn map(&self, layout: Layout) -> Option<*mut u8> {
        let max = self.max_maps.load(Relaxed);
        let one_more = |live: usize| (live < max).then(|| live + 1);
        // Count before mapping: otherwise two threads could exceed the cap together.
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

    /// # Safety
    /// `block` is a mapped block with this layout, and is no longer used.
    #[inline(never)]
    unsafe fn unmap(&self, block: *mut u8, layout: Layout) {
        let len = whole_pages(layout.size());
        let one_less = |live: usize| live.checked_sub(1);
        let live = self.mapped_blocks.fetch_update(Relaxed, Relaxed, one_less);
        if live.is_err() || !block.addr().is_multiple_of(page_size()) {
            corrupted();
        }
        self.mapped_bytes.fetch_sub(len, Relaxed);
        // SAFETY: the caller gives up the block, and nothing else lies in its pages.
        if unsafe { unmap_pages(block, len) }.is_err() {
            corrupted();
        }
        self.move_threshold(len); // Stage 8.
    }
}

/// Aborts: unwinding would run more code on a corrupted heap, and `eprintln!` might allocate.
#[cold]
fn corrupted() -> ! {
    let message = "threshold-alloc: double free or corrupted heap\n";
    // SAFETY: the message has this length.
    unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    process::abort()
}

const WORD: usize = size_of::<usize>();
/// Alignment of blocks. Chunk lengths are multiples of it, so their low bits can hold flags.
const UNIT: usize = 2 * WORD;
/// Length of the shortest chunk: header, two links, and a second copy of the length (stage 5).
const MIN: usize = 2 * UNIT;
/// Flag in a header: the chunk is free.
const FREE: usize = 1;
/// The break moves in steps of this many bytes, because each step is a system call.
const STEP: usize = 128 << 10;
/// Number of free lists: one for each length below 32 units, and four for each power of two above.
const BINS: usize = 128;
const EXACT: usize = 32;
/// Number of chunks to examine in a list that holds several lengths.
const SEARCHED: usize = 16;

/// A chunk of the heap, by its header: a word with the chunk's length and flags. The block follows the header.
///
/// Invariant: `LOCK` is held, and the heap has written the header.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Chunk(NonNull<usize>);

impl Chunk {
    /// # Safety
    /// `header` satisfies the invariant while the result is in use.
    unsafe fn at(header: *mut usize) -> Chunk {
        // SAFETY: no header is at address zero.
        Chunk(unsafe { NonNull::new_unchecked(header) })
    }

    /// Writes the header of a chunk that is in use.
    ///
    /// # Safety
    /// The `len` bytes from `header` are below the break of a heap, and nobody uses them. `LOCK` is held.
    unsafe fn new(header: *mut usize, len: usize) -> Chunk {
        // SAFETY: the caller's contract.
        unsafe { header.write(len) };
        // SAFETY: the header has just been written.
        unsafe { Chunk::at(header) }
    }

    fn word(self) -> usize {
        // SAFETY: the invariant.
        unsafe { self.0.read() }
    }

    fn len(self) -> usize {
        self.word() & !(UNIT - 1)
    }

    /// # Safety
    /// The next chunk, or the top chunk, begins `len` bytes from the header.
    unsafe fn set_len(self, len: usize) {
        let flags = self.word() & (UNIT - 1);
        // SAFETY: the invariant.
        unsafe { self.0.write(len | flags) }
    }

    fn has(self, flag: usize) -> bool {
        self.word() & flag != 0
    }

    /// # Safety
    /// The flag becomes true: `FREE` if nobody uses the block, and stage 5's if the previous chunk ends with its length.
    unsafe fn set(self, flag: usize, on: bool) {
        let others = self.word() & !flag;
        let word = if on { others | flag } else { others };
        // SAFETY: the invariant.
        unsafe { self.0.write(word) }
    }

    fn block(self) -> *mut u8 {
        self.0.as_ptr().wrapping_add(1).cast()
    }

    fn end(self) -> *mut usize {
        self.0.as_ptr().wrapping_byte_add(self.len())
    }

    /// Shortens the chunk to `len` bytes, and returns the rest as a chunk.
    ///
    /// # Safety
    /// Both are lengths of chunks, and nobody uses the rest.
    unsafe fn split(self, len: usize) -> Chunk {
        let rest = self.len() - len;
        // SAFETY: the rest becomes the next chunk.
        unsafe { self.set_len(len) };
        // SAFETY: the rest belonged to this chunk.
        unsafe { Chunk::new(self.end(), rest) }
    }
}

/// A free chunk. Its block holds the links of its free list.
///
/// Invariant: `FREE` is set, only the heap uses the block, and the block begins with links.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Free(Chunk);

/// The next and the previous chunk of a free list.
type Links = [Option<Free>; 2];

impl Free {
    /// # Safety
    /// Nobody uses the chunk's block.
    unsafe fn new(chunk: Chunk) -> Free {
        // SAFETY: the caller's contract.
        unsafe { chunk.set(FREE, true) };
        let free = Free(chunk);
        free.set_links(None, None);
        free
    }

    fn links(self) -> Links {
        // SAFETY: the invariant.
        unsafe { self.0.block().cast::<Links>().read() }
    }

    fn set_links(self, next: Option<Free>, previous: Option<Free>) {
        // SAFETY: only the heap uses the block, and every chunk has room for two links.
        unsafe { self.0.block().cast::<Links>().write([next, previous]) }
    }
}

/// Adjacent chunks from the start of the reservation to `top`. The rest of it, up to `end`, is the top chunk, which has
/// no header. Below the break the reservation is readable and writable, above it `PROT_NONE`.
struct Heap {
    start: *mut u8,
    end: usize,
    brk: usize,
    top: *mut usize,
    bins: [Option<Free>; BINS],
    /// Bit `n` is set if list `n` is not empty.
    filled: u128,
    /// Bytes that trimming leaves below the break (stage 5).
    top_pad: usize,
}

impl Heap {
    const fn new() -> Heap {
        Heap {
            start: ptr::null_mut(),
            end: 0,
            brk: 0,
            top: ptr::null_mut(),
            bins: [None; BINS],
            filled: 0,
            top_pad: STEP,
        }
    }

    /// Reserves address space. With `PROT_NONE` it costs neither memory nor commit charge.
    fn reserve(&mut self, bytes: usize) -> Option<()> {
        let mut bytes = bytes.min(isize::MAX as usize).next_multiple_of(STEP);
        let start = loop {
            match map_aligned(bytes, page_size(), libc::PROT_NONE) {
                Ok(start) => break start,
                Err(_) if bytes > STEP => bytes = (bytes / 2).next_multiple_of(STEP),
                Err(_) => return None,
            }
        };
        self.start = start;
        self.end = start.addr() + bytes;
        self.brk = start.addr();
        // One word into the heap, so that the block after the first header is aligned.
        self.top = start.cast::<usize>().wrapping_add(1);
        Some(())
    }

    fn alloc(&mut self, layout: Layout) -> Option<*mut u8> {
        let len = chunk_len(layout.size());
        if layout.align() <= UNIT {
            return Some(self.take(len)?.block());
        }
        // Take enough to skip to an aligned address, and to leave a whole chunk before it.
        let mut chunk = self.take(len + layout.align() + MIN)?;
        let mut skipped = chunk.block().align_offset(layout.align());
        if skipped != 0 && skipped < MIN {
            skipped += layout.align();
        }
        if skipped != 0 {
            // SAFETY: nobody uses the chunk yet, and more than `len` bytes are left.
            let aligned = unsafe { chunk.split(skipped) };
            // SAFETY: as above.
            unsafe { self.give(chunk) };
            chunk = aligned;
        }
        // SAFETY: as above.
        unsafe { self.shrink(chunk, len) };
        Some(chunk.block())
    }

    /// # Safety
    /// `block` came from this heap, and is no longer used.
    unsafe fn dealloc(&mut self, block: *mut u8) {
        let header = self.header(block);
        // The checks detect callers that break the contract, for example by a double free.
        let inside = (self.start.addr()..self.top.addr()).contains(&header.addr());
        if !inside || !block.addr().is_multiple_of(UNIT) {
            corrupted();
        }
        // SAFETY: a block follows its header.
        let chunk = unsafe { Chunk::at(header) };
        let room = self.top.addr() - header.addr();
        if chunk.has(FREE) || !(MIN..=room).contains(&chunk.len()) {
            corrupted();
        }
        // SAFETY: the caller's contract.
        unsafe { self.give(chunk) };
        self.trim_excess(); // Stage 5.
    }

    fn header(&self, block: *mut u8) -> *mut usize {
        // Derived from `start`, because the caller's pointer may be valid for the block only.
        let start = self.start.cast::<usize>();
        start.with_addr(block.addr().wrapping_sub(WORD))
    }

    /// Returns a chunk of at least `len` bytes, from a free list or from the top chunk.
    fn take(&mut self, len: usize) -> Option<Chunk> {
        let Some(free) = self.find(len) else {
            let header = self.take_top(len)?;
            // SAFETY: the bytes were part of the top chunk, and the break is above them.
            return Some(unsafe { Chunk::new(header, len) });
        };
        // SAFETY: `find` returns a chunk of a list.
        let chunk = unsafe { self.remove(free) };
        // SAFETY: the chunk will be in use.
        unsafe { chunk.set(FREE, false) };
        // SAFETY: as above. Stage 5.
        unsafe { self.mark_next(chunk, false) };
        // SAFETY: nobody uses the chunk yet.
        unsafe { self.shrink(chunk, len) };
        Some(chunk)
    }

    /// Cuts `len` bytes off the top chunk, and moves the break up if necessary.
    fn take_top(&mut self, len: usize) -> Option<*mut usize> {
        let top = self.top;
        if len > self.end - top.addr() {
            return None;
        }
        let needed = top.addr() + len;
        if needed > self.brk {
            let start = self.start.addr();
            let brk = (needed - start).next_multiple_of(STEP) + start;
            let brk = brk.min(self.end);
            // SAFETY: this part of the reservation is above the break.
            unsafe { commit(self.start.with_addr(self.brk), brk - self.brk) }?;
            self.brk = brk;
        }
        self.top = top.wrapping_byte_add(len);
        Some(top)
    }

    /// Adds a chunk to the free memory of the heap.
    ///
    /// # Safety
    /// The chunk is in no list, and nobody uses its block.
    unsafe fn give(&mut self, chunk: Chunk) {
        // Stage 5: `None` if the chunk has become part of the top chunk.
        // SAFETY: the caller's contract.
        if let Some(chunk) = unsafe { self.coalesce(chunk) } {
            // SAFETY: the chunk is in no list, and has no free neighbour.
            unsafe { self.insert(chunk) };
        }
    }

    /// Frees the bytes beyond `len` if they are enough for a chunk.
    ///
    /// # Safety
    /// `len` is the length of a chunk and at most this one's. Nobody uses the bytes beyond it.
    unsafe fn shrink(&mut self, chunk: Chunk, len: usize) {
        if chunk.len() - len >= MIN {
            // SAFETY: the caller's contract.
            let rest = unsafe { chunk.split(len) };
            // SAFETY: as above.
            unsafe { self.give(rest) };
        }
    }

    /// Finds a free chunk of at least `len` bytes.
    fn find(&self, len: usize) -> Option<Free> {
        let bin = bin_of(len);
        let list = iter::successors(self.bins[bin], |chunk| chunk.links()[0]);
        let fits = |chunk: &Free| chunk.0.len() >= len;
        list.take(SEARCHED).find(fits).or_else(|| {
            // Every chunk of a later list is long enough.
            let later = self.filled & (!1 << bin);
            *self.bins.get(later.trailing_zeros() as usize)?
        })
    }

    /// # Safety
    /// The chunk is in this heap, and in no list.
    unsafe fn insert(&mut self, chunk: Free) {
        let bin = bin_of(chunk.0.len());
        let next = self.bins[bin].replace(chunk);
        self.filled |= 1 << bin;
        chunk.set_links(next, None);
        if let Some(next) = next {
            next.set_links(next.links()[0], Some(chunk));
        }
    }

    /// Takes a chunk out of its list.
    ///
    /// # Safety
    /// The chunk is in a list of this heap.
    unsafe fn remove(&mut self, chunk: Free) -> Chunk {
        let [next, previous] = chunk.links();
        // A link that does not lead back has been overwritten. Following it would spread the damage.
        if next.is_some_and(|next| next.links()[1] != Some(chunk))
            || previous.is_some_and(|previous| previous.links()[0] != Some(chunk))
        {
            corrupted();
        }
        if let Some(next) = next {
            next.set_links(next.links()[0], previous);
        }
        if let Some(previous) = previous {
            previous.set_links(next, previous.links()[1]);
        } else {
            let bin = bin_of(chunk.0.len());
            self.bins[bin] = next;
            if next.is_none() {
                self.filled &= !(1 << bin);
            }
        }
        chunk.0
    }
}

/// Returns the length of a chunk for a block of `size` bytes.
fn chunk_len(size: usize) -> usize {
    let rounded_up = (size + WORD + UNIT - 1) & !(UNIT - 1);
    rounded_up.max(MIN)
}

/// Returns the list for chunks of `len` bytes. Longer chunks are in the same list or in later ones.
fn bin_of(len: usize) -> usize {
    let units = len / UNIT;
    if units < EXACT {
        return units;
    }
    let power = units.ilog2();
    let quarter = (units >> (power - 2)) & 3;
    (EXACT + (power - EXACT.ilog2()) as usize * 4 + quarter).min(BINS - 1)
}

/// Maps private anonymous memory.
fn map_aligned(len: usize, align: usize, protection: libc::c_int) -> io::Result<*mut u8> {
    // mmap aligns to a page. For more, map a longer range and unmap both ends.
    let spare = align.saturating_sub(page_size());
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(ptr::null_mut(), len + spare, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = start.cast::<u8>();
    let before = start.align_offset(align);
    let block = start.wrapping_add(before);
    for (part, bytes) in [(start, before), (block.wrapping_add(len), spare - before)] {
        if bytes > 0 {
            // SAFETY: this part of the new mapping is not used.
            unsafe { libc::munmap(part.cast(), bytes) };
        }
    }
    Ok(block)
}

/// Unmaps pages. If munmap would have to split a mapping at the limit of vm.max_map_count, only their memory is freed, or
/// nothing if they are locked.
///
/// # Safety
/// The pages are mapped, and nobody uses them any more.
unsafe fn unmap_pages(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller's contract.
    if unsafe { libc::munmap(start.cast(), len) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() != io::ErrorKind::OutOfMemory {
        return Err(error);
    }
    // Fails if the pages are locked.
    // SAFETY: the caller's contract.
    unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
    Ok(())
}

/// Makes reserved memory readable and writable.
///
/// # Safety
/// The range is part of a reservation, and nobody uses it yet.
unsafe fn commit(start: *mut u8, len: usize) -> Option<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller's contract.
    (unsafe { libc::mprotect(start.cast(), len, protection) } == 0).then_some(())
}

fn whole_pages(size: usize) -> usize {
    size.next_multiple_of(page_size())
}

fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    if SIZE.load(Relaxed) == 0 {
        let Ok(Some(size)) = sysconf(SysconfVar::PAGE_SIZE) else {
            process::abort(); // Not a panic, because no method unwinds.
        };
        SIZE.store(size as usize, Relaxed);
    }
    SIZE.load(Relaxed)
}

// ---- Bonus stages ----

/// Stage 5: coalescing with boundary tags, and trimming.
///
/// The last word of a free chunk is its length, and a flag in the next header says that it is there. So a chunk finds
/// both neighbours. No two free chunks are adjacent, and none is adjacent to the top chunk.
mod merge {
    use super::*;

    /// Flag in a header: the previous chunk is free.
    const AFTER_FREE: usize = 2;

    impl ThresholdAlloc {
        /// Returns the free memory at the end of the heap to the kernel, after emptying this thread's cache (stage 9).
        pub fn trim(&self) {
            cache::empty(self);
            self.with_heap(|heap| heap.trim(0));
        }
    }

    impl Chunk {
        pub fn as_free(self) -> Option<Free> {
            // While a chunk is in use, the flag is not set.
            self.has(FREE).then_some(Free(self))
        }

        /// Returns the previous chunk if it is free.
        fn free_before(self) -> Option<Free> {
            if !self.has(AFTER_FREE) {
                return None;
            }
            let header = self.0.as_ptr();
            // SAFETY: the word before the header is the length of the previous chunk, because that is free.
            let len = unsafe { header.wrapping_sub(1).read() };
            // SAFETY: the previous chunk begins this many bytes earlier.
            Some(Free(unsafe { Chunk::at(header.wrapping_byte_sub(len)) }))
        }
    }

    impl Heap {
        /// Returns the next chunk; `None` if that is the top chunk.
        pub fn next(&self, chunk: Chunk) -> Option<Chunk> {
            let end = chunk.end();
            // SAFETY: below `top` each chunk begins where the previous one ends.
            (end != self.top).then(|| unsafe { Chunk::at(end) })
        }

        /// Records in the next chunk's header whether `chunk` is free.
        ///
        /// # Safety
        /// If `free` is true, the last word of `chunk` is its length.
        pub unsafe fn mark_next(&mut self, chunk: Chunk, free: bool) {
            if let Some(next) = self.next(chunk) {
                // SAFETY: the caller's contract.
                unsafe { next.set(AFTER_FREE, free) };
            }
        }

        /// Joins a chunk with its free neighbours. Returns `None` if it has joined the top chunk.
        ///
        /// # Safety
        /// The chunk is in no list, and nobody uses its block.
        pub unsafe fn coalesce(&mut self, mut chunk: Chunk) -> Option<Free> {
            // SAFETY: the caller's contract.
            unsafe { chunk.set(FREE, true) };
            if self.next(chunk).is_some_and(|next| next.has(AFTER_FREE)) {
                corrupted(); // It was free already.
            }
            if let Some(before) = chunk.free_before() {
                // SAFETY: every free chunk is in a list.
                let before = unsafe { self.remove(before) };
                // The header of the second chunk keeps its flag, so that a double free is detected.
                // SAFETY: both chunks are free and in no list.
                unsafe { before.set_len(before.len() + chunk.len()) };
                chunk = before;
            }
            let Some(next) = self.next(chunk) else {
                self.top = chunk.0.as_ptr();
                return None;
            };
            if let Some(next) = next.as_free() {
                // SAFETY: every free chunk is in a list.
                let next = unsafe { self.remove(next) };
                // SAFETY: both chunks are free and in no list.
                unsafe { chunk.set_len(chunk.len() + next.len()) };
            }
            let last = chunk.end().wrapping_sub(1);
            // SAFETY: it is the last word of the block, which nobody uses.
            unsafe { last.write(chunk.len()) };
            // SAFETY: the length was written just now.
            unsafe { self.mark_next(chunk, true) };
            // SAFETY: nobody uses the joined chunk.
            Some(unsafe { Free::new(chunk) })
        }

        /// Moves the break down if much more than `top_pad` bytes are free below it.
        pub fn trim_excess(&mut self) {
            if self.brk.saturating_sub(self.top.addr()) > self.top_pad + STEP {
                self.trim(self.top_pad);
            }
        }

        /// Moves the break down, and leaves `pad` bytes free below it.
        pub fn trim(&mut self, pad: usize) {
            if self.start.is_null() {
                return;
            }
            let start = self.start.addr();
            // If there is no chunk, `top` is one word into the heap, and no page is in use.
            let used = match self.top.addr() - start {
                WORD => 0,
                used => used,
            };
            let brk = start + (used + pad).next_multiple_of(page_size());
            if brk < self.brk {
                // SAFETY: this part of the reservation is above all chunks.
                let result = unsafe { decommit(self.start.with_addr(brk), self.brk - brk) };
                if result.is_ok() {
                    self.brk = brk;
                }
            }
        }
    }

    /// Turns memory into a mere reservation again. A new mapping returns both the pages and the commit charge.
    ///
    /// # Safety
    /// The range is part of a reservation, and nothing in it is used any more.
    unsafe fn decommit(start: *mut u8, len: usize) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the caller's contract: only unused memory is replaced.
        match unsafe { libc::mmap(start.cast(), len, libc::PROT_NONE, flags, -1, 0) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Stage 6: `realloc` with mremap, and `alloc_zeroed`.
mod resize {
    use super::*;

    impl ThresholdAlloc {
        /// Like `alloc`, but the block is filled with zeros.
        ///
        /// # Safety
        /// As for `alloc`.
        pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's contract.
            let block = unsafe { self.alloc(layout) };
            // A fresh mapping is zero-filled already. Writing to it would only make its pages resident.
            if !block.is_null() && self.in_heap(block) {
                // SAFETY: the block has this size, and is not shared yet.
                unsafe { block.write_bytes(0, layout.size()) };
            }
            block
        }

        /// Changes the size of a block. Alignment and contents are kept, up to the shorter of both sizes. The block may
        /// move. Returns null if there is no memory; the old block is still valid then.
        ///
        /// # Safety
        /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
        pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: the alignment comes from a layout, and the caller vouches for the size.
            let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
            let large = size >= self.threshold.load(Relaxed);
            let resized = match (self.in_heap(block), large) {
                // SAFETY: the caller's contract, and the block is mapped.
                (false, true) => return unsafe { self.remap(block, layout, wanted) },
                // SAFETY: the caller's contract, and the block is in the heap.
                (true, false) => self.with_heap(|heap| unsafe { heap.resize(block, size) }),
                // The block moves from the heap to a mapping, or back.
                _ => None,
            };
            if resized.is_some() {
                return block;
            }
            // SAFETY: the caller's contract.
            let copy = unsafe { self.alloc(wanted) };
            if !copy.is_null() {
                let kept = size.min(layout.size());
                // SAFETY: both blocks have at least this size, and do not overlap.
                unsafe { ptr::copy_nonoverlapping(block, copy, kept) };
                // SAFETY: the caller's contract.
                unsafe { self.dealloc(block, layout) };
            }
            copy
        }

        /// Resizes a mapped block. The kernel moves page-table entries and copies no data. Returns null on failure.
        ///
        /// # Safety
        /// `block` is a mapped block with this layout. If the result is not null, it replaces `block`.
        unsafe fn remap(&self, block: *mut u8, layout: Layout, wanted: Layout) -> *mut u8 {
            let (old, new) = (whole_pages(layout.size()), whole_pages(wanted.size()));
            let align = layout.align();
            let remap = |flags, place: *mut libc::c_void| {
                // SAFETY: the caller's contract; with MREMAP_FIXED, `place` is an unused mapping of `new` bytes.
                match unsafe { libc::mremap(block.cast(), old, new, flags, place) } {
                    libc::MAP_FAILED => Err(io::Error::last_os_error()),
                    moved => Ok(moved.cast::<u8>()),
                }
            };
            let moved = if align <= page_size() {
                remap(libc::MREMAP_MAYMOVE, ptr::null_mut())
            } else {
                // The kernel would move the block to any page, so it must be given an aligned place.
                remap(0, ptr::null_mut()).or_else(|_| {
                    let place = map_aligned(new, align, libc::PROT_NONE)?.cast();
                    remap(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, place).inspect_err(|_| {
                        // SAFETY: the place was mapped above, and is not used.
                        unsafe { libc::munmap(place, new) };
                    })
                })
            };
            if moved.is_ok() {
                self.mapped_bytes.fetch_add(new.wrapping_sub(old), Relaxed);
            }
            moved.unwrap_or(ptr::null_mut())
        }
    }

    impl Heap {
        /// Changes the size of a block without moving it. Returns `None` if there is no room.
        ///
        /// # Safety
        /// `block` is a block of this heap, and nobody uses its bytes beyond `size`.
        unsafe fn resize(&mut self, block: *mut u8, size: usize) -> Option<()> {
            // SAFETY: a block follows its header.
            let chunk = unsafe { Chunk::at(self.header(block)) };
            let len = chunk_len(size);
            if len > chunk.len() {
                if let Some(next) = self.next(chunk) {
                    let next = next.as_free()?;
                    let joined = chunk.len() + next.0.len();
                    if joined < len {
                        return None;
                    }
                    // SAFETY: every free chunk is in a list.
                    unsafe { self.remove(next) };
                    // SAFETY: the next chunk was free, and is in no list any more.
                    unsafe { chunk.set_len(joined) };
                    // SAFETY: the chunk is in use.
                    unsafe { self.mark_next(chunk, false) };
                } else {
                    self.take_top(len - chunk.len())?;
                    // SAFETY: the additional bytes belonged to the top chunk.
                    unsafe { chunk.set_len(len) };
                }
            }
            // SAFETY: the caller's contract.
            unsafe { self.shrink(chunk, len) };
            Some(())
        }
    }
}

/// Stage 7: `GlobalAlloc`, and heaps that stay usable in a forked child.
///
/// A fork waits until no other thread is inside an allocator, so the child's heaps are consistent and unlocked. Fork
/// handlers that were registered earlier run while `LOCK` is held, and must not allocate here.
mod global {
    use std::alloc::GlobalAlloc;

    use super::*;

    // SAFETY: a live block overlaps no other one, has the size and alignment of its layout, and no method unwinds.
    unsafe impl GlobalAlloc for ThresholdAlloc {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's contract is the same, and a global allocator is a `static`.
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
            // SAFETY: as for `alloc` and `dealloc`.
            unsafe { self.realloc(block, layout, size) }
        }
    }

    /// The lock while the process forks.
    struct Held(UnsafeCell<Option<MutexGuard<'static, ()>>>);

    // SAFETY: only the thread that holds `LOCK` accesses it.
    unsafe impl Sync for Held {}

    static HELD: Held = Held(UnsafeCell::new(None));

    /// Registers the fork handlers once. A child has only the thread that forked, so a lock that another thread held
    /// would stay locked in the child forever.
    pub fn register_fork_handlers(_locked: &MutexGuard<'static, ()>) {
        static REGISTERED: AtomicBool = AtomicBool::new(false);
        if !REGISTERED.load(Relaxed) {
            // SAFETY: the handlers are functions that can run around any fork.
            let result = unsafe {
                libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork))
            };
            REGISTERED.store(result == 0, Relaxed);
        }
    }

    extern "C" fn before_fork() {
        let guard = lock();
        // SAFETY: this thread holds the lock.
        unsafe { *HELD.0.get() = Some(guard) };
    }

    /// Runs in the parent and in the child.
    extern "C" fn after_fork() {
        // SAFETY: this thread has held the lock since `before_fork`. In the child it is the copy of that thread.
        drop(unsafe { (*HELD.0.get()).take() });
    }
}

/// Stage 8: a threshold that moves, like glibc's dynamic threshold.
mod moving {
    use super::*;

    /// glibc's DEFAULT_MMAP_THRESHOLD_MAX.
    const MAX: usize = 32 << 20;

    impl ThresholdAlloc {
        /// Turns the dynamic threshold on or off. It moves past the size of each mapped block that is freed, up to
        /// 32 MiB.
        pub fn set_moving_threshold(&self, on: bool) {
            self.moving.store(on, Relaxed);
        }

        /// Raises the threshold after a mapping of `len` bytes was freed. Blocks of that size then come from the heap,
        /// so trimming must leave enough memory for them.
        pub(super) fn move_threshold(&self, len: usize) {
            if self.moving.load(Relaxed) && len <= MAX {
                let before = self.threshold.fetch_max(len + 1, Relaxed);
                if before <= len {
                    self.with_heap(|heap| heap.top_pad = 2 * len);
                }
            }
        }
    }
}

/// Stage 9: a per-thread cache of small free blocks. A block from the cache needs no lock.
mod cache {
    use std::cell::Cell;

    use super::*;

    /// The longest chunk that is cached.
    const LONGEST: usize = 1 << 10;

    impl ThresholdAlloc {
        /// Sets how many bytes of small free blocks each thread may cache.
        pub fn set_thread_cache(&self, bytes: usize) {
            self.cache_limit.store(bytes, Relaxed);
        }
    }

    /// A list of unused blocks, as a pointer to the first.
    ///
    /// Invariant: each block begins with the pointer to the next, and nobody else uses it.
    struct List(Cell<*mut u8>);

    impl List {
        /// # Safety
        /// The block is long enough for a pointer, and is not used any more.
        unsafe fn push(&self, block: *mut u8) {
            // SAFETY: the caller's contract.
            unsafe { block.cast::<*mut u8>().write(self.0.get()) };
            self.0.set(block);
        }

        fn pop(&self) -> Option<*mut u8> {
            let block = self.0.get();
            if block.is_null() {
                return None;
            }
            // SAFETY: the invariant.
            self.0.set(unsafe { block.cast::<*mut u8>().read() });
            Some(block)
        }
    }

    /// Invariant: all blocks come from the heap of `owner`, and their chunks have the length of their list.
    struct Cache {
        /// The first allocator to which this thread has freed a block; null before that, and when the thread ends.
        owner: Cell<*const ThresholdAlloc>,
        bytes: Cell<usize>,
        /// One list for each chunk length, in units.
        lists: [List; LONGEST / UNIT + 1],
    }

    thread_local! {
        /// It has no destructor: otherwise each access would check whether that has run.
        static CACHE: Cache = const {
            Cache {
                owner: Cell::new(ptr::null()),
                bytes: Cell::new(0),
                lists: [const { List(Cell::new(ptr::null_mut())) }; LONGEST / UNIT + 1],
            }
        };
        static THREAD_END: ThreadEnd = const { ThreadEnd };
    }

    /// Returns the cached blocks to the heap when the thread ends.
    struct ThreadEnd;

    impl Drop for ThreadEnd {
        fn drop(&mut self) {
            CACHE.with(|cache| {
                // SAFETY: null, or an allocator that stays at its address until this thread has ended: see `alloc`.
                if let Some(owner) = unsafe { cache.owner.replace(ptr::null()).as_ref() } {
                    cache.empty(owner);
                }
            });
        }
    }

    impl Cache {
        /// Returns the chunk length for `layout` if such blocks of `allocator` are cached here.
        fn kept(&self, allocator: &ThresholdAlloc, layout: Layout) -> Option<usize> {
            if layout.size() > LONGEST - WORD || layout.align() > UNIT {
                return None;
            }
            ptr::eq(self.owner.get(), allocator).then(|| chunk_len(layout.size()))
        }

        /// Makes `allocator` the owner.
        #[inline(never)] // Keeps the path of cached blocks short.
        fn claim(&self, allocator: &ThresholdAlloc) {
            // The first access registers the destructor. A thread that is ending has no cache any more.
            let _ = THREAD_END.try_with(|_| self.owner.set(allocator));
        }

        /// Returns all blocks to the heap of `allocator`, from which they come.
        fn empty(&self, allocator: &ThresholdAlloc) {
            self.bytes.set(0);
            allocator.with_heap(|heap| {
                for list in &self.lists {
                    while let Some(block) = list.pop() {
                        // SAFETY: the invariants: it is an unused block of this heap.
                        unsafe { heap.dealloc(block) };
                    }
                }
            });
        }
    }

    /// Takes a block from this thread's cache.
    pub fn take(allocator: &ThresholdAlloc, layout: Layout) -> Option<*mut u8> {
        if allocator.cache_limit.load(Relaxed) == 0 {
            return None;
        }
        CACHE.with(|cache| {
            let len = cache.kept(allocator, layout)?;
            let block = cache.lists[len / UNIT].pop()?;
            cache.bytes.set(cache.bytes.get() - len);
            Some(block)
        })
    }

    /// Puts a block into this thread's cache. Returns whether there was room for it.
    ///
    /// # Safety
    /// `block` comes from the heap of `allocator` with this layout, and is not used any more.
    #[inline(always)]
    pub unsafe fn keep(allocator: &ThresholdAlloc, block: *mut u8, layout: Layout) -> bool {
        let limit = allocator.cache_limit.load(Relaxed);
        if limit == 0 {
            return false;
        }
        let keep = |cache: &Cache| {
            if cache.owner.get().is_null() {
                cache.claim(allocator);
            }
            let len = cache.kept(allocator, layout)?;
            let list = &cache.lists[len / UNIT];
            // Before the limit is checked: a block that has filled the cache may be freed twice, too.
            if list.0.get() == block {
                corrupted();
            }
            let bytes = cache.bytes.get() + len;
            if bytes > limit {
                return None;
            }
            // SAFETY: the caller's contract, and every block has room for a pointer.
            unsafe { list.push(block) };
            cache.bytes.set(bytes);
            Some(())
        };
        CACHE.with(keep).is_some()
    }

    /// Returns this thread's cached blocks to the heap.
    pub fn empty(allocator: &ThresholdAlloc) {
        CACHE.with(|cache| {
            if ptr::eq(cache.owner.get(), allocator) {
                cache.empty(allocator);
            }
        });
    }
}

/// Stage 10: malloc's interface for C.
///
/// `free` gets no layout, so a header in front of each block keeps it:
///
/// ```text
/// start                                block
/// | padding, for a larger alignment | Layout | the caller's bytes |
/// ```
///
/// `start` is a block of stages 1 to 9, and the `Layout` is that of the whole.
mod c_interface {
    use nix::errno::Errno;

    use super::*;

    /// malloc's alignment, which is enough for every fundamental type of C.
    const ALIGN: usize = align_of::<libc::max_align_t>();

    impl ThresholdAlloc {
        /// Like malloc(3). `malloc(0)` returns a block, too.
        pub fn malloc(&'static self, size: usize) -> *mut u8 {
            self.aligned_alloc(ALIGN, size)
        }

        /// Like aligned_alloc(3): `size` need not be a multiple of `align`.
        pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
            if !align.is_power_of_two() {
                return fail(Errno::EINVAL);
            }
            let Some(layout) = with_header(align.max(ALIGN), size) else {
                return fail(Errno::ENOMEM);
            };
            // SAFETY: the size is not zero, because of the header, and the allocator is a `static`.
            let start = unsafe { self.alloc(layout) };
            // SAFETY: null, or a block with this layout.
            unsafe { block_after(start, layout) }
        }

        /// Like calloc(3).
        pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
            let size = count.checked_mul(size);
            let Some(layout) = size.and_then(|size| with_header(ALIGN, size)) else {
                return fail(Errno::ENOMEM);
            };
            // SAFETY: as in `aligned_alloc`.
            let start = unsafe { self.alloc_zeroed(layout) };
            // SAFETY: as in `aligned_alloc`.
            unsafe { block_after(start, layout) }
        }

        /// Like reallocarray(3). `realloc(block, size)` is `reallocarray(block, 1, size)`. For a size of zero, it frees
        /// the block and returns null, as in glibc.
        ///
        /// # Safety
        /// `block` is null or a block of these functions. If the result is not null, or the size is zero, nobody uses
        /// `block` any more.
        pub unsafe fn reallocarray(
            &'static self,
            block: *mut u8,
            count: usize,
            size: usize,
        ) -> *mut u8 {
            let Some(size) = count.checked_mul(size) else {
                return fail(Errno::ENOMEM);
            };
            if block.is_null() {
                return self.malloc(size);
            }
            if size == 0 {
                // SAFETY: the caller's contract.
                unsafe { self.free(block) };
                return ptr::null_mut();
            }
            // SAFETY: the caller's contract.
            let old = unsafe { header(block) };
            let Some(new) = with_header(old.align(), size) else {
                return fail(Errno::ENOMEM);
            };
            let start = block.wrapping_sub(offset(old.align()));
            // SAFETY: the caller's contract, and `with_header` has checked the size. The header moves with the contents.
            let start = unsafe { self.realloc(start, old, new.size()) };
            // SAFETY: null, or a block with the new layout.
            unsafe { block_after(start, new) }
        }

        /// Like free(3): does nothing with null, and leaves errno as it is.
        ///
        /// # Safety
        /// `block` is null or a block of these functions, and nobody uses it any more.
        pub unsafe fn free(&self, block: *mut u8) {
            if block.is_null() {
                return;
            }
            let errno = Errno::last_raw();
            // SAFETY: the caller's contract.
            let layout = unsafe { header(block) };
            let start = block.wrapping_sub(offset(layout.align()));
            // SAFETY: the caller's contract, and the header is the layout.
            unsafe { self.dealloc(start, layout) };
            Errno::set_raw(errno);
        }

        /// Like malloc_usable_size(3): the number of bytes that the caller may use, at least the size; 0 for null.
        ///
        /// # Safety
        /// `block` is null or a block of these functions that is in use.
        pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
            if block.is_null() {
                return 0;
            }
            // SAFETY: the caller's contract.
            let layout = unsafe { header(block) };
            layout.size() - offset(layout.align())
        }
    }

    /// Returns how far a block is from its start: far enough for the header, and a multiple of the alignment.
    fn offset(align: usize) -> usize {
        size_of::<Layout>().next_multiple_of(align)
    }

    /// Returns `None` if the size overflows.
    fn with_header(align: usize, size: usize) -> Option<Layout> {
        let size = size.checked_add(offset(align))?;
        Layout::from_size_align(size, align).ok()
    }

    /// Writes the header, and returns the block after it. If `start` is null, fails with ENOMEM.
    ///
    /// # Safety
    /// `start` is null or a block with this layout.
    unsafe fn block_after(start: *mut u8, layout: Layout) -> *mut u8 {
        if start.is_null() {
            return fail(Errno::ENOMEM);
        }
        let block = start.wrapping_add(offset(layout.align()));
        // SAFETY: the offset leaves room for the header, and is a multiple of its alignment.
        unsafe { block.cast::<Layout>().wrapping_sub(1).write(layout) };
        block
    }

    /// # Safety
    /// `block` is a block of these functions that is in use.
    unsafe fn header(block: *mut u8) -> Layout {
        // SAFETY: `block_after` has written it.
        unsafe { block.cast::<Layout>().wrapping_sub(1).read() }
    }

    fn fail(error: Errno) -> *mut u8 {
        error.set();
        ptr::null_mut()
    }
}
