//! Chooses the free list of a block. List `n` holds blocks of 2^`n` bytes.

use std::alloc::Layout;

const SMALLEST: usize = 16;

/// Returns the list from which `alloc` takes a block for `layout`.
pub fn takes_from(layout: Layout) -> u32 {
    let len = layout.size().max(layout.align()).max(SMALLEST);
    len.next_power_of_two().trailing_zeros()
}

/// Returns the list to which `dealloc` adds a block with `layout`.
pub fn gives_to(layout: Layout) -> u32 {
    let len = layout.size().max(SMALLEST);
    len.next_power_of_two().trailing_zeros()
}
