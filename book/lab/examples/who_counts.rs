//! Compares smaps, pagemap and mincore: the zero page is present but not in Rss, shared memory counts as a file's.
//!
//! Claims: 13, 35.

use std::ptr::NonNull;

use lab::kernel::{RW, entries, in_core, map_isolated, smaps};
use lab::{disable_huge_pages, page};
use nix::sys::mman::MapFlags;

const PAGES: usize = 256;

// ANCHOR: count
/// Counts pages of the mapping: three fields of smaps, two bits of pagemap, and mincore.
fn count(start: NonNull<u8>) -> [usize; 6] {
    let smaps = smaps(start.as_ptr());
    let [size, rss, anonymous] = ["Size", "Rss", "Anonymous"].map(|field| smaps.pages(field));
    let entries = entries(start, PAGES);
    let present = entries.iter().filter(|entry| entry.present).count();
    let of_file = entries.iter().filter(|entry| entry.file).count();
    let in_core = in_core(start, PAGES);
    [size, rss, anonymous, present, of_file, in_core]
}
// ANCHOR_END: count

fn show(what: &str, start: NonNull<u8>, expected: [usize; 6]) {
    let counts = count(start);
    let [size, rss, anonymous, present, of_file, in_core] = counts;
    print!("{what:<19} {size:>4} {rss:>4} {anonymous:>10} ");
    println!("{present:>8} {of_file:>5} {in_core:>8}");
    assert_eq!(counts, expected);
}

fn touch(start: NonNull<u8>, access: impl Fn(*mut u8)) {
    for number in 0..PAGES {
        access(page(start, number));
    }
}

fn main() {
    disable_huge_pages();
    let read = |byte: *mut u8| {
        // SAFETY: `touch` passes addresses in a readable mapping.
        unsafe { lab::read(byte) };
    };
    let write = |byte: *mut u8| {
        // SAFETY: `touch` passes addresses in a writable mapping that nothing else accesses.
        unsafe { lab::write(byte, 1) };
    };
    println!("                        smaps              pagemap");
    println!("                    Size  Rss  Anonymous  present  file  mincore");
    // ANCHOR: main
    let private = map_isolated(PAGES, RW, MapFlags::MAP_PRIVATE);
    show("private, untouched", private, [256, 0, 0, 0, 0, 0]);
    touch(private, read);
    show("private, read", private, [256, 0, 0, 256, 0, 256]);
    touch(private, write);
    show("private, written", private, [256, 256, 256, 256, 0, 256]);

    let shared = map_isolated(PAGES, RW, MapFlags::MAP_SHARED);
    show("shared, untouched", shared, [256, 0, 0, 0, 0, 0]);
    touch(shared, read);
    show("shared, read", shared, [256, 256, 0, 256, 256, 256]);
    touch(shared, write);
    show("shared, written", shared, [256, 256, 0, 256, 256, 256]);
    // ANCHOR_END: main
}
