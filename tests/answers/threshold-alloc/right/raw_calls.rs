//! Raw system calls, in place of libc's functions except mmap, and a futex as the lock. First fit by address, steps of
//! 512 KiB, and a reservation at a multiple of 2 MiB. An aligned block whose surroundings cannot be unmapped comes from the
//! heap. Blocks of C in the heap have no header of their own. All stages.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::process::abort;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

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

const MIB: usize = 1 << 20;
const STEP: usize = 512 << 10;
const ALIGN: usize = 16;
const MIN: usize = 32;
const BINS: usize = 128;
const IN_USE: usize = 1;
const PREV_IN_USE: usize = 2;
const CACHED: usize = 4;
const FLAGS: usize = 15;

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn round_up(n: usize, to: usize) -> usize {
    (n + to - 1) & !(to - 1)
}

// ---------------------------------------------------------------- system calls

unsafe fn sys_map(at: usize, len: usize, prot: i32, flags: i32) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    let p = unsafe { libc::mmap(at as *mut _, len, prot, flags, -1, 0) };
    (p != libc::MAP_FAILED).then_some(p as usize)
}

unsafe fn sys_unmap(at: usize, len: usize) -> bool {
    unsafe { libc::syscall(libc::SYS_munmap, at, len) == 0 }
}

unsafe fn sys_protect(at: usize, len: usize, prot: i32) -> bool {
    unsafe { libc::syscall(libc::SYS_mprotect, at, len, prot) == 0 }
}

unsafe fn sys_discard(at: usize, len: usize) -> bool {
    unsafe { libc::syscall(libc::SYS_madvise, at, len, libc::MADV_DONTNEED) == 0 }
}

unsafe fn sys_remap(at: usize, old: usize, new: usize, flags: i32, to: usize) -> Option<usize> {
    let p = unsafe { libc::syscall(libc::SYS_mremap, at, old, new, flags, to) };
    (p != -1).then_some(p as usize)
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

// ---------------------------------------------------------------- the lock

/// One lock for all allocators, so that the handlers of fork know it. 0: free, 1: held, 2: held and waited for.
static LOCK: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
static REGISTERED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn lock_raw() {
    if LOCK.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
        return;
    }
    while LOCK.swap(2, Acquire) != 0 {
        let errno = errno();
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                &LOCK,
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                2,
                0usize,
            )
        };
        set_errno(errno);
    }
}
unsafe extern "C" fn unlock_raw() {
    if LOCK.swap(0, Release) == 2 {
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                &LOCK,
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            )
        };
    }
}

struct Locked;
impl Drop for Locked {
    fn drop(&mut self) {
        unsafe { unlock_raw() }
    }
}

fn lock() -> Locked {
    // Registering may allocate, so it must be marked as done before.
    if !REGISTERED.load(Relaxed) && !REGISTERED.swap(true, SeqCst) {
        unsafe { libc::pthread_atfork(Some(lock_raw), Some(unlock_raw), Some(unlock_raw)) };
    }
    unsafe { lock_raw() };
    Locked
}

// ---------------------------------------------------------------- chunks
// A chunk is at an address p that is a multiple of 16: p holds the size of the chunk before it if that is free, p + 8 its
// own size and flags, p + 16 the block. The block of a chunk in use extends over the first word of the next chunk.
// The top chunk, from `top` to the break, has no header.

fn header<'a>(p: usize) -> &'a AtomicUsize {
    unsafe { &*((p + 8) as *const AtomicUsize) }
}
fn size_of_chunk(p: usize) -> usize {
    header(p).load(Relaxed) & !FLAGS
}
unsafe fn word(at: usize) -> *mut usize {
    at as *mut usize
}

struct Heap {
    end: usize,
    top: usize,
    bins: [usize; BINS],
}

fn bin_of(size: usize) -> usize {
    if size < 1024 {
        return size / 16;
    }
    let log = size.ilog2() as usize;
    (64 + (log - 10) * 4 + ((size >> (log - 2)) & 3)).min(BINS - 1)
}

impl Heap {
    unsafe fn link(&mut self, p: usize) {
        let size = size_of_chunk(p);
        let bin = &mut self.bins[bin_of(size)];
        unsafe {
            *word(p + 16) = *bin;
            *word(p + 24) = 0;
            if *bin != 0 {
                *word(*bin + 24) = p;
            }
            *word(p + size) = size;
        }
        *bin = p;
    }

    unsafe fn unlink(&mut self, p: usize) {
        unsafe {
            let (next, previous) = (*word(p + 16), *word(p + 24));
            if next != 0 {
                *word(next + 24) = previous;
            }
            if previous != 0 {
                *word(previous + 16) = next;
            } else {
                self.bins[bin_of(size_of_chunk(p))] = next;
            }
        }
    }

    /// Gives the memory from p on, `size` bytes, to the free chunks. p has no free chunk before it.
    unsafe fn release(&mut self, mut p: usize, mut size: usize, prev_in_use: bool) {
        if !prev_in_use {
            let before = unsafe { *word(p) };
            p -= before;
            size += before;
            unsafe { self.unlink(p) };
        }
        let mut next = p + size;
        if next != self.top && header(next).load(Relaxed) & IN_USE == 0 {
            unsafe { self.unlink(next) };
            size += size_of_chunk(next);
            next = p + size;
        }
        if next == self.top {
            self.top = p;
            return;
        }
        header(p).store(size | PREV_IN_USE, Relaxed);
        header(next).fetch_and(!PREV_IN_USE, Relaxed);
        unsafe { self.link(p) };
    }

    /// Makes p a chunk in use of `need` bytes, out of `size` bytes that are in no list.
    unsafe fn carve(&mut self, p: usize, size: usize, need: usize, flags: usize) {
        let rest = size - need;
        if rest < MIN {
            header(p).store(size | flags | IN_USE, Relaxed);
            if p + size != self.top {
                header(p + size).fetch_or(PREV_IN_USE, Relaxed);
            }
            return;
        }
        header(p).store(need | flags | IN_USE, Relaxed);
        if p + size != self.top {
            header(p + size).fetch_or(PREV_IN_USE, Relaxed);
        }
        unsafe { self.release(p + need, rest, true) };
    }

    /// First fit by address: the lowest chunk of at least this size.
    unsafe fn take(&mut self, size: usize) -> Option<usize> {
        let mut lowest = 0;
        for bin in bin_of(size)..BINS {
            let mut p = self.bins[bin];
            while p != 0 {
                if size_of_chunk(p) >= size && (lowest == 0 || p < lowest) {
                    lowest = p;
                }
                p = unsafe { *word(p + 16) };
            }
        }
        if lowest == 0 {
            return None;
        }
        unsafe { self.unlink(lowest) };
        Some(lowest)
    }
}

fn chunk_size(size: usize) -> usize {
    round_up(size + 8, ALIGN).max(MIN)
}

// ---------------------------------------------------------------- the allocator

struct State {
    heap: Heap,
    max_maps: usize,
    mapped_blocks: usize,
    mapped_bytes: usize,
    moving: bool,
    trim_threshold: usize,
}

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
pub struct ThresholdAlloc {
    reserve: usize,
    threshold: AtomicUsize,
    cache_limit: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    brk: AtomicUsize,
    state: UnsafeCell<State>,
}

// SAFETY: the state is behind the lock.
unsafe impl Sync for ThresholdAlloc {}
// SAFETY: nothing belongs to a thread.
unsafe impl Send for ThresholdAlloc {}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            reserve: config.reserve,
            threshold: AtomicUsize::new(config.threshold),
            cache_limit: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            brk: AtomicUsize::new(0),
            state: UnsafeCell::new(State {
                heap: Heap {
                    end: 0,
                    top: 0,
                    bins: [0; BINS],
                },
                max_maps: config.max_maps,
                mapped_blocks: 0,
                mapped_bytes: 0,
                moving: false,
                trim_threshold: MIB,
            }),
        }
    }

    fn in_heap(&self, block: usize) -> bool {
        block >= self.start.load(Acquire) && block < self.end.load(Acquire)
    }

    /// The chunk of a block of the heap that is in use. Aborts if it is free.
    fn chunk_of(&self, block: usize) -> usize {
        if block >= self.brk.load(Acquire) {
            abort();
        }
        let p = block - 16;
        if header(p).load(Relaxed) & (IN_USE | CACHED) != IN_USE {
            abort();
        }
        p
    }

    unsafe fn reserve(&self, state: &mut State) -> bool {
        if self.start.load(Relaxed) != 0 {
            return true;
        }
        let page = page_size();
        let mut size = round_up(self.reserve.clamp(1, 1 << 46), page);
        loop {
            // At a multiple of 2 MiB, so that huge pages fit, if that much is left.
            let huge = if size > 4 * MIB { 2 * MIB } else { page };
            if let Some(at) = unsafe { map_aligned(size, huge, page, libc::PROT_NONE) } {
                state.heap.end = at + size;
                state.heap.top = at;
                self.brk.store(at, Release);
                self.end.store(at + size, Release);
                self.start.store(at, Release);
                return true;
            }
            if size <= page {
                return false;
            }
            size = round_up(size / 2, page);
        }
    }

    /// Moves the break up, so that the top chunk has at least `need` bytes and the word behind them.
    unsafe fn grow(&self, state: &mut State, need: usize) -> bool {
        let brk = self.brk.load(Relaxed);
        let want = need + 8;
        let have = brk - state.heap.top;
        if have >= want {
            return true;
        }
        let left = state.heap.end - brk;
        let missing = want - have;
        if missing > left {
            return false;
        }
        let step = round_up(missing.max(STEP), page_size()).min(left);
        if !unsafe { sys_protect(brk, step, RW) } {
            return false;
        }
        self.brk.store(brk + step, Release);
        true
    }

    unsafe fn heap_alloc(&self, state: &mut State, size: usize, align: usize) -> Option<usize> {
        if !unsafe { self.reserve(state) } {
            return None;
        }
        let need = chunk_size(size);
        let extra = if align > ALIGN { align + MIN } else { 0 };
        let heap = &mut state.heap;
        let total = need.checked_add(extra)?;
        if total > heap.end - self.start.load(Relaxed) {
            return None;
        }
        let (mut p, mut have, mut flags);
        if let Some(chunk) = unsafe { heap.take(total) } {
            p = chunk;
            have = size_of_chunk(p);
            flags = header(p).load(Relaxed) & PREV_IN_USE;
        } else {
            // The top chunk has its own start, so the padding is known exactly.
            let top = heap.top;
            let mut exact = need;
            if align > ALIGN {
                let mut block = round_up(top + 16, align);
                while block - 16 != top && block - 16 - top < MIN {
                    block += align;
                }
                exact = block - 16 - top + need;
            }
            if !unsafe { self.grow(state, exact) } {
                return None;
            }
            p = top;
            have = exact;
            flags = PREV_IN_USE;
            state.heap.top = p + exact;
        }
        let heap = &mut state.heap;
        if align > ALIGN {
            let mut block = round_up(p + 16, align);
            while block - 16 != p && block - 16 - p < MIN {
                block += align;
            }
            let front = block - 16 - p;
            if front != 0 {
                // The front becomes a free chunk, so it must not be joined with what is behind it.
                header(p).store(front | flags, Relaxed);
                header(p + front).store((have - front) | IN_USE, Relaxed);
                unsafe { heap.link(p) };
                p += front;
                have -= front;
                flags = 0;
            }
        }
        unsafe { heap.carve(p, have, need, flags) };
        Some(p + 16)
    }

    unsafe fn heap_free(&self, state: &mut State, block: usize) {
        let p = self.chunk_of(block);
        let old = header(p).fetch_and(!IN_USE, Relaxed);
        unsafe { state.heap.release(p, old & !FLAGS, old & PREV_IN_USE != 0) };
        if self.brk.load(Relaxed) - state.heap.top > state.trim_threshold {
            // Keep some, for the next blocks.
            unsafe { self.trim_locked(state, 256 << 10) };
        }
    }

    unsafe fn trim_locked(&self, state: &mut State, keep: usize) {
        let brk = self.brk.load(Relaxed);
        if self.start.load(Relaxed) == 0 {
            return;
        }
        let new = round_up(state.heap.top + 8 + keep, page_size());
        if new >= brk {
            return;
        }
        unsafe {
            if sys_discard(new, brk - new) && sys_protect(new, brk - new, libc::PROT_NONE) {
                self.brk.store(new, Release);
            }
        }
    }

    unsafe fn map(&self, state: &mut State, size: usize, align: usize) -> Option<usize> {
        if state.mapped_blocks >= state.max_maps {
            return None;
        }
        let page = page_size();
        let len = round_up(size, page);
        let block = unsafe { map_aligned(len, align, page, RW)? };
        state.mapped_blocks += 1;
        state.mapped_bytes += len;
        Some(block)
    }

    unsafe fn unmap(&self, state: &mut State, block: usize, size: usize) {
        let len = round_up(size, page_size());
        state.mapped_blocks -= 1;
        state.mapped_bytes -= len;
        unsafe { sys_unmap(block, len) };
    }

    unsafe fn alloc_locked(&self, state: &mut State, size: usize, align: usize) -> usize {
        let large = size >= self.threshold.load(Relaxed);
        let block = if large {
            unsafe {
                self.map(state, size, align)
                    .or_else(|| self.heap_alloc(state, size, align))
            }
        } else {
            unsafe {
                self.heap_alloc(state, size, align)
                    .or_else(|| self.map(state, size, align))
            }
        };
        block.unwrap_or(0)
    }

    unsafe fn free_locked(&self, state: &mut State, block: usize, size: usize) {
        if self.in_heap(block) {
            unsafe { self.heap_free(state, block) };
            return;
        }
        unsafe { self.unmap(state, block, size) };
        if state.moving && size <= 32 * MIB && size >= self.threshold.load(Relaxed) {
            self.threshold.store(size + 1, Relaxed);
            state.trim_threshold = state.trim_threshold.max(2 * size);
        }
    }

    /// Stages 1, 2 and 4: allocates a block with this size and alignment.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGN && layout.size() < self.threshold.load(Relaxed) {
            if let Some(block) = cache_get(self, chunk_size(layout.size())) {
                return block as *mut u8;
            }
        }
        let _locked = lock();
        unsafe {
            self.alloc_locked(&mut *self.state.get(), layout.size(), layout.align()) as *mut u8
        }
    }

    /// Stages 1 and 3: frees a block.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let block = block as usize;
        if self.in_heap(block) {
            let p = self.chunk_of(block);
            if layout.align() <= ALIGN && cache_put(self, p) {
                return;
            }
        }
        let _locked = lock();
        unsafe { self.free_locked(&mut *self.state.get(), block, layout.size()) };
    }

    /// Stage 2: returns the accessible part of the heap, from its start to its break.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let _locked = lock();
        let start = self.start.load(Acquire);
        (start != 0).then(|| start..self.brk.load(Acquire))
    }

    /// Stage 4: sets the threshold.
    pub fn set_threshold(&self, bytes: usize) {
        let _locked = lock();
        self.threshold.store(bytes, Relaxed);
        unsafe { (*self.state.get()).moving = false };
    }

    /// Stage 4: sets the cap on mapped blocks.
    pub fn set_max_maps(&self, blocks: usize) {
        let _locked = lock();
        unsafe { (*self.state.get()).max_maps = blocks };
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        let _locked = lock();
        let state = unsafe { &*self.state.get() };
        Stats {
            mapped_blocks: state.mapped_blocks,
            mapped_bytes: state.mapped_bytes,
            threshold: self.threshold.load(Relaxed),
        }
    }

    /// Stage 5, bonus: returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        cache_flush(self);
        let _locked = lock();
        unsafe { self.trim_locked(&mut *self.state.get(), 0) };
    }

    /// Stage 6, bonus: like `alloc`, but every byte of the block is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() && self.in_heap(block as usize) {
            unsafe { ptr::write_bytes(block, 0, layout.size()) };
        }
        block
    }

    /// Stage 6, bonus: changes the size of a block to `size` bytes.
    ///
    /// # Safety
    /// As for `dealloc`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _locked = lock();
        let state = unsafe { &mut *self.state.get() };
        let old = block as usize;
        let threshold = self.threshold.load(Relaxed);
        if self.in_heap(old) {
            if size < threshold || size <= layout.size() && layout.size() >= threshold {
                if unsafe { self.heap_resize(state, old, size) } {
                    return block;
                }
            }
        } else if size >= threshold {
            return unsafe { self.remap(state, old, layout, size) as *mut u8 };
        }
        let new = unsafe { self.alloc_locked(state, size, layout.align()) };
        if new == 0 {
            return ptr::null_mut();
        }
        unsafe {
            ptr::copy_nonoverlapping(block, new as *mut u8, layout.size().min(size));
            self.free_locked(state, old, layout.size());
        }
        new as *mut u8
    }

    unsafe fn heap_resize(&self, state: &mut State, block: usize, size: usize) -> bool {
        let p = self.chunk_of(block);
        let need = chunk_size(size);
        let mut have = size_of_chunk(p);
        let flags = header(p).load(Relaxed) & PREV_IN_USE;
        if have < need {
            let next = p + have;
            if next == state.heap.top {
                let more = need - have;
                if !unsafe { self.grow(state, more) } {
                    return false;
                }
                state.heap.top += more;
                have = need;
            } else if header(next).load(Relaxed) & IN_USE == 0 && have + size_of_chunk(next) >= need
            {
                unsafe { state.heap.unlink(next) };
                have += size_of_chunk(next);
            } else {
                return false;
            }
        }
        unsafe { state.heap.carve(p, have, need, flags) };
        if self.brk.load(Relaxed) - state.heap.top > state.trim_threshold {
            unsafe { self.trim_locked(state, 0) };
        }
        true
    }

    unsafe fn remap(&self, state: &mut State, block: usize, layout: Layout, size: usize) -> usize {
        let page = page_size();
        let (old, new) = (round_up(layout.size(), page), round_up(size, page));
        if old == new {
            return block;
        }
        let moved = if new < old || layout.align() <= page {
            unsafe { sys_remap(block, old, new, libc::MREMAP_MAYMOVE, 0) }
        } else {
            unsafe {
                sys_remap(block, old, new, 0, 0).or_else(|| {
                    let to = map_aligned(new, layout.align(), page, libc::PROT_NONE)?;
                    let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                    let moved = sys_remap(block, old, new, fixed, to);
                    if moved.is_none() {
                        sys_unmap(to, new);
                    }
                    moved
                })
            }
        };
        let Some(moved) = moved else { return 0 };
        state.mapped_bytes = state.mapped_bytes - old + new;
        moved
    }

    /// Stage 8, bonus: turns a dynamic threshold like glibc's on or off.
    pub fn set_moving_threshold(&self, on: bool) {
        let _locked = lock();
        unsafe { (*self.state.get()).moving = on };
    }

    /// Stage 9, bonus: sets how many bytes of small blocks each thread may cache after freeing them.
    pub fn set_thread_cache(&self, bytes: usize) {
        self.cache_limit.store(bytes, Relaxed);
    }

    // ------------------------------------------------------------ C
    // A block of C in the heap has no header: its chunk knows its size, so all of the chunk is usable. A mapped one has a
    // header in front, with the size and the alignment of its layout.

    fn c_alloc(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        let pad = align.max(16);
        let size = size.max(1);
        let Some(layout) = size
            .checked_add(pad)
            .and_then(|total| Layout::from_size_align(total, pad).ok())
        else {
            set_errno(libc::ENOMEM);
            return ptr::null_mut();
        };
        let _locked = lock();
        let state = unsafe { &mut *self.state.get() };
        let mut mapped = None;
        let mut block = None;
        if size >= self.threshold.load(Relaxed) {
            mapped = unsafe { self.map(state, layout.size(), pad) };
        }
        if mapped.is_none() {
            block = unsafe { self.heap_alloc(state, size, pad) };
        }
        if let (Some(block), true) = (block, zeroed) {
            unsafe { ptr::write_bytes(block as *mut u8, 0, size) };
        }
        if mapped.is_none() && block.is_none() {
            mapped = unsafe { self.map(state, layout.size(), pad) };
        }
        if let Some(base) = mapped {
            let at = base + pad;
            unsafe {
                *word(at - 16) = layout.size();
                *word(at - 8) = pad ^ MAGIC;
            }
            block = Some(at);
        }
        match block {
            Some(block) => block as *mut u8,
            None => {
                set_errno(libc::ENOMEM);
                ptr::null_mut()
            }
        }
    }

    unsafe fn c_layout(&self, block: *mut u8) -> (*mut u8, Layout) {
        unsafe {
            let total = *block.cast::<usize>().sub(2);
            let pad = *block.cast::<usize>().sub(1) ^ MAGIC;
            match Layout::from_size_align(total, pad) {
                Ok(layout) => (block.sub(pad), layout),
                Err(_) => abort(),
            }
        }
    }

    /// Stage 10, bonus: like malloc(3).
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        self.c_alloc(size, 16, false)
    }

    /// Stage 10, bonus: like calloc(3).
    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else {
            set_errno(libc::ENOMEM);
            return ptr::null_mut();
        };
        self.c_alloc(bytes, 16, true)
    }

    /// Stage 10, bonus: like aligned_alloc(3), for any size.
    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        if !align.is_power_of_two() {
            set_errno(libc::EINVAL);
            return ptr::null_mut();
        }
        self.c_alloc(size, align, false)
    }

    /// Stage 10, bonus: like reallocarray(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else {
            set_errno(libc::ENOMEM);
            return ptr::null_mut();
        };
        if block.is_null() {
            return self.malloc(bytes);
        }
        let size = bytes.max(1);
        if self.in_heap(block as usize) && size < self.threshold.load(Relaxed) {
            let _locked = lock();
            if unsafe { self.heap_resize(&mut *self.state.get(), block as usize, size) } {
                return block;
            }
        }
        if !self.in_heap(block as usize) && size >= self.threshold.load(Relaxed) {
            let (base, layout) = unsafe { self.c_layout(block) };
            let pad = layout.align();
            if let Some(total) = size
                .checked_add(pad)
                .filter(|total| Layout::from_size_align(*total, pad).is_ok())
            {
                let new = unsafe { self.realloc(base, layout, total) };
                if !new.is_null() {
                    let block = unsafe { new.add(pad) };
                    unsafe { *block.cast::<usize>().sub(2) = total };
                    return block;
                }
            }
            set_errno(libc::ENOMEM);
            return ptr::null_mut();
        }
        let old = unsafe { self.usable_size(block) };
        let new = self.malloc(size);
        if !new.is_null() {
            unsafe {
                ptr::copy_nonoverlapping(block, new, old.min(size));
                self.free(block);
            }
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
        let errno = errno();
        if self.in_heap(block as usize) {
            let p = self.chunk_of(block as usize);
            if !cache_put(self, p) {
                let _locked = lock();
                unsafe { self.heap_free(&mut *self.state.get(), block as usize) };
            }
            set_errno(errno);
            return;
        }
        unsafe {
            let (base, layout) = self.c_layout(block);
            self.dealloc(base, layout);
        }
        set_errno(errno);
    }

    /// Stage 10, bonus: like malloc_usable_size(3).
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that is live.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        if self.in_heap(block as usize) {
            return size_of_chunk(self.chunk_of(block as usize)) - 8;
        }
        let (_, layout) = unsafe { self.c_layout(block) };
        layout.size() - layout.align()
    }
}

const MAGIC: usize = 0x5bd1_e995_a1c3_0000;

fn errno() -> i32 {
    unsafe { *libc::__errno_location() }
}
fn set_errno(value: i32) {
    unsafe { *libc::__errno_location() = value };
}

/// Maps `len` bytes, whole pages, at a multiple of `align`, and nothing else.
unsafe fn map_aligned(len: usize, align: usize, page: usize, prot: i32) -> Option<usize> {
    if align <= page {
        return unsafe { sys_map(0, len, prot, 0) };
    }
    let total = len.checked_add(align - page)?;
    let base = unsafe { sys_map(0, total, prot, 0)? };
    let block = round_up(base, align);
    let (front, back) = (block - base, base + total - block - len);
    if front != 0 && !unsafe { sys_unmap(base, front) } {
        unsafe { sys_unmap(base, total) };
        return None;
    }
    if back != 0 && !unsafe { sys_unmap(block + len, back) } {
        unsafe { sys_unmap(block, len + back) };
        return None;
    }
    Some(block)
}

// ---------------------------------------------------------------- thread caches

const CACHED_MAX: usize = 1024;
const SLOTS: usize = 4;

struct Slot {
    owner: Cell<usize>,
    bytes: Cell<usize>,
    lists: [Cell<usize>; CACHED_MAX / 16 + 1],
}

struct Caches([Slot; SLOTS]);

impl Slot {
    const fn new() -> Slot {
        Slot {
            owner: Cell::new(0),
            bytes: Cell::new(0),
            lists: [const { Cell::new(0) }; CACHED_MAX / 16 + 1],
        }
    }

    fn flush(&self) {
        let owner = self.owner.get() as *const ThresholdAlloc;
        if owner.is_null() || self.bytes.get() == 0 {
            return;
        }
        // SAFETY: an allocator stays in place until the threads that used it have ended.
        let owner = unsafe { &*owner };
        let _locked = lock();
        for list in &self.lists {
            let mut p = list.take();
            while p != 0 {
                let next = unsafe { *word(p + 16) };
                header(p).fetch_and(!CACHED, Relaxed);
                unsafe { owner.heap_free(&mut *owner.state.get(), p + 16) };
                p = next;
            }
        }
        self.bytes.set(0);
    }
}

impl Drop for Caches {
    fn drop(&mut self) {
        PHASE.set(DEAD);
        for slot in &self.0 {
            slot.flush();
        }
    }
}

const NEW: u8 = 0;
const REGISTERING: u8 = 1;
const ALIVE: u8 = 2;
const DEAD: u8 = 3;

thread_local! {
    static PHASE: Cell<u8> = const { Cell::new(NEW) };
    static CACHES: Caches = const { Caches([const { Slot::new() }; SLOTS]) };
}

fn with_slot<R>(
    owner: &ThresholdAlloc,
    claim: bool,
    f: impl FnOnce(&Slot) -> Option<R>,
) -> Option<R> {
    match PHASE.get() {
        NEW if claim => {
            // Registering the destructor may allocate.
            PHASE.set(REGISTERING);
            let alive = CACHES.try_with(|_| ()).is_ok();
            PHASE.set(if alive { ALIVE } else { DEAD });
        }
        ALIVE => {}
        _ => return None,
    }
    let owner = ptr::from_ref(owner) as usize;
    CACHES
        .try_with(|caches| {
            if let Some(slot) = caches.0.iter().find(|slot| slot.owner.get() == owner) {
                return f(slot);
            }
            if !claim {
                return None;
            }
            let slot = caches.0.iter().find(|slot| slot.bytes.get() == 0)?;
            slot.owner.set(owner);
            f(slot)
        })
        .ok()
        .flatten()
}

fn cache_get(owner: &ThresholdAlloc, need: usize) -> Option<usize> {
    if need > CACHED_MAX {
        return None;
    }
    with_slot(owner, false, |slot| {
        for size in [need, need + 16] {
            let Some(list) = slot.lists.get(size / 16) else {
                break;
            };
            let p = list.get();
            if p != 0 {
                list.set(unsafe { *word(p + 16) });
                slot.bytes.set(slot.bytes.get() - size);
                header(p).fetch_and(!CACHED, Relaxed);
                return Some(p + 16);
            }
        }
        None
    })
}

fn cache_put(owner: &ThresholdAlloc, p: usize) -> bool {
    let limit = owner.cache_limit.load(Relaxed);
    let size = size_of_chunk(p);
    if limit == 0 || size > CACHED_MAX {
        return false;
    }
    with_slot(owner, true, |slot| {
        if slot.bytes.get() + size > limit {
            return None;
        }
        let list = &slot.lists[size / 16];
        unsafe { *word(p + 16) = list.get() };
        list.set(p);
        slot.bytes.set(slot.bytes.get() + size);
        header(p).fetch_or(CACHED, Relaxed);
        Some(())
    })
    .is_some()
}

fn cache_flush(owner: &ThresholdAlloc) {
    with_slot(owner, false, |slot| {
        slot.flush();
        Some(())
    });
}

// SAFETY: all methods are thread-safe, and none unwinds.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { ThresholdAlloc::alloc(self, layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { ThresholdAlloc::dealloc(self, block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { ThresholdAlloc::alloc_zeroed(self, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { ThresholdAlloc::realloc(self, block, layout, size) }
    }
}
