//! Asks the kernel about this process's memory without allocating any, so that asking changes nothing.
//!
//! Each probe is calibrated once in a case, on a mapping of its own: one that does not tell a touched page from an
//! untouched one on this machine ends the case as skipped, with the reason.

use std::ffi::CStr;
use std::panic;
use std::sync::OnceLock;

use nix::libc;
use nix::unistd::{SysconfVar, sysconf};

use crate::child::CannotCheck;

/// What may be done with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// Whether it is mapped at all.
    pub mapped: bool,
    /// PROT_READ.
    pub read: bool,
    /// PROT_WRITE.
    pub write: bool,
    /// PROT_EXEC.
    pub execute: bool,
    /// Whether a write is seen by other processes that share the mapping.
    pub shared: bool,
}

/// Bytes in a page, as the kernel says: `pretend::page_size` does not change this answer.
pub fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: `getauxval` reads the vector that the kernel put on the initial stack, for any key.
        let size = unsafe { libc::getauxval(libc::AT_PAGESZ) };
        match size {
            0 => sysconf(SysconfVar::PAGE_SIZE)
                .ok()
                .flatten()
                .expect("a page size") as usize,
            size => size as usize,
        }
    })
}

/// Pages of the `len` bytes from `start` that are mapped. `start` is rounded down to its page.
pub fn mapped_pages(start: *const u8, len: usize) -> usize {
    calibrated(
        &MAPPED,
        "mincore(2) does not tell mapped from unmapped pages here",
        || {
            with_pages(2, |pages, size| {
                let both = mapped_unchecked(pages, 2 * size) == 2;
                let half = {
                    // SAFETY: the second page belongs to this calibration alone, and no reference into it exists.
                    unsafe { libc::munmap(pages.wrapping_add(size).cast_mut().cast(), size) };
                    mapped_unchecked(pages, 2 * size) == 1
                };
                both && half
            })
        },
    );
    mapped_unchecked(start, len)
}

/// Pages of the `len` bytes from `start` that are present in this process's page table: touched, and not only
/// reserved. Counts the shared zero page that a read brings in.
pub fn resident_pages(start: *const u8, len: usize) -> usize {
    calibrated(
        &RESIDENT,
        "/proc/self/pagemap does not tell touched from untouched pages here",
        || {
            with_pages(4, |pages, size| {
                let before = resident_unchecked(pages, 4 * size);
                touch(pages);
                touch(pages.wrapping_add(2 * size));
                before == Some(0) && resident_unchecked(pages, 4 * size) == Some(2)
            })
        },
    );
    resident_unchecked(start, len).unwrap_or(0)
}

/// Page faults of this process so far, minor and major: a kernel before 5.12 counts some first writes as major.
pub fn faults() -> u64 {
    calibrated(
        &FAULTS,
        "getrusage(2) does not count page faults here",
        || {
            let counts = || {
                with_pages(4, |pages, size| {
                    let before = faults_unchecked();
                    for page in 0..4 {
                        touch(pages.wrapping_add(page * size));
                    }
                    faults_unchecked() - before == 4
                })
            };
            // The first time, the pages of this code may be touched for the first time, and are counted too.
            let _ = counts();
            counts()
        },
    );
    faults_unchecked()
}

/// What may be done with the page at `start`.
pub fn rights(start: *const u8) -> Rights {
    calibrated(
        &RIGHTS,
        "/proc/self/maps does not tell a page's rights here",
        || {
            with_pages(1, |pages, _| {
                let rights = rights_unchecked(pages);
                rights.mapped && rights.read && rights.write && !rights.execute && !rights.shared
            })
        },
    );
    rights_unchecked(start)
}

static MAPPED: OnceLock<bool> = OnceLock::new();
static RESIDENT: OnceLock<bool> = OnceLock::new();
static FAULTS: OnceLock<bool> = OnceLock::new();
static RIGHTS: OnceLock<bool> = OnceLock::new();

fn calibrated(works: &OnceLock<bool>, otherwise: &str, calibrate: impl FnOnce() -> bool) {
    if !works.get_or_init(calibrate) {
        cannot_check(otherwise);
    }
}

/// Ends the case as skipped.
pub fn cannot_check(reason: &str) -> ! {
    panic::panic_any(CannotCheck(reason.to_owned()))
}

/// Maps `count` fresh pages for `f`, and unmaps them.
fn with_pages(count: usize, f: impl FnOnce(*const u8, usize) -> bool) -> bool {
    let size = page_size();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // A page more on either side, without access, so that the mapping merges with no neighbour.
    let whole = (count + 2) * size;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel chooses an address where nothing else is.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), whole, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return false;
    }
    let pages = start.wrapping_byte_add(size);
    // SAFETY: the range lies inside the mapping just made, which nothing else knows.
    let usable = unsafe { libc::mprotect(pages, count * size, protection) } == 0;
    let result = usable && f(pages.cast_const().cast(), size);
    // SAFETY: the mapping is this function's own, and `f` has kept no reference into it.
    unsafe { libc::munmap(start, whole) };
    result
}

fn touch(byte: *const u8) {
    // SAFETY: callers pass a byte of the calibration's own writable pages.
    unsafe { byte.cast_mut().write_volatile(1) };
}

/// The pages that `len` bytes from `start` lie in: the first one's address, and how many.
fn pages_of(start: *const u8, len: usize) -> (usize, usize) {
    let size = page_size();
    let first = start.addr() / size;
    let last = (start.addr() + len).div_ceil(size);
    (first * size, last - first)
}

fn mapped_unchecked(start: *const u8, len: usize) -> usize {
    let size = page_size();
    let (first, count) = pages_of(start, len);
    let mapped = |page: &usize| {
        let mut resident = 0u8;
        let address = (first + page * size) as *mut libc::c_void;
        // SAFETY: mincore looks at no memory but its vector, one byte for the one page asked for.
        let result = unsafe { libc::mincore(address, size, &raw mut resident) };
        result == 0
    };
    (0..count).filter(mapped).count()
}

/// Bit 63 of a page's entry: present. Bit 62: swapped out, which only a page once touched can be.
fn resident_unchecked(start: *const u8, len: usize) -> Option<usize> {
    const TOUCHED: u64 = 0b11 << 62;
    let (first, count) = pages_of(start, len);
    let file = Descriptor::open(c"/proc/self/pagemap")?;
    let mut resident = 0;
    let mut entries = [0u64; 64];
    let mut done = 0;
    while done < count {
        let now = (count - done).min(entries.len());
        let offset = (first / page_size() + done) * size_of::<u64>();
        let bytes = now * size_of::<u64>();
        // SAFETY: `entries` has room for `bytes` bytes, and any bytes are valid integers.
        let read = unsafe {
            libc::pread(
                file.0,
                entries.as_mut_ptr().cast(),
                bytes,
                offset as libc::off_t,
            )
        };
        if read != bytes as isize {
            return None;
        }
        resident += entries[..now]
            .iter()
            .filter(|entry| **entry & TOUCHED != 0)
            .count();
        done += now;
    }
    Some(resident)
}

fn faults_unchecked() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for a write of a `rusage`.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    if result != 0 {
        return 0;
    }
    // SAFETY: the call succeeded, so it has filled in the structure.
    let usage = unsafe { usage.assume_init() };
    (usage.ru_minflt + usage.ru_majflt) as u64
}

/// Reads /proc/self/maps through a buffer on the stack, line by line.
fn rights_unchecked(start: *const u8) -> Rights {
    let Some(file) = Descriptor::open(c"/proc/self/maps") else {
        return Rights::default();
    };
    let mut line = [0u8; 64];
    let mut filled = 0;
    let mut buffer = [0u8; 4000];
    loop {
        // SAFETY: `buffer` has room for the bytes asked for.
        let read = unsafe { libc::read(file.0, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Ok(read @ 1..) = usize::try_from(read) else {
            return Rights::default();
        };
        for byte in &buffer[..read] {
            if *byte == b'\n' {
                if let Some(rights) = rights_in(&line[..filled], start.addr()) {
                    return rights;
                }
                filled = 0;
            } else if filled < line.len() {
                line[filled] = *byte;
                filled += 1;
            }
        }
    }
}

/// The rights in a line of maps (`start-end rwxp …`), if the line is about `address`.
fn rights_in(line: &[u8], address: usize) -> Option<Rights> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split(' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let flags = fields.next()?;
    range.contains(&address).then(|| Rights {
        mapped: true,
        read: flags.contains('r'),
        write: flags.contains('w'),
        execute: flags.contains('x'),
        shared: flags.contains('s'),
    })
}

/// An open file, closed when dropped.
struct Descriptor(i32);

impl Descriptor {
    fn open(path: &CStr) -> Option<Descriptor> {
        // SAFETY: `path` is a C string.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        (fd >= 0).then_some(Descriptor(fd))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the descriptor was opened by this value, and is closed once.
        unsafe { libc::close(self.0) };
    }
}
