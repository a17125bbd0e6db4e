//! fork copies the page table, not the pages. The first write to each page faults, and the kernel copies that page.
//!
//! Claims: 42.

use std::ptr::NonNull;

use lab::kernel::{Child, RW, entries, map_isolated};
use lab::{disable_huge_pages, faults, page};
use nix::sys::mman::MapFlags;

const PAGES: usize = 256;

/// Prints and returns how many pages are present, and how many of them have a frame that no other entry maps.
fn show(when: &str, start: NonNull<u8>) -> (usize, usize) {
    let entries = entries(start, PAGES);
    let present = entries.iter().filter(|entry| entry.present).count();
    let exclusive = entries.iter().filter(|entry| entry.exclusive).count();
    println!("{when:<33} {present:>3} present, {exclusive:>3} exclusive");
    (present, exclusive)
}

/// Writes the first byte of each of the first `pages` pages, and returns the number of page faults.
fn write(start: NonNull<u8>, pages: usize) -> i64 {
    let before = faults();
    for number in 0..pages {
        // SAFETY: the mapping has `pages` writable pages, and no other process writes to it meanwhile.
        unsafe { lab::write(page(start, number), 1) };
    }
    faults() - before
}

fn main() {
    disable_huge_pages();
    // The first call also faults in code and stack. After the fork each process repeats this for its own copies.
    let scratch = map_isolated(1, RW, MapFlags::MAP_PRIVATE);
    write(scratch, 1);

    // ANCHOR: main
    let private = map_isolated(PAGES, RW, MapFlags::MAP_PRIVATE);
    let shared = map_isolated(PAGES, RW, MapFlags::MAP_SHARED);
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
