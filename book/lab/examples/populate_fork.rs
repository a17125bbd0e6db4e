//! fork undoes populating and locking: the next writes fault again, except in memory marked MADV_DONTFORK.
//!
//! Claims: 16, 17.

use std::ffi::c_void;
use std::ptr::NonNull;

use lab::kernel::{Child, RW, map_isolated};
use lab::{disable_huge_pages, faults, page, page_size};
use nix::sys::mman::{MapFlags, MmapAdvise, madvise, mlock};

/// Few enough for an unprivileged process to lock: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
const PAGES: usize = 4;

fn populated() -> NonNull<u8> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
    map_isolated(PAGES, RW, flags)
}

/// Writes the pages of each mapping, and returns the number of page faults for each mapping.
fn write(mappings: [NonNull<u8>; 3]) -> [i64; 3] {
    let mut taken = [0; 3];
    for (taken, start) in taken.iter_mut().zip(mappings) {
        let before = faults();
        for number in 0..PAGES {
            // SAFETY: the mapping is writable and has `PAGES` pages, and nothing else accesses it.
            unsafe { lab::write(page(start, number), 0) };
        }
        *taken = faults() - before;
    }
    taken
}

fn main() {
    disable_huge_pages();
    // The first run also faults in code and stack, so its counts are ignored.
    let scratch = [populated(); 3];
    write(scratch);

    // ANCHOR: main
    let len = PAGES * page_size();
    let plain = populated();
    let locked = populated();
    // SAFETY: mlock changes neither the mapping nor its contents.
    unsafe { mlock(locked.cast::<c_void>(), len) }.expect("mlock");
    let dont_fork = populated();
    let advice = MmapAdvise::MADV_DONTFORK;
    // SAFETY: the child does not access these pages, which it does not get.
    unsafe { madvise(dont_fork.cast::<c_void>(), len, advice) }.expect("madvise");
    let mappings = [plain, locked, dont_fork];
    let before = write(mappings);

    // The child exits immediately. After that no page is shared any more, but the
    // parent's page-table entries stay write-protected.
    drop(Child::fork(|_| ()));
    write(scratch);
    let after = write(mappings);
    let again = write(mappings);
    // ANCHOR_END: main
    println!("faults at the writes:   before a fork  after it  once more");
    let names = ["MAP_POPULATE", "and mlock", "and MADV_DONTFORK"];
    for (row, name) in names.iter().enumerate() {
        let (before, after, again) = (before[row], after[row], again[row]);
        println!("{name:<23} {before:>13} {after:>9} {again:>10}");
    }
    assert_eq!((before, again), ([0; 3], [0; 3]));
    assert_eq!(after, [4, 4, 0]);
}
