//! A table beside the heap holds the free extents, in the order of addresses. Best fit, without headers, all stages.

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::*};

fn page() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    match PAGE.load(Relaxed) {
        0 => {
            // SAFETY: sysconf accesses no memory of the caller.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            PAGE.store(size, Relaxed);
            size
        }
        size => size,
    }
}

fn whole_pages(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(page())
}

fn map(at: *mut u8, len: usize, prot: i32, flags: i32) -> *mut u8 {
    // SAFETY: the callers pass MAP_FIXED only for free memory of a reservation.
    let p = unsafe {
        libc::mmap(
            at.cast(),
            len,
            prot,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if p == libc::MAP_FAILED {
        null_mut()
    } else {
        p.cast()
    }
}

fn unmap(at: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: nobody uses these pages any more.
        unsafe { libc::munmap(at.cast(), len) };
    }
}

fn map_aligned(len: usize, align: usize, prot: i32) -> *mut u8 {
    let spare = align.saturating_sub(page());
    let Some(total) = len.checked_add(spare) else {
        return null_mut();
    };
    let start = map(null_mut(), total, prot, 0);
    if start.is_null() || spare == 0 {
        return start;
    }
    let before = start.addr().next_multiple_of(align) - start.addr();
    let block = start.wrapping_add(before);
    unmap(start, before);
    unmap(block.wrapping_add(len), spare - before);
    block
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const MIN: usize = 16;

struct Lock(UnsafeCell<libc::pthread_mutex_t>);
// SAFETY: a mutex is made for several threads.
unsafe impl Sync for Lock {}
static LOCK: Lock = Lock(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
static REGISTERED: AtomicBool = AtomicBool::new(false);
struct Guard;
impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: this thread holds the lock.
        unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
    }
}
extern "C" fn before() {
    // SAFETY: the mutex is initialized.
    unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
}
extern "C" fn parent() {
    // SAFETY: this thread holds the lock.
    unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
}
extern "C" fn child() {
    // SAFETY: the child has one thread, which held the lock.
    unsafe { LOCK.0.get().write(libc::PTHREAD_MUTEX_INITIALIZER) };
}
fn lock() -> Guard {
    if !REGISTERED.swap(true, Relaxed) {
        // SAFETY: the handlers are functions.
        unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
    }
    before();
    Guard
}

struct Arena {
    start: usize,
    end: usize,
    brk: usize,
}
impl Arena {
    fn reserve(want: usize) -> Option<Arena> {
        let mut len = want / page() * page();
        while len > 0 {
            let start =
                map(null_mut(), len, libc::PROT_NONE, libc::MAP_NORESERVE).expose_provenance();
            if start != 0 {
                return Some(Arena {
                    start,
                    end: start + len,
                    brk: start,
                });
            }
            len = len / 2 / page() * page();
        }
        None
    }
    fn contains(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }
    /// Makes the heap accessible up to `need` at least.
    fn grow(&mut self, need: usize) -> bool {
        if need <= self.brk {
            return true;
        }
        if need > self.end {
            return false;
        }
        let step = (need - self.brk).max(128 << 10).next_multiple_of(page());
        let new = self.brk.saturating_add(step).min(self.end);
        // SAFETY: the range is free memory of the reservation.
        if unsafe {
            libc::mprotect(
                ptr::with_exposed_provenance_mut(self.brk),
                new - self.brk,
                RW,
            )
        } != 0
        {
            return false;
        }
        self.brk = new;
        true
    }
    fn shrink(&mut self, to: usize) -> bool {
        let to = to.next_multiple_of(page());
        if to >= self.brk {
            return true;
        }
        let (at, len) = (ptr::with_exposed_provenance_mut(to), self.brk - to);
        // SAFETY: the range is free memory of the reservation.
        if unsafe { libc::mprotect(at, len, libc::PROT_NONE) } != 0 {
            return false;
        }
        // SAFETY: the range is free memory of the reservation.
        if unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) } != 0 {
            // SAFETY: the range is free memory of the reservation.
            unsafe { libc::mprotect(at, len, RW) };
            return false;
        }
        self.brk = to;
        true
    }
}

fn side(len: usize) -> *mut u8 {
    map(
        null_mut(),
        len.next_multiple_of(page()),
        RW,
        libc::MAP_NORESERVE,
    )
}
impl Heap {
    fn create(reserve: usize) -> *mut Heap {
        let place = side(size_of::<Heap>()).cast::<Heap>();
        if place.is_null() {
            return null_mut();
        }
        let mut want = reserve;
        while let Some(arena) = Arena::reserve(want) {
            let (start, len) = (arena.start, arena.end - arena.start);
            if let Some(heap) = Heap::new(arena) {
                // SAFETY: the new mapping is long enough.
                unsafe { place.write(heap) };
                return place;
            }
            unmap(ptr::with_exposed_provenance_mut(start), len);
            want = len / 2;
        }
        unmap(place.cast(), size_of::<Heap>().next_multiple_of(page()));
        null_mut()
    }
    /// Gives memory back if more than `keep` bytes are free at the end.
    fn give_back(&mut self, keep: usize) {
        if self.arena.brk - self.top > keep {
            self.arena.shrink(self.top + keep / 2);
        }
    }
    fn trim(&mut self, keep: usize) {
        self.arena.shrink(self.top + keep);
    }
}
#[derive(Clone, Copy)]
struct Extent {
    start: usize,
    end: usize,
}
struct Heap {
    arena: Arena,
    top: usize,
    free: *mut Extent,
    count: usize,
    room: usize,
    live: usize,
}
impl Heap {
    fn new(arena: Arena) -> Option<Heap> {
        Some(Heap {
            top: arena.start,
            arena,
            free: null_mut(),
            count: 0,
            room: 0,
            live: 0,
        })
    }
    /// There are at most as many free extents as live blocks, plus those of alignment.
    fn prepare(&mut self) -> bool {
        if self.live * 2 + 4 <= self.room {
            return true;
        }
        let (old, new) = (
            self.room * size_of::<Extent>(),
            (self.room * 2).max(4 << 10) * size_of::<Extent>(),
        );
        let new = new.next_multiple_of(page());
        let place = if old == 0 {
            map(null_mut(), new, RW, 0)
        } else {
            // SAFETY: the table is a mapping of this length.
            let p = unsafe { libc::mremap(self.free.cast(), old, new, libc::MREMAP_MAYMOVE) };
            if p == libc::MAP_FAILED {
                null_mut()
            } else {
                p.cast()
            }
        };
        if place.is_null() {
            return false;
        }
        self.free = place.cast();
        self.room = new / size_of::<Extent>();
        true
    }
    fn list(&mut self) -> &mut [Extent] {
        if self.count == 0 {
            return &mut [];
        }
        // SAFETY: the first `count` extents are initialized, under the lock.
        unsafe { std::slice::from_raw_parts_mut(self.free, self.count) }
    }
    fn insert(&mut self, at: usize, extent: Extent) {
        let p = self.free.wrapping_add(at);
        // SAFETY: `prepare` has made room for one more.
        unsafe { p.copy_to(p.wrapping_add(1), self.count - at) };
        // SAFETY: as above.
        unsafe { p.write(extent) };
        self.count += 1;
    }
    fn remove(&mut self, at: usize) {
        let p = self.free.wrapping_add(at);
        // SAFETY: the extents are in the table.
        unsafe { p.wrapping_add(1).copy_to(p, self.count - at - 1) };
        self.count -= 1;
    }
    fn alloc(&mut self, size: usize, align: usize) -> Option<usize> {
        if !self.prepare() {
            return None;
        }
        let best = self
            .list()
            .iter()
            .enumerate()
            .filter(|(_, e)| {
                e.start
                    .next_multiple_of(align)
                    .checked_add(size)
                    .is_some_and(|end| end <= e.end)
            })
            .min_by_key(|(_, e)| e.end - e.start)
            .map(|(i, e)| (i, *e));
        let block = if let Some((i, e)) = best {
            let block = e.start.next_multiple_of(align);
            let before = Extent {
                start: e.start,
                end: block,
            };
            let after = Extent {
                start: block + size,
                end: e.end,
            };
            self.remove(i);
            if after.start < after.end {
                self.insert(i, after);
            }
            if before.start < before.end {
                self.insert(i, before);
            }
            block
        } else {
            let block = self.top.checked_next_multiple_of(align)?;
            let end = block.checked_add(size)?;
            if !self.arena.grow(end) {
                return None;
            }
            if block > self.top {
                self.insert(
                    self.count,
                    Extent {
                        start: self.top,
                        end: block,
                    },
                );
            }
            self.top = end;
            block
        };
        self.live += 1;
        Some(block)
    }
    fn free(&mut self, block: usize, size: usize, _align: usize, keep: usize) {
        let at = self.list().partition_point(|e| e.start <= block);
        if block >= self.top || at > 0 && self.list()[at - 1].end > block {
            std::process::abort();
        }
        self.live -= 1;
        let mut new = Extent {
            start: block,
            end: block + size,
        };
        if at < self.count && self.list()[at].start == new.end {
            new.end = self.list()[at].end;
            self.remove(at);
        }
        let mut at = at;
        if at > 0 && self.list()[at - 1].end == block {
            at -= 1;
            new.start = self.list()[at].start;
            self.remove(at);
        }
        if new.end == self.top {
            self.top = new.start;
            self.give_back(keep);
        } else {
            self.insert(at, new);
        }
    }
}

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

pub struct ThresholdAlloc {
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    live: AtomicUsize,
    mapped: AtomicUsize,
    moving: AtomicBool,
    slack: AtomicUsize,
    cache_limit: AtomicUsize,
    reserve: usize,
    heap: AtomicPtr<Heap>,
}

fn rounded(layout: Layout) -> Option<(usize, usize)> {
    Some((
        layout.size().checked_next_multiple_of(MIN)?,
        layout.align().max(MIN),
    ))
}

impl ThresholdAlloc {
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            threshold: AtomicUsize::new(config.threshold),
            max_maps: AtomicUsize::new(config.max_maps),
            live: AtomicUsize::new(0),
            mapped: AtomicUsize::new(0),
            moving: AtomicBool::new(false),
            slack: AtomicUsize::new(0),
            cache_limit: AtomicUsize::new(0),
            reserve: config.reserve,
            heap: AtomicPtr::new(null_mut()),
        }
    }

    fn count(&self) -> bool {
        let max = self.max_maps.load(Relaxed);
        self.live
            .fetch_update(Relaxed, Relaxed, |live| (live < max).then_some(live + 1))
            .is_ok()
    }

    fn map_block(&self, layout: Layout) -> *mut u8 {
        let Some(len) = whole_pages(layout.size()) else {
            return null_mut();
        };
        if !self.count() {
            return null_mut();
        }
        let block = map_aligned(len, layout.align(), RW);
        if block.is_null() {
            self.live.fetch_sub(1, Relaxed);
        } else {
            self.mapped.fetch_add(len, Relaxed);
        }
        block
    }

    fn in_heap(&self, block: *mut u8) -> bool {
        let heap = self.heap.load(Acquire);
        // SAFETY: a heap is never unmapped, and its reservation never moves.
        !heap.is_null() && unsafe { (*heap).arena.contains(block.addr()) }
    }

    fn heap_alloc(&self, layout: Layout) -> *mut u8 {
        let Some((size, align)) = rounded(layout) else {
            return null_mut();
        };
        let _guard = lock();
        let mut heap = self.heap.load(Acquire);
        if heap.is_null() {
            heap = Heap::create(self.reserve);
            if heap.is_null() {
                return null_mut();
            }
            self.heap.store(heap, Release);
        }
        // SAFETY: a heap is never unmapped, and the lock is held.
        unsafe { (*heap).alloc(size, align) }
            .map_or(null_mut(), |a| ptr::with_exposed_provenance_mut(a))
    }

    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= self.threshold.load(Relaxed) {
            let block = self.map_block(layout);
            if !block.is_null() {
                return block;
            }
        } else if let Some(block) = self.cache_take(layout) {
            return block;
        }
        let block = self.heap_alloc(layout);
        if !block.is_null() {
            block
        } else {
            self.map_block(layout)
        }
    }

    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.in_heap(block) {
            if self.cache_put(block, layout) {
                return;
            }
            let (size, align) = rounded(layout).unwrap_or_else(|| std::process::abort());
            let _guard = lock();
            let heap = self.heap.load(Acquire);
            // SAFETY: a heap is never unmapped, and the lock is held.
            unsafe {
                (*heap).free(
                    block.expose_provenance(),
                    size,
                    align,
                    (1 << 20).max(self.slack.load(Relaxed)),
                )
            };
            return;
        }
        let Some(len) = whole_pages(layout.size()) else {
            return;
        };
        if self.moving.load(Relaxed) && len <= 32 << 20 {
            self.slack.fetch_max(2 * len, Relaxed);
            self.threshold.fetch_max(len + 1, Relaxed);
        }
        self.mapped.fetch_sub(len, Relaxed);
        self.live.fetch_sub(1, Relaxed);
        unmap(block, len);
    }

    pub fn heap_range(&self) -> Option<Range<usize>> {
        let _guard = lock();
        let heap = self.heap.load(Acquire);
        if heap.is_null() {
            return None;
        }
        // SAFETY: a heap is never unmapped, and its reservation never moves.
        let arena = unsafe { &(*heap).arena };
        Some(arena.start..arena.brk)
    }

    pub fn set_threshold(&self, bytes: usize) {
        self.moving.store(false, Relaxed);
        self.threshold.store(bytes, Relaxed);
    }

    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, Relaxed);
    }

    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.live.load(Relaxed),
            mapped_bytes: self.mapped.load(Relaxed),
            threshold: self.threshold.load(Relaxed),
        }
    }

    pub fn trim(&self) {
        let heap = self.heap.load(Acquire);
        if heap.is_null() {
            return;
        }
        let _ = CACHE.try_with(|cache| {
            if cache.heap.get() == heap {
                cache.flush();
            }
        });
        let _guard = lock();
        // SAFETY: a heap is never unmapped, and the lock is held.
        unsafe { (*heap).trim(0) };
    }

    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() && self.in_heap(block) {
            // SAFETY: the block is new and this long.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn remap(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (Some(old), Some(new)) = (whole_pages(layout.size()), whole_pages(size)) else {
            return null_mut();
        };
        if old == new {
            return block;
        }
        let flags = if layout.align() <= page() {
            libc::MREMAP_MAYMOVE
        } else {
            0
        };
        // SAFETY: the block is a mapping of this length, and a fixed place is unused.
        let mut moved = unsafe { libc::mremap(block.cast(), old, new, flags) };
        if moved == libc::MAP_FAILED && layout.align() > page() {
            let place = map_aligned(new, layout.align(), libc::PROT_NONE);
            if place.is_null() {
                return null_mut();
            }
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: the block is a mapping of this length, and a fixed place is unused.
            moved = unsafe { libc::mremap(block.cast(), old, new, flags, place) };
            if moved == libc::MAP_FAILED {
                unmap(place, new);
            }
        }
        if moved == libc::MAP_FAILED {
            return null_mut();
        }
        self.mapped.fetch_add(new.wrapping_sub(old), Relaxed);
        moved.cast()
    }

    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        let mapped = !self.in_heap(block);
        if mapped && size >= self.threshold.load(Relaxed) {
            // SAFETY: the caller's contract.
            return unsafe { self.remap(block, layout, size) };
        }
        // SAFETY: the caller's contract.
        let new = if mapped {
            self.heap_alloc(new_layout)
        } else {
            unsafe { self.alloc(new_layout) }
        };
        if new.is_null() {
            // SAFETY: the caller's contract.
            return if mapped {
                unsafe { self.remap(block, layout, size) }
            } else {
                null_mut()
            };
        }
        // SAFETY: both blocks are live and this long.
        unsafe { new.copy_from_nonoverlapping(block, size.min(layout.size())) };
        // SAFETY: the caller's contract.
        unsafe { self.dealloc(block, layout) };
        new
    }

    pub fn set_moving_threshold(&self, on: bool) {
        self.moving.store(on, Relaxed);
    }

    pub fn set_thread_cache(&self, bytes: usize) {
        self.cache_limit.store(bytes, Relaxed);
    }

    fn cache_take(&self, layout: Layout) -> Option<*mut u8> {
        let class = cache_class(layout)?;
        CACHE
            .try_with(|cache| {
                let first = cache.lists[class].get();
                if first.is_null() || cache.heap.get() != self.heap.load(Relaxed) {
                    return None;
                }
                // SAFETY: a cached block begins with the next.
                cache.lists[class].set(unsafe { first.cast::<*mut u8>().read() });
                cache.bytes.set(cache.bytes.get() - class * MIN);
                Some(first)
            })
            .ok()
            .flatten()
    }

    fn cache_put(&self, block: *mut u8, layout: Layout) -> bool {
        let limit = self.cache_limit.load(Relaxed);
        let Some(class) = cache_class(layout) else {
            return false;
        };
        CACHE
            .try_with(|cache| {
                let heap = self.heap.load(Relaxed);
                if cache.heap.get() != heap {
                    if limit == 0 {
                        return false;
                    }
                    cache.flush();
                    cache.heap.set(heap);
                }
                let first = cache.lists[class].get();
                if first == block {
                    std::process::abort();
                }
                if cache.bytes.get() + class * MIN > limit {
                    return false;
                }
                // SAFETY: the block is free, and at least 16 bytes long.
                unsafe { block.cast::<*mut u8>().write(first) };
                cache.lists[class].set(block);
                cache.bytes.set(cache.bytes.get() + class * MIN);
                true
            })
            .unwrap_or(false)
    }
}

const CACHED: usize = 64;

fn cache_class(layout: Layout) -> Option<usize> {
    (layout.size() <= CACHED * MIN && layout.align() <= MIN).then(|| layout.size().div_ceil(MIN))
}

struct Cache {
    heap: Cell<*mut Heap>,
    bytes: Cell<usize>,
    lists: [Cell<*mut u8>; CACHED + 1],
}

thread_local! {
    static CACHE: Cache = const {
        Cache { heap: Cell::new(null_mut()), bytes: Cell::new(0), lists: [const { Cell::new(null_mut()) }; CACHED + 1] }
    };
}

impl Cache {
    fn flush(&self) {
        let heap = self.heap.get();
        if heap.is_null() {
            return;
        }
        let _guard = lock();
        for (class, list) in self.lists.iter().enumerate() {
            let mut block = list.replace(null_mut());
            while !block.is_null() {
                // SAFETY: a cached block begins with the next.
                let next = unsafe { block.cast::<*mut u8>().read() };
                // SAFETY: a heap is never unmapped, and the lock is held.
                unsafe { (*heap).free(block.expose_provenance(), class * MIN, MIN, 1 << 20) };
                block = next;
            }
        }
        self.bytes.set(0);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.flush();
    }
}

// SAFETY: no method unwinds, and each block is as its layout says.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { ThresholdAlloc::alloc(self, layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { ThresholdAlloc::dealloc(self, block, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { ThresholdAlloc::alloc_zeroed(self, layout) }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { ThresholdAlloc::realloc(self, block, layout, size) }
    }
}

/// Stage 10. The header is the address and the size of the whole allocation. That is always aligned to 16 bytes: for a
/// larger alignment it is longer, and the block begins at an aligned address in it.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Header {
    start: *mut u8,
    size: usize,
}

const HEADER: usize = size_of::<Header>();

impl Header {
    /// # Safety
    /// `block` is a live block of the C functions.
    unsafe fn of(block: *mut u8) -> Header {
        // SAFETY: the header is in front of the block.
        unsafe { block.cast::<Header>().wrapping_sub(1).read() }
    }

    /// Writes the header, and returns the block.
    ///
    /// # Safety
    /// The allocation begins at least a header before `block`, and contains it.
    unsafe fn write(self, block: *mut u8) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { block.cast::<Header>().wrapping_sub(1).write(self) };
        block
    }

    fn layout(self) -> Layout {
        // SAFETY: this layout was valid when the block was allocated.
        unsafe { Layout::from_size_align_unchecked(self.size, HEADER) }
    }
}

fn out_of_memory() -> *mut u8 {
    // SAFETY: errno belongs to this thread.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    null_mut()
}

impl ThresholdAlloc {
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        self.aligned_alloc(HEADER, size)
    }

    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else {
            return out_of_memory();
        };
        let block = self.malloc(bytes);
        if !block.is_null() {
            // SAFETY: the block has this size.
            unsafe { block.write_bytes(0, bytes) };
        }
        block
    }

    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            // SAFETY: errno belongs to this thread.
            unsafe { *libc::__errno_location() = libc::EINVAL };
            return null_mut();
        }
        let align = align.max(HEADER);
        let Some(total) = size.max(1).checked_add(align) else {
            return out_of_memory();
        };
        let Ok(layout) = Layout::from_size_align(total, HEADER) else {
            return out_of_memory();
        };
        // SAFETY: the size is not zero.
        let start = unsafe { self.alloc(layout) };
        if start.is_null() {
            return out_of_memory();
        }
        let offset = (start.addr() + HEADER).next_multiple_of(align) - start.addr();
        let header = Header { start, size: total };
        // SAFETY: the offset is at least a header and at most the alignment.
        unsafe { header.write(start.wrapping_add(offset)) }
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else {
            return out_of_memory();
        };
        if block.is_null() {
            return self.malloc(bytes);
        }
        // SAFETY: the caller's contract.
        let old = unsafe { Header::of(block) };
        let offset = block.addr() - old.start.addr();
        let total = bytes.max(1).checked_add(offset);
        let Some(total) = total.filter(|total| *total <= isize::MAX as usize - HEADER) else {
            return out_of_memory();
        };
        // SAFETY: the allocation has this layout.
        let start = unsafe { self.realloc(old.start, old.layout(), total) };
        if start.is_null() {
            return out_of_memory();
        }
        let header = Header { start, size: total };
        // SAFETY: the offset is as before.
        unsafe { header.write(start.wrapping_add(offset)) }
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn free(&self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        // SAFETY: errno belongs to this thread.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let before = unsafe { errno.read() };
        // SAFETY: the caller's contract.
        let header = unsafe { Header::of(block) };
        // SAFETY: the allocation has this layout.
        unsafe { self.dealloc(header.start, header.layout()) };
        // SAFETY: as above.
        unsafe { errno.write(before) };
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        // SAFETY: the caller's contract.
        let header = unsafe { Header::of(block) };
        header.start.addr() + header.size - block.addr()
    }
}
