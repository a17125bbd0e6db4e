//! The first bytes of the heap hold its lists, and a header is in front of every mapped block. All stages.
#![allow(unsafe_op_in_unsafe_fn)]

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::*};

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

// ---- kernel ----

fn page() -> usize {
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

fn up(n: usize, to: usize) -> usize {
    n.saturating_add(to - 1) & !(to - 1)
}

fn die() -> ! {
    std::process::abort()
}

fn sys_mmap(len: usize, prot: i32) -> Option<usize> {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let at = unsafe {
        libc::mmap(
            null_mut(),
            len,
            prot,
            libc::MAP_PRIVATE
                | libc::MAP_ANONYMOUS
                | if prot == 0 { libc::MAP_NORESERVE } else { 0 },
            -1,
            0,
        )
    };
    (at != libc::MAP_FAILED).then_some(at as usize)
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Maps a block at a multiple of `align`, with `front` bytes before it in the same mapping.
/// Returns the start of the mapping, its length and the block.
fn map_block(size: usize, align: usize, front: usize) -> Option<(usize, usize, usize)> {
    let page = page();
    if align <= page {
        let front = if front == 0 { 0 } else { front.max(align) };
        let len = up(size.checked_add(front)?, page);
        let at = sys_mmap(len, RW)?;
        return Some((at, len, at + front));
    }
    let front = up(front, page);
    let len = front.checked_add(up(size, page))?;
    let all = len.checked_add(align - page)?;
    let raw = sys_mmap(all, RW)?;
    let block = up(raw + front, align);
    let start = block - front;
    let end = start + len;
    // If one of these fails, some pages stay mapped, but the block is good.
    if start > raw {
        // SAFETY: nobody uses these pages.
        unsafe { libc::munmap(raw as *mut _, start - raw) };
    }
    if raw + all > end {
        // SAFETY: nobody uses these pages.
        unsafe { libc::munmap(end as *mut _, raw + all - end) };
    }
    Some((start, len, block))
}

fn errno() -> i32 {
    // SAFETY: the address is valid in this thread.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: i32) {
    // SAFETY: the address is valid in this thread.
    unsafe { *libc::__errno_location() = value }
}

// ---- one lock for all allocators, which fork takes, too ----

static LOCK: AtomicU32 = AtomicU32::new(0);

fn futex(op: i32, value: u32) {
    // SAFETY: the word is a static.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            LOCK.as_ptr(),
            op | libc::FUTEX_PRIVATE_FLAG,
            value,
            0usize,
        )
    };
}

fn raw_lock() {
    if LOCK.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
        while LOCK.swap(2, Acquire) != 0 {
            futex(libc::FUTEX_WAIT, 2);
        }
    }
}

fn raw_unlock() {
    if LOCK.swap(0, Release) == 2 {
        futex(libc::FUTEX_WAKE, 1);
    }
}

extern "C" fn before_fork() {
    raw_lock();
}

extern "C" fn after_fork() {
    raw_unlock();
}

extern "C" fn register() {
    // SAFETY: the functions only use the lock.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = register;

struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        raw_unlock();
    }
}

// ---- the reservation and its break ----

const STEP: usize = 128 << 10;

struct Region {
    base: AtomicUsize,
    limit: AtomicUsize,
    brk: AtomicUsize,
}

impl Region {
    const fn new() -> Region {
        Region {
            base: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            brk: AtomicUsize::new(0),
        }
    }
    fn base(&self) -> usize {
        self.base.load(Acquire)
    }
    fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }
    fn brk(&self) -> usize {
        self.brk.load(Relaxed)
    }
    /// Whether an address is in the reservation. Needs no lock.
    fn contains(&self, at: usize) -> bool {
        let base = self.base();
        base != 0 && at >= base && at < self.limit()
    }
    fn reserve(&self, bytes: usize) -> bool {
        if self.base() != 0 {
            return true;
        }
        let page = page();
        let mut len = up(bytes.min(isize::MAX as usize), page);
        while len >= page {
            if let Some(at) = sys_mmap(len, libc::PROT_NONE) {
                self.limit.store(at + len, Relaxed);
                self.brk.store(at, Relaxed);
                self.base.store(at, Release);
                return true;
            }
            len = len / 2 & !(page - 1);
        }
        false
    }
    /// Moves the break up so that at least `end` is below it.
    fn grow_to(&self, end: usize) -> bool {
        let brk = self.brk();
        if end <= brk {
            return true;
        }
        if end > self.limit() {
            return false;
        }
        let step = up(end - brk, page()).max(STEP).min(self.limit() - brk);
        // SAFETY: the range is in the reservation, above the break.
        if unsafe { libc::mprotect(brk as *mut _, step, RW) } != 0 {
            return false;
        }
        self.brk.store(brk + step, Relaxed);
        true
    }
    /// Moves the break down to `end`, a multiple of the page size. Contents above are lost even if it fails.
    fn shrink_to(&self, end: usize) -> bool {
        let brk = self.brk();
        if end >= brk {
            return true;
        }
        // SAFETY: nobody uses the range.
        if unsafe { libc::madvise(end as *mut _, brk - end, libc::MADV_DONTNEED) } != 0 {
            return false;
        }
        // SAFETY: as above.
        if unsafe { libc::mprotect(end as *mut _, brk - end, libc::PROT_NONE) } != 0 {
            return false;
        }
        self.brk.store(end, Relaxed);
        true
    }
}

// ---- the heap: boundary tags ----

const UNIT: usize = 16;
const HEAD: usize = 16;
const MIN: usize = 32;
const USED: usize = 1;
const PREV_FREE: usize = 2;
const CACHED: usize = 4;
const FLAGS: usize = 15;
const BINS: usize = 128;
const TRIM: usize = 1 << 20;

/// A chunk's address. Its header is [size of the chunk before it, if that is free][size and flags].
#[derive(Clone, Copy, PartialEq)]
struct Chunk(usize);

impl Chunk {
    fn of(block: *mut u8) -> Chunk {
        Chunk(block as usize - HEAD)
    }
    fn block(self) -> *mut u8 {
        (self.0 + HEAD) as *mut u8
    }
    /// Atomic, because the lock does not protect the bit `CACHED`.
    unsafe fn word<'a>(self) -> &'a AtomicUsize {
        AtomicUsize::from_ptr((self.0 + 8) as *mut usize)
    }
    unsafe fn size(self) -> usize {
        self.word().load(Relaxed) & !FLAGS
    }
    unsafe fn is(self, flag: usize) -> bool {
        self.word().load(Relaxed) & flag != 0
    }
    unsafe fn set(self, flag: usize) {
        self.word().fetch_or(flag, Relaxed);
    }
    unsafe fn clear(self, flag: usize) {
        self.word().fetch_and(!flag, Relaxed);
    }
    unsafe fn set_size(self, size: usize) {
        let flags = self.word().load(Relaxed) & FLAGS;
        self.word().store(size | flags, Relaxed);
    }
    unsafe fn next(self) -> Chunk {
        Chunk(self.0 + self.size())
    }
    unsafe fn prev_size(self) -> *mut usize {
        self.0 as *mut usize
    }
    unsafe fn links(self) -> *mut [usize; 2] {
        (self.0 + HEAD) as *mut [usize; 2]
    }
}

fn need(size: usize) -> usize {
    up(size + HEAD, UNIT).max(MIN)
}

fn bin_of(size: usize) -> usize {
    if size < 1024 {
        return size / UNIT;
    }
    let log = size.ilog2() as usize;
    (64 + (log - 10) * 4 + ((size >> (log - 2)) & 3)).min(BINS - 1)
}

struct Heap {
    top: usize,
    bins: [usize; BINS],
    full: u128,
}

impl Heap {
    /// The bookkeeping is at the start of the heap itself.
    unsafe fn of(region: &Region) -> Option<&'static mut Heap> {
        let base = region.base();
        if base == 0 {
            return None;
        }
        let start = base + up(size_of::<Heap>(), UNIT);
        if region.brk() == base {
            if !region.grow_to(start) {
                return None;
            }
            (base as *mut Heap).write(Heap {
                top: start,
                bins: [0; BINS],
                full: 0,
            });
        }
        Some(&mut *(base as *mut Heap))
    }

    unsafe fn link(&mut self, c: Chunk) {
        let bin = bin_of(c.size());
        let head = self.bins[bin];
        *c.links() = [head, 0];
        if head != 0 {
            (*Chunk(head).links())[1] = c.0;
        }
        self.bins[bin] = c.0;
        self.full |= 1 << bin;
    }

    unsafe fn unlink(&mut self, c: Chunk) {
        let bin = bin_of(c.size());
        let [after, before] = *c.links();
        if after != 0 {
            (*Chunk(after).links())[1] = before;
        }
        if before != 0 {
            (*Chunk(before).links())[0] = after;
        } else {
            self.bins[bin] = after;
            if after == 0 {
                self.full &= !(1 << bin);
            }
        }
    }

    /// Makes a free chunk known, with its footer and the flag of the chunk after it.
    unsafe fn put(&mut self, c: Chunk) {
        let next = c.next();
        *next.prev_size() = c.size();
        next.set(PREV_FREE);
        self.link(c);
    }

    /// Bytes to leave in front of a block in a chunk, so that it is aligned.
    fn gap(at: usize, align: usize) -> usize {
        if align <= UNIT {
            return 0;
        }
        let mut block = up(at + HEAD, align);
        while block - HEAD != at && block - HEAD - at < MIN {
            block += align;
        }
        block - HEAD - at
    }

    unsafe fn find(&self, need: usize, align: usize) -> Option<Chunk> {
        let mut bin = bin_of(need);
        loop {
            let rest = self.full >> bin;
            if rest == 0 {
                return None;
            }
            bin += rest.trailing_zeros() as usize;
            let mut at = self.bins[bin];
            while at != 0 {
                let c = Chunk(at);
                if c.size() >= need + Heap::gap(at, align) {
                    return Some(c);
                }
                at = (*c.links())[0];
            }
            bin += 1;
            if bin == BINS {
                return None;
            }
        }
    }

    unsafe fn alloc(&mut self, region: &Region, size: usize, align: usize) -> *mut u8 {
        let need = need(size);
        if let Some(mut c) = self.find(need, align) {
            self.unlink(c);
            let gap = Heap::gap(c.0, align);
            if gap > 0 {
                let rest = Chunk(c.0 + gap);
                rest.word().store((c.size() - gap) | PREV_FREE, Relaxed);
                c.set_size(gap);
                self.put(c);
                c = rest;
            }
            c.set(USED);
            c.next().clear(PREV_FREE);
            self.split(c, need);
            return c.block();
        }
        let gap = Heap::gap(self.top, align);
        // The end may overflow with an absurd size.
        let Some(end) = self.top.checked_add(gap).and_then(|n| n.checked_add(need)) else {
            return null_mut();
        };
        if !region.grow_to(end) {
            return null_mut();
        }
        let mut c = Chunk(self.top);
        let mut flags = USED;
        self.top = end;
        if gap > 0 {
            c.word().store(gap, Relaxed);
            let rest = Chunk(c.0 + gap);
            rest.word().store(0, Relaxed);
            self.put(c);
            c = rest;
            flags |= PREV_FREE;
        }
        c.word().store(need | flags, Relaxed);
        c.block()
    }

    /// Cuts a chunk in use down to `need` bytes, and frees the rest.
    unsafe fn split(&mut self, c: Chunk, need: usize) {
        let rest = c.size() - need;
        if rest < MIN {
            return;
        }
        let tail = Chunk(c.0 + need);
        c.set_size(need);
        tail.word().store(rest | USED, Relaxed);
        self.release(tail);
    }

    unsafe fn release(&mut self, mut c: Chunk) {
        let mut size = c.size();
        let next = c.next();
        c.clear(USED);
        if next.0 != self.top && !next.is(USED) {
            self.unlink(next);
            size += next.size();
        }
        if c.is(PREV_FREE) {
            let before = *c.prev_size();
            c = Chunk(c.0 - before);
            self.unlink(c);
            size += before;
        }
        if c.0 + size == self.top {
            self.top = c.0;
        } else {
            c.set_size(size);
            self.put(c);
        }
    }

    unsafe fn free(&mut self, region: &Region, block: *mut u8, keep: usize) {
        self.check(region, block);
        self.release(Chunk::of(block));
        self.give_back(region, keep);
    }

    unsafe fn check(&self, region: &Region, block: *mut u8) {
        let at = block as usize;
        if at % UNIT != 0 || at < region.base() + size_of::<Heap>() || at >= region.brk() {
            die();
        }
        let word = Chunk::of(block).word().load(Relaxed);
        if word & (USED | CACHED) != USED {
            die();
        }
    }

    unsafe fn give_back(&mut self, region: &Region, keep: usize) {
        if region.brk() - self.top > keep {
            let end = up(self.top, page()) + STEP;
            region.shrink_to(end);
        }
    }

    unsafe fn trim(&mut self, region: &Region) {
        region.shrink_to(up(self.top, page()));
    }

    /// Changes the size in place if that is possible.
    unsafe fn resize(&mut self, region: &Region, block: *mut u8, size: usize, keep: usize) -> bool {
        let c = Chunk::of(block);
        let need = need(size);
        if need > c.size() {
            let next = c.next();
            if next.0 == self.top {
                let Some(end) = c.0.checked_add(need) else {
                    return false;
                };
                if !region.grow_to(end) {
                    return false;
                }
                self.top = end;
                c.set_size(need);
                return true;
            }
            if next.is(USED) || c.size() + next.size() < need {
                return false;
            }
            self.unlink(next);
            c.set_size(c.size() + next.size());
            c.next().clear(PREV_FREE);
        }
        self.split(c, need);
        self.give_back(region, keep);
        true
    }
}

/// The number of bytes a block of the heap may use. Needs no lock.
unsafe fn heap_usable(block: *mut u8) -> usize {
    Chunk::of(block).size() - HEAD
}

// ---- thread caches ----

const CACHES: usize = 4;
const CLASSES: usize = 64;
const FRESH: u8 = 0;
const STARTING: u8 = 1;
const LIVE: u8 = 2;
const DEAD: u8 = 3;

#[derive(Clone, Copy)]
struct Cache {
    owner: *const ThresholdAlloc,
    bytes: usize,
    lists: [usize; CLASSES],
}

struct Caches {
    state: u8,
    each: [Cache; CACHES],
}

thread_local! {
    // Has no destructor, so it can be used until the thread's end.
    static CACHES_OF: UnsafeCell<Caches> = const {
        UnsafeCell::new(Caches {
            state: FRESH,
            each: [Cache { owner: std::ptr::null(), bytes: 0, lists: [0; CLASSES] }; CACHES],
        })
    };
    static GUARD: Guard = const { Guard };
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        let all = caches();
        // SAFETY: only this thread uses its caches, and an owner outlives the threads that use it.
        unsafe {
            (*all).state = DEAD;
            for cache in &mut (*all).each {
                if !cache.owner.is_null() {
                    (*cache.owner).flush(cache);
                }
            }
        }
    }
}

fn caches() -> *mut Caches {
    CACHES_OF.with(|c| c.get())
}

impl ThresholdAlloc {
    /// This thread's cache for this allocator.
    unsafe fn cache(&self, create: bool) -> Option<&mut Cache> {
        let all = caches();
        if (*all).state != LIVE {
            if !create || (*all).state != FRESH {
                return None;
            }
            // Registering a destructor may allocate.
            (*all).state = STARTING;
            let ok = GUARD.try_with(|_| ()).is_ok();
            (*all).state = if ok { LIVE } else { DEAD };
            if !ok {
                return None;
            }
        }
        let each = &mut (*all).each;
        let me = self as *const ThresholdAlloc;
        let slot = each.iter().position(|c| c.owner == me).or_else(|| {
            if create {
                each.iter().position(|c| c.owner.is_null())
            } else {
                None
            }
        })?;
        let cache = &mut each[slot];
        cache.owner = me;
        Some(cache)
    }

    unsafe fn from_cache(&self, size: usize, align: usize) -> Option<*mut u8> {
        let need = need(size);
        if align > UNIT || need / UNIT >= CLASSES {
            return None;
        }
        let cache = self.cache(false)?;
        let list = &mut cache.lists[need / UNIT];
        if *list == 0 {
            return None;
        }
        let c = Chunk(*list);
        *list = (*c.links())[0];
        cache.bytes -= need;
        c.clear(CACHED);
        Some(c.block())
    }

    /// Returns whether the block is cached now.
    unsafe fn to_cache(&self, block: *mut u8) -> bool {
        let limit = self.cache_limit.load(Relaxed);
        if limit == 0 {
            return false;
        }
        let at = block as usize;
        if at % UNIT != 0 || at < self.region.base() + HEAD || at >= self.region.brk() {
            die();
        }
        let c = Chunk::of(block);
        let word = c.word().load(Relaxed);
        if word & (USED | CACHED) != USED {
            die();
        }
        let size = word & !FLAGS;
        if size / UNIT >= CLASSES {
            return false;
        }
        let Some(cache) = self.cache(true) else {
            return false;
        };
        if cache.bytes + size > limit {
            return false;
        }
        c.set(CACHED);
        let list = &mut cache.lists[size / UNIT];
        (*c.links())[0] = *list;
        *list = c.0;
        cache.bytes += size;
        true
    }

    unsafe fn flush(&self, cache: &mut Cache) {
        let _held = self.lock();
        let Some(heap) = Heap::of(&self.region) else {
            return;
        };
        for list in &mut cache.lists {
            while *list != 0 {
                let c = Chunk(*list);
                *list = (*c.links())[0];
                c.clear(CACHED);
                heap.free(&self.region, c.block(), self.keep.load(Relaxed));
            }
        }
        cache.bytes = 0;
    }
}

// ---- the allocator ----

#[derive(Clone, Copy)]
struct Maps {
    max: usize,
    /// Blocks that are mapped or about to be.
    taken: usize,
    blocks: usize,
    bytes: usize,
    moving: bool,
}

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
pub struct ThresholdAlloc {
    config: Config,
    threshold: AtomicUsize,
    region: Region,
    maps: UnsafeCell<Maps>,
    /// Bytes that may stay free at the end of the heap.
    keep: AtomicUsize,
    cache_limit: AtomicUsize,
}

// SAFETY: the cells are only used under the lock.
unsafe impl Sync for ThresholdAlloc {}

const LARGEST_MOVE: usize = 32 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Heap,
    Map,
}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            config,
            threshold: AtomicUsize::new(config.threshold),
            region: Region::new(),
            maps: UnsafeCell::new(Maps {
                max: config.max_maps,
                taken: 0,
                blocks: 0,
                bytes: 0,
                moving: false,
            }),
            keep: AtomicUsize::new(TRIM),
            cache_limit: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> Held {
        raw_lock();
        Held
    }

    fn maps<R>(&self, f: impl FnOnce(&mut Maps) -> R) -> R {
        let _held = self.lock();
        // SAFETY: the lock is held.
        f(unsafe { &mut *self.maps.get() })
    }

    /// Maps a block unless the cap is reached. Returns the mapping's start and length, and the block.
    fn map(&self, size: usize, align: usize, front: usize) -> Option<(usize, usize, usize)> {
        let may = self.maps(|m| {
            let may = m.taken < m.max;
            m.taken += may as usize;
            may
        });
        if !may {
            return None;
        }
        let mapped = map_block(size, align, front);
        self.maps(|m| match mapped {
            Some((_, len, _)) => {
                m.blocks += 1;
                m.bytes += len;
            }
            None => m.taken -= 1,
        });
        mapped
    }

    unsafe fn unmap(&self, start: usize, len: usize, size: usize, moves: bool) {
        // If it fails, the pages stay mapped. The block is freed all the same.
        libc::munmap(start as *mut _, len);
        self.maps(|m| {
            m.taken -= 1;
            m.blocks -= 1;
            m.bytes -= len;
            if moves && m.moving && size <= LARGEST_MOVE && size >= self.threshold.load(Relaxed) {
                self.threshold.store(size + 1, Relaxed);
                self.keep.fetch_max(2 * size, Relaxed);
            }
        });
    }

    unsafe fn from_heap(&self, size: usize, align: usize) -> *mut u8 {
        let _held = self.lock();
        if !self.region.reserve(self.config.reserve) {
            return null_mut();
        }
        match Heap::of(&self.region) {
            Some(heap) => heap.alloc(&self.region, size, align),
            None => null_mut(),
        }
    }

    unsafe fn obtain(&self, size: usize, align: usize, front: usize) -> (*mut u8, Source) {
        let large = size >= self.threshold.load(Relaxed);
        if large && let Some(block) = self.map_for(size, align, front) {
            return (block, Source::Map);
        }
        if !large && let Some(block) = self.from_cache(size, align) {
            return (block, Source::Heap);
        }
        let block = self.from_heap(size, align);
        if block.is_null()
            && !large
            && let Some(block) = self.map_for(size, align, front)
        {
            return (block, Source::Map);
        }
        (block, Source::Heap)
    }

    /// Maps a block. With `front`, a header in front of it describes the mapping.
    unsafe fn map_for(&self, size: usize, align: usize, front: usize) -> Option<*mut u8> {
        let (start, len, block) = self.map(size, align, front)?;
        if front > 0 {
            *(block as *mut [usize; 2]).sub(1) = [start, len];
        }
        Some(block as *mut u8)
    }

    unsafe fn to_heap(&self, block: *mut u8) {
        if !self.to_cache(block) {
            let _held = self.lock();
            let Some(heap) = Heap::of(&self.region) else {
                die()
            };
            heap.free(&self.region, block, self.keep.load(Relaxed));
        }
    }

    /// Stages 1, 2 and 4: allocates a block with this size and alignment. Returns null if there is no memory.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.obtain(layout.size(), layout.align(), HEAD).0
    }

    /// Stages 1 and 3: frees a block.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.region.contains(block as usize) {
            self.to_heap(block);
        } else {
            let [start, len] = *(block as *mut [usize; 2]).sub(1);
            self.unmap(start, len, layout.size(), true);
        }
    }

    /// Stage 2: returns the accessible part of the heap, from its start to its break.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let _held = self.lock();
        let base = self.region.base();
        (base != 0).then(|| base..self.region.brk())
    }

    /// Stage 4: sets the threshold.
    pub fn set_threshold(&self, bytes: usize) {
        self.maps(|m| {
            m.moving = false;
            self.threshold.store(bytes, Relaxed);
        });
    }

    /// Stage 4: sets the cap on mapped blocks. Blocks that are already mapped stay mapped.
    pub fn set_max_maps(&self, blocks: usize) {
        self.maps(|m| m.max = blocks);
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        self.maps(|m| Stats {
            mapped_blocks: m.blocks,
            mapped_bytes: m.bytes,
            threshold: self.threshold.load(Relaxed),
        })
    }

    /// Stage 5, bonus: returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        // SAFETY: the cache is this thread's.
        if let Some(cache) = unsafe { self.cache(false) } {
            // SAFETY: its blocks are from this allocator.
            unsafe { self.flush(cache) };
        }
        let _held = self.lock();
        // SAFETY: the lock is held.
        if let Some(heap) = unsafe { Heap::of(&self.region) } {
            // SAFETY: as above.
            unsafe { heap.trim(&self.region) };
        }
    }

    /// Stage 6, bonus: like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (block, source) = self.obtain(layout.size(), layout.align(), HEAD);
        if source == Source::Heap && !block.is_null() {
            block.write_bytes(0, layout.size());
        }
        block
    }

    /// Stage 6, bonus: changes the size of a block to `size` bytes.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        if self.region.contains(block as usize) {
            return self.realloc_heap(block, layout.size(), align, size, HEAD);
        }
        let [start, len] = *(block as *mut [usize; 2]).sub(1);
        let front = block as usize - start;
        if size < self.threshold.load(Relaxed) {
            let new = self
                .from_cache(size, align)
                .unwrap_or_else(|| self.from_heap(size, align));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, size.min(layout.size()));
                self.unmap(start, len, layout.size(), false);
                return new;
            }
        }
        self.remap(start, len, front, size, align)
    }

    unsafe fn realloc_heap(
        &self,
        block: *mut u8,
        old: usize,
        align: usize,
        size: usize,
        front: usize,
    ) -> *mut u8 {
        let mut new = null_mut();
        if size >= self.threshold.load(Relaxed) {
            new = self.map_for(size, align, front).unwrap_or(null_mut());
        }
        if new.is_null() {
            {
                let _held = self.lock();
                let Some(heap) = Heap::of(&self.region) else {
                    die()
                };
                if heap.resize(&self.region, block, size, self.keep.load(Relaxed)) {
                    return block;
                }
            }
            new = self.from_heap(size, align);
            if new.is_null() && size < self.threshold.load(Relaxed) {
                new = self.map_for(size, align, front).unwrap_or(null_mut());
            }
        }
        if !new.is_null() {
            new.copy_from_nonoverlapping(block, old.min(size));
            self.to_heap(block);
        }
        new
    }

    /// Changes a mapping's length, so that `size` bytes fit behind its front. Returns the block, or null.
    unsafe fn remap(
        &self,
        at: usize,
        old: usize,
        front: usize,
        size: usize,
        align: usize,
    ) -> *mut u8 {
        let page = page();
        let new = up(front + size, page);
        let mut to = at;
        if align <= page || new < old {
            let flags = if new < old { 0 } else { libc::MREMAP_MAYMOVE };
            let moved = libc::mremap(at as *mut _, old, new, flags);
            if moved == libc::MAP_FAILED {
                return null_mut();
            }
            to = moved as usize;
        } else if new > old {
            let Some((start, len, _)) = map_block(size, align, front) else {
                return null_mut();
            };
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            if libc::mremap(at as *mut _, old, new, flags, start) == libc::MAP_FAILED {
                libc::munmap(start as *mut _, len);
                return null_mut();
            }
            to = start;
        }
        self.maps(|m| m.bytes = m.bytes - old + new);
        let block = (to + front) as *mut u8;
        *(block as *mut [usize; 2]).sub(1) = [to, new];
        block
    }

    /// Stage 8, bonus: turns a dynamic threshold like glibc's on or off.
    pub fn set_moving_threshold(&self, on: bool) {
        self.maps(|m| m.moving = on);
    }

    /// Stage 9, bonus: sets how many bytes of small blocks each thread may cache after freeing them.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.cache_limit.store(bytes, Relaxed);
    }

    unsafe fn c_block(&self, size: usize, align: usize) -> (*mut u8, Source) {
        let size = size.max(1);
        let fits = size
            .checked_add(align)
            .is_some_and(|n| n <= isize::MAX as usize - STEP);
        let (block, source) = if fits {
            self.obtain(size, align, HEAD)
        } else {
            (null_mut(), Source::Heap)
        };
        if block.is_null() {
            set_errno(libc::ENOMEM);
        }
        (block, source)
    }

    /// Stage 10, bonus: like malloc(3).
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        // SAFETY: the size is checked.
        unsafe { self.c_block(size, 16).0 }
    }

    /// Stage 10, bonus: like calloc(3).
    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        let Some(size) = count.checked_mul(size) else {
            set_errno(libc::ENOMEM);
            return null_mut();
        };
        // SAFETY: the size is checked.
        let (block, source) = unsafe { self.c_block(size, 16) };
        if source == Source::Heap && !block.is_null() {
            // SAFETY: the block has this size.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Stage 10, bonus: like aligned_alloc(3), for any size. If `align` is not a power of two, errno is EINVAL.
    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            set_errno(libc::EINVAL);
            return null_mut();
        }
        // SAFETY: size and alignment are checked.
        unsafe { self.c_block(size, align.max(16)).0 }
    }

    /// Stage 10, bonus: like reallocarray(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions. If the result is not null, nobody uses `block` any more.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        let Some(size) = count
            .checked_mul(size)
            .filter(|n| *n <= isize::MAX as usize - STEP)
        else {
            set_errno(libc::ENOMEM);
            return null_mut();
        };
        if block.is_null() {
            return self.malloc(size);
        }
        let size = size.max(1);
        let old = self.usable_size(block);
        if self.region.contains(block as usize) {
            let new = self.realloc_heap(block, old, 16, size, HEAD);
            if new.is_null() {
                set_errno(libc::ENOMEM);
            }
            return new;
        }
        let [start, len] = *(block as *mut [usize; 2]).sub(1);
        let front = block as usize - start;
        if size >= self.threshold.load(Relaxed) {
            let moved = self.remap(start, len, front, size, 1);
            if moved.is_null() {
                set_errno(libc::ENOMEM);
            }
            return moved;
        }
        let new = self.malloc(size);
        if !new.is_null() {
            new.copy_from_nonoverlapping(block, old.min(size));
            self.unmap(start, len, 0, false);
        }
        new
    }

    /// Stage 10, bonus: like free(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that nobody uses any more.
    pub unsafe fn free(&self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        let before = errno();
        if self.region.contains(block as usize) {
            self.to_heap(block);
        } else {
            let [start, len] = *(block as *mut [usize; 2]).sub(1);
            self.unmap(start, len, start + len - block as usize, true);
        }
        set_errno(before);
    }

    /// Stage 10, bonus: like malloc_usable_size(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that is live.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            0
        } else if self.region.contains(block as usize) {
            heap_usable(block)
        } else {
            let [start, len] = *(block as *mut [usize; 2]).sub(1);
            start + len - block as usize
        }
    }
}

// SAFETY: blocks do not overlap, and nothing unwinds.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ThresholdAlloc::alloc(self, layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ThresholdAlloc::dealloc(self, block, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ThresholdAlloc::alloc_zeroed(self, layout)
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ThresholdAlloc::realloc(self, block, layout, size)
    }
}
