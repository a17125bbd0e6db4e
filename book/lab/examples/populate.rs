//! MAP_POPULATE, MADV_POPULATE_WRITE and mlock take the faults in advance; populated read-only, the writes still fault.
//!
//! Claims: 16.

use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;

use lab::kernel::RW;
use lab::{faults, page, page_size, resident_pages, small_pages_only};
use nix::errno::Errno;
use nix::sys::mman::{
    MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, mprotect, munmap,
};

/// Few enough to be locked by everybody: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
const PAGES: usize = 4;

fn map(rights: ProtFlags, flags: MapFlags) -> NonNull<c_void> {
    let flags = MapFlags::MAP_PRIVATE | flags;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    unsafe { mmap_anonymous(None, len(), rights, flags) }.expect("the kernel maps four pages")
}

fn len() -> NonZero<usize> {
    NonZero::new(PAGES * page_size()).expect("pages are not empty")
}

fn write(start: NonNull<c_void>) {
    for number in 0..PAGES {
        // SAFETY: `main` passes mappings that can be written, and that nothing else uses.
        unsafe { lab::write(page(start.cast(), number), 0) };
    }
}

// ANCHOR: populate
/// Brings in every page of a mapping, each with a frame of its own.
fn populate_write(start: NonNull<c_void>) {
    // SAFETY: populating changes no byte.
    match unsafe { madvise(start, len().get(), MmapAdvise::MADV_POPULATE_WRITE) } {
        // Linux before 5.14 does not know this advice. A write is as good, while
        // nobody else uses the memory.
        Err(Errno::EINVAL) => write(start),
        result => result.expect("the kernel finds four pages"),
    }
}
// ANCHOR_END: populate

/// How many faults `prepare` takes, how many pages are there then, and how many faults it takes to write them.
fn count(prepare: impl Fn() -> NonNull<c_void>) -> (i64, usize, i64) {
    let before = faults();
    let start = prepare();
    let in_advance = faults() - before;
    let resident = resident_pages(start.cast(), PAGES);
    // SAFETY: the mapping is this program's own; it stays mapped, with more rights.
    unsafe { mprotect(start, len().get(), RW) }.expect("mprotect");
    let before = faults();
    write(start);
    let later = faults() - before;
    // SAFETY: nothing uses the mapping after this.
    unsafe { munmap(start, len().get()) }.expect("munmap");
    (in_advance, resident, later)
}

fn main() {
    small_pages_only();
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
        // SAFETY: locking changes no byte.
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
    // The first time, this program's own code is touched too: that counts for nothing.
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
