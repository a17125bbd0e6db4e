//! A fork undoes what populating and locking have done, except for memory that it leaves out.
//!
//! Claims: 16, 17.

use std::ffi::c_void;
use std::ptr::NonNull;

use lab::kernel::{Child, RW, map_alone};
use lab::{faults, page, page_size, small_pages_only};
use nix::sys::mman::{MapFlags, MmapAdvise, madvise, mlock};

/// Few enough to be locked by everybody: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
const PAGES: usize = 4;

fn populated() -> NonNull<u8> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
    map_alone(PAGES, RW, flags)
}

/// For each mapping the faults that it takes to write its pages.
fn write(mappings: [NonNull<u8>; 3]) -> [i64; 3] {
    let mut taken = [0; 3];
    for (taken, start) in taken.iter_mut().zip(mappings) {
        let before = faults();
        for number in 0..PAGES {
            // SAFETY: the mapping can be written, and nothing else uses it.
            unsafe { lab::write(page(start, number), 0) };
        }
        *taken = faults() - before;
    }
    taken
}

fn main() {
    small_pages_only();
    // The first time, code and stack are touched too: that counts for nothing.
    let scratch = [populated(); 3];
    write(scratch);

    // ANCHOR: main
    let len = PAGES * page_size();
    let plain = populated();
    let locked = populated();
    // SAFETY: locking changes no byte.
    unsafe { mlock(locked.cast::<c_void>(), len) }.expect("within RLIMIT_MEMLOCK");
    let left_out = populated();
    let advice = MmapAdvise::MADV_DONTFORK;
    // SAFETY: the child does not use what it does not have.
    unsafe { madvise(left_out.cast::<c_void>(), len, advice) }.expect("madvise");
    let mappings = [plain, locked, left_out];
    let before = write(mappings);

    // This child ends at once, so that every page is the parent's alone again.
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
