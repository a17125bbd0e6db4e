//! mmap itself brings in no pages. The first read of a page maps the zero page, and the first write then faults again.
//!
//! Claims: 13, 14, 38.

use lab::{disable_huge_pages, faults, page, resident_pages};

const PAGES: usize = 256;

// ANCHOR: count
/// Calls `touch` for each page. Returns the number of page faults, and of present pages.
fn count(name: &str, start: std::ptr::NonNull<u8>, touch: impl Fn(*mut u8)) -> (i64, usize) {
    let before = faults();
    for number in 0..PAGES {
        touch(page(start, number));
    }
    let taken = faults() - before;
    let resident = resident_pages(start, PAGES);
    println!("{name:<14} {taken:>3} faults, {resident:>3} pages resident");
    (taken, resident)
}
// ANCHOR_END: count

fn main() {
    disable_huge_pages();
    let read = |byte: *mut u8| {
        // SAFETY: `count` passes addresses in a readable mapping.
        unsafe { lab::read(byte) };
    };
    let write = |byte: *mut u8| {
        // SAFETY: `count` passes addresses in a writable mapping that nothing else accesses.
        unsafe { lab::write(byte, 1) };
    };
    let nothing = |_: *mut u8| {};

    // The first run also faults in the program's own code, so its counts are ignored.
    println!("warming up");
    let warm = lab::map_private(PAGES);
    count("no touch", warm, nothing);
    count("each read", warm, read);
    count("each written", warm, write);

    println!("counting");
    // ANCHOR: main
    let start = lab::map_private(PAGES);
    let untouched = count("no touch", start, nothing);
    let read_once = count("each read", start, read);
    let written = count("each written", start, write);
    let again = count("written again", start, write);
    // ANCHOR_END: main
    assert_eq!(untouched, (0, 0));
    assert_eq!(read_once, (PAGES as i64, PAGES));
    assert_eq!(written, (PAGES as i64, PAGES));
    assert_eq!(again, (0, PAGES));
}
