//! The shortest allocator that programs run on: powers of two, from memory that is never unmapped. `tests/programs.rs`
//! takes its lock away, or its alignment.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Mutex;

use nix::libc;

#[derive(Debug, Clone, Copy, Default)]
pub struct Config {
    pub threshold: usize,
    pub max_maps: usize,
    pub reserve: usize,
}

impl Config {
    pub const fn new() -> Config {
        Config {
            threshold: 0,
            max_maps: 0,
            reserve: 64 << 30,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub mapped_blocks: usize,
    pub mapped_bytes: usize,
    pub threshold: usize,
}

struct Heap {
    top: *mut u8,
    free: [*mut u8; 40],
}

pub struct ThresholdAlloc {
    config: Config,
    heap: UnsafeCell<Heap>,
}

static LOCK: Mutex<()> = Mutex::new(());

// SAFETY: the lock protects the heap, unless the test removes it.
unsafe impl Sync for ThresholdAlloc {}

/// The bytes in front of a block of C. The first word of a header is the class.
const HEADER: usize = 16;

fn class_of(size: usize) -> usize {
    size.max(32).next_power_of_two().ilog2() as usize
}

impl ThresholdAlloc {
    pub const fn new(config: Config) -> ThresholdAlloc {
        let heap = Heap {
            top: null_mut(),
            free: [null_mut(); 40],
        };
        ThresholdAlloc {
            config,
            heap: UnsafeCell::new(heap),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Heap) -> R) -> R {
        let _held = LOCK.lock();
        // SAFETY: the lock is held, unless the test removes it.
        f(unsafe { &mut *self.heap.get() })
    }

    fn take(&self, class: usize) -> *mut u8 {
        self.with(|heap| {
            let first = heap.free[class];
            if !first.is_null() {
                // SAFETY: a free block begins with a pointer to the next.
                heap.free[class] = unsafe { first.cast::<*mut u8>().read() };
                return first;
            }
            if heap.top.is_null() {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                let len = self.config.reserve;
                // SAFETY: without MAP_FIXED, mmap replaces no mapping.
                let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
                if start == libc::MAP_FAILED {
                    return null_mut();
                }
                heap.top = start.cast();
            }
            let block = heap.top;
            heap.top = block.wrapping_add(1 << class);
            block
        })
    }

    fn give(&self, block: *mut u8, class: usize) {
        self.with(|heap| {
            // SAFETY: nobody uses the block any more.
            unsafe { block.cast::<*mut u8>().write(heap.free[class]) };
            heap.free[class] = block;
        });
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(class_of(layout.size()))
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.give(block, class_of(layout.size()));
    }

    pub fn heap_range(&self) -> Option<Range<usize>> {
        None
    }

    pub fn set_threshold(&self, _: usize) {}

    pub fn set_max_maps(&self, _: usize) {}

    pub fn stats(&self) -> Stats {
        Stats {
            mapped_blocks: 0,
            mapped_bytes: 0,
            threshold: 0,
        }
    }

    pub fn trim(&self) {}

    /// # Safety
    /// As in the stub.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        todo!("{layout:?}")
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        todo!("{block:p} {layout:?} {size}")
    }

    pub fn set_moving_threshold(&self, on: bool) {
        todo!("{on}")
    }

    pub fn set_thread_cache(&self, bytes: usize) {
        todo!("{bytes}")
    }

    pub fn malloc(&'static self, size: usize) -> *mut u8 {
        let class = class_of(size + HEADER);
        let start = self.take(class);
        // SAFETY: the block has more than one word.
        unsafe { start.cast::<usize>().write(class) };
        start.wrapping_add(HEADER)
    }

    pub fn calloc(&'static self, count: usize, size: usize) -> *mut u8 {
        let block = self.malloc(count * size);
        // SAFETY: the block has this size.
        unsafe { block.write_bytes(0, count * size) };
        block
    }

    /// Every block is aligned as those of malloc, and to no more.
    pub fn aligned_alloc(&'static self, _: usize, size: usize) -> *mut u8 {
        self.malloc(size)
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn reallocarray(
        &'static self,
        block: *mut u8,
        count: usize,
        size: usize,
    ) -> *mut u8 {
        let new = self.malloc(count * size);
        if !block.is_null() {
            // SAFETY: the caller's contract.
            let old = unsafe { self.usable_size(block) };
            // SAFETY: both blocks are that long.
            unsafe { block.copy_to_nonoverlapping(new, old.min(count * size)) };
            // SAFETY: the caller's contract.
            unsafe { self.free(block) };
        }
        new
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn free(&self, block: *mut u8) {
        if !block.is_null() {
            let start = block.wrapping_sub(HEADER);
            // SAFETY: the header begins with the class.
            let class = unsafe { start.cast::<usize>().read() };
            self.give(start, class);
        }
    }

    /// # Safety
    /// As in the stub.
    pub unsafe fn usable_size(&self, block: *mut u8) -> usize {
        if block.is_null() {
            return 0;
        }
        let start = block.wrapping_sub(HEADER);
        // SAFETY: the header begins with the class.
        let class = unsafe { start.cast::<usize>().read() };
        (1 << class) - HEADER
    }
}

// SAFETY: blocks do not overlap, unless the test removes the lock.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { self.dealloc(block, layout) };
    }
}
