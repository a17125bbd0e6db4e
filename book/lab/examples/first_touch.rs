//! mmap brings in no page. A read brings in the shared page of zeros, and a write then faults once more.
//!
//! Claims: 13, 14, 38.

use lab::{faults, page, resident_pages, small_pages_only};

const PAGES: usize = 256;

// ANCHOR: count
/// The faults and the resident pages that come of doing `touch` to each page.
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
    small_pages_only();
    let read = |byte: *mut u8| {
        // SAFETY: `count` passes the bytes of a mapping that can be read.
        unsafe { lab::read(byte) };
    };
    let write = |byte: *mut u8| {
        // SAFETY: `count` passes the bytes of a mapping that can be written, and that nothing else uses.
        unsafe { lab::write(byte, 1) };
    };
    let nothing = |_: *mut u8| {};

    // The first time, this program's own code is touched too: that run counts for nothing.
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
