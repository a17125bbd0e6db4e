//! The threshold is 128 KiB with the block's header and rounding, but memory that malloc has already goes before it.
//! Claims: 6, 37.

use lab::glibc::{malloc, own_mappings, use_up_reserve};

// ANCHOR: place
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Heap,
    Mapping,
}

/// Where malloc puts a block of that length.
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
        place(limit - 23), // the heap has less than 1 KiB left
        place(limit - 24), // so this one moves the break, by 128 KiB more than it needs
        place(limit - 23), // and the reserve is there
    ];
    // ANCHOR_END: main
    println!("128 KiB less 23: {:?}", seen[0]);
    println!("128 KiB less 24: {:?}", seen[1]);
    println!("128 KiB less 23: {:?}", seen[2]);
    assert_eq!(seen, [Place::Mapping, Place::Heap, Place::Heap]);
}
