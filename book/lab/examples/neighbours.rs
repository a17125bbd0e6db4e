//! Two mappings side by side are two regions to you, and one line in the maps.

use std::num::NonZero;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

fn main() {
    // ANCHOR: main
    let page = lab::page_size();
    let one = NonZero::new(page).expect("a page is not empty");
    let all = NonZero::new(4 * page).expect("nor are four");
    let private = MapFlags::MAP_PRIVATE;

    // Four pages without access, so that both neighbours lie where nothing else is.
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let reserved = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, private) };
    let reserved = reserved.expect("four pages of addresses");
    let map_at = |number: usize| {
        let place = reserved.addr().checked_add(number * page);
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: MAP_FIXED replaces a page of the reservation, which nothing uses.
        unsafe { mmap_anonymous(place, one, rights, private | MapFlags::MAP_FIXED) }
    };
    let first = map_at(1).expect("a page");
    let alone = lab::maps_line(first.as_ptr().cast()).len / page;
    map_at(2).expect("another page");
    let joined = lab::maps_line(first.as_ptr().cast()).len / page;
    println!("one mapping:  a line of {alone} page");
    println!("two mappings: a line of {joined} pages");

    // SAFETY: the page is this program's own.
    unsafe { munmap(first, page) }.expect("half of the line goes away");
    // ANCHOR_END: main
    let second = first.as_ptr().cast::<u8>().wrapping_add(page);
    let left = lab::maps_line(second).len / page;
    println!("one unmapped: a line of {left} page");
    assert_eq!((alone, joined, left), (1, 2, 1));
}
