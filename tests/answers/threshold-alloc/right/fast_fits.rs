//! Free memory is a Cartesian tree (Stephenson's fast fits). Fork closes a gate, and the last block that was freed is remembered. All stages.
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

// ---- a lock for each allocator, and a gate that fork closes ----

static INSIDE: AtomicUsize = AtomicUsize::new(0);
static FORKING: AtomicU32 = AtomicU32::new(0);

fn pause() {
    // SAFETY: no memory is involved.
    unsafe { libc::sched_yield() };
}

extern "C" fn close_gate() {
    while FORKING.swap(1, SeqCst) != 0 {
        pause();
    }
    while INSIDE.load(SeqCst) != 0 {
        pause();
    }
}

extern "C" fn open_gate() {
    FORKING.store(0, SeqCst);
}

extern "C" fn open_gate_in_child() {
    // The other threads, which may have been about to turn back at the gate, do not exist here.
    INSIDE.store(0, SeqCst);
    FORKING.store(0, SeqCst);
}

extern "C" fn register() {
    // SAFETY: the functions only use the atomics.
    unsafe { libc::pthread_atfork(Some(close_gate), Some(open_gate), Some(open_gate_in_child)) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = register;

struct Held<'a>(&'a AtomicU32);

impl<'a> Held<'a> {
    fn take(word: &'a AtomicU32) -> Held<'a> {
        loop {
            INSIDE.fetch_add(1, SeqCst);
            if FORKING.load(SeqCst) == 0 {
                break;
            }
            INSIDE.fetch_sub(1, SeqCst);
            pause();
        }
        while word.swap(1, Acquire) != 0 {
            pause();
        }
        Held(word)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
        INSIDE.fetch_sub(1, SeqCst);
    }
}

// ---- the reservation, its break, and a table beside it ----

const STEP: usize = 128 << 10;
const TRIM: usize = 1 << 20;

struct Region {
    base: AtomicUsize,
    limit: AtomicUsize,
    brk: AtomicUsize,
    table: AtomicUsize,
    /// Bytes of the table that are accessible.
    table_open: AtomicUsize,
}

impl Region {
    const fn new() -> Region {
        Region {
            base: AtomicUsize::new(0),
            limit: AtomicUsize::new(0),
            brk: AtomicUsize::new(0),
            table: AtomicUsize::new(0),
            table_open: AtomicUsize::new(0),
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
    fn table(&self) -> usize {
        self.table.load(Relaxed)
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
                let side = table_len(len);
                let table = if side == 0 {
                    Some(0)
                } else {
                    sys_mmap(side, libc::PROT_NONE)
                };
                if let Some(table) = table {
                    self.table.store(table, Relaxed);
                    self.limit.store(at + len, Relaxed);
                    self.brk.store(at, Relaxed);
                    self.base.store(at, Release);
                    return true;
                }
                // SAFETY: nobody uses it.
                unsafe { libc::munmap(at as *mut _, len) };
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
        // A quarter more than is needed: a growing heap makes fewer calls.
        let step = up(end - brk + (brk - self.base()) / 4, page())
            .max(STEP)
            .min(self.limit() - brk);
        // The table grows first: more of it than is needed does no harm.
        let open = self.table_open.load(Relaxed);
        let wanted = up(table_len(brk + step - self.base()), page());
        if wanted > open {
            let more = up(wanted - open, STEP)
                .min(up(table_len(self.limit() - self.base()), page()) - open);
            // SAFETY: the range is in the table's reservation.
            if unsafe { libc::mprotect((self.table() + open) as *mut _, more, RW) } != 0 {
                return false;
            }
            self.table_open.store(open + more, Relaxed);
        }
        // SAFETY: the range is in the reservation, above the break.
        if unsafe { libc::mprotect(brk as *mut _, step, RW) } != 0 {
            return false;
        }
        self.brk.store(brk + step, Relaxed);
        true
    }
    /// Replaces the end of the heap by a new reservation, in one call that either works or changes nothing.
    fn shrink_to(&self, end: usize) -> bool {
        let brk = self.brk();
        if end >= brk {
            return true;
        }
        // SAFETY: the range is in the reservation, and nobody uses it.
        let at = unsafe {
            libc::mmap(
                end as *mut _,
                brk - end,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return false;
        }
        self.brk.store(end, Relaxed);
        true
    }
    /// Returns memory from `top` on to the kernel, if it is more than `keep`.
    fn give_back(&self, top: usize, keep: usize) {
        if self.brk().saturating_sub(top) > keep {
            self.shrink_to(up(top, page()) + STEP);
        }
    }
}

// ---- the heap: a Cartesian tree of free ranges (Stephenson's "fast fits"), without headers ----
// By address it is a search tree; a range is at least as long as the ranges below it.

const UNIT: usize = 32;

fn table_len(_reserve: usize) -> usize {
    0
}

struct Node {
    left: *mut Node,
    right: *mut Node,
    bytes: usize,
}

type Link = *mut *mut Node;

struct Heap {
    root: *mut Node,
    top: usize,
}

impl Heap {
    const fn new() -> Heap {
        Heap {
            root: null_mut(),
            top: 0,
        }
    }

    /// Removes the node at a link: its subtrees are merged.
    unsafe fn cut(mut link: Link) {
        let (mut a, mut b) = ((**link).left, (**link).right);
        loop {
            if a.is_null() {
                *link = b;
                return;
            }
            if b.is_null() {
                *link = a;
                return;
            }
            if (*a).bytes >= (*b).bytes {
                *link = a;
                link = &mut (*a).right;
                a = *link;
            } else {
                *link = b;
                link = &mut (*b).left;
                b = *link;
            }
        }
    }

    unsafe fn insert(&mut self, at: usize, bytes: usize) {
        let new = at as *mut Node;
        let mut link: Link = &mut self.root;
        while !(*link).is_null() && (**link).bytes >= bytes {
            link = if new < *link {
                &mut (**link).left
            } else {
                &mut (**link).right
            };
        }
        // Splits the tree below by address.
        let mut rest = *link;
        *link = new;
        (*new).bytes = bytes;
        let mut less: Link = &mut (*new).left;
        let mut more: Link = &mut (*new).right;
        while !rest.is_null() {
            if rest < new {
                *less = rest;
                less = &mut (*rest).right;
                rest = *less;
            } else {
                *more = rest;
                more = &mut (*rest).left;
                rest = *more;
            }
        }
        *less = null_mut();
        *more = null_mut();
    }

    /// Removes the free range that ends or starts at an address. Aborts if a range contains `at..end`'s inside.
    unsafe fn neighbour(&mut self, at: usize, end: usize, ends: bool) -> usize {
        let mut link: Link = &mut self.root;
        while !(*link).is_null() {
            let start = *link as usize;
            let bytes = (**link).bytes;
            if start < end && start + bytes > at {
                die();
            }
            if if ends {
                start + bytes == at
            } else {
                start == end
            } {
                Heap::cut(link);
                return bytes;
            }
            link = if at < start {
                &mut (**link).left
            } else {
                &mut (**link).right
            };
        }
        0
    }

    unsafe fn put(&mut self, at: usize, bytes: usize) {
        if at + bytes > self.top || at % UNIT != 0 {
            die();
        }
        let before = self.neighbour(at, at + bytes, true);
        let after = self.neighbour(at, at + bytes, false);
        let start = at - before;
        let bytes = before + bytes + after;
        if start + bytes == self.top {
            self.top = start;
        } else {
            self.insert(start, bytes);
        }
    }

    fn fits(node: *mut Node, bytes: usize, size: usize, align: usize) -> bool {
        let end = node as usize + bytes;
        let start = up(node as usize, align);
        start < end && end - start >= size
    }

    unsafe fn alloc(&mut self, region: &Region, size: usize, align: usize) -> *mut u8 {
        if self.top == 0 {
            self.top = region.base();
        }
        let (size, align) = (up(size, UNIT), align.max(UNIT));
        let mut link: Link = &mut self.root;
        // With a large alignment, the search follows only one path. What it misses is found by the walk below.
        while !(*link).is_null() && Heap::fits(*link, (**link).bytes, size, align) {
            let (l, r) = ((**link).left, (**link).right);
            let left = !l.is_null() && Heap::fits(l, (*l).bytes, size, align);
            let right = !r.is_null() && Heap::fits(r, (*r).bytes, size, align);
            // The shorter child that fits: a better fit.
            link = match (left, right) {
                (false, false) => break,
                (true, false) => &mut (**link).left,
                (false, true) => &mut (**link).right,
                (true, true) if (*l).bytes <= (*r).bytes => &mut (**link).left,
                (true, true) => &mut (**link).right,
            };
        }
        if !(*link).is_null() && !Heap::fits(*link, (**link).bytes, size, align) {
            link = if align > UNIT {
                Heap::walk(link, size, align)
            } else {
                null_mut()
            };
        }
        if !link.is_null() && !(*link).is_null() {
            let at = *link as usize;
            let end = at + (**link).bytes;
            let start = up(at, align);
            Heap::cut(link);
            if start > at {
                self.insert(at, start - at);
            }
            if start + size < end {
                self.insert(start + size, end - start - size);
            }
            return start as *mut u8;
        }
        let start = up(self.top, align);
        let end = start.saturating_add(size);
        if !region.grow_to(end) {
            return null_mut();
        }
        let gap = self.top;
        self.top = end;
        if gap < start {
            self.put(gap, start - gap);
        }
        start as *mut u8
    }

    /// Any range below that fits. Recursive: the tree is about as deep as a random one.
    unsafe fn walk(link: Link, size: usize, align: usize) -> Link {
        let node = *link;
        if node.is_null() || (*node).bytes < size {
            return null_mut();
        }
        if Heap::fits(node, (*node).bytes, size, align) {
            return link;
        }
        let found = Heap::walk(&mut (*node).left, size, align);
        if found.is_null() {
            Heap::walk(&mut (*node).right, size, align)
        } else {
            found
        }
    }

    unsafe fn free(&mut self, region: &Region, at: usize, size: usize, _align: usize, keep: usize) {
        self.put(at, up(size, UNIT));
        region.give_back(self.top, keep);
    }

    unsafe fn resize(
        &mut self,
        region: &Region,
        at: usize,
        old: usize,
        new: usize,
        _align: usize,
        keep: usize,
    ) -> bool {
        let was = at + up(old, UNIT);
        let end = at + up(new, UNIT);
        if end < was {
            self.put(end, was - end);
            region.give_back(self.top, keep);
        }
        if end <= was {
            return true;
        }
        if was == self.top && region.grow_to(end) {
            self.top = end;
            return true;
        }
        false
    }

    unsafe fn trim(&mut self, region: &Region) {
        if self.top != 0 {
            region.shrink_to(up(self.top, page()));
        }
    }
}

// ---- thread caches: an array beside the blocks, whose memory stays untouched ----

const SLOTS: usize = 128;
const LARGEST_CACHED: usize = 1024;

#[derive(Clone, Copy)]
struct Entry {
    owner: *const ThresholdAlloc,
    block: usize,
    size: usize,
}

struct Cache {
    count: usize,
    entries: [Entry; SLOTS],
}

const EMPTY: Cache = Cache {
    count: 0,
    entries: [Entry {
        owner: std::ptr::null(),
        block: 0,
        size: 0,
    }; SLOTS],
};

static KEY: AtomicU32 = AtomicU32::new(u32::MAX);

/// Runs before `main`, so the key is one of the first: setting its value does not allocate.
extern "C" fn make_key() {
    let mut key = 0;
    // SAFETY: the pointer is valid for the call.
    if unsafe { libc::pthread_key_create(&mut key, Some(thread_ends)) } == 0 {
        KEY.store(key, Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static MAKE_KEY: extern "C" fn() = make_key;

/// If a later destructor frees a block, there is a new cache, and pthreads calls this function again.
unsafe extern "C" fn thread_ends(value: *mut libc::c_void) {
    let cache = value as *mut Cache;
    (*cache).flush(std::ptr::null());
    libc::munmap(value, size_of::<Cache>());
}

unsafe fn this_cache(create: bool) -> Option<*mut Cache> {
    let key = KEY.load(Relaxed);
    if key == u32::MAX {
        return None;
    }
    let cache = libc::pthread_getspecific(key) as *mut Cache;
    if !cache.is_null() {
        return Some(cache);
    }
    if !create {
        return None;
    }
    let new = sys_mmap(size_of::<Cache>(), RW)? as *mut Cache;
    if libc::pthread_setspecific(key, new as *const _) != 0 {
        libc::munmap(new as *mut _, size_of::<Cache>());
        return None;
    }
    Some(new)
}

/// Blocks of the same number are interchangeable.
fn rounded(size: usize) -> usize {
    up(size, 16)
}

impl Cache {
    unsafe fn flush(&mut self, owner: *const ThresholdAlloc) {
        let mut i = 0;
        while i < self.count {
            let entry = self.entries[i];
            if owner.is_null() || entry.owner == owner {
                self.count -= 1;
                self.entries[i] = self.entries[self.count];
                (*entry.owner).free_to_heap(entry.block, entry.size, 16);
            } else {
                i += 1;
            }
        }
    }
}

impl ThresholdAlloc {
    unsafe fn from_cache(&self, size: usize, align: usize) -> Option<usize> {
        let cache = this_cache(false)?;
        if align > 16 {
            return None;
        }
        let me: *const ThresholdAlloc = self;
        for i in (0..(*cache).count).rev() {
            let entry = (*cache).entries[i];
            if entry.owner == me && entry.size == rounded(size) {
                (*cache).count -= 1;
                (*cache).entries[i] = (*cache).entries[(*cache).count];
                return Some(entry.block);
            }
        }
        None
    }

    unsafe fn to_cache(&self, block: usize, size: usize, align: usize) -> bool {
        let limit = self.cache_limit.load(Relaxed);
        let Some(cache) = this_cache(limit > 0) else {
            return false;
        };
        let me: *const ThresholdAlloc = self;
        let mut bytes = 0;
        for entry in &(&(*cache).entries)[..(*cache).count] {
            if entry.block == block {
                die();
            }
            if entry.owner == me {
                bytes += entry.size;
            }
        }
        let size = rounded(size);
        if align > 16 || size > LARGEST_CACHED || bytes + size > limit || (*cache).count == SLOTS {
            return false;
        }
        (*cache).entries[(*cache).count] = Entry {
            owner: me,
            block,
            size,
        };
        (*cache).count += 1;
        true
    }
}

// ---- the allocator ----

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
pub struct ThresholdAlloc {
    config: Config,
    lock: AtomicU32,
    heap: UnsafeCell<Heap>,
    region: Region,
    threshold: AtomicUsize,
    max_maps: AtomicUsize,
    /// Mappings that exist or are about to.
    taken: AtomicUsize,
    /// The live blocks: the number in the upper 24 bits, pages below.
    live: AtomicUsize,
    moving: AtomicU32,
    keep: AtomicUsize,
    cache_limit: AtomicUsize,
    /// The block that was freed last, until it is allocated again.
    last_freed: AtomicUsize,
}

// SAFETY: the heap is only used under the lock.
unsafe impl Sync for ThresholdAlloc {}

const ONE: usize = 1 << 40;

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            config,
            lock: AtomicU32::new(0),
            heap: UnsafeCell::new(Heap::new()),
            region: Region::new(),
            threshold: AtomicUsize::new(config.threshold),
            max_maps: AtomicUsize::new(config.max_maps),
            taken: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            moving: AtomicU32::new(0),
            keep: AtomicUsize::new(TRIM),
            cache_limit: AtomicUsize::new(0),
            last_freed: AtomicUsize::new(0),
        }
    }

    fn held(&self) -> Held<'_> {
        Held::take(&self.lock)
    }

    fn map(&self, size: usize, align: usize) -> *mut u8 {
        // A fork waits until the counters are complete.
        let _held = self.held();
        let max = self.max_maps.load(SeqCst);
        if self
            .taken
            .fetch_update(SeqCst, SeqCst, |n| (n < max).then(|| n + 1))
            .is_err()
        {
            return null_mut();
        }
        match map_block(size, align, 0) {
            Some((_, len, block)) => {
                self.live.fetch_add(ONE + len / page(), SeqCst);
                block as *mut u8
            }
            None => {
                self.taken.fetch_sub(1, SeqCst);
                null_mut()
            }
        }
    }

    unsafe fn unmap(&self, block: *mut u8, size: usize) {
        let len = up(size, page());
        let _held = self.held();
        libc::munmap(block as *mut _, len);
        self.live.fetch_sub(ONE + len / page(), SeqCst);
        self.taken.fetch_sub(1, SeqCst);
    }

    unsafe fn heap_block(&self, size: usize, align: usize) -> *mut u8 {
        let _held = self.held();
        if !self.region.reserve(self.config.reserve) {
            return null_mut();
        }
        (*self.heap.get()).alloc(&self.region, size, align)
    }

    unsafe fn free_to_heap(&self, block: usize, size: usize, align: usize) {
        let _held = self.held();
        (*self.heap.get()).free(&self.region, block, size, align, self.keep.load(Relaxed));
    }

    /// The block, and whether it is fresh from the kernel.
    unsafe fn obtain(&self, layout: Layout) -> (*mut u8, bool) {
        let (size, align) = (layout.size(), layout.align());
        let large = size >= self.threshold.load(SeqCst);
        if large {
            let block = self.map(size, align);
            if !block.is_null() {
                return (block, true);
            }
        } else if let Some(block) = self.from_cache(size, align) {
            self.is_used(block);
            return (block as *mut u8, false);
        }
        let block = self.heap_block(size, align);
        if block.is_null() && !large {
            return (self.map(size, align), true);
        }
        self.is_used(block as usize);
        (block, false)
    }

    fn is_used(&self, block: usize) {
        if self.last_freed.load(Relaxed) == block {
            let _ = self.last_freed.compare_exchange(block, 0, Relaxed, Relaxed);
        }
    }

    unsafe fn release(&self, block: *mut u8, layout: Layout) {
        let at = block as usize;
        if self.last_freed.swap(at, Relaxed) == at {
            die();
        }
        if !self.to_cache(at, layout.size(), layout.align()) {
            self.free_to_heap(at, layout.size(), layout.align());
        }
    }

    /// Stages 1, 2 and 4: allocates a block with this size and alignment.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.obtain(layout).0
    }

    /// Stages 1 and 3: frees a block.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.region.contains(block as usize) {
            return self.release(block, layout);
        }
        self.unmap(block, layout.size());
        if layout.size() <= 32 << 20 && self.moving.load(SeqCst) != 0 {
            let _held = self.held();
            if self.moving.load(SeqCst) != 0 && self.threshold.load(SeqCst) <= layout.size() {
                self.threshold.store(layout.size() + 1, SeqCst);
                self.keep.fetch_max(2 * layout.size(), SeqCst);
            }
        }
    }

    /// Stage 2: returns the accessible part of the heap, from its start to its break.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let _held = self.held();
        let base = self.region.base();
        (base != 0).then(|| base..self.region.brk())
    }

    /// Stage 4: sets the threshold.
    pub fn set_threshold(&self, bytes: usize) {
        let _held = self.held();
        self.moving.store(0, SeqCst);
        self.threshold.store(bytes, SeqCst);
    }

    /// Stage 4: sets the cap on mapped blocks.
    pub fn set_max_maps(&self, blocks: usize) {
        self.max_maps.store(blocks, SeqCst);
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        let live = self.live.load(SeqCst);
        Stats {
            mapped_blocks: live / ONE,
            mapped_bytes: live % ONE * page(),
            threshold: self.threshold.load(SeqCst),
        }
    }

    /// Stage 5, bonus: returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        // SAFETY: the cache is this thread's.
        unsafe {
            if let Some(cache) = this_cache(false) {
                (*cache).flush(self);
            }
            let _held = self.held();
            if self.region.base() != 0 {
                (*self.heap.get()).trim(&self.region);
            }
        }
    }

    /// Stage 6, bonus: like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (block, fresh) = self.obtain(layout);
        if !block.is_null() && !fresh {
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
        let large = size >= self.threshold.load(SeqCst);
        let in_heap = self.region.contains(block as usize);
        if !in_heap && large {
            let new = self.remap(block, layout, size);
            if !new.is_null() {
                return new;
            }
        }
        if in_heap {
            if large {
                let new = self.map(size, align);
                if !new.is_null() {
                    new.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.release(block, layout);
                    return new;
                }
            }
            let _held = self.held();
            if (*self.heap.get()).resize(
                &self.region,
                block as usize,
                layout.size(),
                size,
                align,
                self.keep.load(Relaxed),
            ) {
                return block;
            }
        }
        let new = self
            .obtain(Layout::from_size_align_unchecked(size, align))
            .0;
        if new.is_null() {
            // A mapping can stay one.
            return if in_heap || large {
                new
            } else {
                self.remap(block, layout, size)
            };
        }
        new.copy_from_nonoverlapping(block, layout.size().min(size));
        if in_heap {
            self.release(block, layout);
        } else {
            self.unmap(block, layout.size());
        }
        new
    }

    unsafe fn remap(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let page = page();
        let (old, new) = (up(layout.size(), page), up(size, page));
        if old == new {
            return block;
        }
        let at;
        let _held = self.held();
        if layout.align() <= page || new < old {
            let flags = if new < old { 0 } else { libc::MREMAP_MAYMOVE };
            let moved = libc::mremap(block as *mut _, old, new, flags);
            if moved == libc::MAP_FAILED {
                return null_mut();
            }
            at = moved as usize;
        } else {
            let Some((start, len, to)) = map_block(size, layout.align(), 0) else {
                return null_mut();
            };
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            if libc::mremap(block as *mut _, old, new, flags, to) == libc::MAP_FAILED {
                libc::munmap(start as *mut _, len);
                return null_mut();
            }
            at = to;
        }
        self.live
            .fetch_add((new / page).wrapping_sub(old / page), SeqCst);
        at as *mut u8
    }

    /// Stage 8, bonus: turns a dynamic threshold like glibc's on or off.
    pub fn set_moving_threshold(&self, on: bool) {
        let _held = self.held();
        self.moving.store(on as u32, SeqCst);
    }

    /// Stage 9, bonus: sets how many bytes of small blocks each thread may cache after freeing them.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.cache_limit.store(bytes, Relaxed);
    }

    // Each block of the C functions is a block for a layout. In front of it are the size of that block, and the distance
    // to its start, which is its alignment, too.

    unsafe fn c_block(&self, size: usize, align: usize, zero: bool) -> *mut u8 {
        let front = align.max(16);
        let layout = size
            .max(1)
            .checked_add(front)
            .and_then(|n| Layout::from_size_align(n, front).ok());
        let Some(layout) = layout else {
            set_errno(libc::ENOMEM);
            return null_mut();
        };
        let start = if zero {
            self.alloc_zeroed(layout)
        } else {
            ThresholdAlloc::alloc(self, layout)
        };
        if start.is_null() {
            set_errno(libc::ENOMEM);
            return start;
        }
        let block = start.add(front);
        *(block as *mut [usize; 2]).sub(1) = [layout.size(), front];
        block
    }

    unsafe fn c_layout(block: *mut u8) -> (*mut u8, Layout) {
        let [size, front] = *(block as *mut [usize; 2]).sub(1);
        (
            block.sub(front),
            Layout::from_size_align_unchecked(size, front),
        )
    }

    /// Stage 10, bonus: like malloc(3).
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        // SAFETY: any size is good.
        unsafe { self.c_block(size, 16, false) }
    }

    /// Stage 10, bonus: like calloc(3).
    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        // SAFETY: any size is good.
        unsafe { self.c_block(count.saturating_mul(size), 16, true) }
    }

    /// Stage 10, bonus: like aligned_alloc(3).
    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            set_errno(libc::EINVAL);
            return null_mut();
        }
        // SAFETY: any size is good.
        unsafe { self.c_block(size, align, false) }
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
        let size = count.saturating_mul(size);
        if block.is_null() {
            return self.malloc(size);
        }
        let (start, layout) = ThresholdAlloc::c_layout(block);
        let front = layout.align();
        let new = size
            .max(1)
            .checked_add(front)
            .filter(|n| Layout::from_size_align(*n, front).is_ok());
        let moved = match new {
            Some(new) => ThresholdAlloc::realloc(self, start, layout, new),
            None => null_mut(),
        };
        if moved.is_null() {
            set_errno(libc::ENOMEM);
            return moved;
        }
        let block = moved.add(front);
        *(block as *mut [usize; 2]).sub(1) = [new.unwrap_or(0), front];
        block
    }

    /// Stage 10, bonus: like free(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that nobody uses any more.
    pub unsafe fn free(&self, block: *mut u8) {
        if !block.is_null() {
            let before = errno();
            let (start, layout) = ThresholdAlloc::c_layout(block);
            ThresholdAlloc::dealloc(self, start, layout);
            set_errno(before);
        }
    }

    /// Stage 10, bonus: like malloc_usable_size(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that is live.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        let (_, layout) = ThresholdAlloc::c_layout(block);
        layout.size() - layout.align()
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
