//! What the lab's programs ask the kernel: page size, resident pages, page faults, and the line in /proc/self/maps.

#[cfg(not(target_os = "linux"))]
compile_error!("the lab needs Linux: open the dev container in .devcontainer, or use WSL2");

// Only glibc has what it looks at.
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

/// Bytes in a page.
///
/// # Panics
/// If sysconf(3) does not know; POSIX requires it to.
pub fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.expect("sysconf knows the page size") as usize
}

/// A fresh private anonymous mapping of that many pages, to read and write. It is never unmapped.
///
/// # Panics
/// If the kernel refuses.
pub fn map_private(pages: usize) -> NonNull<u8> {
    map(pages, MapFlags::MAP_PRIVATE)
}

/// The same, shared.
///
/// # Panics
/// If the kernel refuses.
pub fn map_shared(pages: usize) -> NonNull<u8> {
    map(pages, MapFlags::MAP_SHARED)
}

fn map(pages: usize, flags: MapFlags) -> NonNull<u8> {
    let len = NonZero::new(pages * page_size()).expect("at least one page");
    let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe { mmap_anonymous(None, len, rights, flags) };
    start.expect("the kernel maps a few pages").cast()
}

/// The first byte of page `page` of a mapping that has more pages than that.
pub fn page(start: NonNull<u8>, page: usize) -> *mut u8 {
    start.as_ptr().wrapping_add(page * page_size())
}

/// Page faults of this thread so far, minor and major: getrusage(2). A kernel before 6.0 counts the first write to a
/// shared page as major.
///
/// # Panics
/// If getrusage fails.
pub fn faults() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage");
    usage.minor_page_faults() + usage.major_page_faults()
}

/// How many of the `pages` pages from `start` this process's page table holds: bit 63 of /proc/self/pagemap, which
/// needs no privilege.
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

/// What /proc/self/maps says of the mapping around an address: its range in bytes, its rights, and its path.
#[derive(Debug)]
pub struct MapsLine {
    /// Length in bytes. Mappings of one kind side by side are one line.
    pub len: usize,
    /// `rw-p`: read, write, execute, and `p` for private or `s` for shared.
    pub rights: String,
    /// Empty for private anonymous memory.
    pub path: String,
}

/// The line of /proc/self/maps that `address` lies in.
///
/// # Panics
/// If it lies in none.
pub fn maps_line(address: *const u8) -> MapsLine {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let found = maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (start..end).contains(&address.addr()).then(|| MapsLine {
            len: end - start,
            rights: fields.next().unwrap_or_default().to_owned(),
            // Offset, device and inode come before the path, which may hold spaces.
            path: fields.skip(3).collect::<Vec<_>>().join(" "),
        })
    });
    found.expect("the address is mapped")
}

/// From here on this process gets no huge pages, so that each page faults for itself.
///
/// # Panics
/// If the kernel knows no such option (before 3.15).
pub fn small_pages_only() {
    nix::sys::prctl::set_thp_disable(true).expect("PR_SET_THP_DISABLE");
}

/// Reads a byte, and the compiler cannot leave it out.
///
/// # Safety
/// `byte` points to memory that is mapped to be read.
pub unsafe fn read(byte: *const u8) -> u8 {
    // SAFETY: the caller's contract.
    unsafe { byte.read_volatile() }
}

/// Writes a byte, and the compiler cannot leave it out.
///
/// # Safety
/// `byte` points to memory that is mapped to be written, and that nothing else uses.
pub unsafe fn write(byte: *mut u8, value: u8) {
    // SAFETY: the caller's contract.
    unsafe { byte.write_volatile(value) };
}
