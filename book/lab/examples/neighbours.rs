//! Two mappings side by side are two regions to you, and one line in the maps.
//!
//! Claims: 4.

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
    let second = map_at(2).expect("another page");
    let joined = lab::maps_line(first.as_ptr().cast()).len / page;
    println!("one mapping:  a line of {alone} page");
    println!("two mappings: a line of {joined} pages");

    // SAFETY: the page can be written, and nothing else uses it.
    unsafe { lab::write(first.as_ptr().cast(), 1) };
    // SAFETY: the page can be read.
    let other = unsafe { lab::read(second.as_ptr().cast()) };
    println!("1 written to the first: the second holds {other}");

    // SAFETY: the page is this program's own, and nothing uses it after this.
    unsafe { munmap(first, page) }.expect("half of the line goes away");
    let left = lab::maps_line(second.as_ptr().cast()).len / page;
    println!("one unmapped: a line of {left} page");
    // ANCHOR_END: main
    assert_eq!((alone, joined, other, left), (1, 2, 0, 1));
}
