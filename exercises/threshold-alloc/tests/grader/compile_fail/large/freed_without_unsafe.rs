//! Safe code frees a block. Keep dealloc an unsafe fn: nothing checks that the pointer is a live block.

use std::alloc::Layout;

use threshold_alloc::{Config, ThresholdAlloc};

fn main() {
    let allocator = ThresholdAlloc::new(Config::new());
    let layout = Layout::new::<[u8; 1 << 20]>();
    // SAFETY: the size is not zero.
    let block = unsafe { allocator.alloc(layout) };
    allocator.dealloc(block, layout);
}
