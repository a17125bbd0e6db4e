//! Two adjacent mappings are separate for the program, but the kernel merges them into one line of /proc/self/maps.
//!
//! Claims: 4.

use std::num::NonZero;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

fn main() {
    // ANCHOR: main
    let page = lab::page_size();
    let one = NonZero::new(page).expect("a page is not empty");
    let all = NonZero::new(4 * page).expect("four pages are not empty");
    let private = MapFlags::MAP_PRIVATE;

    // Reserve four inaccessible pages, so that no other mapping is next to these two.
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let reserved = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, private) };
    let reserved = reserved.expect("mmap");
    let map_at = |number: usize| {
        let address = reserved.addr().checked_add(number * page);
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: MAP_FIXED replaces a page of the reservation, which nothing else uses.
        unsafe { mmap_anonymous(address, one, prot, private | MapFlags::MAP_FIXED) }
    };
    let first = map_at(1).expect("mmap");
    let alone = lab::maps_line(first.as_ptr().cast()).len / page;
    let second = map_at(2).expect("mmap");
    let joined = lab::maps_line(first.as_ptr().cast()).len / page;
    println!("one mapping:  a line of {alone} page");
    println!("two mappings: a line of {joined} pages");

    // SAFETY: the page is mapped writable, and nothing else accesses it.
    unsafe { lab::write(first.as_ptr().cast(), 1) };
    // SAFETY: the page is mapped readable.
    let other = unsafe { lab::read(second.as_ptr().cast()) };
    println!("1 written to the first: the second holds {other}");

    // SAFETY: this program mapped the page, and does not access it after this.
    unsafe { munmap(first, page) }.expect("munmap");
    let left = lab::maps_line(second.as_ptr().cast()).len / page;
    println!("one unmapped: a line of {left} page");
    // ANCHOR_END: main
    assert_eq!((alone, joined, other, left), (1, 2, 0, 1));
}
