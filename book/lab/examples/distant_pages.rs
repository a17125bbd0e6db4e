//! Pages that are far apart need more page tables than pages that are next to each other.

use std::fs;
use std::num::NonZero;
use std::process;
use std::ptr::NonNull;

use lab::kernel::RW;
use lab::{disable_huge_pages, page_size};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};

const PAGES: usize = 16;

// ANCHOR: main
/// Returns the size of this process's page tables in pages. The table of the highest
/// level is not counted.
fn table_pages() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPTE:"));
    let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: usize = size.and_then(|kib| kib.parse().ok()).expect("a size");
    kib * 1024 / page_size()
}

/// Writes to 16 pages, and returns how many pages the page tables have grown by.
fn grows_by(reservation: &Reservation, distance: usize) -> usize {
    let before = table_pages();
    for number in 1..=PAGES {
        reservation.write(number * distance);
    }
    table_pages() - before
}
// ANCHOR_END: main

/// Addresses that nothing else uses.
struct Reservation {
    start: NonNull<u8>,
    len: usize,
}

impl Reservation {
    /// Reserves `PAGES` multiples of `upper` and the start. One table of the next higher level, which covers `top` bytes,
    /// covers them all.
    fn new(upper: usize, top: usize) -> nix::Result<Reservation> {
        let len = (PAGES + 1) * upper;
        let all = NonZero::new(2 * len + upper).expect("a length");
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
        let reserved = unsafe { mmap_anonymous(None, all, ProtFlags::PROT_NONE, flags) }?;
        let first = reserved.addr().get().next_multiple_of(upper);
        let boundary = first.next_multiple_of(top);
        let crosses = boundary < first + len;
        let start = NonZero::new(if crosses { boundary } else { first });
        let start = start.expect("mmap never returns address 0");
        let start = reserved.cast().map_addr(|_| start);
        Ok(Reservation { start, len })
    }

    /// Makes a page writable, and writes to it.
    fn write(&self, offset: usize) {
        assert!(offset < self.len);
        // SAFETY: the offset lies in the reservation, so the addition does not overflow.
        let page = unsafe { self.start.add(offset) };
        // SAFETY: the page lies in the reservation, which nothing else uses.
        unsafe { mprotect(page.cast(), page_size(), RW) }.expect("mprotect");
        // SAFETY: the page is writable now, and nothing else accesses it.
        unsafe { lab::write(page.as_ptr(), 1) };
    }
}

fn main() {
    disable_huge_pages();
    let entries = page_size() / size_of::<u64>(); // of one table
    let last_level = entries * page_size(); // the bytes that one table of the last level covers
    let upper_level = entries * last_level;
    let Ok(reservation) = Reservation::new(upper_level, entries * upper_level) else {
        println!("there are not enough addresses for pages that are so far apart");
        process::exit(77);
    };
    // The first page brings in the tables that lead to the start of the reservation.
    reservation.write(0);
    let adjacent = grows_by(&reservation, page_size());
    let last_level = grows_by(&reservation, last_level);
    let upper_level = grows_by(&reservation, upper_level);
    println!("16 more pages in one table:            {adjacent:>2} pages of tables");
    println!("each in another last-level table:      {last_level:>2}");
    println!("each in another table one level above: {upper_level:>2}");
    assert_eq!((adjacent, last_level, upper_level), (0, PAGES, 2 * PAGES));
}
