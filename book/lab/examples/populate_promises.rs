//! MAP_POPULATE does not report failure, and it does not lock the pages that it brings in.
//!
//! Claims: 16, 17.

use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;

use lab::kernel::{RW, map_isolated};
use lab::{disable_huge_pages, page_size, resident_pages};
use nix::Result;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock};

/// Few enough for an unprivileged process to lock twice: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
const PAGES: usize = 2;

fn show(call: &str, result: Result<()>, start: NonNull<u8>) -> (Result<()>, usize) {
    let resident = resident_pages(start, PAGES);
    println!("{call:<25} {result:?}, {resident} of {PAGES} pages resident");
    (result, resident)
}

fn advise(start: NonNull<u8>, advice: MmapAdvise) -> Result<()> {
    // SAFETY: the mapping holds no data that the advice could discard.
    unsafe { madvise(start.cast::<c_void>(), len().get(), advice) }
}

fn lock(start: NonNull<u8>) -> Result<()> {
    // SAFETY: mlock changes neither the mapping nor its contents.
    unsafe { mlock(start.cast::<c_void>(), len().get()) }
}

fn len() -> NonZero<usize> {
    NonZero::new(PAGES * page_size()).expect("pages are not empty")
}

fn main() {
    disable_huge_pages();
    // ANCHOR: main
    let populated = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
    println!("no access to the mapping:");
    let start = map_isolated(PAGES, ProtFlags::PROT_NONE, populated);
    let mapped = show("mmap with MAP_POPULATE", Ok(()), start);
    let result = advise(start, MmapAdvise::MADV_POPULATE_WRITE);
    let advised = show("MADV_POPULATE_WRITE", result, start);
    let locked = show("mlock", lock(start), start);

    println!("to read and to write:");
    let start = map_isolated(PAGES, RW, populated);
    let mapped_rw = show("mmap with MAP_POPULATE", Ok(()), start);
    let result = advise(start, MmapAdvise::MADV_DONTNEED);
    let discarded = show("MADV_DONTNEED", result, start);
    let locked_again = show("mlock", lock(start), start);
    let result = advise(start, MmapAdvise::MADV_DONTNEED);
    let refused = show("MADV_DONTNEED", result, start);
    // ANCHOR_END: main
    assert_eq!(mapped, (Ok(()), 0));
    assert_eq!(advised, (Err(Errno::EINVAL), 0));
    assert_eq!(locked, (Err(Errno::ENOMEM), 0));
    assert_eq!(mapped_rw, (Ok(()), PAGES));
    assert_eq!(discarded, (Ok(()), 0));
    assert_eq!(locked_again, (Ok(()), PAGES));
    assert_eq!(refused, (Err(Errno::EINVAL), PAGES));
}
