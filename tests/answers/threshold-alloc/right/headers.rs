//! Only stages 1 to 4. Every block, in the heap or mapped, has a header with its kind and length, as in glibc.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::num::NonZero;
use std::ops::Range;
use std::process::abort;
use std::ptr::{NonNull, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::unistd::{SysconfVar, sysconf};

#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub threshold: usize,
    pub max_maps: usize,
    pub reserve: usize,
}

impl Config {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub mapped_blocks: usize,
    pub mapped_bytes: usize,
    pub threshold: usize,
}

/// The allocator's state, protected by a spin lock that yields.
pub struct ThresholdAlloc {
    locked: AtomicBool,
    state: UnsafeCell<State>,
    threshold: AtomicUsize,
}

// SAFETY: only the thread that has set `locked` accesses `state`.
unsafe impl Sync for ThresholdAlloc {}

struct State {
    config: Config,
    mapped_blocks: usize,
    mapped_bytes: usize,
    start: *mut u8,
    top: usize,
    brk: usize,
    len: usize,
    free: *mut Header,
}

/// Header immediately before a block.
struct Header {
    /// Start of the chunk or the mapping.
    start: *mut u8,
    /// Length of the chunk or the mapping in bytes.
    len: usize,
    state: Kind,
    next: *mut Header,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Heap,
    Mapped,
    Free,
}

const HEADER: usize = size_of::<Header>();
const STEP: usize = 1 << 20;

impl ThresholdAlloc {
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc {
            locked: AtomicBool::new(false),
            threshold: AtomicUsize::new(config.threshold),
            state: UnsafeCell::new(State {
                config,
                mapped_blocks: 0,
                mapped_bytes: 0,
                start: null_mut(),
                top: 0,
                brk: 0,
                len: 0,
                free: null_mut(),
            }),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        while self.locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        // SAFETY: this thread has set `locked`, so this is the only reference.
        let result = f(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let large = layout.size() >= self.threshold.load(Ordering::Relaxed);
        self.with(|state| {
            let mapped = if large { state.map(layout) } else { None };
            mapped
                .or_else(|| state.from_heap(layout))
                .or_else(|| state.map(layout))
                .unwrap_or(null_mut())
        })
    }

    /// # Safety
    /// `block` came from this allocator, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        let header = block.cast::<Header>().wrapping_sub(1);
        // SAFETY: every block has a header immediately before it.
        let Header {
            start, len, state, ..
        } = unsafe { header.read() };
        match state {
            Kind::Free => abort(),
            Kind::Mapped => self.with(|state| {
                state.mapped_blocks -= 1;
                state.mapped_bytes -= len;
                // If the kernel cannot split a mapping (vm.max_map_count), the memory is lost.
                // SAFETY: only the block and its header lie in this mapping, and the caller no longer uses the block.
                let _ = unsafe { munmap(non_null(start), len) };
            }),
            Kind::Heap => self.with(|state| {
                let next = std::mem::replace(&mut state.free, header);
                let state = Kind::Free;
                let free = Header {
                    start,
                    len,
                    state,
                    next,
                };
                // SAFETY: only the allocator uses the header.
                unsafe { header.write(free) };
            }),
        }
    }

    pub fn heap_range(&self) -> Option<Range<usize>> {
        self.with(|state| {
            let start = state.start.addr();
            (start != 0).then_some(start..start + state.brk)
        })
    }

    pub fn set_threshold(&self, bytes: usize) {
        self.threshold.store(bytes, Ordering::Relaxed);
    }

    pub fn set_max_maps(&self, blocks: usize) {
        self.with(|state| state.config.max_maps = blocks);
    }

    pub fn stats(&self) -> Stats {
        self.with(|state| Stats {
            mapped_blocks: state.mapped_blocks,
            mapped_bytes: state.mapped_bytes,
            threshold: self.threshold.load(Ordering::Relaxed),
        })
    }

    // Bonus stages, not part of this answer.
    pub fn trim(&self) {
        todo!("trim")
    }

    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        todo!("zeros for {layout:?}")
    }

    /// # Safety
    /// As for `dealloc`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        todo!("resize {block:p}, {layout:?}, to {size}")
    }

    pub fn set_moving_threshold(&self, on: bool) {
        todo!("moving: {on}")
    }

    pub fn set_thread_cache(&self, bytes: usize) {
        todo!("a cache of {bytes}")
    }
}

// SAFETY: nobody uses this type as the global allocator.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        todo!("{layout:?}")
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        todo!("{block:p}, {layout:?}")
    }
}

impl State {
    fn map(&mut self, layout: Layout) -> Option<*mut u8> {
        if self.mapped_blocks >= self.config.max_maps {
            return None;
        }
        let page = page_size();
        let whole = room(layout).next_multiple_of(page);
        let start = fresh(whole, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let block = place(start, layout);
        // Unmap whole pages before the header and after the block.
        let first = (block.addr() - HEADER) / page * page - start.addr();
        let end = (block.addr() + layout.size()).next_multiple_of(page) - start.addr();
        for (offset, len) in [(0, first), (end, whole - end)] {
            if len > 0 {
                // SAFETY: these pages contain neither the header nor the block.
                let _ = unsafe { munmap(non_null(start.wrapping_add(offset)), len) };
            }
        }
        let (start, len) = (start.wrapping_add(first), end - first);
        label(block, start, len, Kind::Mapped);
        self.mapped_blocks += 1;
        self.mapped_bytes += len;
        Some(block)
    }

    fn from_heap(&mut self, layout: Layout) -> Option<*mut u8> {
        self.reuse(layout).or_else(|| self.grow(layout))
    }

    /// Takes the first free chunk that the block fits into, unless the chunk is more than twice as long as needed.
    fn reuse(&mut self, layout: Layout) -> Option<*mut u8> {
        let mut previous: *mut Header = null_mut();
        let mut header = self.free;
        while !header.is_null() {
            // SAFETY: only the allocator uses the header of a free chunk.
            let Header {
                start, len, next, ..
            } = unsafe { header.read() };
            let block = place(start, layout);
            let fits = block.addr() + layout.size() <= start.addr() + len;
            if fits && len <= 2 * room(layout) {
                match previous.is_null() {
                    true => self.free = next,
                    // SAFETY: as above.
                    false => unsafe { (*previous).next = next },
                }
                label(block, start, len, Kind::Heap);
                return Some(block);
            }
            (previous, header) = (header, next);
        }
        None
    }

    fn grow(&mut self, layout: Layout) -> Option<*mut u8> {
        if self.start.is_null() {
            self.reserve()?;
        }
        let start = self.start.wrapping_add(self.top);
        let block = place(start, layout);
        let end = (block.addr() + layout.size()).next_multiple_of(16) - self.start.addr();
        if end > self.len {
            return None;
        }
        if end > self.brk {
            let brk = end.next_multiple_of(STEP).min(self.len);
            let from = non_null(self.start.wrapping_add(self.brk));
            let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: this part of the reservation is above the break.
            unsafe { mprotect(from, brk - self.brk, protection) }.ok()?;
            self.brk = brk;
        }
        label(block, start, end - self.top, Kind::Heap);
        self.top = end;
        Some(block)
    }

    fn reserve(&mut self) -> Option<()> {
        let mut bytes = self.config.reserve;
        self.start = loop {
            match fresh(bytes, ProtFlags::empty()) {
                Some(start) => break start,
                None if bytes > STEP => bytes = (bytes / 2).next_multiple_of(STEP),
                None => return None,
            }
        };
        self.len = bytes;
        Some(())
    }
}

/// Returns a length that is enough for a header and an aligned block, wherever the chunk begins.
fn room(layout: Layout) -> usize {
    HEADER + layout.size() + layout.align().max(16)
}

/// Returns the address of the block in a chunk: aligned, with room for its header.
fn place(start: *mut u8, layout: Layout) -> *mut u8 {
    let least = start.wrapping_add(HEADER);
    let aligned = least.addr().next_multiple_of(layout.align().max(16));
    least.wrapping_add(aligned - least.addr())
}

fn label(block: *mut u8, start: *mut u8, len: usize, state: Kind) {
    let next = without_provenance_mut(0);
    let header = Header {
        start,
        len,
        state,
        next,
    };
    // SAFETY: `place` leaves room for a header before each block, aligned to 16 bytes.
    unsafe { block.cast::<Header>().wrapping_sub(1).write(header) };
}

fn fresh(len: usize, protection: ProtFlags) -> Option<*mut u8> {
    let len = NonZero::new(len)?;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) };
    start.ok().map(|start| start.cast().as_ptr())
}

fn non_null(address: *mut u8) -> NonNull<c_void> {
    NonNull::new(address.cast()).unwrap_or_else(|| abort())
}

fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.map_or_else(|| abort(), |size| size as usize)
}

impl ThresholdAlloc {
    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        todo!("{size}")
    }

    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        todo!("{count} {size}")
    }

    pub fn aligned_alloc(&'static self, align: usize, size: usize) -> *mut u8 {
        todo!("{align} {size}")
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        todo!("{block:p} {count} {size}")
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn free(&self, block: *mut u8) {
        todo!("{block:p}")
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        todo!("{block:p}")
    }
}
