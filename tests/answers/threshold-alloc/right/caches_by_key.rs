//! Boundary tags, with a thread cache that pthread_getspecific finds and a spin lock that yields. All stages.

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};

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

// ---------------------------------------------------------------------------------------------------------------
// The lock of all allocators, and fork.

static LOCK: AtomicU32 = AtomicU32::new(0);
static REGISTERED: AtomicBool = AtomicBool::new(false);
static FORK_OWNER: AtomicUsize = AtomicUsize::new(0);
static FORK_DEPTH: AtomicUsize = AtomicUsize::new(0);

fn raw_lock() {
    for _ in 0..100 {
        if LOCK.compare_exchange_weak(0, 1, Acquire, Relaxed).is_ok() {
            return;
        }
        std::hint::spin_loop();
    }
    while LOCK.compare_exchange_weak(0, 1, Acquire, Relaxed).is_err() {
        // SAFETY: always succeeds.
        unsafe { libc::sched_yield() };
    }
}

fn raw_unlock() {
    LOCK.store(0, Release);
}

fn me() -> usize {
    // SAFETY: always succeeds.
    unsafe { libc::pthread_self() as usize }
}

// Two threads may both have registered the handlers, so they count.
extern "C" fn prepare() {
    if FORK_OWNER.load(Relaxed) == me() {
        FORK_DEPTH.fetch_add(1, Relaxed);
        return;
    }
    raw_lock();
    FORK_OWNER.store(me(), Relaxed);
    FORK_DEPTH.store(1, Relaxed);
}

extern "C" fn parent() {
    if FORK_DEPTH.fetch_sub(1, Relaxed) == 1 {
        FORK_OWNER.store(0, Relaxed);
        raw_unlock();
    }
}

extern "C" fn child() {
    if FORK_DEPTH.fetch_sub(1, Relaxed) == 1 {
        FORK_OWNER.store(0, Relaxed);
        LOCK.store(0, Release);
    }
}

struct Guard;

fn lock() -> Guard {
    if !REGISTERED.load(Acquire) {
        // SAFETY: the handlers are functions of this crate.
        if unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } == 0 {
            REGISTERED.store(true, Release);
        }
    }
    raw_lock();
    Guard
}

impl Drop for Guard {
    fn drop(&mut self) {
        raw_unlock();
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Pages.

fn page_size() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    let known = PAGE.load(Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: no memory is involved.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    PAGE.store(page, Relaxed);
    page
}

fn up(n: usize, to: usize) -> Option<usize> {
    Some(n.checked_add(to - 1)? & !(to - 1))
}

fn sys_map(len: usize, prot: i32) -> Option<usize> {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            prot,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    (at != libc::MAP_FAILED).then_some(at as usize)
}

/// # Safety
/// Nobody uses the range.
unsafe fn sys_unmap(at: usize, len: usize) -> bool {
    // SAFETY: as above.
    len == 0 || unsafe { libc::munmap(at as *mut _, len) } == 0
}

/// Maps whole pages for `size` bytes at a multiple of `align`. Returns the address and the length.
fn map_aligned(size: usize, align: usize, prot: i32) -> Option<(usize, usize)> {
    let page = page_size();
    let len = up(size, page)?;
    if align <= page {
        return Some((sys_map(len, prot)?, len));
    }
    let total = len.checked_add(align - page)?;
    let at = sys_map(total, prot)?;
    let aligned = (at + align - 1) & !(align - 1);
    // SAFETY: the margins are part of the new mapping.
    unsafe { sys_unmap(at, aligned - at) };
    // SAFETY: as above.
    unsafe { sys_unmap(aligned + len, at + total - aligned - len) };
    Some((aligned, len))
}

// ---------------------------------------------------------------------------------------------------------------
// The heap. A chunk is a header of 8 bytes (its size, and flags), and the block. The last 8 bytes of a free chunk
// repeat the size. Chunks start 8 bytes before a multiple of 16.

const USED: usize = 1;
const PREV_FREE: usize = 2;
const CACHED: usize = 4;
const FLAGS: usize = 15;
const MIN: usize = 32;
const BINS: usize = 384;
const STEP: usize = 128 << 10;
const SLACK: usize = 1 << 20;

/// # Safety
/// `at` is a chunk of the heap.
unsafe fn head<'a>(at: usize) -> &'a AtomicUsize {
    // SAFETY: headers are aligned, and only accessed atomically.
    unsafe { AtomicUsize::from_ptr(at as *mut usize) }
}

/// # Safety
/// `at` is in free memory of the heap.
unsafe fn get(at: usize) -> usize {
    // SAFETY: as above.
    unsafe { (at as *const usize).read() }
}

/// # Safety
/// `at` is in free memory of the heap.
unsafe fn put(at: usize, value: usize) {
    // SAFETY: as above.
    unsafe { (at as *mut usize).write(value) }
}

fn bin_of(size: usize) -> usize {
    if size < 1024 {
        return size / 16;
    }
    let log = size.ilog2() as usize;
    64 + (log - 10) * 8 + ((size >> (log - 3)) & 7)
}

fn chunk_size(size: usize) -> Option<usize> {
    Some(up(size.checked_add(8)?, 16)?.max(MIN))
}

enum NoHeap {
    Full,
    Failed,
}

struct Heap {
    top: usize,
    fresh: usize,
    heads: [usize; BINS],
    bits: [u64; BINS / 64],
    max_maps: usize,
    blocks: usize,
    bytes: usize,
    moving: bool,
    moved: usize,
}

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
pub struct ThresholdAlloc {
    reserve: usize,
    threshold: AtomicUsize,
    cache: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    brk: AtomicUsize,
    heap: UnsafeCell<Heap>,
}

// SAFETY: the heap is only used with the lock.
unsafe impl Sync for ThresholdAlloc {}

impl Heap {
    unsafe fn link(&mut self, at: usize, size: usize) {
        let bin = bin_of(size);
        let next = self.heads[bin];
        unsafe {
            put(at + 8, next);
            put(at + 16, 0);
            put(at + size - 8, size);
        }
        if next != 0 {
            unsafe { put(next + 16, at) };
        }
        self.heads[bin] = at;
        self.bits[bin / 64] |= 1 << (bin % 64);
    }

    unsafe fn unlink(&mut self, at: usize, size: usize) {
        let bin = bin_of(size);
        let (next, prev) = unsafe { (get(at + 8), get(at + 16)) };
        if next != 0 {
            unsafe { put(next + 16, prev) };
        }
        if prev != 0 {
            unsafe { put(prev + 8, next) };
        } else {
            self.heads[bin] = next;
            if next == 0 {
                self.bits[bin / 64] &= !(1 << (bin % 64));
            }
        }
    }

    fn next_bin(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = *self.bits.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.bits.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// Where in the free memory at `at` a block with this alignment starts: its chunk.
    fn place(at: usize, align: usize) -> Option<usize> {
        if (at + 8) & (align - 1) == 0 {
            return Some(at);
        }
        Some(up(at + 8 + MIN, align)? - 8)
    }

    /// Makes `[at, at + size)` free: it has no free neighbours.
    unsafe fn release(&mut self, at: usize, size: usize) {
        unsafe {
            head(at).store(size, Relaxed);
            head(at + size).fetch_or(PREV_FREE, Relaxed);
            self.link(at, size);
        }
    }
}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            reserve: config.reserve,
            threshold: AtomicUsize::new(config.threshold),
            cache: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            brk: AtomicUsize::new(0),
            heap: UnsafeCell::new(Heap {
                top: 0,
                fresh: 0,
                heads: [0; BINS],
                bits: [0; BINS / 64],
                max_maps: config.max_maps,
                blocks: 0,
                bytes: 0,
                moving: false,
                moved: 0,
            }),
        }
    }

    #[allow(clippy::mut_from_ref)]
    fn heap<'a>(&'a self, _: &'a Guard) -> &'a mut Heap {
        // SAFETY: the caller holds the lock, and no function calls this twice.
        unsafe { &mut *self.heap.get() }
    }

    fn in_heap(&self, at: usize) -> bool {
        let start = self.start.load(Relaxed);
        start != 0 && start <= at && at < self.end.load(Relaxed)
    }

    // ----- the break

    fn reserve(&self, heap: &mut Heap) -> bool {
        if self.start.load(Relaxed) != 0 {
            return true;
        }
        let page = page_size();
        let mut len = up(self.reserve, page).unwrap_or(self.reserve & !(page - 1));
        while len >= page {
            if let Some(at) = sys_map(len, libc::PROT_NONE) {
                heap.top = at + 8;
                heap.fresh = at;
                self.brk.store(at, Relaxed);
                self.end.store(at + len, Relaxed);
                self.start.store(at, Relaxed);
                return true;
            }
            len = (len / 2) & !(page - 1);
        }
        false
    }

    /// Makes the heap accessible up to `need`.
    fn grow(&self, need: usize) -> Result<(), NoHeap> {
        let (brk, end) = (self.brk.load(Relaxed), self.end.load(Relaxed));
        if need <= brk {
            return Ok(());
        }
        if need > end {
            return Err(NoHeap::Full);
        }
        let want = up(need.max(brk + STEP), page_size())
            .unwrap_or(end)
            .min(end);
        // SAFETY: the range is part of the reservation, and nobody uses it.
        let done = unsafe {
            libc::mprotect(
                brk as *mut _,
                want - brk,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        };
        if done != 0 {
            return Err(NoHeap::Failed);
        }
        self.brk.store(want, Relaxed);
        Ok(())
    }

    /// Returns all but `keep` bytes at the end of the heap to the kernel.
    fn shrink(&self, heap: &mut Heap, keep: usize) {
        let (start, brk) = (self.start.load(Relaxed), self.brk.load(Relaxed));
        if start == 0 {
            return;
        }
        let used = if heap.top == start + 8 {
            start
        } else {
            heap.top
        };
        let Some(to) = up(used + keep, page_size()) else {
            return;
        };
        if to >= brk {
            return;
        }
        // SAFETY: the memory is free.
        if unsafe { libc::madvise(to as *mut _, brk - to, libc::MADV_DONTNEED) } != 0 {
            return;
        }
        heap.fresh = heap.fresh.min(to);
        // SAFETY: as above.
        if unsafe { libc::mprotect(to as *mut _, brk - to, libc::PROT_NONE) } == 0 {
            self.brk.store(to, Relaxed);
        }
    }

    // ----- blocks of the heap

    fn heap_alloc(&self, heap: &mut Heap, layout: Layout, zero: bool) -> Result<usize, NoHeap> {
        let need = chunk_size(layout.size()).ok_or(NoHeap::Full)?;
        let align = layout.align().max(16);
        if !self.reserve(heap) {
            return Err(NoHeap::Full);
        }
        let mut bin = heap.next_bin(bin_of(need));
        while let Some(b) = bin {
            let mut at = heap.heads[b];
            for _ in 0..64 {
                if at == 0 {
                    break;
                }
                // SAFETY: a free chunk.
                let size = unsafe { head(at) }.load(Relaxed) & !FLAGS;
                if let Some(place) = Heap::place(at, align)
                    && place + need <= at + size
                {
                    // SAFETY: as above.
                    unsafe { self.take(heap, at, size, place, need) };
                    if zero {
                        // SAFETY: the block is new, and all of it is accessible.
                        unsafe { ptr::write_bytes((place + 8) as *mut u8, 0, layout.size()) };
                    }
                    return Ok(place + 8);
                }
                // SAFETY: as above.
                at = unsafe { get(at + 8) };
            }
            bin = heap.next_bin(b + 1);
        }
        // From the memory behind the last chunk.
        let at = heap.top;
        let place = Heap::place(at, align).ok_or(NoHeap::Full)?;
        let end = place.checked_add(need).ok_or(NoHeap::Full)?;
        self.grow(end)?;
        // SAFETY: the memory is free and accessible. The chunk before it is used.
        unsafe { head(place) }.store(need | USED, Relaxed);
        heap.top = end;
        if place != at {
            // SAFETY: as above.
            unsafe { heap.release(at, place - at) };
        }
        if zero {
            let dirty = heap.fresh.min(place + 8 + layout.size());
            if dirty > place + 8 {
                // SAFETY: the block is new.
                unsafe { ptr::write_bytes((place + 8) as *mut u8, 0, dirty - place - 8) };
            }
        }
        heap.fresh = heap.fresh.max(end);
        Ok(place + 8)
    }

    /// Takes a used chunk of `need` bytes at `place` out of the free chunk at `at`.
    unsafe fn take(&self, heap: &mut Heap, at: usize, size: usize, place: usize, need: usize) {
        unsafe { heap.unlink(at, size) };
        let end = at + size;
        let mut flags = USED;
        if place != at {
            flags |= PREV_FREE;
        }
        let rest = end - place - need;
        let need = if rest < MIN { need + rest } else { need };
        unsafe {
            head(place).store(need | flags, Relaxed);
            head(end).fetch_and(!PREV_FREE, Relaxed);
        }
        if rest >= MIN {
            unsafe { heap.release(place + need, rest) };
        }
        if place != at {
            unsafe {
                head(at).store(place - at, Relaxed);
                heap.link(at, place - at);
            }
        }
    }

    /// Checks that the block is in use, and returns its chunk and the size of it.
    unsafe fn check(&self, block: usize) -> (usize, usize) {
        if block >= self.brk.load(Relaxed) {
            std::process::abort();
        }
        let at = block - 8;
        let word = unsafe { head(at) }.load(Relaxed);
        if word & (USED | CACHED) != USED {
            std::process::abort();
        }
        (at, word & !FLAGS)
    }

    unsafe fn heap_free(&self, heap: &mut Heap, block: usize) {
        let (mut at, mut size) = unsafe { self.check(block) };
        let word = unsafe { head(at) }.fetch_and(!USED, Relaxed);
        let end = at + size;
        if word & PREV_FREE != 0 {
            let before = unsafe { get(at - 8) };
            unsafe { heap.unlink(at - before, before) };
            at -= before;
            size += before;
        }
        if end == heap.top {
            heap.top = at;
            let free = self.brk.load(Relaxed) - at;
            if free > SLACK.max(heap.moved * 2) + STEP {
                self.shrink(heap, STEP);
            }
            return;
        }
        let next = unsafe { head(end) }.load(Relaxed);
        if next & USED == 0 {
            let after = next & !FLAGS;
            unsafe { heap.unlink(end, after) };
            size += after;
        }
        unsafe { heap.release(at, size) };
    }

    /// Changes the size of a block where it is.
    unsafe fn heap_resize(&self, heap: &mut Heap, block: usize, size: usize) -> bool {
        let (at, old) = unsafe { self.check(block) };
        let Some(need) = chunk_size(size) else {
            return false;
        };
        let mut have = old;
        let end = at + old;
        if need > old {
            if end == heap.top {
                let Some(new) = at.checked_add(need) else {
                    return false;
                };
                if self.grow(new).is_err() {
                    return false;
                }
                unsafe { head(at) }.fetch_add(need - old, Relaxed);
                heap.top = new;
                heap.fresh = heap.fresh.max(new);
                return true;
            }
            let next = unsafe { head(end) }.load(Relaxed);
            let after = next & !FLAGS;
            if next & USED != 0 || old + after < need {
                return false;
            }
            unsafe {
                heap.unlink(end, after);
                head(end + after).fetch_and(!PREV_FREE, Relaxed);
                head(at).fetch_add(after, Relaxed);
            }
            have = old + after;
        }
        if have - need >= MIN {
            let rest = at + need;
            unsafe {
                head(at).fetch_sub(have - need, Relaxed);
                head(rest).store((have - need) | USED, Relaxed);
                self.heap_free(heap, rest + 8);
            }
        }
        true
    }

    // ----- mapped blocks

    fn map_block(&self, heap: &mut Heap, layout: Layout) -> Option<usize> {
        if heap.blocks >= heap.max_maps {
            return None;
        }
        let (at, len) = map_aligned(
            layout.size(),
            layout.align(),
            libc::PROT_READ | libc::PROT_WRITE,
        )?;
        heap.blocks += 1;
        heap.bytes += len;
        Some(at)
    }

    unsafe fn unmap_block(&self, heap: &mut Heap, block: usize, layout: Layout) {
        let len = up(layout.size(), page_size()).unwrap_or(layout.size());
        unsafe { sys_unmap(block, len) };
        heap.blocks -= 1;
        heap.bytes -= len;
        if heap.moving && layout.size() <= 32 << 20 && layout.size() >= self.threshold.load(Relaxed)
        {
            self.threshold.store(layout.size() + 1, Relaxed);
            heap.moved = layout.size();
        }
    }

    unsafe fn remap_block(
        &self,
        heap: &mut Heap,
        block: usize,
        layout: Layout,
        size: usize,
    ) -> Option<usize> {
        let page = page_size();
        let (old, new) = (up(layout.size(), page)?, up(size, page)?);
        let mut at = block;
        if old != new {
            let fits = layout.align() <= page;
            let flags = if fits { libc::MREMAP_MAYMOVE } else { 0 };
            let moved = unsafe { libc::mremap(block as *mut _, old, new, flags) };
            if moved != libc::MAP_FAILED {
                at = moved as usize;
            } else if fits || new < old {
                return None;
            } else {
                let (to, _) = map_aligned(size, layout.align(), libc::PROT_NONE)?;
                let moved = unsafe {
                    libc::mremap(
                        block as *mut _,
                        old,
                        new,
                        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                        to as *mut libc::c_void,
                    )
                };
                if moved == libc::MAP_FAILED {
                    unsafe { sys_unmap(to, new) };
                    return None;
                }
                at = to;
            }
        }
        heap.bytes = heap.bytes - old + new;
        Some(at)
    }

    // ----- both

    fn allocate(&self, layout: Layout, zero: bool) -> *mut u8 {
        let large = layout.size() >= self.threshold.load(Relaxed);
        if !large && let Some(block) = self.cached(layout) {
            if zero {
                // SAFETY: the block has at least this size.
                unsafe { ptr::write_bytes(block as *mut u8, 0, layout.size()) };
            }
            return block as *mut u8;
        }
        let guard = lock();
        let heap = self.heap(&guard);
        if large && let Some(block) = self.map_block(heap, layout) {
            return block as *mut u8;
        }
        match self.heap_alloc(heap, layout, zero) {
            Ok(block) => block as *mut u8,
            Err(NoHeap::Full) if !large => self
                .map_block(heap, layout)
                .map_or(ptr::null_mut(), |block| block as *mut u8),
            Err(_) => ptr::null_mut(),
        }
    }

    /// Stages 1, 2 and 4: allocates a block with this size and alignment.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, false)
    }

    /// Stages 1 and 3: frees a block.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let at = block as usize;
        if self.in_heap(at) {
            if unsafe { self.to_cache(at) } {
                return;
            }
            let guard = lock();
            unsafe { self.heap_free(self.heap(&guard), at) };
        } else {
            let guard = lock();
            unsafe { self.unmap_block(self.heap(&guard), at, layout) };
        }
    }

    /// Stage 2: returns the accessible part of the heap.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let _guard = lock();
        let start = self.start.load(Relaxed);
        (start != 0).then(|| start..self.brk.load(Relaxed))
    }

    /// Stage 4: sets the threshold.
    pub fn set_threshold(&self, bytes: usize) {
        let guard = lock();
        let heap = self.heap(&guard);
        heap.moving = false;
        heap.moved = 0;
        self.threshold.store(bytes, Relaxed);
    }

    /// Stage 4: sets the cap on mapped blocks.
    pub fn set_max_maps(&self, blocks: usize) {
        let guard = lock();
        self.heap(&guard).max_maps = blocks;
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        let guard = lock();
        let heap = self.heap(&guard);
        Stats {
            mapped_blocks: heap.blocks,
            mapped_bytes: heap.bytes,
            threshold: self.threshold.load(Relaxed),
        }
    }

    /// Stage 5: returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        if let Some(cache) = my_cache(false) {
            cache.flush(self as *const _ as usize);
        }
        let guard = lock();
        self.shrink(self.heap(&guard), 0);
    }

    /// Stage 6: like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, true)
    }

    /// Stage 6: changes the size of a block.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let at = block as usize;
        let large = size >= self.threshold.load(Relaxed);
        let in_heap = self.in_heap(at);
        if in_heap && (!large || size <= layout.size()) {
            let guard = lock();
            if unsafe { self.heap_resize(self.heap(&guard), at, size) } {
                return block;
            }
        }
        if !in_heap && large {
            let guard = lock();
            return unsafe { self.remap_block(self.heap(&guard), at, layout, size) }
                .map_or(ptr::null_mut(), |block| block as *mut u8);
        }
        let Ok(new_layout) = Layout::from_size_align(size, layout.align()) else {
            return ptr::null_mut();
        };
        let new = self.allocate(new_layout, false);
        if !new.is_null() {
            unsafe { ptr::copy_nonoverlapping(block, new, size.min(layout.size())) };
            unsafe { self.dealloc(block, layout) };
        }
        new
    }

    /// Stage 8: turns a dynamic threshold on or off.
    pub fn set_moving_threshold(&self, on: bool) {
        let guard = lock();
        self.heap(&guard).moving = on;
    }

    /// Stage 9: sets how many bytes of small blocks each thread may cache.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.cache.store(bytes, Relaxed);
    }

    // ----- the cache of this thread

    fn cached(&self, layout: Layout) -> Option<usize> {
        if self.cache.load(Relaxed) == 0 {
            return None;
        }
        let need = chunk_size(layout.size())?;
        let cache = my_cache(false)?;
        let owner = self as *const _ as usize;
        let taken = cache.entries[..cache.len].iter().rposition(|entry| {
            entry.owner == owner
                && entry.size >= need
                && entry.size <= need + need / 4
                && entry.block & (layout.align() - 1) == 0
        })?;
        cache.len -= 1;
        let entry = cache.entries[taken];
        cache.entries[taken] = cache.entries[cache.len];
        unsafe { head(entry.block - 8) }.fetch_and(!CACHED, Relaxed);
        Some(entry.block)
    }

    unsafe fn to_cache(&self, block: usize) -> bool {
        let limit = self.cache.load(Relaxed);
        let (at, size) = unsafe { self.check(block) };
        if size > limit {
            return false;
        }
        let owner = self as *const _ as usize;
        let Some(cache) = my_cache(true) else {
            return false;
        };
        let entries = &cache.entries[..cache.len];
        let bytes: usize = entries
            .iter()
            .filter(|entry| entry.owner == owner)
            .map(|entry| entry.size)
            .sum();
        if bytes + size > limit || cache.len == ENTRIES {
            return false;
        }
        unsafe { head(at) }.fetch_or(CACHED, Relaxed);
        cache.entries[cache.len] = Entry { owner, block, size };
        cache.len += 1;
        true
    }

    // ----- C

    fn c_alloc(&self, align: usize, size: usize, zero: bool) -> *mut u8 {
        let align = align.max(16);
        let Some(layout) = up(size.max(1), 16)
            .and_then(|size| size.checked_add(align))
            .and_then(|total| Layout::from_size_align(total, align).ok())
        else {
            return no_memory();
        };
        let base = self.allocate(layout, zero);
        if base.is_null() {
            return no_memory();
        }
        // SAFETY: the block has `align` bytes in front of what the program gets.
        let block = unsafe { base.add(align) };
        unsafe { set_layout(block, layout) };
        block
    }

    /// Stage 10: like malloc(3).
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        self.c_alloc(16, size, false)
    }

    /// Stage 10: like calloc(3).
    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        match count.checked_mul(size) {
            Some(total) => self.c_alloc(16, total, true),
            None => no_memory(),
        }
    }

    /// Stage 10: like aligned_alloc(3), for any size.
    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            set_errno(libc::EINVAL);
            return ptr::null_mut();
        }
        self.c_alloc(align, size, false)
    }

    /// Stage 10: like reallocarray(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        let Some(total) = count.checked_mul(size) else {
            return no_memory();
        };
        if block.is_null() {
            return self.malloc(total);
        }
        let layout = unsafe { layout_of(block) };
        let align = layout.align();
        let Some(new) = up(total.max(1), 16)
            .and_then(|size| size.checked_add(align))
            .and_then(|total| Layout::from_size_align(total, align).ok())
        else {
            return no_memory();
        };
        let base = unsafe { self.realloc(block.sub(align), layout, new.size()) };
        if base.is_null() {
            return no_memory();
        }
        let block = unsafe { base.add(align) };
        unsafe { set_layout(block, new) };
        block
    }

    /// Stage 10: like free(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that nobody uses any more.
    pub unsafe fn free(&self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        let errno = errno();
        let layout = unsafe { layout_of(block) };
        unsafe { self.dealloc(block.sub(layout.align()), layout) };
        set_errno(errno);
    }

    /// Stage 10: like malloc_usable_size(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that is live.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        let layout = unsafe { layout_of(block) };
        layout.size() - layout.align()
    }
}

fn errno() -> i32 {
    // SAFETY: each thread has an errno.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value }
}

fn no_memory() -> *mut u8 {
    set_errno(libc::ENOMEM);
    ptr::null_mut()
}

unsafe fn set_layout(block: *mut u8, layout: Layout) {
    unsafe {
        block.cast::<usize>().sub(2).write(layout.size());
        block.cast::<usize>().sub(1).write(layout.align());
    }
}

unsafe fn layout_of(block: *mut u8) -> Layout {
    unsafe {
        let size = block.cast::<usize>().sub(2).read();
        let align = block.cast::<usize>().sub(1).read();
        Layout::from_size_align(size, align).unwrap_or_else(|_| std::process::abort())
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The cache of a thread, for all allocators, in a mapping that a key leads to.

const ENTRIES: usize = 500;

#[derive(Clone, Copy)]
struct Entry {
    owner: usize,
    block: usize,
    size: usize,
}

struct Cache {
    len: usize,
    entries: [Entry; ENTRIES],
}

static KEY: AtomicUsize = AtomicUsize::new(0);

fn my_cache<'a>(make: bool) -> Option<&'a mut Cache> {
    let mut key = KEY.load(Acquire);
    if key == 0 {
        if !make {
            return None;
        }
        let mut new = 0;
        // SAFETY: the destructor is a function of this crate.
        if unsafe { libc::pthread_key_create(&mut new, Some(end_of_thread)) } != 0 {
            return None;
        }
        key = match KEY.compare_exchange(0, new as usize + 1, AcqRel, Acquire) {
            Ok(_) => new as usize + 1,
            Err(other) => {
                // SAFETY: nobody else has the key.
                unsafe { libc::pthread_key_delete(new) };
                other
            }
        };
    }
    let key = (key - 1) as libc::pthread_key_t;
    // SAFETY: the key exists.
    let mut cache = unsafe { libc::pthread_getspecific(key) } as *mut Cache;
    if cache.is_null() {
        if !make {
            return None;
        }
        let len = up(size_of::<Cache>(), page_size())?;
        let at = sys_map(len, libc::PROT_READ | libc::PROT_WRITE)?;
        cache = at as *mut Cache;
        // SAFETY: as above.
        if unsafe { libc::pthread_setspecific(key, cache.cast()) } != 0 {
            // SAFETY: the mapping is new.
            unsafe { sys_unmap(at, len) };
            return None;
        }
    }
    // SAFETY: the cache belongs to this thread, and no function that has it calls this one.
    Some(unsafe { &mut *cache })
}

unsafe extern "C" fn end_of_thread(cache: *mut libc::c_void) {
    // SAFETY: the key's value is a cache.
    unsafe { &mut *(cache as *mut Cache) }.flush(0);
    if let Some(len) = up(size_of::<Cache>(), page_size()) {
        // SAFETY: the thread has no cache any more.
        unsafe { sys_unmap(cache as usize, len) };
    }
}

impl Cache {
    /// Returns the blocks of one allocator, or of all, to their heaps.
    fn flush(&mut self, only: usize) {
        let mut kept = 0;
        for n in 0..self.len {
            let entry = self.entries[n];
            if only != 0 && entry.owner != only {
                self.entries[kept] = entry;
                kept += 1;
                continue;
            }
            // SAFETY: the allocator outlives the threads that have used it.
            let owner = unsafe { &*(entry.owner as *const ThresholdAlloc) };
            let guard = lock();
            unsafe {
                head(entry.block - 8).fetch_and(!CACHED, Relaxed);
                owner.heap_free(owner.heap(&guard), entry.block);
            }
        }
        self.len = kept;
    }
}

// SAFETY: blocks do not overlap, no method unwinds, and the lock is held during a fork.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, false)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { ThresholdAlloc::dealloc(self, block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout, true)
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { ThresholdAlloc::realloc(self, block, layout, size) }
    }
}
