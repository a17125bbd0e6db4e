//! A TLSF heap (Masmano and others: two-level segregated fit) with boundary tags. All system calls are inline assembly, mmap
//! too, and each address from mmap is rounded up to the block's alignment. A ticket lock. Stages 1 to 6 and 8.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::asm;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

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

mod sys {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    mod nr {
        pub const MMAP: usize = 9;
        pub const MPROTECT: usize = 10;
        pub const MUNMAP: usize = 11;
        pub const MREMAP: usize = 25;
        pub const MADVISE: usize = 28;
        pub const SCHED_YIELD: usize = 24;
    }
    #[cfg(target_arch = "aarch64")]
    mod nr {
        pub const MMAP: usize = 222;
        pub const MPROTECT: usize = 226;
        pub const MUNMAP: usize = 215;
        pub const MREMAP: usize = 216;
        pub const MADVISE: usize = 233;
        pub const SCHED_YIELD: usize = 124;
    }

    pub const NONE: usize = 0;
    pub const RW: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    const DONTNEED: usize = 4;
    pub const MAYMOVE: usize = 1;
    pub const FIXED: usize = 2;

    /// # Safety
    /// As for the system call.
    unsafe fn call(nr: usize, a: [usize; 6]) -> Result<usize, ()> {
        let result: isize;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as for the caller. The kernel changes rcx and r11.
        unsafe {
            asm!("syscall", inlateout("rax") nr as isize => result, in("rdi") a[0], in("rsi") a[1],
                in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
                lateout("rcx") _, lateout("r11") _, options(nostack));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as for the caller.
        unsafe {
            asm!("svc 0", in("x8") nr, inlateout("x0") a[0] => result, in("x1") a[1], in("x2") a[2],
                in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
        }
        if (-4095..0).contains(&result) {
            Err(())
        } else {
            Ok(result as usize)
        }
    }

    pub fn map(len: usize, protection: usize) -> Option<usize> {
        // SAFETY: a new mapping overlaps nothing.
        unsafe {
            call(
                nr::MMAP,
                [0, len, protection, PRIVATE_ANONYMOUS, usize::MAX, 0],
            )
        }
        .ok()
    }

    pub fn unmap(start: usize, len: usize) {
        if len > 0 {
            // SAFETY: the callers own these pages.
            let done = unsafe { call(nr::MUNMAP, [start, len, 0, 0, 0, 0]) };
            if done.is_err() {
                // The addresses stay, but their memory need not.
                // SAFETY: as above.
                let _ = unsafe { call(nr::MADVISE, [start, len, DONTNEED, 0, 0, 0]) };
            }
        }
    }

    pub fn protect(start: usize, len: usize, protection: usize) -> bool {
        // SAFETY: the callers own these pages.
        unsafe { call(nr::MPROTECT, [start, len, protection, 0, 0, 0]) }.is_ok()
    }

    pub fn drop_pages(start: usize, len: usize) -> bool {
        // SAFETY: the callers own these pages.
        unsafe { call(nr::MADVISE, [start, len, DONTNEED, 0, 0, 0]) }.is_ok()
    }

    pub fn remap(start: usize, old: usize, new: usize, flags: usize, to: usize) -> Option<usize> {
        // SAFETY: the callers own these pages, and the target.
        unsafe { call(nr::MREMAP, [start, old, new, flags, to, 0]) }.ok()
    }

    pub fn give_way() {
        // SAFETY: no preconditions.
        let _ = unsafe { call(nr::SCHED_YIELD, [0; 6]) };
    }

    pub fn page() -> usize {
        static PAGE: AtomicUsize = AtomicUsize::new(0);
        let page = PAGE.load(Ordering::Relaxed);
        if page != 0 {
            return page;
        }
        // SAFETY: no preconditions.
        let page = unsafe { nix::libc::sysconf(nix::libc::_SC_PAGESIZE) } as usize;
        PAGE.store(page, Ordering::Relaxed);
        page
    }
}

/// First come, first served.
struct TicketLock<T> {
    next: AtomicU32,
    serving: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is accessed by the thread that is being served only.
unsafe impl<T: Send> Sync for TicketLock<T> {}

struct Guard<'a, T>(&'a TicketLock<T>);

impl<T> TicketLock<T> {
    fn lock(&self) -> Guard<'_, T> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let mut spins = 0;
        while self.serving.load(Ordering::Acquire) != ticket {
            spins += 1;
            if spins % 64 == 0 {
                sys::give_way()
            } else {
                std::hint::spin_loop()
            }
        }
        Guard(self)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this thread is being served.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.serving.fetch_add(1, Ordering::Release);
    }
}

/// A block's header. The last two fields are the payload of a block that is live.
#[repr(C)]
struct Block {
    /// The block in front of this one, or null.
    before: *mut Block,
    /// Bytes of the payload: a multiple of 16. The lowest bit: the block is free.
    size: usize,
    next: *mut Block,
    previous: *mut Block,
}

const HEADER: usize = 16;
const FREE: usize = 1;
const LEAST: usize = 16;
const STEP: usize = 128 << 10;
const FIRST_SHIFT: u32 = 8;
const FIRST: usize = 40;
const SECOND: usize = 16;

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
pub struct ThresholdAlloc {
    state: TicketLock<State>,
}

struct State {
    config: Config,
    moving: bool,
    keep: usize,
    mapped_blocks: usize,
    mapped_bytes: usize,
    start: usize,
    brk: usize,
    limit: usize,
    /// An empty block at the break, live for ever. Null without a heap.
    end: *mut Block,
    first: u64,
    second: [u16; FIRST],
    lists: [[*mut Block; SECOND]; FIRST],
}

// SAFETY: the pointers are into the heap, which belongs to no thread.
unsafe impl Send for State {}

fn list_of(size: usize) -> (usize, usize) {
    if size < 1 << FIRST_SHIFT {
        return (0, size / (1 << FIRST_SHIFT >> 4));
    }
    let log = size.ilog2();
    (
        (log - FIRST_SHIFT + 1) as usize,
        (size >> (log - 4)) & (SECOND - 1),
    )
}

fn align_up(n: usize, to: usize) -> Option<usize> {
    n.checked_next_multiple_of(to)
}

// The heap's blocks are accessed through these functions, under the lock.
fn size(block: *mut Block) -> usize {
    // SAFETY: `block` is in the heap.
    unsafe { (*block).size & !FREE }
}

fn is_free(block: *mut Block) -> bool {
    // SAFETY: `block` is in the heap.
    unsafe { (*block).size & FREE != 0 }
}

fn set_size(block: *mut Block, size: usize) {
    // SAFETY: `block` is in the heap.
    unsafe { (*block).size = size };
}

fn after(block: *mut Block) -> *mut Block {
    (block as usize + HEADER + size(block)) as *mut Block
}

fn before(block: *mut Block) -> *mut Block {
    // SAFETY: `block` is in the heap.
    unsafe { (*block).before }
}

fn set_before(block: *mut Block, before: *mut Block) {
    // SAFETY: `block` is in the heap.
    unsafe { (*block).before = before };
}

fn payload(block: *mut Block) -> usize {
    block as usize + HEADER
}

impl State {
    fn link(&mut self, block: *mut Block) {
        let (f, s) = list_of(size(block));
        let head = self.lists[f][s];
        // SAFETY: a free block holds its links.
        unsafe { (*block).next = head };
        // SAFETY: as above.
        unsafe { (*block).previous = null_mut() };
        if !head.is_null() {
            // SAFETY: as above.
            unsafe { (*head).previous = block };
        }
        self.lists[f][s] = block;
        self.first |= 1 << f;
        self.second[f] |= 1 << s;
    }

    fn unlink(&mut self, block: *mut Block) {
        // SAFETY: a free block holds its links.
        let (next, previous) = unsafe { ((*block).next, (*block).previous) };
        if !next.is_null() {
            // SAFETY: as above.
            unsafe { (*next).previous = previous };
        }
        if previous.is_null() {
            let (f, s) = list_of(size(block));
            self.lists[f][s] = next;
            if next.is_null() {
                self.second[f] &= !(1 << s);
                if self.second[f] == 0 {
                    self.first &= !(1 << f);
                }
            }
        } else {
            // SAFETY: as above.
            unsafe { (*previous).next = next };
        }
    }

    /// Returns a free block of at least `wanted` bytes, from the first list all of whose blocks are long enough.
    fn find(&self, wanted: usize) -> Option<*mut Block> {
        let rounded = if wanted < 1 << FIRST_SHIFT {
            wanted
        } else {
            wanted.checked_add((1 << (wanted.ilog2() - 4)) - 1)?
        };
        let (mut f, s) = list_of(rounded);
        if f >= FIRST {
            return None;
        }
        let mut seconds = self.second[f] & (u16::MAX << s);
        if seconds == 0 {
            let firsts = self.first & (u64::MAX << (f + 1));
            if firsts == 0 {
                return self.tight(wanted);
            }
            f = firsts.trailing_zeros() as usize;
            seconds = self.second[f];
        }
        Some(self.lists[f][seconds.trailing_zeros() as usize])
    }

    /// The list of `wanted` itself also has shorter blocks. It is searched before the heap grows.
    fn tight(&self, wanted: usize) -> Option<*mut Block> {
        let (f, s) = list_of(wanted);
        let mut block = self.lists[f][s];
        while !block.is_null() {
            if size(block) >= wanted {
                return Some(block);
            }
            // SAFETY: a free block holds its links.
            block = unsafe { (*block).next };
        }
        None
    }

    /// Shortens a live block, and frees the rest, if that is long enough.
    fn split(&mut self, block: *mut Block, wanted: usize) {
        let have = size(block);
        if have < wanted + HEADER + LEAST {
            return;
        }
        set_size(block, wanted);
        let rest = after(block);
        set_before(rest, block);
        set_size(rest, have - wanted - HEADER);
        set_before(after(rest), rest);
        self.release(rest);
    }

    /// Frees a block, and joins it with free neighbours.
    fn release(&mut self, block: *mut Block) {
        let mut block = block;
        // The bit stays in a header that becomes part of another block: that is how a second free is detected.
        set_size(block, size(block) | FREE);
        let next = after(block);
        if is_free(next) {
            self.unlink(next);
            set_size(block, (size(block) + HEADER + size(next)) | FREE);
        }
        let previous = before(block);
        if !previous.is_null() && is_free(previous) {
            self.unlink(previous);
            set_size(previous, (size(previous) + HEADER + size(block)) | FREE);
            block = previous;
        }
        set_before(after(block), block);
        self.link(block);
    }

    fn reserve(&mut self) -> bool {
        let mut len = self.config.reserve;
        while self.start == 0 {
            len &= !(sys::page() - 1);
            if len == 0 {
                return false;
            }
            if let Some(start) = sys::map(len, sys::NONE) {
                (self.start, self.brk, self.limit) = (start, start, start + len);
            }
            len /= 2;
        }
        true
    }

    /// Moves the break up, so that a free block of `wanted` bytes is at the end.
    fn grow(&mut self, wanted: usize) -> Result<(), Failure> {
        if !self.reserve() {
            return Err(Failure::Full);
        }
        let last = if self.end.is_null() {
            null_mut()
        } else {
            before(self.end)
        };
        let have = if !last.is_null() && is_free(last) {
            size(last) + HEADER
        } else {
            0
        };
        let overhead = if self.end.is_null() {
            2 * HEADER
        } else {
            HEADER
        };
        let missing = (wanted + overhead).saturating_sub(have).max(1);
        let end = self.brk.checked_add(missing).ok_or(Failure::Full)?;
        let brk = align_up(end.max(self.brk + STEP), sys::page())
            .ok_or(Failure::Full)?
            .min(self.limit);
        if brk < end {
            return Err(Failure::Full);
        }
        if !sys::protect(self.brk, brk - self.brk, sys::RW) {
            return Err(Failure::SystemCall);
        }
        self.brk = brk;
        // The block at the old break becomes the new memory's header.
        let fresh = if self.end.is_null() {
            self.start as *mut Block
        } else {
            self.end
        };
        if self.end.is_null() {
            set_before(fresh, null_mut());
        }
        self.end = (brk - HEADER) as *mut Block;
        set_size(fresh, self.end as usize - fresh as usize - HEADER);
        set_size(self.end, 0);
        set_before(self.end, fresh);
        self.release(fresh);
        Ok(())
    }

    fn heap_block(&mut self, layout: Layout) -> Result<*mut u8, Failure> {
        let wanted = align_up(layout.size(), 16).ok_or(Failure::Full)?.max(LEAST);
        let slack = if layout.align() <= 16 {
            0
        } else {
            layout.align() + HEADER + LEAST
        };
        let search = wanted
            .checked_add(slack)
            .filter(|n| n.ilog2() < 40)
            .ok_or(Failure::Full)?;
        let mut block = match self.find(search) {
            Some(block) => block,
            None => {
                self.grow(search)?;
                self.tight(search)
                    .or_else(|| self.find(search))
                    .ok_or(Failure::Full)?
            }
        };
        self.unlink(block);
        set_size(block, size(block));
        if !payload(block).is_multiple_of(layout.align()) {
            let aligned =
                align_up(payload(block) + HEADER + LEAST, layout.align()).ok_or(Failure::Full)?;
            let gap = aligned - payload(block);
            let whole = size(block);
            let front = block;
            set_size(front, gap - HEADER);
            block = after(front);
            set_before(block, front);
            set_size(block, whole - gap);
            set_before(after(block), block);
            self.release(front);
        }
        self.split(block, wanted);
        Ok(payload(block) as *mut u8)
    }

    fn map_block(&mut self, layout: Layout) -> Option<*mut u8> {
        let len = align_up(layout.size(), sys::page())?;
        let start = aligned_mapping(len, layout.align(), sys::RW)?;
        self.mapped_blocks += 1;
        self.mapped_bytes += len;
        Some(start as *mut u8)
    }

    fn in_heap(&self, block: *mut u8) -> bool {
        (self.start..self.limit).contains(&(block as usize))
    }

    fn alloc(&mut self, layout: Layout) -> *mut u8 {
        let room = self.mapped_blocks < self.config.max_maps;
        if layout.size() >= self.config.threshold
            && room
            && let Some(block) = self.map_block(layout)
        {
            return block;
        }
        match self.heap_block(layout) {
            Ok(block) => block,
            Err(_) if room && layout.size() < self.config.threshold => {
                self.map_block(layout).unwrap_or(null_mut())
            }
            Err(_) => null_mut(),
        }
    }

    fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        if self.in_heap(block) {
            let at = block as usize;
            if at >= self.brk || is_free((at - HEADER) as *mut Block) {
                std::process::abort();
            }
            self.release((at - HEADER) as *mut Block);
            let last = before(self.end);
            if is_free(last) && size(last) > self.keep.max(1 << 20) {
                self.shrink(STEP);
            }
        } else {
            let len = layout.size().next_multiple_of(sys::page());
            sys::unmap(block as usize, len);
            self.mapped_blocks -= 1;
            self.mapped_bytes -= len;
            if self.moving && layout.size() <= 32 << 20 {
                self.config.threshold = self.config.threshold.max(layout.size() + 1);
                self.keep = self.keep.max(2 * layout.size());
            }
        }
    }

    /// Moves the break down, but leaves about `spare` bytes of the free block at the end.
    fn shrink(&mut self, spare: usize) {
        if self.end.is_null() {
            return;
        }
        let last = before(self.end);
        if last.is_null() || !is_free(last) {
            return;
        }
        let Some(brk) = align_up(payload(last) + LEAST.max(spare) + HEADER, sys::page()) else {
            return;
        };
        if brk >= self.brk {
            return;
        }
        if !sys::drop_pages(brk, self.brk - brk) {
            return;
        }
        if !sys::protect(brk, self.brk - brk, sys::NONE) {
            // The end's header was in these pages, and nothing else.
            set_size(self.end, 0);
            set_before(self.end, last);
            return;
        }
        self.unlink(last);
        self.brk = brk;
        self.end = (brk - HEADER) as *mut Block;
        set_size(self.end, 0);
        set_before(self.end, last);
        set_size(last, (self.end as usize - payload(last)) | FREE);
        self.link(last);
    }

    fn realloc(&mut self, block: *mut u8, layout: Layout, new: Layout) -> *mut u8 {
        let large = new.size() >= self.config.threshold;
        let room = self.mapped_blocks < self.config.max_maps;
        if !self.in_heap(block) {
            if large && let Some(moved) = self.remap(block as usize, layout, new.size()) {
                return moved as *mut u8;
            }
        } else if !(large && room) {
            let wanted = new.size().next_multiple_of(16).max(LEAST);
            let header = (block as usize - HEADER) as *mut Block;
            let next = after(header);
            if wanted > size(header)
                && is_free(next)
                && size(header) + HEADER + size(next) >= wanted
            {
                self.unlink(next);
                set_size(header, size(header) + HEADER + size(next));
                set_before(after(header), header);
            }
            if wanted <= size(header) {
                self.split(header, wanted);
                return block;
            }
        }
        let moved = self.alloc(new);
        if !moved.is_null() {
            // SAFETY: both blocks are live and this long.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(new.size())) };
            self.dealloc(block, layout);
        }
        moved
    }

    fn remap(&mut self, start: usize, layout: Layout, size: usize) -> Option<usize> {
        let old = layout.size().next_multiple_of(sys::page());
        let new = align_up(size, sys::page())?;
        let moved = if old == new {
            start
        } else if layout.align() <= sys::page() {
            sys::remap(start, old, new, sys::MAYMOVE, 0)?
        } else if new < old {
            sys::remap(start, old, new, 0, 0)?
        } else {
            let target = aligned_mapping(new, layout.align(), sys::NONE)?;
            let Some(moved) = sys::remap(start, old, new, sys::MAYMOVE | sys::FIXED, target) else {
                sys::unmap(target, new);
                return None;
            };
            moved
        };
        self.mapped_bytes = self.mapped_bytes - old + new;
        Some(moved)
    }
}

fn aligned_mapping(len: usize, align: usize, protection: usize) -> Option<usize> {
    let extra = align.saturating_sub(sys::page());
    let got = sys::map(len.checked_add(extra)?, protection)?;
    let start = align_up(got, align.max(sys::page()))?;
    sys::unmap(start + len, got + extra - start);
    sys::unmap(got, start - got);
    Some(start)
}

enum Failure {
    Full,
    SystemCall,
}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            state: TicketLock {
                next: AtomicU32::new(0),
                serving: AtomicU32::new(0),
                value: UnsafeCell::new(State {
                    config,
                    moving: false,
                    keep: 0,
                    mapped_blocks: 0,
                    mapped_bytes: 0,
                    start: 0,
                    brk: 0,
                    limit: 0,
                    end: null_mut(),
                    first: 0,
                    second: [0; FIRST],
                    lists: [[null_mut(); SECOND]; FIRST],
                }),
            },
        }
    }

    /// Allocates a block.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.state.lock().alloc(layout)
    }

    /// Frees a block.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.state.lock().dealloc(block, layout);
    }

    /// Returns the accessible part of the heap.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        let state = self.state.lock();
        (!state.end.is_null()).then_some(state.start..state.brk)
    }

    /// Sets the threshold.
    pub fn set_threshold(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.config.threshold = bytes;
        state.moving = false;
    }

    /// Sets the cap on mapped blocks.
    pub fn set_max_maps(&self, blocks: usize) {
        self.state.lock().config.max_maps = blocks;
    }

    /// Returns the mapped blocks that are live, and the threshold.
    pub fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            mapped_blocks: state.mapped_blocks,
            mapped_bytes: state.mapped_bytes,
            threshold: state.config.threshold,
        }
    }

    /// Returns the free memory at the end of the heap to the kernel.
    pub fn trim(&self) {
        self.state.lock().shrink(0);
    }

    /// Allocates a block of zeros.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let mut state = self.state.lock();
        let block = state.alloc(layout);
        if !block.is_null() && state.in_heap(block) {
            // SAFETY: a new block of this size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    /// Changes the size of a block.
    ///
    /// # Safety
    /// As for `dealloc`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match Layout::from_size_align(size, layout.align()) {
            Ok(new) => self.state.lock().realloc(block, layout, new),
            Err(_) => null_mut(),
        }
    }

    /// Turns the dynamic threshold on or off.
    pub fn set_moving_threshold(&self, on: bool) {
        self.state.lock().moving = on;
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
