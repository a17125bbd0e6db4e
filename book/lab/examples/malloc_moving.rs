//! Freeing a mapped block of at most 32 MiB moves the threshold up to its size: the next one comes from the heap.
//! Claims: 6, 9.

use std::ptr::NonNull;

use lab::glibc::{free, malloc, own_mappings, use_up_reserve};

const MIB: usize = 1024 * 1024;

/// A block, and whether it lies in a mapping of its own. The heap had nothing in reserve for it.
fn block(len: usize) -> (NonNull<u8>, bool) {
    use_up_reserve();
    let before = own_mappings();
    let block = malloc(len);
    (block, own_mappings() > before)
}

// ANCHOR: main
/// Whether malloc maps a block of that length, and, once that is freed, whether it
/// maps the next one.
fn twice(len: usize) -> (bool, bool) {
    let (first, mapped) = block(len);
    // SAFETY: the block is malloc's, and nothing uses it.
    unsafe { free(first) };
    let (_, mapped_again) = block(len);
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
