//! Free memory is a treap of ranges, which is stored in the ranges. Blocks have no headers. All stages.

use nix::libc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
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
    while LOCK.swap(2, Acquire) != 0 {
        // SAFETY: the word is a static.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                LOCK.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                2u32,
                ptr::null::<libc::timespec>(),
            )
        };
    }
}

fn raw_unlock() {
    if LOCK.swap(0, Release) == 2 {
        // SAFETY: the word is a static.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                LOCK.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1u32,
            )
        };
    }
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
// The heap. Free memory is in a set of ranges that is stored in that memory. Used memory has no header.

const GRAIN: usize = 32;
const STEP: usize = 128 << 10;
const SLACK: usize = 1 << 20;

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

fn grains(size: usize) -> Option<usize> {
    up(size, GRAIN)
}

// The second word of a cached block. A block that is taken from the cache or the heap does not have it.
fn key(block: usize) -> usize {
    block.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995_c0ff_ee11
}

unsafe fn marked(block: usize) -> bool {
    // SAFETY: a block has at least 16 bytes.
    unsafe { get(block + 8) == key(block) }
}

unsafe fn unmark(block: usize) {
    if unsafe { marked(block) } {
        unsafe { put(block + 8, 0) };
    }
}

enum NoHeap {
    Full,
    Failed,
}

struct Heap {
    top: usize,
    fresh: usize,
    free: Free,
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
    max_maps: AtomicUsize,
    blocks: AtomicUsize,
    bytes: AtomicUsize,
    heap: UnsafeCell<Heap>,
}

// SAFETY: the heap is only used with the lock.
unsafe impl Sync for ThresholdAlloc {}

/// A treap of free ranges, by address. Each node is stored in the range: its size, the left and the right subtree, and
/// the largest size in its subtree.
struct Free {
    root: usize,
}

fn size_of(node: usize) -> usize {
    // SAFETY: nodes are free memory.
    unsafe { get(node) }
}

fn left(node: usize) -> usize {
    // SAFETY: as above.
    unsafe { get(node + 8) }
}

fn right(node: usize) -> usize {
    // SAFETY: as above.
    unsafe { get(node + 16) }
}

fn most(node: usize) -> usize {
    // SAFETY: as above.
    if node == 0 {
        0
    } else {
        unsafe { get(node + 24) }
    }
}

fn set(node: usize, left: usize, right: usize) -> usize {
    let most = size_of(node).max(most(left)).max(most(right));
    // SAFETY: as above.
    unsafe {
        put(node + 8, left);
        put(node + 16, right);
        put(node + 24, most);
    }
    node
}

fn priority(node: usize) -> usize {
    (node >> 5)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn split(root: usize, at: usize) -> (usize, usize) {
    if root == 0 {
        (0, 0)
    } else if root < at {
        let (low, high) = split(right(root), at);
        (set(root, left(root), low), high)
    } else {
        let (low, high) = split(left(root), at);
        (low, set(root, high, right(root)))
    }
}

fn join(low: usize, high: usize) -> usize {
    if low == 0 || high == 0 {
        low | high
    } else if priority(low) > priority(high) {
        set(low, left(low), join(right(low), high))
    } else {
        set(high, join(low, left(high)), right(high))
    }
}

fn fit(root: usize, need: usize, align: usize) -> Option<usize> {
    if most(root) < need {
        return None;
    }
    if let Some(node) = fit(left(root), need, align) {
        return Some(node);
    }
    let place = up(root, align)?;
    if place.checked_add(need)? <= root + size_of(root) {
        return Some(root);
    }
    fit(right(root), need, align)
}

impl Free {
    const fn new() -> Free {
        Free { root: 0 }
    }

    fn insert(&mut self, at: usize, size: usize) {
        // SAFETY: the range is free.
        unsafe { put(at, size) };
        set(at, 0, 0);
        let (low, high) = split(self.root, at);
        self.root = join(join(low, at), high);
    }

    fn remove(&mut self, at: usize) {
        let (low, rest) = split(self.root, at);
        let (_, high) = split(rest, at + 1);
        self.root = join(low, high);
    }

    fn floor(&self, at: usize) -> Option<(usize, usize)> {
        let (mut node, mut best) = (self.root, 0);
        while node != 0 {
            if node <= at {
                best = node;
                node = right(node);
            } else {
                node = left(node);
            }
        }
        (best != 0).then(|| (best, size_of(best)))
    }

    fn take_fit(&mut self, need: usize, align: usize) -> Option<(usize, usize)> {
        let at = fit(self.root, need, align)?;
        let size = size_of(at);
        self.remove(at);
        Some((at, size))
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
            max_maps: AtomicUsize::new(config.max_maps),
            blocks: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            heap: UnsafeCell::new(Heap {
                top: 0,
                fresh: 0,
                free: Free::new(),
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
                heap.top = at;
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
        let used = heap.top;
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
        let need = grains(layout.size()).ok_or(NoHeap::Full)?;
        let align = layout.align().max(GRAIN);
        if !self.reserve(heap) {
            return Err(NoHeap::Full);
        }
        let place;
        let mut dirty = layout.size();
        if let Some((at, size)) = heap.free.take_fit(need, align) {
            place = (at + align - 1) & !(align - 1);
            if place > at {
                heap.free.insert(at, place - at);
            }
            if at + size > place + need {
                heap.free.insert(place + need, at + size - place - need);
            }
        } else {
            place = up(heap.top, align).ok_or(NoHeap::Full)?;
            let end = place.checked_add(need).ok_or(NoHeap::Full)?;
            self.grow(end)?;
            if place > heap.top {
                // The node is written at the start of the gap; above it, the gap stays as it is.
                heap.fresh = heap.fresh.max(heap.top + GRAIN);
                heap.free.insert(heap.top, place - heap.top);
            }
            dirty = dirty.min(heap.fresh.saturating_sub(place));
            heap.top = end;
            heap.fresh = heap.fresh.max(end);
        }
        if zero {
            // SAFETY: the block is new.
            unsafe { ptr::write_bytes(place as *mut u8, 0, dirty) };
        }
        // SAFETY: as above.
        unsafe { unmark(place) };
        Ok(place)
    }

    fn heap_free(&self, heap: &mut Heap, mut at: usize, mut size: usize) {
        let end = at + size;
        if end > heap.top {
            std::process::abort();
        }
        if let Some((before, len)) = heap.free.floor(at) {
            if before + len > at {
                std::process::abort();
            }
            if before + len == at {
                heap.free.remove(before);
                at = before;
                size += len;
            }
        }
        if end == heap.top {
            heap.top = at;
            if self.brk.load(Relaxed) - at > SLACK.max(heap.moved * 2) + STEP {
                self.shrink(heap, STEP);
            }
            return;
        }
        if let Some((after, len)) = heap.free.floor(end)
            && after == end
        {
            heap.free.remove(after);
            size += len;
        }
        heap.free.insert(at, size);
    }

    /// Changes the size of a block where it is.
    fn heap_resize(&self, heap: &mut Heap, at: usize, old: usize, size: usize) -> bool {
        let (Some(old), Some(need)) = (grains(old), grains(size)) else {
            return false;
        };
        let end = at + old;
        if need < old {
            self.heap_free(heap, at + need, old - need);
        } else if need > old && end == heap.top {
            let Some(new) = at.checked_add(need) else {
                return false;
            };
            if self.grow(new).is_err() {
                return false;
            }
            heap.top = new;
            heap.fresh = heap.fresh.max(new);
        } else if need > old {
            let Some((after, len)) = heap.free.floor(end) else {
                return false;
            };
            if after != end || old + len < need {
                return false;
            }
            heap.free.remove(after);
            if old + len > need {
                heap.free.insert(at + need, old + len - need);
            }
        }
        true
    }

    // ----- mapped blocks

    fn map_block(&self, layout: Layout) -> Option<usize> {
        self.blocks
            .fetch_update(Relaxed, Relaxed, |blocks| {
                (blocks < self.max_maps.load(Relaxed)).then_some(blocks + 1)
            })
            .ok()?;
        match map_aligned(
            layout.size(),
            layout.align(),
            libc::PROT_READ | libc::PROT_WRITE,
        ) {
            Some((at, len)) => {
                self.bytes.fetch_add(len, Relaxed);
                Some(at)
            }
            None => {
                self.blocks.fetch_sub(1, Relaxed);
                None
            }
        }
    }

    unsafe fn unmap_block(&self, block: usize, layout: Layout) {
        let len = up(layout.size(), page_size()).unwrap_or(layout.size());
        unsafe { sys_unmap(block, len) };
        self.bytes.fetch_sub(len, Relaxed);
        self.blocks.fetch_sub(1, Relaxed);
        let guard = lock();
        let heap = self.heap(&guard);
        if heap.moving && layout.size() <= 32 << 20 && layout.size() >= self.threshold.load(Relaxed)
        {
            self.threshold.store(layout.size() + 1, Relaxed);
            heap.moved = layout.size();
        }
    }

    unsafe fn remap_block(&self, block: usize, layout: Layout, size: usize) -> Option<usize> {
        let page = page_size();
        let (old, new) = (up(layout.size(), page)?, up(size, page)?);
        if old == new {
            return Some(block);
        }
        let mut at = block;
        if layout.align() <= page || new < old {
            let moved = unsafe { libc::mremap(block as *mut _, old, new, libc::MREMAP_MAYMOVE) };
            if moved == libc::MAP_FAILED {
                return None;
            }
            at = moved as usize;
        } else {
            // The kernel chooses no aligned address, so it always moves.
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
        if new > old {
            self.bytes.fetch_add(new - old, Relaxed);
        } else {
            self.bytes.fetch_sub(old - new, Relaxed);
        }
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
        if large && let Some(block) = self.map_block(layout) {
            return block as *mut u8;
        }
        let result = {
            let guard = lock();
            self.heap_alloc(self.heap(&guard), layout, zero)
        };
        match result {
            Ok(block) => block as *mut u8,
            Err(NoHeap::Full) if !large => self
                .map_block(layout)
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
        if !self.in_heap(at) {
            return unsafe { self.unmap_block(at, layout) };
        }
        // SAFETY: the block is in the accessible part of the heap, if it is one.
        if at >= self.brk.load(Relaxed) || unsafe { marked(at) } {
            std::process::abort();
        }
        let size = grains(layout.size()).unwrap_or(0);
        if unsafe { self.to_cache(at, size) } {
            return;
        }
        let guard = lock();
        self.heap_free(self.heap(&guard), at, size);
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
        self.max_maps.store(blocks, Relaxed);
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: self.blocks.load(Relaxed),
            mapped_bytes: self.bytes.load(Relaxed),
            threshold: self.threshold.load(Relaxed),
        }
    }

    /// Stage 5: returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        let _ = CACHE.try_with(|cache| {
            for slot in &cache.slots {
                if slot.owner.get() == self as *const _ as usize {
                    slot.flush();
                }
            }
        });
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
        if self.in_heap(at) {
            if size < self.threshold.load(Relaxed) || size <= layout.size() {
                let guard = lock();
                if self.heap_resize(self.heap(&guard), at, layout.size(), size) {
                    return block;
                }
            }
        } else if let Some(new) = unsafe { self.remap_block(at, layout, size) } {
            // A mapping stays a mapping, even if it is short.
            return new as *mut u8;
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
        if self.cache.load(Relaxed) == 0 || layout.align() > GRAIN {
            return None;
        }
        let size = grains(layout.size())?;
        let bin = size / GRAIN;
        if bin >= CACHE_BINS {
            return None;
        }
        CACHE
            .try_with(|cache| {
                let slot = cache.slot(self, false)?;
                let block = slot.heads[bin].get();
                if block == 0 {
                    return None;
                }
                // SAFETY: a cached block belongs to this thread. Its first word is the next one.
                slot.heads[bin].set(unsafe { get(block) });
                unsafe { unmark(block) };
                slot.bytes.set(slot.bytes.get() - size);
                Some(block)
            })
            .ok()?
    }

    unsafe fn to_cache(&self, block: usize, size: usize) -> bool {
        let limit = self.cache.load(Relaxed);
        let bin = size / GRAIN;
        if limit == 0 || bin >= CACHE_BINS {
            return false;
        }
        CACHE
            .try_with(|cache| {
                let Some(slot) = cache.slot(self, true) else {
                    return false;
                };
                if slot.bytes.get() + size > limit {
                    return false;
                }
                unsafe { put(block, slot.heads[bin].get()) };
                unsafe { put(block + 8, key(block)) };
                slot.heads[bin].set(block);
                slot.bytes.set(slot.bytes.get() + size);
                true
            })
            .unwrap_or(false)
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
// The caches of a thread, one for each allocator.

const SLOTS: usize = 4;
const CACHE_BINS: usize = 128;

struct Slot {
    owner: Cell<usize>,
    bytes: Cell<usize>,
    heads: [Cell<usize>; CACHE_BINS],
}

struct Cache {
    slots: [Slot; SLOTS],
}

thread_local! {
    static CACHE: Cache = const {
        Cache {
            slots: [const {
                Slot {
                    owner: Cell::new(0),
                    bytes: Cell::new(0),
                    heads: [const { Cell::new(0) }; CACHE_BINS],
                }
            }; SLOTS],
        }
    };
}

impl Cache {
    fn slot(&self, owner: &ThresholdAlloc, make: bool) -> Option<&Slot> {
        let owner = owner as *const _ as usize;
        if let Some(slot) = self.slots.iter().find(|slot| slot.owner.get() == owner) {
            return Some(slot);
        }
        // A slot without blocks can be used for another allocator.
        let slot = self.slots.iter().find(|slot| slot.bytes.get() == 0)?;
        make.then(|| {
            slot.owner.set(owner);
            slot
        })
    }
}

impl Slot {
    fn flush(&self) {
        if self.owner.get() == 0 {
            return;
        }
        // SAFETY: the allocator outlives the threads that have used it.
        let owner = unsafe { &*(self.owner.get() as *const ThresholdAlloc) };
        let guard = lock();
        let heap = owner.heap(&guard);
        for (bin, head) in self.heads.iter().enumerate() {
            let mut block = head.replace(0);
            while block != 0 {
                // SAFETY: a cached block belongs to this thread.
                let next = unsafe { get(block) };
                owner.heap_free(heap, block, bin * GRAIN);
                block = next;
            }
        }
        self.bytes.set(0);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.flush();
        }
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
