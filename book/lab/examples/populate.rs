//! MAP_POPULATE, MADV_POPULATE_WRITE and mlock prefault pages. After a read-only MAP_POPULATE, writes still fault.
//!
//! Claims: 16.

use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;

use lab::kernel::RW;
use lab::{disable_huge_pages, faults, page, page_size, resident_pages};
use nix::errno::Errno;
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, mprotect, munmap,
};

/// Few enough for an unprivileged process to lock: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
const PAGES: usize = 4;

fn map(prot: ProtFlags, flags: MapFlags) -> NonNull<c_void> {
    let flags = MapFlags::MAP_PRIVATE | flags;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    unsafe { mmap_anonymous(None, len(), prot, flags) }.expect("mmap")
}

fn len() -> NonZero<usize> {
    NonZero::new(PAGES * page_size()).expect("pages are not empty")
}

fn write(start: NonNull<c_void>) {
    for number in 0..PAGES {
        // SAFETY: `start` is a writable mapping of `PAGES` pages that nothing else accesses.
        unsafe { lab::write(page(start.cast(), number), 0) };
    }
}

// ANCHOR: populate
/// Prefaults every page of a mapping for writing, so that each has its own frame.
fn populate_write(start: NonNull<c_void>) {
    // SAFETY: MADV_POPULATE_WRITE does not change the contents.
    match unsafe { madvise(start, len().get(), MmapAdvise::MADV_POPULATE_WRITE) } {
        // Linux before 5.14 does not know this advice. Writing to each page has the same
        // effect, as long as nothing else accesses the memory.
        Err(Errno::EINVAL) => write(start),
        result => result.expect("madvise"),
    }
}
// ANCHOR_END: populate

/// Returns the page faults during `prepare`, the pages present after it, and the page faults when they are written.
fn count(prepare: impl Fn() -> NonNull<c_void>) -> (i64, usize, i64) {
    let before = faults();
    let start = prepare();
    let in_advance = faults() - before;
    let resident = resident_pages(start.cast(), PAGES);
    // SAFETY: this program made the mapping, and mprotect only adds permissions.
    unsafe { mprotect(start, len().get(), RW) }.expect("mprotect");
    let before = faults();
    write(start);
    let later = faults() - before;
    // SAFETY: this program made the mapping, and does not access it after this.
    unsafe { munmap(start, len().get()) }.expect("munmap");
    (in_advance, resident, later)
}

fn main() {
    disable_huge_pages();
    // ANCHOR: main
    let nothing = || map(RW, MapFlags::empty());
    let flag = || map(RW, MapFlags::MAP_POPULATE);
    let read_only = || map(ProtFlags::PROT_READ, MapFlags::MAP_POPULATE);
    let advice = || {
        let start = map(RW, MapFlags::empty());
        populate_write(start);
        start
    };
    let lock = || {
        let start = map(RW, MapFlags::empty());
        // SAFETY: mlock changes neither the mapping nor its contents.
        unsafe { mlock(start, len().get()) }.expect("four pages are within RLIMIT_MEMLOCK");
        start
    };
    let ways: [(&str, &dyn Fn() -> NonNull<c_void>, _); 5] = [
        ("nothing", &nothing, (0, 0, 4)),
        ("MAP_POPULATE", &flag, (4, 4, 0)),
        ("MAP_POPULATE, PROT_READ", &read_only, (4, 4, 4)),
        ("MADV_POPULATE_WRITE", &advice, (4, 4, 0)),
        ("mlock", &lock, (4, 4, 0)),
    ];
    // ANCHOR_END: main
    // The first run also faults in the program's own code, so its counts are ignored.
    for (_, prepare, _) in &ways {
        count(prepare);
    }
    println!("                         faults  resident  faults at the writes");
    for (name, prepare, expected) in &ways {
        let counts = count(prepare);
        let (in_advance, resident, later) = counts;
        println!("{name:<23} {in_advance:>7} {resident:>9} {later:>21}");
        assert_eq!(counts, *expected);
    }
}
