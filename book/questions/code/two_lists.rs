//! Which free list a block belongs to: a power of two.

use std::alloc::Layout;

const SMALLEST: usize = 16;

/// The list that `alloc` takes a block for that layout from.
pub fn takes_from(layout: Layout) -> u32 {
    let len = layout.size().max(layout.align()).max(SMALLEST);
    len.next_power_of_two().trailing_zeros()
}

/// The list that `dealloc` puts it on.
pub fn gives_to(layout: Layout) -> u32 {
    let len = layout.size().max(SMALLEST);
    len.next_power_of_two().trailing_zeros()
}
