//! Freeing a mapped block raises the mmap threshold to its size, up to 32 MiB. The next one is in the heap.
//!
//! Claims: 6, 9.

use std::ptr::NonNull;

use lab::glibc::{free, malloc, own_mappings, use_up_reserve};

const MIB: usize = 1024 * 1024;

/// Allocates a block with no reserve left in the heap. Returns it, and whether it has its own mapping.
fn allocate(len: usize) -> (NonNull<u8>, bool) {
    use_up_reserve();
    let before = own_mappings();
    let block = malloc(len);
    (block, own_mappings() > before)
}

// ANCHOR: main
/// Allocates a block, frees it, and allocates another of the same length. Returns for
/// each whether malloc mapped it.
fn twice(len: usize) -> (bool, bool) {
    let (first, mapped) = allocate(len);
    // SAFETY: the block came from malloc, and nothing uses it any more.
    unsafe { free(first) };
    let (_, mapped_again) = allocate(len);
    (mapped, mapped_again)
}

fn main() {
    let seen = [
        twice(MIB / 4),
        twice(MIB / 2),
        twice(MIB / 4),
        twice(16 * MIB),
        twice(32 * MIB),
    ];
    // ANCHOR_END: main
    let lengths = ["256 KiB", "512 KiB", "256 KiB", "16 MiB", "32 MiB"];
    let place = |mapped| if mapped { "mapping" } else { "heap" };
    for (length, (first, second)) in lengths.iter().zip(seen) {
        let (first, second) = (place(first), place(second));
        println!("{length:>7}: {first:<7} then, after free, {second}");
    }
    let moved = (true, false);
    let heap = (false, false);
    let mapped = (true, true);
    assert_eq!(seen, [moved, moved, heap, moved, mapped]);
}
