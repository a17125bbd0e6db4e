use std::alloc::Layout;

use threshold_alloc::{Config, ThresholdAlloc};

fn main() {
    let allocator = ThresholdAlloc::new(Config::new());
    let layout = Layout::new::<[u8; 1 << 20]>();
    // SAFETY: the size is not zero.
    let block = unsafe { allocator.alloc(layout) };
    // SAFETY: the block came from here, with this layout.
    unsafe { allocator.dealloc(block, layout) };
}
