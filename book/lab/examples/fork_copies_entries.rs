//! fork copies the page table and not the pages: each page is copied at the first write to it, and costs a fault.
//!
//! Claims: 42.

use std::ptr::NonNull;

use lab::kernel::{Child, RW, entries, map_alone};
use lab::{faults, page, small_pages_only};
use nix::sys::mman::MapFlags;

const PAGES: usize = 256;

/// How many pages have an entry in the page table, and how many of these are the only one that leads to its frame.
fn show(when: &str, start: NonNull<u8>) -> (usize, usize) {
    let entries = entries(start, PAGES);
    let present = entries.iter().filter(|entry| entry.present).count();
    let exclusive = entries.iter().filter(|entry| entry.exclusive).count();
    println!("{when:<33} {present:>3} present, {exclusive:>3} exclusive");
    (present, exclusive)
}

/// The faults that it takes to write the first byte of that many pages.
fn write(start: NonNull<u8>, pages: usize) -> i64 {
    let before = faults();
    for number in 0..pages {
        // SAFETY: the mapping has `PAGES` pages that can be written, and each process has it to itself.
        unsafe { lab::write(page(start, number), 1) };
    }
    faults() - before
}

fn main() {
    small_pages_only();
    // The first time, code and stack are touched too: before the fork here, and after it in each process below.
    let scratch = map_alone(1, RW, MapFlags::MAP_PRIVATE);
    write(scratch, 1);

    // ANCHOR: main
    let private = map_alone(PAGES, RW, MapFlags::MAP_PRIVATE);
    let shared = map_alone(PAGES, RW, MapFlags::MAP_SHARED);
    write(private, PAGES);
    write(shared, PAGES);
    assert_eq!(show("parent, before the fork:", private), (PAGES, PAGES));

    let mut child = Child::fork(|step| match step {
        0 => {
            assert_eq!(show("child, after the fork:", private), (PAGES, 0));
            assert_eq!(show("child, memory that is shared:", shared), (0, 0));
        }
        _ => {
            write(scratch, 1);
            let taken = write(private, 64);
            println!("child writes 64 pages:            {taken:>3} faults");
            assert_eq!(taken, 64);
            assert_eq!(show("child, after its writes:", private), (PAGES, 64));
        }
    });
    child.step(0);
    assert_eq!(show("parent, after the fork:", private), (PAGES, 0));
    child.step(1);
    assert_eq!(
        show("parent, after the child's writes:", private),
        (PAGES, 64)
    );

    write(scratch, 1);
    let taken = write(private, PAGES);
    println!("parent writes 256 pages:          {taken:>3} faults");
    assert_eq!(taken, PAGES as i64);
    assert_eq!(show("parent, after its writes:", private), (PAGES, PAGES));
    assert_eq!(write(private, PAGES), 0);
    // ANCHOR_END: main
}
