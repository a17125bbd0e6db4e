//! Counts the resident pages of a buffer from mmap to munmap: none, those that were touched, all, and none again.
//!
//! Claims: 12, 13, 14.

use std::num::NonZero;

use lab::kernel::{RW, map_isolated};
use lab::{disable_huge_pages, page, page_size, resident_pages};
use nix::sys::mman::{MapFlags, munmap};

const PAGES: usize = 128;

fn main() {
    disable_huge_pages();
    // ANCHOR: main
    let start = map_isolated(PAGES, RW, MapFlags::MAP_PRIVATE);
    let len = NonZero::new(PAGES * page_size()).expect("pages are not empty");
    let last = start.as_ptr().wrapping_add(len.get() - 1);
    let mapped = resident_pages(start, PAGES);
    println!("mapped:              {mapped:>3} of {PAGES} pages resident");

    // SAFETY: this is the first byte of a readable mapping.
    let first_byte = unsafe { lab::read(start.as_ptr()) };
    // SAFETY: this is the last byte of the same mapping.
    let last_byte = unsafe { lab::read(last) };
    let read = resident_pages(start, PAGES);
    println!("two bytes read:      {read:>3}, and they are {first_byte} and {last_byte}");

    // SAFETY: the mapping has `len` writable bytes, and nothing else accesses it.
    unsafe { start.write_bytes(0xab, len.get()) };
    let filled = resident_pages(start, PAGES);
    let is_filled = |number: &usize| {
        // SAFETY: the mapping is readable and has more than `number` pages.
        unsafe { lab::read(page(start, *number)) == 0xab }
    };
    let kept = (0..PAGES).filter(is_filled).count();
    println!("filled with 0xab:    {filled:>3}, and {kept} begin with 0xab");

    // SAFETY: this program made the mapping, and does not access it after this.
    unsafe { munmap(start.cast(), len.get()) }.expect("munmap");
    let unmapped = resident_pages(start, PAGES);
    println!("unmapped:            {unmapped:>3}");
    // ANCHOR_END: main
    assert_eq!((mapped, read, filled, unmapped), (0, 2, PAGES, 0));
    assert_eq!((first_byte, last_byte, kept), (0, 0, PAGES));
}
