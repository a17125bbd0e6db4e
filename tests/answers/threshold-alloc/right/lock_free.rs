//! No lock: stacks of free blocks with counters against ABA, and a break that one compare-and-exchange moves after mprotect.
//! A fork needs no preparation. Stages 1 to 4, 7 and 8.

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

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
    reserve: usize,
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    moving: AtomicBool,
    blocks: AtomicUsize,
    bytes: AtomicUsize,
    /// Start and length of the reservation in one word, so that both appear at the same time.
    heap: AtomicU64,
    /// Offset of the first byte that was never part of a block.
    top: AtomicUsize,
    /// Offset of the break.
    brk: AtomicUsize,
    /// Stacks of free blocks, by alignment and size class. The upper half counts pops (against ABA), the lower half is
    /// the block's offset in units of 16 bytes.
    stacks: [[AtomicU64; SIZES]; ALIGNS],
}

/// In front of each block of the heap. The owner of a block never sees it, so that a thread may read the header of a
/// block that another thread has just popped.
#[repr(C, align(16))]
struct Header {
    next: AtomicU32,
    state: AtomicU32,
}

const HEADER: usize = size_of::<Header>();
const UNIT: usize = 16;
const LIVE: u32 = 0x4c49_5645;
const FREE: u32 = 0x4652_4545;

const STEP: usize = 128 << 10;
/// Offsets in units of 16 bytes have 32 bits.
const LARGEST_HEAP: usize = 64 << 30;
const SIZES: usize = 160;
const ALIGNS: usize = 33;

#[derive(Clone, Copy)]
struct Heap {
    start: usize,
    len: usize,
}

/// The heap's start has at most 47 bits of pages, its length at most 2^24 pages.
fn pack(heap: Heap) -> u64 {
    ((heap.start >> 12) as u64) << 25 | (heap.len >> 12) as u64
}

fn unpack(word: u64) -> Option<Heap> {
    (word != 0).then_some(Heap {
        start: ((word >> 25) as usize) << 12,
        len: ((word & 0x1ff_ffff) as usize) << 12,
    })
}

/// Four classes for each power of two, of 16 bytes at least.
fn size_class(size: usize) -> (usize, usize) {
    let units = size.div_ceil(UNIT).max(1);
    if units <= 8 {
        return (units - 1, units * UNIT);
    }
    let shift = (units - 1).ilog2() - 2;
    let quarter = (units - 1) >> shift;
    let class = 8 + (shift as usize - 1) * 4 + quarter - 4;
    (class, ((quarter + 1) << shift) * UNIT)
}

fn page_size() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    match PAGE.load(Relaxed) {
        0 => {
            // SAFETY: sysconf has no preconditions.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            PAGE.store(page, Relaxed);
            page
        }
        page => page,
    }
}

fn round_up(n: usize, to: usize) -> Option<usize> {
    n.checked_next_multiple_of(to)
}

fn mmap(len: usize, prot: libc::c_int) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping overlaps nothing.
    let address = unsafe { libc::mmap(null_mut(), len, prot, flags, -1, 0) };
    (address != libc::MAP_FAILED).then_some(address as usize)
}

fn munmap(start: usize, len: usize) {
    if len > 0 {
        // SAFETY: the callers own these pages.
        unsafe { libc::munmap(start as *mut _, len) };
    }
}

enum Failure {
    HeapFull,
    SystemCall,
}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            reserve: config.reserve,
            threshold: AtomicUsize::new(config.threshold),
            max_maps: AtomicUsize::new(config.max_maps),
            moving: AtomicBool::new(false),
            blocks: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            heap: AtomicU64::new(0),
            top: AtomicUsize::new(0),
            brk: AtomicUsize::new(0),
            stacks: [const { [const { AtomicU64::new(0) }; SIZES] }; ALIGNS],
        }
    }

    /// Allocates a block.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = if layout.size() >= self.threshold.load(Relaxed) {
            self.map_block(layout)
                .or_else(|| self.heap_block(layout).ok())
        } else {
            match self.heap_block(layout) {
                Ok(block) => Some(block),
                Err(Failure::HeapFull) => self.map_block(layout),
                Err(Failure::SystemCall) => None,
            }
        };
        block.map_or(null_mut(), |block| block as *mut u8)
    }

    /// Frees a block.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let address = block as usize;
        match unpack(self.heap.load(Acquire)) {
            Some(heap) if (heap.start..heap.start + heap.len).contains(&address) => {
                self.push(heap, address - heap.start, layout);
            }
            _ => self.unmap_block(address, layout),
        }
    }

    fn map_block(&self, layout: Layout) -> Option<usize> {
        let cap = self.max_maps.load(Relaxed);
        self.blocks
            .fetch_update(AcqRel, Relaxed, |blocks| {
                (blocks < cap).then_some(blocks + 1)
            })
            .ok()?;
        let mapped = self.map_pages(layout);
        match mapped {
            Some((_, len)) => self.bytes.fetch_add(len, AcqRel),
            None => self.blocks.fetch_sub(1, AcqRel),
        };
        mapped.map(|(block, _)| block)
    }

    fn map_pages(&self, layout: Layout) -> Option<(usize, usize)> {
        let page = page_size();
        let len = round_up(layout.size(), page)?;
        let extra = layout.align().saturating_sub(page);
        let start = mmap(len.checked_add(extra)?, libc::PROT_READ | libc::PROT_WRITE)?;
        let before = start.wrapping_neg() % layout.align().max(page);
        munmap(start, before);
        munmap(start + before + len, extra - before);
        Some((start + before, len))
    }

    fn unmap_block(&self, address: usize, layout: Layout) {
        let len = layout.size().next_multiple_of(page_size());
        munmap(address, len);
        self.bytes.fetch_sub(len, AcqRel);
        self.blocks.fetch_sub(1, AcqRel);
        if layout.size() <= 32 << 20 && self.moving.load(Acquire) {
            self.threshold.fetch_max(layout.size() + 1, Relaxed);
        }
    }

    /// The first thread to publish its reservation wins.
    fn reserve(&self) -> Option<Heap> {
        if let Some(heap) = unpack(self.heap.load(Acquire)) {
            return Some(heap);
        }
        let page = page_size();
        let mut len = self.reserve.min(LARGEST_HEAP) & !(page - 1);
        let start = loop {
            if len == 0 {
                return None;
            }
            if let Some(start) = mmap(len, libc::PROT_NONE) {
                break start;
            }
            len = len / 2 & !(page - 1);
        };
        let mine = Heap { start, len };
        match self.heap.compare_exchange(0, pack(mine), AcqRel, Acquire) {
            Ok(_) => Some(mine),
            Err(word) => {
                munmap(start, len);
                unpack(word)
            }
        }
    }

    fn heap_block(&self, layout: Layout) -> Result<usize, Failure> {
        if layout.size() > LARGEST_HEAP {
            return Err(Failure::HeapFull);
        }
        let heap = self.reserve().ok_or(Failure::HeapFull)?;
        let align = layout.align().max(UNIT);
        let (class, size) = size_class(layout.size());
        let Some(stack) = self.stacks.get((align / UNIT).ilog2() as usize) else {
            return Err(Failure::HeapFull);
        };
        if let Some(offset) = self.pop(heap, &stack[class]) {
            return Ok(heap.start + offset);
        }
        let mut top = self.top.load(Acquire);
        loop {
            let block = (heap.start + top + HEADER).next_multiple_of(align) - heap.start;
            let end = block + size;
            if end > heap.len {
                return Err(Failure::HeapFull);
            }
            self.grow(heap, end)?;
            match self.top.compare_exchange_weak(top, end, AcqRel, Acquire) {
                Ok(_) => {
                    header(heap, block).state.store(LIVE, Release);
                    return Ok(heap.start + block);
                }
                Err(now) => top = now,
            }
        }
    }

    /// Moves the break up to at least `end`. Two threads may make the same pages accessible; one of them moves the break.
    fn grow(&self, heap: Heap, end: usize) -> Result<(), Failure> {
        let mut brk = self.brk.load(Acquire);
        while brk < end {
            let wanted = end
                .max(brk + STEP)
                .next_multiple_of(page_size())
                .min(heap.len);
            let address = (heap.start + brk) as *mut libc::c_void;
            // SAFETY: these pages are in the reservation, and become accessible only.
            if unsafe { libc::mprotect(address, wanted - brk, libc::PROT_READ | libc::PROT_WRITE) }
                != 0
            {
                return Err(Failure::SystemCall);
            }
            brk = match self.brk.compare_exchange(brk, wanted, AcqRel, Acquire) {
                Ok(_) => wanted,
                Err(now) => now,
            };
        }
        Ok(())
    }

    fn pop(&self, heap: Heap, stack: &AtomicU64) -> Option<usize> {
        let mut head = stack.load(Acquire);
        loop {
            let offset = (head as u32) as usize * UNIT;
            if offset == 0 {
                return None;
            }
            let next = header(heap, offset).next.load(Relaxed);
            let popped = ((head >> 32).wrapping_add(1) << 32) | u64::from(next);
            match stack.compare_exchange_weak(head, popped, AcqRel, Acquire) {
                Ok(_) => {
                    header(heap, offset).state.store(LIVE, Release);
                    return Some(offset);
                }
                Err(now) => head = now,
            }
        }
    }

    fn push(&self, heap: Heap, offset: usize, layout: Layout) {
        let header = header(heap, offset);
        // One of two threads that free the same block loses, too.
        if header
            .state
            .compare_exchange(LIVE, FREE, AcqRel, Relaxed)
            .is_err()
        {
            std::process::abort();
        }
        let align = layout.align().max(UNIT);
        let stack = &self.stacks[(align / UNIT).ilog2() as usize][size_class(layout.size()).0];
        let mut head = stack.load(Relaxed);
        loop {
            header.next.store(head as u32, Relaxed);
            let pushed = (head >> 32 << 32) | (offset / UNIT) as u64;
            match stack.compare_exchange_weak(head, pushed, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Returns the accessible part of the heap.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let heap = unpack(self.heap.load(Acquire))?;
        Some(heap.start..heap.start + self.brk.load(Acquire))
    }

    /// Sets the threshold.
    pub fn set_threshold(&self, bytes: usize) {
        self.moving.store(false, Release);
        self.threshold.store(bytes, Release);
    }

    /// Sets the cap on mapped blocks.
    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, Release);
    }

    /// Returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.blocks.load(Acquire),
            mapped_bytes: self.bytes.load(Acquire),
            threshold: self.threshold.load(Acquire),
        }
    }

    /// Turns the dynamic threshold on or off.
    pub fn set_moving_threshold(&self, on: bool) {
        self.moving.store(on, Release);
    }

    /// Stage 5, bonus: returns the free memory at the end of the heap to the kernel. If that fails, the break stays.
    pub fn trim(&self) {
        todo!("move the break down")
    }

    /// Stage 6, bonus: like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        todo!("a block of zeros for {layout:?}")
    }

    /// Stage 6, bonus: changes the size of a block to `size` bytes. Alignment and contents are kept, up to the shorter
    /// of both sizes. The block may move. Returns null if there is no memory; the old block is still valid then.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        todo!("make {block:p}, a block for {layout:?}, {size} bytes long")
    }

    /// Stage 9, bonus: sets how many bytes of small blocks each thread may cache after freeing them.
    pub fn set_thread_cache(&self, bytes: usize) {
        todo!("a cache of {bytes} bytes for each thread")
    }

    /// Stage 10, bonus: like malloc(3). Returns null and sets errno to ENOMEM if there is no memory. `malloc(0)` returns a
    /// block, too. `self` is a `static`, as the allocator of a C program is.
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        todo!("a block of {size} bytes for C")
    }

    /// Stage 10, bonus: like calloc(3).
    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        todo!("{count} times {size} bytes, all zero")
    }

    /// Stage 10, bonus: like aligned_alloc(3), for any size. If `align` is not a power of two, errno is EINVAL.
    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        todo!("a block of {size} bytes at a multiple of {align}")
    }

    /// Stage 10, bonus: like reallocarray(3). `realloc(block, size)` is `reallocarray(block, 1, size)`.
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions. If the result is not null, nobody uses `block` any more.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        todo!("make {block:p} {count} times {size} bytes long")
    }

    /// Stage 10, bonus: like free(3). Does nothing with null, and leaves errno as it is.
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that nobody uses any more.
    pub unsafe fn free(&self, block: *mut u8) {
        todo!("take back {block:p}, whatever its layout")
    }

    /// Stage 10, bonus: like malloc_usable_size(3). Returns how many bytes of the block the caller may use: at least the
    /// size that was asked for. 0 for null.
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that is live.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        todo!("how long is {block:p}?")
    }
}

/// Returns the header of the block at `offset`. It is below the break, and no block's owner accesses it.
fn header<'heap>(heap: Heap, offset: usize) -> &'heap Header {
    let address = (heap.start + offset - HEADER) as *const Header;
    // SAFETY: the header is accessible, aligned to 16, and consists of atomics. The heap is never unmapped.
    unsafe { &*address }
}

// SAFETY: every method may be called by any thread at any time, and a block is given to one caller.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for the caller.
        unsafe { ThresholdAlloc::alloc(self, layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for the caller.
        unsafe { ThresholdAlloc::dealloc(self, block, layout) }
    }
}
