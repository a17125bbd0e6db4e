//! After fork, Rss counts a page in full in each process that maps it. Pss divides the page among them.
//!
//! Claims: 42.

use std::ptr::NonNull;

use lab::kernel::{Child, RW, map_isolated, smaps};
use lab::{disable_huge_pages, page};
use nix::sys::mman::MapFlags;

const PAGES: usize = 256;

fn show(when: &str, start: NonNull<u8>, expected: [usize; 4]) {
    let smaps = smaps(start.as_ptr());
    let fields = ["Rss", "Pss", "Shared_Dirty", "Private_Dirty"];
    let counts = fields.map(|field| smaps.pages(field));
    let [rss, pss, shared, private] = counts;
    println!("{when:<30} {rss:>3} {pss:>4} {shared:>13} {private:>14}");
    assert_eq!(counts, expected);
}

fn write(start: NonNull<u8>, pages: usize) {
    for number in 0..pages {
        // SAFETY: the mapping has `pages` writable pages, and is private to the process.
        unsafe { lab::write(page(start, number), 1) };
    }
}

fn main() {
    disable_huge_pages();
    println!("                               Rss  Pss  Shared_Dirty  Private_Dirty");
    // ANCHOR: main
    let start = map_isolated(PAGES, RW, MapFlags::MAP_PRIVATE);
    write(start, PAGES);
    show("parent, before the fork", start, [256, 256, 0, 256]);

    let mut child = Child::fork(|step| match step {
        0 => show("child, after the fork", start, [256, 128, 256, 0]),
        _ => {
            write(start, 64);
            show("child, after it wrote 64 pages", start, [256, 160, 192, 64]);
        }
    });
    child.step(0);
    show("parent, after the fork", start, [256, 128, 256, 0]);
    child.step(1);
    show("parent, after those writes", start, [256, 160, 192, 64]);
    // ANCHOR_END: main
}
