//! glibc's malloc takes 1 KiB from the heap below the program break, and gives 256 KiB a separate mapping.
//!
//! Claims: 5, 30, 31.

use lab::glibc::{malloc, own_mapped_bytes, own_mappings, use_up_reserve};

fn main() {
    const KIB: usize = 1024;
    // ANCHOR: main
    let before = own_mappings();
    let small = malloc(KIB);
    let after_small = own_mappings();

    use_up_reserve(); // otherwise the next block might fit into the heap
    let bytes = own_mapped_bytes();
    let large = malloc(256 * KIB);
    let after_large = own_mappings();
    let mapped = own_mapped_bytes() - bytes;
    // ANCHOR_END: main

    let page = lab::page_size();
    let more = (mapped - 256 * KIB) / page;
    let into = large.addr().get() % page;
    let small_path = lab::maps_line(small.as_ptr()).path;
    let large_path = lab::maps_line(large.as_ptr()).path;
    let small_maps = after_small - before;
    let large_maps = after_large - after_small;
    println!("1 KiB:   {small_maps} separate mappings, path {small_path:?}");
    println!("256 KiB: {large_maps} separate mapping, path {large_path:?}");
    println!("its length: 256 KiB and {more} page");
    println!("the block begins {into} bytes after the mapping");
    assert_eq!((small_maps, &*small_path), (0, "[heap]"));
    assert_eq!((large_maps, &*large_path), (1, ""));
    assert_eq!((mapped, more, into), (256 * KIB + page, 1, 16));
}
