//! An allocator with two sources: a heap, and a mapping for each large block.
//! README.md describes the task, stage by stage.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;

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

/// The allocator. No method unwinds. A corrupted heap aborts the process if it is detected.
///
/// The field is a suggestion. You may change it, but the allocator must work as a `static`: `new` is `const`, and the
/// type is `Sync`.
pub struct ThresholdAlloc {
    config: Config,
}

impl ThresholdAlloc {
    /// Creates an allocator. It makes no system call.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc { config }
    }

    /// Stages 1, 2 and 4: allocates a block with this size and alignment. Returns null if there is no memory, for example
    /// because a system call failed.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let threshold = self.config.threshold;
        todo!("a block for {layout:?}: from {threshold} bytes on as a separate mapping")
    }

    /// Stages 1 and 3: frees a block. A mapped block is unmapped immediately; if `munmap` fails, the block is freed all the
    /// same. Aborts the process if a block of the heap is freed twice in a row.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and is no longer used.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        todo!("take back {block:p}, a block for {layout:?}")
    }

    /// Stage 2: returns the accessible part of the heap, from its start to its break. `None` before the first small
    /// block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        todo!("where is the heap?")
    }

    /// Stage 4: sets the threshold. From now on blocks of at least `bytes` bytes get a separate mapping.
    pub fn set_threshold(&self, bytes: usize) {
        todo!("a threshold of {bytes} bytes")
    }

    /// Stage 4: sets the cap on mapped blocks. Blocks that are already mapped stay mapped.
    pub fn set_max_maps(&self, blocks: usize) {
        todo!("at most {blocks} mappings")
    }

    /// Stage 4: returns the mapped blocks that are live, and the threshold. A block that is freed is not live, even if
    /// `munmap` failed.
    pub fn stats(&self) -> Stats {
        todo!("count the mapped blocks")
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
    /// As for `dealloc`. `size` is not zero. Rounded up to the alignment, it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        todo!("make {block:p}, a block for {layout:?}, {size} bytes long")
    }

    /// Stage 8, bonus: turns a dynamic threshold like glibc's on or off. It moves just past the size of each mapped
    /// block that is freed, up to 32 MiB. `set_threshold` turns it off.
    pub fn set_moving_threshold(&self, on: bool) {
        todo!("a moving threshold: {on}")
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

    /// Stage 10, bonus: like free(3). Does nothing if `block` is null. Leaves errno as it is.
    ///
    /// # Safety
    /// `block` is null, or a block of the C functions that nobody uses any more.
    pub unsafe fn free(&self, block: *mut u8) {
        todo!("take back {block:p}, whatever its layout")
    }

    /// Stage 10, bonus: like malloc_usable_size(3). Returns how many bytes of the block the caller may use: at least the
    /// size that was requested. Returns 0 for null.
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
