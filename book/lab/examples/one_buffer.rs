//! A buffer from mmap to munmap: no page at first, then those that were touched, then all of them, then none.
//!
//! Claims: 12, 13, 14.

use std::num::NonZero;

use lab::kernel::{RW, map_alone};
use lab::{page, page_size, resident_pages, small_pages_only};
use nix::sys::mman::{MapFlags, munmap};

const PAGES: usize = 128;

fn main() {
    small_pages_only();
    // ANCHOR: main
    let start = map_alone(PAGES, RW, MapFlags::MAP_PRIVATE);
    let len = NonZero::new(PAGES * page_size()).expect("pages are not empty");
    let last = start.as_ptr().wrapping_add(len.get() - 1);
    let mapped = resident_pages(start, PAGES);
    println!("mapped:              {mapped:>3} of {PAGES} pages resident");

    // SAFETY: the first byte of a mapping that can be read.
    let first_byte = unsafe { lab::read(start.as_ptr()) };
    // SAFETY: the last byte of it.
    let last_byte = unsafe { lab::read(last) };
    let read = resident_pages(start, PAGES);
    println!("two bytes read:      {read:>3}, and they are {first_byte} and {last_byte}");

    // SAFETY: all of it can be written, and nothing else uses it.
    unsafe { start.write_bytes(0xab, len.get()) };
    let filled = resident_pages(start, PAGES);
    let is_filled = |number: &usize| {
        // SAFETY: `number` counts the pages of the mapping.
        unsafe { lab::read(page(start, *number)) == 0xab }
    };
    let kept = (0..PAGES).filter(is_filled).count();
    println!("filled with 0xab:    {filled:>3}, and {kept} begin with 0xab");

    // SAFETY: the mapping is this program's own, and nothing uses it after this.
    unsafe { munmap(start.cast(), len.get()) }.expect("munmap");
    let unmapped = resident_pages(start, PAGES);
    println!("unmapped:            {unmapped:>3}");
    // ANCHOR_END: main
    assert_eq!((mapped, read, filled, unmapped), (0, 2, PAGES, 0));
    assert_eq!((first_byte, last_byte, kept), (0, 0, PAGES));
}
