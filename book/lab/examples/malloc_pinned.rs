//! M_MMAP_THRESHOLD fixes the threshold, so each free unmaps. Beyond M_MMAP_MAX mappings malloc uses the heap.
//!
//! Claims: 7, 32, 33.

use lab::glibc::{free, malloc, own_mappings, use_up_reserve};
use nix::libc;

const KIB: usize = 1024;

/// Allocates a block of `len` bytes, and returns whether malloc mapped it.
fn mapped(len: usize) -> bool {
    let before = own_mappings();
    malloc(len);
    own_mappings() > before
}

fn set(parameter: i32, value: usize) -> i32 {
    let value = value.try_into().expect("an int");
    // SAFETY: mallopt accepts any parameter, and no other thread uses malloc.
    unsafe { libc::mallopt(parameter, value) }
}

fn main() {
    // ANCHOR: main
    let hole = malloc(120 * KIB);
    use_up_reserve();
    // SAFETY: the block came from malloc, and nothing uses it any more.
    unsafe { free(hole) };

    let pinned = set(libc::M_MMAP_THRESHOLD, 64 * KIB);
    let in_the_hole = mapped(70 * KIB);
    use_up_reserve();
    let limits = [mapped(64 * KIB - 23), mapped(64 * KIB - 24)];

    let again = [(); 3].map(|()| {
        use_up_reserve();
        let before = own_mappings();
        let block = malloc(256 * KIB);
        let mapped = own_mappings() > before;
        // SAFETY: the block came from malloc, and nothing uses it any more.
        unsafe { free(block) };
        mapped
    });

    let bounded = set(libc::M_MMAP_MAX, own_mappings() + 4);
    let eight = [(); 8].map(|()| mapped(100 * KIB));
    // ANCHOR_END: main
    let place = |mapped| if mapped { "mapping" } else { "heap" };
    println!("with M_MMAP_THRESHOLD at 64 KiB");
    println!("70 KiB, 120 KiB free in the heap: {}", place(in_the_hole));
    println!("64 KiB less 23:                   {}", place(limits[0]));
    println!("64 KiB less 24:                   {}", place(limits[1]));
    println!(
        "256 KiB, three times with free:   {}",
        again.map(place).join(", ")
    );
    println!("with M_MMAP_MAX at 4 more");
    let count = eight.iter().filter(|mapped| **mapped).count();
    println!(
        "eight times 100 KiB:              {count} mappings, {} in the heap",
        8 - count
    );
    assert_eq!((pinned, bounded), (1, 1));
    assert!(!in_the_hole);
    assert_eq!(limits, [true, false]);
    assert_eq!(again, [true; 3]);
    assert_eq!(eight, [true, true, true, true, false, false, false, false]);
}
