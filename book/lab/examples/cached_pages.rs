//! A mapping of a file uses the page cache: a page can be in memory long before an entry of the page table leads to it.

use std::env;
use std::ptr::NonNull;

use lab::kernel::{in_core, map_file, temporary_file};
use lab::{page, resident_pages};
use nix::sys::mman::MapFlags;

const PAGES: usize = 16;

/// Prints and returns how many pages are in the page cache, and how many this process's page table has.
fn show(name: &str, start: NonNull<u8>) -> (usize, usize) {
    let counts = (in_core(start, PAGES), resident_pages(start, PAGES));
    println!("{name:<26} {:>10} {:>11}", counts.0, counts.1);
    counts
}

fn main() {
    println!("                           page cache  page table");
    // ANCHOR: main
    let file = temporary_file(&env::temp_dir(), PAGES).expect("a temporary file");
    let first = map_file(&file, PAGES, MapFlags::MAP_SHARED);
    let mapped = show("written by write(2), mapped", first);
    for number in 0..PAGES {
        // SAFETY: the file and the mapping have this page.
        unsafe { lab::read(page(first, number)) };
    }
    let read = show("every page read", first);
    let second = map_file(&file, PAGES, MapFlags::MAP_SHARED);
    let again = show("mapped a second time", second);
    // ANCHOR_END: main
    assert_eq!(mapped, (16, 0));
    assert_eq!(read, (16, 16));
    assert_eq!(again, (16, 0));
}
