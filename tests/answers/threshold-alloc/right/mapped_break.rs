//! The break moves up and down by mmap with MAP_FIXED, so that no call of mprotect is made. Each mapped block has a header in
//! front of it. The C functions use the headers of the heap and of the mappings, and report whole chunks as usable.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{RefCell, UnsafeCell};
use std::ops::Range;
use std::ptr::{self, NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use nix::libc;

/// The initial settings of an allocator.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Blocks of at least this many bytes get a separate mapping.
    pub threshold: usize,
    /// Cap on the number of mapped blocks that are live. Further large blocks come from the heap.
    pub max_maps: usize,
    /// Bytes of address space to reserve for the heap. If mmap fails, half of it is tried, and so on.
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

// ---------------------------------------------------------------------------------------------------------------------
// The lock: one for all allocators, so that fork can hold it.

static TICKET: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);

fn lock() {
    let ticket = TICKET.fetch_add(1, Ordering::Relaxed);
    while SERVED.load(Ordering::Acquire) != ticket {
        // SAFETY: sched_yield has no preconditions.
        unsafe { libc::sched_yield() };
    }
}

fn unlock() {
    SERVED.fetch_add(1, Ordering::Release);
}

extern "C" fn before_fork() {
    lock();
}

extern "C" fn after_fork() {
    unlock();
}

extern "C" fn after_fork_in_child() {
    // The threads that have drawn a ticket do not exist here.
    SERVED.store(0, Ordering::Relaxed);
    TICKET.store(0, Ordering::Relaxed);
}

extern "C" fn register_fork_handlers() {
    // SAFETY: the handlers are functions of this library.
    unsafe {
        libc::pthread_atfork(
            Some(before_fork),
            Some(after_fork),
            Some(after_fork_in_child),
        )
    };
}

// SAFETY: the loader calls each entry of this section once, before main.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = register_fork_handlers;

// ---------------------------------------------------------------------------------------------------------------------
// Pages

fn page_size() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    let page = PAGE.load(Ordering::Relaxed);
    if page != 0 {
        return page;
    }
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    PAGE.store(page, Ordering::Relaxed);
    page
}

fn round_up(value: usize, to: usize) -> Option<usize> {
    Some(value.checked_add(to - 1)? & !(to - 1))
}

/// Maps `length` bytes, or returns `None`.
fn map_pages(length: usize, protection: i32, flags: i32) -> Option<usize> {
    // SAFETY: the kernel chooses an unused address.
    let address = unsafe {
        libc::mmap(
            null_mut(),
            length,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    (address != libc::MAP_FAILED).then_some(address as usize)
}

fn unmap_pages(start: usize, length: usize) {
    if length != 0 {
        // SAFETY: the caller owns the pages.
        unsafe { libc::munmap(start as *mut libc::c_void, length) };
    }
}

/// The bytes in front of a mapped block: a header, and padding.
fn lead(align: usize) -> usize {
    align.clamp(16, page_size())
}

/// Maps `length` bytes so that a multiple of `align` is `lead` bytes behind the start.
fn map_behind(length: usize, lead: usize, align: usize) -> Option<usize> {
    let page = page_size();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    if align <= page {
        return map_pages(length, protection, 0);
    }
    let total = length.checked_add(align)?;
    let start = map_pages(total, protection, 0)?;
    let first = round_up(start + lead, align)? - lead;
    unmap_pages(start, first - start);
    unmap_pages(first + length, start + total - (first + length));
    Some(first)
}

// ---------------------------------------------------------------------------------------------------------------------
// The heap: chunks with a size word in front of the block, and a copy of the size at the end of a free chunk.

const WORD: usize = size_of::<usize>();
const MIN_CHUNK: usize = 32;
const IN_USE: usize = 1;
const PREVIOUS_IN_USE: usize = 2;
const CACHED: usize = 4;
const FLAGS: usize = 15;
const STEP: usize = 128 << 10;
const KEEP: usize = 1 << 20;
const PAD: usize = 256 << 10;
const SMALL_BINS: usize = 64;
const BINS: usize = SMALL_BINS + 8 * 40;

fn word(address: usize) -> &'static AtomicUsize {
    // SAFETY: the callers pass aligned addresses below the break.
    unsafe { AtomicUsize::from_ptr(address as *mut usize) }
}

fn load(address: usize) -> usize {
    word(address).load(Ordering::Relaxed)
}

fn store(address: usize, value: usize) {
    word(address).store(value, Ordering::Relaxed);
}

/// The length of the chunk for a block of `size` bytes.
fn chunk_length(size: usize) -> Option<usize> {
    Some(round_up(size.checked_add(WORD)?, 16)?.max(MIN_CHUNK))
}

fn bin_of(length: usize) -> usize {
    let units = length / 16;
    if units < SMALL_BINS {
        return units;
    }
    let log = units.ilog2() as usize;
    let part = (units >> (log - 3)) & 7;
    (SMALL_BINS + (log - 6) * 8 + part).min(BINS - 1)
}

struct Heap {
    start: usize,
    end: usize,
    /// The first address of the memory at the heap's end that no chunk has.
    top: usize,
    top_previous_free: bool,
    /// Memory from here to the break was never written.
    fresh: usize,
    bins: [usize; BINS],
    used_bins: [u64; BINS / 64 + 1],
    mapped_blocks: usize,
    mapped_bytes: usize,
    max_maps: usize,
    keep: usize,
}

/// A new block, and where its zeros begin.
struct Block {
    address: usize,
    zeros: usize,
}

impl Heap {
    fn insert(&mut self, chunk: usize, length: usize) {
        let bin = bin_of(length);
        let next = self.bins[bin];
        store(chunk, length | PREVIOUS_IN_USE);
        store(chunk + WORD, next);
        store(chunk + 2 * WORD, 0);
        store(chunk + length - WORD, length);
        if next != 0 {
            store(next + 2 * WORD, chunk);
        }
        self.bins[bin] = chunk;
        self.used_bins[bin / 64] |= 1 << (bin % 64);
    }

    fn remove(&mut self, chunk: usize, length: usize) {
        let bin = bin_of(length);
        let next = load(chunk + WORD);
        let previous = load(chunk + 2 * WORD);
        if next != 0 {
            store(next + 2 * WORD, previous);
        }
        if previous != 0 {
            store(previous + WORD, next);
        } else {
            self.bins[bin] = next;
            if next == 0 {
                self.used_bins[bin / 64] &= !(1 << (bin % 64));
            }
        }
    }

    fn next_bin(&self, from: usize) -> Option<usize> {
        let mut index = from / 64;
        let mut bits = self.used_bins.get(index)? & (!0 << (from % 64));
        loop {
            if bits != 0 {
                return Some(index * 64 + bits.trailing_zeros() as usize);
            }
            index += 1;
            bits = *self.used_bins.get(index)?;
        }
    }

    /// The chunk for an aligned block that begins at `chunk` or later.
    fn fit(chunk: usize, align: usize) -> Option<usize> {
        let mut block = round_up(chunk + WORD, align)?;
        let lead = block - WORD - chunk;
        if lead != 0 && lead < MIN_CHUNK {
            block = block.checked_add(align)?;
        }
        Some(block - WORD)
    }

    fn set_previous_in_use(&mut self, chunk: usize, in_use: bool) {
        if chunk == self.top {
            self.top_previous_free = !in_use;
        } else if in_use {
            word(chunk).fetch_or(PREVIOUS_IN_USE, Ordering::Relaxed);
        } else {
            word(chunk).fetch_and(!PREVIOUS_IN_USE, Ordering::Relaxed);
        }
    }

    fn allocate(&mut self, shared: &Shared, layout: Layout) -> Option<Block> {
        let length = chunk_length(layout.size())?;
        let align = layout.align().max(16);
        let mut bin = self.next_bin(bin_of(length));
        while let Some(index) = bin {
            let mut chunk = self.bins[index];
            while chunk != 0 {
                let have = load(chunk) & !FLAGS;
                if let Some(at) = Heap::fit(chunk, align)
                    && at
                        .checked_add(length)
                        .is_some_and(|end| end <= chunk + have)
                {
                    self.remove(chunk, have);
                    self.take(chunk, have, at, length);
                    return Some(Block {
                        address: at + WORD,
                        zeros: usize::MAX,
                    });
                }
                chunk = load(chunk + WORD);
            }
            bin = self.next_bin(index + 1);
        }
        self.allocate_top(shared, length, align)
    }

    /// Takes `length` bytes at `at` out of a chunk that is in no bin.
    fn take(&mut self, chunk: usize, have: usize, at: usize, length: usize) {
        let lead = at - chunk;
        let end = chunk + have;
        let mut flags = PREVIOUS_IN_USE;
        if lead != 0 {
            self.insert(chunk, lead);
            flags = 0;
        }
        let rest = end - at - length;
        if rest >= MIN_CHUNK {
            store(at, length | IN_USE | flags);
            self.insert(at + length, rest);
            self.set_previous_in_use(end, false);
        } else {
            store(at, (length + rest) | IN_USE | flags);
            self.set_previous_in_use(end, true);
        }
    }

    fn reserve(&mut self, shared: &Shared) -> Option<()> {
        if self.start != 0 {
            return Some(());
        }
        let page = page_size();
        let mut length = round_up(shared.config.reserve, page)?;
        loop {
            if length < page {
                return None;
            }
            if let Some(start) = map_pages(length, libc::PROT_NONE, libc::MAP_NORESERVE) {
                self.start = start;
                self.end = start + length;
                self.top = start + WORD;
                self.top_previous_free = false;
                self.fresh = start;
                shared.brk.store(start, Ordering::Relaxed);
                shared.end.store(start + length, Ordering::Relaxed);
                shared.start.store(start, Ordering::Release);
                return Some(());
            }
            length = (length / 2) & !(page - 1);
        }
    }

    fn allocate_top(&mut self, shared: &Shared, length: usize, align: usize) -> Option<Block> {
        self.reserve(shared)?;
        let at = Heap::fit(self.top, align)?;
        let end = at.checked_add(length)?;
        self.grow(shared, end)?;
        let lead = at - self.top;
        let chunk = self.top;
        let mut flags = if self.top_previous_free {
            0
        } else {
            PREVIOUS_IN_USE
        };
        if lead != 0 {
            // A free chunk before the top has been merged with it, so the previous chunk is in use.
            self.insert(chunk, lead);
            flags = 0;
        }
        store(at, length | IN_USE | flags);
        self.top = end;
        self.top_previous_free = false;
        let zeros = self.fresh.max(at + WORD);
        self.fresh = self.fresh.max(end);
        Some(Block {
            address: at + WORD,
            zeros,
        })
    }

    fn grow(&mut self, shared: &Shared, end: usize) -> Option<()> {
        let brk = shared.brk.load(Ordering::Relaxed);
        if end <= brk {
            return Some(());
        }
        if end > self.end {
            return None;
        }
        let new = round_up(end.max(brk + STEP), page_size())?.min(self.end);
        // Replaces a part of the reservation, which is PROT_NONE and has no contents.
        // SAFETY: the range is part of the reservation, and beyond every block.
        let address = unsafe {
            libc::mmap(
                brk as *mut libc::c_void,
                new - brk,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return None;
        }
        shared.brk.store(new, Ordering::Relaxed);
        Some(())
    }

    fn free(&mut self, shared: &Shared, block: usize) {
        let mut chunk = block - WORD;
        if chunk >= self.top {
            std::process::abort();
        }
        let header = load(chunk);
        if header & IN_USE == 0 || header & CACHED != 0 {
            std::process::abort();
        }
        let mut length = header & !FLAGS;
        store(chunk, header & !IN_USE);
        if header & PREVIOUS_IN_USE == 0 {
            let before = load(chunk - WORD);
            chunk -= before;
            length += before;
            self.remove(chunk, before);
        }
        let next = chunk + length;
        if next == self.top {
            self.top = chunk;
            self.top_previous_free = false;
            let brk = shared.brk.load(Ordering::Relaxed);
            if brk - chunk > self.keep {
                self.shrink(shared, PAD);
            }
            return;
        }
        let after = load(next);
        if after & IN_USE == 0 {
            self.remove(next, after & !FLAGS);
            length += after & !FLAGS;
        }
        self.insert(chunk, length);
        self.set_previous_in_use(chunk + length, false);
    }

    /// Returns all but `pad` bytes of the free memory at the end to the kernel.
    fn shrink(&mut self, shared: &Shared, pad: usize) {
        let brk = shared.brk.load(Ordering::Relaxed);
        let Some(new) = round_up(self.top + pad, page_size()) else {
            return;
        };
        if new >= brk {
            return;
        }
        let length = brk - new;
        // A new mapping in place of the old pages returns them, and their commit charge, in one call.
        // SAFETY: no block is in the range.
        let address = unsafe {
            libc::mmap(
                new as *mut libc::c_void,
                length,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if address != libc::MAP_FAILED {
            self.fresh = self.fresh.min(new);
            shared.brk.store(new, Ordering::Relaxed);
        }
    }

    /// Changes the length of a block of the heap in place.
    fn resize(&mut self, shared: &Shared, block: usize, size: usize) -> Option<()> {
        let chunk = block - WORD;
        let want = chunk_length(size)?;
        let header = load(chunk);
        let mut have = header & !FLAGS;
        let flags = header & FLAGS;
        let next = chunk + have;
        if want > have {
            if next == self.top {
                let end = chunk.checked_add(want)?;
                self.grow(shared, end)?;
                self.top = end;
                self.fresh = self.fresh.max(end);
                store(chunk, want | flags);
                return Some(());
            }
            let after = load(next);
            if after & IN_USE != 0 || have + (after & !FLAGS) < want {
                return None;
            }
            self.remove(next, after & !FLAGS);
            have += after & !FLAGS;
            store(chunk, have | flags);
            self.set_previous_in_use(chunk + have, true);
        }
        if have - want >= MIN_CHUNK {
            // The rest becomes a block that is freed.
            store(chunk, want | flags);
            store(chunk + want, (have - want) | IN_USE | PREVIOUS_IN_USE);
            self.free(shared, chunk + want + WORD);
        }
        Some(())
    }

    fn map(&mut self, layout: Layout) -> Option<Block> {
        if self.mapped_blocks >= self.max_maps {
            return None;
        }
        let lead = lead(layout.align());
        let length = round_up(layout.size().checked_add(lead)?, page_size())?;
        let start = map_behind(length, lead, layout.align())?;
        let address = start + lead;
        store(address - 2 * WORD, length);
        store(address - WORD, lead);
        self.mapped_blocks += 1;
        self.mapped_bytes += length;
        Some(Block { address, zeros: 0 })
    }

    fn remap(&mut self, block: usize, layout: Layout, size: usize) -> Option<usize> {
        let page = page_size();
        let old = load(block - 2 * WORD);
        let lead = load(block - WORD);
        let new = round_up(size.checked_add(lead)?, page)?;
        let block = block - lead;
        let address = if old == new {
            block
        } else if layout.align() <= page || new < old {
            // SAFETY: the pages belong to the block.
            let moved =
                unsafe { libc::mremap(block as *mut libc::c_void, old, new, libc::MREMAP_MAYMOVE) };
            if moved == libc::MAP_FAILED {
                return None;
            }
            moved as usize
        } else {
            let target = map_behind(new, lead, layout.align())?;
            // SAFETY: the pages belong to the block, and the target is unused.
            let moved = unsafe {
                libc::mremap(
                    block as *mut libc::c_void,
                    old,
                    new,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    target,
                )
            };
            if moved == libc::MAP_FAILED {
                unmap_pages(target, new);
                return None;
            }
            moved as usize
        };
        self.mapped_bytes = self.mapped_bytes - old + new;
        store(address + lead - 2 * WORD, new);
        Some(address + lead)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The cache of a thread

const CACHE_CLASSES: usize = 65;
const CACHES: usize = 4;

#[derive(Clone, Copy)]
struct Cache {
    owner: *const ThresholdAlloc,
    bytes: usize,
    lists: [usize; CACHE_CLASSES],
}

impl Cache {
    const EMPTY: Cache = Cache {
        owner: ptr::null(),
        bytes: 0,
        lists: [0; CACHE_CLASSES],
    };

    fn flush(&mut self) {
        if self.bytes == 0 {
            return;
        }
        // SAFETY: an allocator with caches stays until the threads that have used it have ended.
        let owner = unsafe { &*self.owner };
        owner.with(|heap| {
            for list in &mut self.lists {
                while *list != 0 {
                    let block = *list;
                    *list = load(block);
                    word(block - WORD).fetch_and(!CACHED, Ordering::Relaxed);
                    heap.free(&owner.shared, block);
                }
            }
        });
        self.bytes = 0;
    }
}

struct Caches {
    all: [Cache; CACHES],
    victim: usize,
}

impl Caches {
    fn find(&mut self, owner: &ThresholdAlloc) -> Option<&mut Cache> {
        self.all
            .iter_mut()
            .find(|cache| ptr::eq(cache.owner, owner))
    }

    fn find_or_create(&mut self, owner: &ThresholdAlloc) -> &mut Cache {
        let index = match self
            .all
            .iter()
            .position(|cache| ptr::eq(cache.owner, owner))
        {
            Some(index) => index,
            None => {
                let index = self.victim;
                self.victim = (index + 1) % CACHES;
                self.all[index].flush();
                self.all[index] = Cache::EMPTY;
                self.all[index].owner = owner;
                index
            }
        };
        &mut self.all[index]
    }
}

impl Drop for Caches {
    fn drop(&mut self) {
        for cache in &mut self.all {
            cache.flush();
        }
    }
}

thread_local! {
    static CACHE: RefCell<Caches> = const {
        RefCell::new(Caches { all: [Cache::EMPTY; CACHES], victim: 0 })
    };
}

// ---------------------------------------------------------------------------------------------------------------------

/// What is read without the lock.
struct Shared {
    config: Config,
    threshold: AtomicUsize,
    moving: AtomicBool,
    cache_limit: AtomicUsize,
    start: AtomicUsize,
    brk: AtomicUsize,
    end: AtomicUsize,
}

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
pub struct ThresholdAlloc {
    shared: Shared,
    heap: UnsafeCell<Heap>,
}

// SAFETY: the heap is accessed only with the lock held.
unsafe impl Sync for ThresholdAlloc {}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            shared: Shared {
                config,
                threshold: AtomicUsize::new(config.threshold),
                moving: AtomicBool::new(false),
                cache_limit: AtomicUsize::new(0),
                start: AtomicUsize::new(0),
                brk: AtomicUsize::new(0),
                end: AtomicUsize::new(0),
            },
            heap: UnsafeCell::new(Heap {
                start: 0,
                end: 0,
                top: 0,
                top_previous_free: false,
                fresh: 0,
                bins: [0; BINS],
                used_bins: [0; BINS / 64 + 1],
                mapped_blocks: 0,
                mapped_bytes: 0,
                max_maps: config.max_maps,
                keep: KEEP,
            }),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Heap) -> R) -> R {
        lock();
        // SAFETY: the lock is held, so this is the only reference.
        let heap = unsafe { &mut *self.heap.get() };
        let result = f(heap);
        unlock();
        result
    }

    fn in_heap(&self, block: usize) -> bool {
        let start = self.shared.start.load(Ordering::Acquire);
        start != 0 && (start..self.shared.end.load(Ordering::Relaxed)).contains(&block)
    }

    fn is_large(&self, size: usize) -> bool {
        size >= self.shared.threshold.load(Ordering::Relaxed)
    }

    fn allocate(&self, layout: Layout) -> Option<Block> {
        let large = self.is_large(layout.size());
        if !large && let Some(block) = self.take_cached(layout) {
            return Some(Block {
                address: block,
                zeros: usize::MAX,
            });
        }
        self.with(|heap| {
            if large {
                heap.map(layout)
                    .or_else(|| heap.allocate(&self.shared, layout))
            } else {
                heap.allocate(&self.shared, layout)
                    .or_else(|| heap.map(layout))
            }
        })
    }

    /// The class of a layout whose blocks are cached.
    fn class(layout: Layout) -> Option<usize> {
        let class = chunk_length(layout.size())? / 16;
        (layout.align() <= 16 && class < CACHE_CLASSES).then_some(class)
    }

    fn take_cached(&self, layout: Layout) -> Option<usize> {
        if self.shared.cache_limit.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let class = ThresholdAlloc::class(layout)?;
        CACHE
            .try_with(|caches| {
                let mut caches = caches.try_borrow_mut().ok()?;
                let cache = caches.find(self)?;
                let block = cache.lists[class];
                if block == 0 {
                    return None;
                }
                cache.lists[class] = load(block);
                let header = word(block - WORD).fetch_and(!CACHED, Ordering::Relaxed);
                cache.bytes -= header & !FLAGS;
                Some(block)
            })
            .ok()
            .flatten()
    }

    fn put_cached(&self, block: usize, layout: Layout) -> Option<()> {
        let limit = self.shared.cache_limit.load(Ordering::Relaxed);
        if limit == 0 {
            return None;
        }
        let class = ThresholdAlloc::class(layout)?;
        if block - WORD >= self.shared.brk.load(Ordering::Relaxed) {
            return None;
        }
        let header = load(block - WORD);
        if header & IN_USE == 0 || header & CACHED != 0 {
            return None;
        }
        CACHE
            .try_with(|caches| {
                let mut caches = caches.try_borrow_mut().ok()?;
                let cache = caches.find_or_create(self);
                let length = header & !FLAGS;
                if cache.bytes + length > limit {
                    return None;
                }
                cache.bytes += length;
                store(block, cache.lists[class]);
                cache.lists[class] = block;
                word(block - WORD).fetch_or(CACHED, Ordering::Relaxed);
                Some(())
            })
            .ok()
            .flatten()
    }

    /// Stages 1, 2 and 4: allocates a block with this size and alignment. Returns null if there is no memory, for example
    /// because a system call failed.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(layout)
            .map_or(null_mut(), |block| block.address as *mut u8)
    }

    /// Stages 1 and 3: frees a block. A mapped block is unmapped immediately; if `munmap` fails, the block is freed all the
    /// same. Aborts the process if a block of the heap is freed twice in a row.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let address = block as usize;
        if self.in_heap(address) {
            if self.put_cached(address, layout).is_none() {
                self.with(|heap| heap.free(&self.shared, address));
            }
            return;
        }
        let length = load(address - 2 * WORD);
        let lead = load(address - WORD);
        self.with(|heap| {
            unmap_pages(address - lead, length);
            heap.mapped_blocks -= 1;
            heap.mapped_bytes -= length;
            let size = layout.size();
            if self.shared.moving.load(Ordering::Relaxed)
                && size <= 32 << 20
                && size >= self.shared.threshold.load(Ordering::Relaxed)
            {
                self.shared.threshold.store(size + 1, Ordering::Relaxed);
                heap.keep = heap.keep.max(2 * size);
            }
        });
    }

    /// Stage 2: returns the accessible part of the heap, from its start to its break. `None` before the first small
    /// block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let start = self.shared.start.load(Ordering::Acquire);
        (start != 0).then(|| start..self.shared.brk.load(Ordering::Relaxed))
    }

    /// Stage 4: sets the threshold. From now on blocks of at least `bytes` bytes get a separate mapping.
    pub fn set_threshold(&self, bytes: usize) {
        self.with(|heap| {
            self.shared.moving.store(false, Ordering::Relaxed);
            self.shared.threshold.store(bytes, Ordering::Relaxed);
            heap.keep = KEEP;
        });
    }

    /// Stage 4: sets the cap on mapped blocks. Blocks that are already mapped stay mapped.
    pub fn set_max_maps(&self, blocks: usize) {
        self.with(|heap| heap.max_maps = blocks);
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold. A block that is freed is not live, even if
    /// `munmap` failed.
    pub fn stats(&self) -> Stats {
        self.with(|heap| Stats {
            mapped_blocks: heap.mapped_blocks,
            mapped_bytes: heap.mapped_bytes,
            threshold: self.shared.threshold.load(Ordering::Relaxed),
        })
    }

    /// Stage 5, bonus: returns the free memory at the end of the heap to the kernel. If that fails, the break stays.
    pub fn trim(&self) {
        let _ = CACHE.try_with(|caches| {
            if let Ok(mut caches) = caches.try_borrow_mut()
                && let Some(cache) = caches.find(self)
            {
                cache.flush();
            }
        });
        self.with(|heap| {
            if heap.start != 0 {
                heap.shrink(&self.shared, 0);
            }
        });
    }

    /// Stage 6, bonus: like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(Block { address, zeros }) = self.allocate(layout) else {
            return null_mut();
        };
        let block = address as *mut u8;
        let dirty = zeros.saturating_sub(address).min(layout.size());
        // SAFETY: the block has at least this many bytes.
        unsafe { block.write_bytes(0, dirty) };
        block
    }

    /// Stage 6, bonus: changes the size of a block to `size` bytes. Alignment and contents are kept, up to the shorter
    /// of both sizes. The block may move. Returns null if there is no memory; the old block is still valid then.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero. Rounded up to the alignment, it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let address = block as usize;
        let large = self.is_large(size);
        if self.in_heap(address) {
            if !large && self.with(|heap| heap.resize(&self.shared, address, size).is_some()) {
                return block;
            }
        } else if large {
            return self
                .with(|heap| heap.remap(address, layout, size))
                .map_or(null_mut(), |address| address as *mut u8);
        }
        // SAFETY: the caller guarantees that the size is valid for this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let Some(new) = self.allocate(new_layout) else {
            return null_mut();
        };
        let new = new.address as *mut u8;
        // SAFETY: both blocks have at least this many bytes, and are different.
        unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
        // SAFETY: the caller gives the block up.
        unsafe { self.dealloc(block, layout) };
        new
    }

    /// Stage 8, bonus: turns a dynamic threshold like glibc's on or off. It moves just past the size of each mapped
    /// block that is freed, up to 32 MiB. `set_threshold` turns it off.
    pub fn set_moving_threshold(&self, on: bool) {
        self.with(|_| self.shared.moving.store(on, Ordering::Relaxed));
    }

    /// Stage 9, bonus: sets how many bytes of small blocks each thread may cache after freeing them.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.shared.cache_limit.store(bytes, Ordering::Relaxed);
    }

    /// Stage 10, bonus: like malloc(3). Returns null and sets errno to ENOMEM if there is no memory. `malloc(0)` returns a
    /// block, too. `self` is a `static`, as the allocator of a C program is.
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        self.aligned_alloc(16, size)
    }

    /// Stage 10, bonus: like calloc(3).
    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        match count.checked_mul(size) {
            Some(size) => self.c_alloc(16, size, true),
            None => fail(libc::ENOMEM),
        }
    }

    /// Stage 10, bonus: like aligned_alloc(3), for any size. If `align` is not a power of two, errno is EINVAL.
    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            return fail(libc::EINVAL);
        }
        self.c_alloc(align.max(16), size, false)
    }

    fn c_alloc(&'static self, align: usize, size: usize, zeroed: bool) -> *mut u8 {
        let Ok(layout) = Layout::from_size_align(size.max(1), align) else {
            return fail(libc::ENOMEM);
        };
        let block = if zeroed {
            // SAFETY: the size is not zero.
            unsafe { self.alloc_zeroed(layout) }
        } else {
            // SAFETY: the size is not zero.
            unsafe { self.alloc(layout) }
        };
        if block.is_null() {
            return fail(libc::ENOMEM);
        }
        block
    }

    /// A layout with which a block of the C functions can be freed: its whole chunk, or its whole mapping.
    fn c_layout(&self, block: *mut u8) -> Layout {
        let address = block as usize;
        let size = if self.in_heap(address) {
            (load(address - WORD) & !FLAGS) - WORD
        } else {
            load(address - 2 * WORD) - load(address - WORD)
        };
        // SAFETY: a block is never that long.
        unsafe { Layout::from_size_align_unchecked(size, 16) }
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
        let Some(size) = count.checked_mul(size) else {
            return fail(libc::ENOMEM);
        };
        if block.is_null() {
            return self.malloc(size);
        }
        if size > isize::MAX as usize - 15 {
            return fail(libc::ENOMEM);
        }
        // SAFETY: the layout describes the whole block.
        let new = unsafe { self.realloc(block, self.c_layout(block), size.max(1)) };
        if new.is_null() {
            return fail(libc::ENOMEM);
        }
        new
    }

    /// Stage 10, bonus: like free(3). Does nothing if `block` is null. Leaves errno as it is.
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that nobody uses any more.
    pub unsafe fn free(&self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        let errno = nix::errno::Errno::last_raw();
        // SAFETY: the layout describes the whole block.
        unsafe { self.dealloc(block, self.c_layout(block)) };
        nix::errno::Errno::set_raw(errno);
    }

    /// Stage 10, bonus: like malloc_usable_size(3). Returns how many bytes of the block the caller may use: at least the
    /// size that was requested. Returns 0 for null.
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that is live.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        match NonNull::new(block) {
            Some(block) => self.c_layout(block.as_ptr()).size(),
            None => 0,
        }
    }
}

fn fail(errno: i32) -> *mut u8 {
    nix::errno::Errno::set_raw(errno);
    null_mut()
}

// SAFETY: blocks do not overlap, and have the size and alignment of their layouts; the lock makes it thread-safe.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same contract.
        unsafe { ThresholdAlloc::alloc(self, layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the same contract.
        unsafe { ThresholdAlloc::dealloc(self, block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same contract.
        unsafe { ThresholdAlloc::alloc_zeroed(self, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the same contract.
        unsafe { ThresholdAlloc::realloc(self, block, layout, size) }
    }
}
