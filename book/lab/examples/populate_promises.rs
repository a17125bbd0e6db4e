//! MAP_POPULATE does not say that it failed, and what it brought in is not locked.
//!
//! Claims: 16, 17.

use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;

use lab::kernel::{RW, map_alone};
use lab::{page_size, resident_pages, small_pages_only};
use nix::Result;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock};

/// Few enough to be locked by everybody, twice: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
const PAGES: usize = 2;

fn show(call: &str, result: Result<()>, start: NonNull<u8>) -> (Result<()>, usize) {
    let resident = resident_pages(start, PAGES);
    println!("{call:<25} {result:?}, {resident} of {PAGES} pages resident");
    (result, resident)
}

fn advise(start: NonNull<u8>, advice: MmapAdvise) -> Result<()> {
    // SAFETY: the mapping holds nothing, so nothing can be lost.
    unsafe { madvise(start.cast::<c_void>(), len().get(), advice) }
}

fn lock(start: NonNull<u8>) -> Result<()> {
    // SAFETY: locking changes no byte.
    unsafe { mlock(start.cast::<c_void>(), len().get()) }
}

fn len() -> NonZero<usize> {
    NonZero::new(PAGES * page_size()).expect("pages are not empty")
}

fn main() {
    small_pages_only();
    // ANCHOR: main
    let populated = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
    println!("no access to the mapping:");
    let start = map_alone(PAGES, ProtFlags::PROT_NONE, populated);
    let mapped = show("mmap with MAP_POPULATE", Ok(()), start);
    let result = advise(start, MmapAdvise::MADV_POPULATE_WRITE);
    let advised = show("MADV_POPULATE_WRITE", result, start);
    let locked = show("mlock", lock(start), start);

    println!("to read and to write:");
    let start = map_alone(PAGES, RW, populated);
    let there = show("mmap with MAP_POPULATE", Ok(()), start);
    let result = advise(start, MmapAdvise::MADV_DONTNEED);
    let dropped = show("MADV_DONTNEED", result, start);
    let held = show("mlock", lock(start), start);
    let result = advise(start, MmapAdvise::MADV_DONTNEED);
    let kept = show("MADV_DONTNEED", result, start);
    // ANCHOR_END: main
    assert_eq!(mapped, (Ok(()), 0));
    assert_eq!(advised, (Err(Errno::EINVAL), 0));
    assert_eq!(locked, (Err(Errno::ENOMEM), 0));
    assert_eq!(there, (Ok(()), PAGES));
    assert_eq!(dropped, (Ok(()), 0));
    assert_eq!(held, (Ok(()), PAGES));
    assert_eq!(kept, (Err(Errno::EINVAL), PAGES));
}
