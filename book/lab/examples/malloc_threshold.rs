//! The mmap threshold is 128 KiB including the block's header and padding, but malloc uses free heap memory first.
//!
//! Claims: 6, 37.

use lab::glibc::{malloc, own_mappings, use_up_reserve};

// ANCHOR: place
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Heap,
    Mapping,
}

/// Allocates a block of `len` bytes, and returns where malloc placed it.
fn place(len: usize) -> Place {
    let before = own_mappings();
    malloc(len);
    if own_mappings() > before {
        Place::Mapping
    } else {
        Place::Heap
    }
}
// ANCHOR_END: place

fn main() {
    // ANCHOR: main
    let limit = 128 * 1024;
    use_up_reserve();
    let seen = [
        place(limit - 23), // less than 1 KiB is left in the heap: a mapping
        place(limit - 24), // grows the heap by the request plus 128 KiB (M_TOP_PAD)
        place(limit - 23), // fits into the new reserve
    ];
    // ANCHOR_END: main
    println!("128 KiB less 23: {:?}", seen[0]);
    println!("128 KiB less 24: {:?}", seen[1]);
    println!("128 KiB less 23: {:?}", seen[2]);
    assert_eq!(seen, [Place::Mapping, Place::Heap, Place::Heap]);
}
