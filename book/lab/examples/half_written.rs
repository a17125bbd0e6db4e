//! A mapping costs no memory until it is written to: only the written pages become resident.
//!
//! Claims: 13.

use lab::{disable_huge_pages, page, page_size, resident_pages};

const MIB: usize = 1 << 20;

fn main() {
    disable_huge_pages();
    // ANCHOR: main
    let pages = 512 * MIB / page_size();
    let start = lab::map_private(pages);
    for number in 0..pages / 2 {
        // SAFETY: the page is in the mapping, which nothing else accesses.
        unsafe { lab::write(page(start, number), 1) };
    }
    let resident = resident_pages(start, pages) * page_size();
    println!("512 MiB mapped, {} MiB resident", resident / MIB);
    // ANCHOR_END: main
    assert_eq!(resident, 256 * MIB);
}
