//! Helpers for the programs behind the book's pages: anonymous mappings, page faults, resident pages, /proc/self/maps.
//!
//! The helpers panic if a system call fails, because a program of the lab has nothing better to do then.

#[cfg(not(target_os = "linux"))]
compile_error!("the lab needs Linux: open the dev container in .devcontainer, or use WSL2");

// mallinfo2(3) exists only in glibc.
#[cfg(target_env = "gnu")]
pub mod glibc;
pub mod kernel;
pub mod sharing;
pub mod trace;

use std::fs::{self, File};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

/// Returns the page size in bytes.
pub fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.expect("POSIX requires sysconf to report the page size") as usize
}

/// Maps `pages` pages of private anonymous memory, readable and writable. The mapping is never unmapped.
pub fn map_private(pages: usize) -> NonNull<u8> {
    map(pages, MapFlags::MAP_PRIVATE)
}

/// Maps `pages` pages of shared anonymous memory, readable and writable. The mapping is never unmapped.
pub fn map_shared(pages: usize) -> NonNull<u8> {
    map(pages, MapFlags::MAP_SHARED)
}

fn map(pages: usize, flags: MapFlags) -> NonNull<u8> {
    let len = NonZero::new(pages * page_size()).expect("at least one page");
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED, mmap does not replace an existing mapping.
    let start = unsafe { mmap_anonymous(None, len, prot, flags) };
    start.expect("mmap").cast()
}

/// Returns the address of page `page` of the mapping at `start`. Pages are counted from 0.
pub fn page(start: NonNull<u8>, page: usize) -> *mut u8 {
    start.as_ptr().wrapping_add(page * page_size())
}

/// Returns the number of page faults of this thread so far, minor and major (getrusage(2)). Kernels before 6.0 count
/// the first write to a shared page as a major fault.
pub fn faults() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage");
    usage.minor_page_faults() + usage.major_page_faults()
}

/// Returns how many of the `pages` pages from `start` are present in this process's page table: bit 63 of
/// /proc/self/pagemap, which needs no privilege.
///
/// # Panics
/// If there is no pagemap, as in some sandboxes.
pub fn resident_pages(start: NonNull<u8>, pages: usize) -> usize {
    const PRESENT: u64 = 1 << 63;
    let pagemap = File::open("/proc/self/pagemap").expect("/proc/self/pagemap");
    let first = start.addr().get() / page_size();
    let present = |page: &usize| {
        let mut entry = [0; 8];
        let offset = (first + page) * entry.len();
        let read = pagemap.read_exact_at(&mut entry, offset as u64);
        read.expect("an entry for each page");
        u64::from_ne_bytes(entry) & PRESENT != 0
    };
    (0..pages).filter(present).count()
}

/// A line of /proc/self/maps.
#[derive(Debug)]
pub struct MapsLine {
    /// Length of the range in bytes. The kernel merges adjacent mappings that are alike into one line.
    pub len: usize,
    /// For example `rw-p`: read, write, execute, and `p` for private or `s` for shared.
    pub permissions: String,
    /// Empty for private anonymous memory.
    pub path: String,
}

/// Returns the line of /proc/self/maps that contains `address`.
///
/// # Panics
/// If the address is not mapped.
pub fn maps_line(address: *const u8) -> MapsLine {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let found = maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (start..end).contains(&address.addr()).then(|| MapsLine {
            len: end - start,
            permissions: fields.next().unwrap_or_default().to_owned(),
            // Offset, device and inode come before the path, which may contain spaces.
            path: fields.skip(3).collect::<Vec<_>>().join(" "),
        })
    });
    found.expect("the address is mapped")
}

/// Disables transparent huge pages for this process, so that every page is faulted in separately.
pub fn disable_huge_pages() {
    nix::sys::prctl::set_thp_disable(true).expect("PR_SET_THP_DISABLE");
}

/// Reads a byte with a volatile access, which the compiler cannot remove.
///
/// # Safety
/// `byte` must point to memory that is mapped readable.
pub unsafe fn read(byte: *const u8) -> u8 {
    // SAFETY: the caller guarantees that `byte` is readable.
    unsafe { byte.read_volatile() }
}

/// Writes a byte with a volatile access, which the compiler cannot remove.
///
/// # Safety
/// `byte` must point to memory that is mapped writable, and that nothing else accesses at the same time.
pub unsafe fn write(byte: *mut u8, value: u8) {
    // SAFETY: the caller guarantees that `byte` is writable and not accessed by others.
    unsafe { byte.write_volatile(value) };
}
