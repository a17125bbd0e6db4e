//! What the kernel can reclaim immediately: clean pages of a file, but no dirty, locked or (without swap) anonymous ones.

use std::env;
use std::fs::File;
use std::path::Path;
use std::process;
use std::ptr::NonNull;

use lab::kernel::{in_core, map_file, temporary_file};
use lab::{disable_huge_pages, map_private, page, page_size};
use nix::Result;
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, madvise, mlock};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::sysinfo::sysinfo;

/// Few enough for an unprivileged process to lock: RLIMIT_MEMLOCK was 64 KiB before Linux 5.16.
const PAGES: usize = 4;

/// Returns a temporary file whose pages are not the only copy of its data, as they are in a tmpfs. It has `PAGES` pages.
fn file_on_disk() -> Option<File> {
    let is_on_disk = |file: &File| {
        file.sync_all().expect("fsync");
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED; // drops clean pages that nobody maps
        posix_fadvise(file, 0, 0, advice).expect("posix_fadvise");
        in_core(map_file(file, PAGES, MapFlags::MAP_SHARED), PAGES) == 0
    };
    let temporary = env::temp_dir();
    let folders = [Path::new("/var/tmp"), &temporary, Path::new(".")];
    let files = folders.map(|folder| temporary_file(folder, PAGES));
    files.into_iter().flatten().find(is_on_disk)
}

/// Keeps this thread on one processor. New pages wait in a queue of their processor, from which MADV_PAGEOUT takes them
/// only if the caller runs there.
fn stay_on_this_processor() {
    // SAFETY: a cpu_set_t is a bit mask, so zero bytes are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sched_getcpu only reads a number.
    let cpu = Errno::result(unsafe { libc::sched_getcpu() }).expect("sched_getcpu");
    // SAFETY: the number of a processor is never negative, and below the size of the set.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: 0 is the calling thread, and `set` lives during the call.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    Errno::result(result).expect("sched_setaffinity");
}

// ANCHOR: main
/// A writable mapping of `PAGES` pages, which nothing else accesses.
struct Mapping(NonNull<u8>);

impl Mapping {
    /// Writes the pages, which makes them dirty.
    fn write(&self) {
        for number in 0..PAGES {
            // SAFETY: the mapping is writable, and nothing else accesses its pages.
            unsafe { lab::write(page(self.0, number), 1) };
        }
    }

    /// Asks the kernel to reclaim the pages now. Returns how many are still in memory.
    fn reclaim(&self) -> (Result<()>, usize) {
        let advice = MmapAdvise::MADV_PAGEOUT;
        // SAFETY: the advice discards no data.
        let result = unsafe { madvise(self.0.cast(), PAGES * page_size(), advice) };
        (result, in_core(self.0, PAGES))
    }
}
// ANCHOR_END: main

fn major_faults() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage");
    usage.major_page_faults()
}

fn show(name: &str, (result, left): (Result<()>, usize)) {
    let result = format!("{result:?}");
    println!("{name:<20} {result:<12} {left} of {PAGES} in memory");
}

fn main() {
    disable_huge_pages();
    stay_on_this_processor();
    let (Some(first), Some(second)) = (file_on_disk(), file_on_disk()) else {
        println!("found no folder for temporary files that is on a disk");
        process::exit(77);
    };
    let map = |file| Mapping(map_file(file, PAGES, MapFlags::MAP_SHARED));
    let (dirty, clean) = (map(&first), map(&second));
    // ANCHOR: rows
    dirty.write();
    let of_dirty = dirty.reclaim();
    show("a file, dirty", of_dirty);

    clean.write();
    second.sync_all().expect("fsync");
    let of_clean = clean.reclaim();
    show("a file, clean", of_clean);
    let before = major_faults();
    // SAFETY: the mapping is readable.
    unsafe { lab::read(clean.0.as_ptr()) };
    let read_back = major_faults() > before;
    println!("read again           major fault: {read_back}");

    // SAFETY: mlock changes neither the mapping nor its contents.
    unsafe { mlock(clean.0.cast(), PAGES * page_size()) }.expect("mlock");
    let of_locked = clean.reclaim();
    show("a file, locked", of_locked);

    let anonymous = Mapping(map_private(PAGES));
    anonymous.write();
    let mut of_anonymous = anonymous.reclaim();
    // ANCHOR_END: rows
    if sysinfo().expect("sysinfo").swap_total() > 0 {
        eprintln!(
            "This machine has swap, so anonymous pages can go. Printing the line of a machine without."
        );
        of_anonymous = (Ok(()), PAGES);
    }
    show("anonymous, no swap", of_anonymous);
    assert_eq!(of_dirty, (Ok(()), PAGES));
    assert_eq!(of_clean, (Ok(()), 0));
    assert!(read_back);
    assert_eq!(of_locked, (Err(Errno::EINVAL), PAGES));
    assert_eq!(of_anonymous, (Ok(()), PAGES));
}
