//! An allocator with two sources: a heap, and a mapping for each large block. README.md has the task, stage by stage.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;

/// What an allocator begins with.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Blocks of this many bytes and more have a mapping of their own.
    pub threshold: usize,
    /// At most that many blocks have one at a time; further ones come from the heap.
    pub max_maps: usize,
    /// Bytes of addresses to reserve for the heap. Where that is refused, half of it, and so on.
    pub reserve: usize,
}

impl Config {
    /// 128 KiB and 65,536 mappings, as glibc has them; 64 GiB of addresses.
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

/// What an allocator has given out, and not got back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Blocks with a mapping of their own.
    pub mapped_blocks: usize,
    /// Bytes in those mappings: whole pages.
    pub mapped_bytes: usize,
    /// The threshold of this moment, in bytes.
    pub threshold: usize,
}

/// The allocator. No call unwinds; a heap that has been written over ends the process by `abort`, where it is noticed.
///
/// The field is a proposal, and yours to change. Whatever you put here, a `static` must be able to hold it: `new` is
/// `const`, and the type is `Sync`.
pub struct ThresholdAlloc {
    config: Config,
}

impl ThresholdAlloc {
    /// An allocator that has asked the kernel for nothing yet.
    pub const fn new(config: Config) -> ThresholdAlloc {
        ThresholdAlloc { config }
    }

    /// Stages 1, 2 and 4: a block of that size and alignment; null where there is no memory for it.
    ///
    /// # Safety
    /// The size is not zero.
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let threshold = self.config.threshold;
        todo!("a block for {layout:?}: from {threshold} bytes on with a mapping of its own")
    }

    /// Stages 1 and 3: takes a block back. A block with a mapping of its own is unmapped at once.
    ///
    /// # Safety
    /// `block` came from this allocator with this layout, and nothing uses it any more.
    pub unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        todo!("take back {block:p}, a block for {layout:?}")
    }

    /// Stage 2: the heap from its first byte to its break: all of it can be touched, and nothing beyond. `None` before
    /// the first small block.
    pub fn heap_range(&self) -> Option<Range<usize>> {
        todo!("where is the heap?")
    }

    /// Stage 4: from here on blocks of `bytes` and more have a mapping of their own.
    pub fn set_threshold(&self, bytes: usize) {
        todo!("a threshold of {bytes} bytes")
    }

    /// Stage 4: from here on at most `blocks` have a mapping of their own at a time. Those that have one keep it.
    pub fn set_max_maps(&self, blocks: usize) {
        todo!("at most {blocks} mappings")
    }

    /// Stage 4: what has been given out.
    pub fn stats(&self) -> Stats {
        todo!("what has been given out?")
    }

    /// Stage 5, bonus: gives back to the kernel whatever lies free at the heap's end.
    pub fn trim(&self) {
        todo!("move the break down")
    }

    /// Stage 6, bonus: as `alloc`, and every byte is zero.
    ///
    /// # Safety
    /// As for `alloc`.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        todo!("a block of zeros for {layout:?}")
    }

    /// Stage 6, bonus: makes a block `size` bytes long, and keeps its alignment and what it holds, up to the shorter of
    /// both lengths. The block may move. Null where there is no memory for it: then the old block stays as it was.
    ///
    /// # Safety
    /// As for `dealloc`. `size` is not zero, and rounded up to the alignment it is at most `isize::MAX`.
    pub unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        todo!("make {block:p}, a block for {layout:?}, {size} bytes long")
    }

    /// Stage 8, bonus: lets the threshold move, as glibc's does: past the size of each mapped block that is freed, up to
    /// 32 MiB. `set_threshold` makes it stand still.
    pub fn set_moving_threshold(&self, on: bool) {
        todo!("a moving threshold: {on}")
    }

    /// Stage 9, bonus: from here on each thread may keep that many bytes of small blocks that it has freed, for itself.
    pub fn set_thread_cache(&self, bytes: usize) {
        todo!("a cache of {bytes} bytes for each thread")
    }
}

// Stage 7, bonus. A panic must not leave these functions, so `todo!` must not stay here when the allocator is in use.
// SAFETY: until that stage nobody makes this the global allocator.
unsafe impl GlobalAlloc for ThresholdAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        todo!("a block for {layout:?}, whatever the other threads do")
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        todo!("take back {block:p}, a block for {layout:?}")
    }
}
