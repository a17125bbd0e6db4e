//! Asks the kernel about this process's memory without allocating any, so that a probe does not change its own answer.
//!
//! Each probe is calibrated once in a case, on a mapping made for the purpose. If it does not tell a touched page from
//! an untouched one on this machine, or if it fails later, the case ends as skipped, with the reason.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

pub use super::failures::{
    errno_of, expect_ok_whatever_errno, forget as forget_failed_calls, is_from_output,
    last_with as failed_call,
};
use super::interpose;
pub use super::interpose::process_private_mutex;
use super::panics;
pub use super::smaps::{Kind, expect_plain, vm_flags};
use crate::procfs::MapsLine;

/// How a page may be accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    /// Whether the page is mapped at all.
    pub mapped: bool,
    /// PROT_READ.
    pub read: bool,
    /// PROT_WRITE.
    pub write: bool,
    /// PROT_EXEC.
    pub execute: bool,
    /// Whether other processes that share the mapping see a write.
    pub shared: bool,
}

/// The kernel's page size in bytes, which `pretend::page_size` does not change.
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

/// The number of mapped pages in the `len` bytes from `start`, which is rounded down to its page.
pub fn mapped_pages(start: *const u8, len: usize) -> usize {
    static WORKS: OnceLock<bool> = OnceLock::new();
    const BROKEN: &str = "mincore(2) does not distinguish mapped from unmapped pages here";
    calibrated(&WORKS, BROKEN, || {
        // The first page of the address space is never mapped. A page that this calibration unmapped itself could be
        // mapped again by another thread.
        with_pages(2, |pages, size| {
            try_mapped(pages, 2 * size) == Some(2) && try_mapped(std::ptr::null(), size) == Some(0)
        })
    });
    try_mapped(start, len).unwrap_or_else(|| panics::skip(BROKEN))
}

/// The number of pages in the `len` bytes from `start` that are present in this process's page table or swapped out:
/// pages that were touched, the shared zero page after a read included.
pub fn resident_pages(start: *const u8, len: usize) -> usize {
    static WORKS: OnceLock<bool> = OnceLock::new();
    const BROKEN: &str = "/proc/self/pagemap does not distinguish present from absent pages here";
    calibrated(&WORKS, BROKEN, || {
        with_pages(4, |pages, size| {
            let before = try_resident(pages, 4 * size);
            touch(pages);
            touch(pages.wrapping_add(2 * size));
            before == Some(0) && try_resident(pages, 4 * size) == Some(2)
        })
    });
    try_resident(start, len).unwrap_or_else(|| panics::skip("/proc/self/pagemap cannot be read"))
}

/// The page faults of this thread so far, minor and major: kernels before 6.0 count the first write to a shared page as
/// major.
pub fn faults() -> u64 {
    static WORKS: OnceLock<bool> = OnceLock::new();
    const BROKEN: &str = "getrusage(2) does not count page faults here";
    calibrated(&WORKS, BROKEN, || {
        let counts = || {
            with_pages(4, |pages, size| {
                let before = try_faults();
                for page in 0..4 {
                    touch(pages.wrapping_add(page * size));
                }
                before.is_some_and(|before| try_faults() == Some(before + 4))
            })
        };
        // The first run may fault in the pages of its own code.
        let _ = counts();
        counts()
    });
    try_faults().unwrap_or_else(|| panics::skip(BROKEN))
}

/// Fails the case if malloc has more memory in use after `make_and_drop`, which makes and drops that many of `what`.
pub fn expect_no_heap_kept(what: &str, make_and_drop: impl Fn(usize)) {
    // Many, so that what other threads of the process may allocate meanwhile is less than `FEW`.
    const COUNT: usize = 256;
    const FEW: usize = 16 * COUNT;
    // malloc may take memory for good when it is used first, and a collection when it grows.
    make_and_drop(COUNT / 2);
    let before = heap_in_use();
    make_and_drop(COUNT);
    let kept = heap_in_use().saturating_sub(before);
    crate::check!(
        kept < FEW,
        "{COUNT} {what}s were made and dropped, and malloc has at least {FEW} bytes more in use than before. Free in Drop \
         what `new` has allocated for a {what}."
    );
}

/// The bytes that malloc has given out in this process, with the rest of each block's chunk, and what its caches keep.
pub fn heap_in_use() -> usize {
    // SAFETY: mallinfo(3) only counts.
    let info = unsafe { libc::mallinfo() };
    // The fields are `int`s that wrap. The memory limit of a case is below 4 GiB.
    let bytes = |field: libc::c_int| field as libc::c_uint as usize;
    bytes(info.uordblks) + bytes(info.hblkhd)
}

/// Whether a mutex in shared memory was unlocked that `pthread_mutex_init` has not initialised, although it has
/// initialised others, all of them in private memory. Then the mutex is a copy of one of them.
pub fn unlocked_a_copied_mutex() -> bool {
    // A mutex in a mapping that is gone may have been the same one, at another address.
    let is_private = |mutex| {
        let page = permissions(mutex);
        page.mapped && !page.shared
    };
    let mut initialised = interpose::initialised_mutexes().peekable();
    interpose::uninitialised_mutex().is_some_and(|mutex| permissions(mutex).shared)
        && initialised.peek().is_some()
        && initialised.all(is_private)
}

/// Whether `f` changes the bytes of the value itself, and not only what it points to.
pub fn changes<T>(value: &T, f: impl FnOnce()) -> bool {
    let bytes: *const MaybeUninit<u8> = (&raw const *value).cast();
    let mut before = Box::<[u8]>::new_uninit_slice(size_of::<T>());
    // SAFETY: both are as long as the value, and may hold uninitialised padding.
    unsafe { bytes.copy_to_nonoverlapping(before.as_mut_ptr(), before.len()) };
    f();
    // SAFETY: memcmp reads both as bytes, padding included.
    (unsafe { libc::memcmp(before.as_ptr().cast(), bytes.cast(), before.len()) }) != 0
}

/// How the page at `start` may be accessed.
pub fn permissions(start: *const u8) -> Permissions {
    static WORKS: OnceLock<bool> = OnceLock::new();
    const BROKEN: &str = "/proc/self/maps does not show the permissions of a page here";
    calibrated(&WORKS, BROKEN, || {
        let expected = Permissions {
            mapped: true,
            read: true,
            write: true,
            execute: false,
            shared: false,
        };
        // Not in a new mapping, because a case may have mapped as much as it is allowed to.
        static WRITABLE: AtomicU8 = AtomicU8::new(0);
        try_permissions(WRITABLE.as_ptr().cast_const()) == Some(expected)
    });
    try_permissions(start).unwrap_or_else(|| panics::skip("/proc/self/maps cannot be read"))
}

/// Whether the `len` bytes from `start`, at least one, are in one mapping. What follows the end of a mapping may be another one.
pub fn in_one_mapping(start: *const u8, len: usize) -> bool {
    try_in_one_mapping(start, len).unwrap_or_else(|| panics::skip("/proc/self/maps cannot be read"))
}

pub(super) fn calibrated(works: &OnceLock<bool>, broken: &str, calibrate: impl FnOnce() -> bool) {
    if !works.get_or_init(calibrate) {
        panics::skip(broken);
    }
}

/// Calls `f` with the address of `count` fresh pages and the page size, and unmaps the pages.
pub(super) fn with_pages(count: usize, f: impl FnOnce(*const u8, usize) -> bool) -> bool {
    let size = page_size();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // One more page on either side, without access, so that the mapping does not merge with a neighbour.
    let padded = (count + 2) * size;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), padded, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return false;
    }
    let pages = start.wrapping_byte_add(size);
    // SAFETY: the range lies inside the mapping that was just made, which nothing else uses.
    let usable = unsafe { libc::mprotect(pages, count * size, protection) } == 0;
    let result = usable && f(pages.cast_const().cast(), size);
    // SAFETY: the whole mapping still exists and belongs to this function; `f` has kept no reference into it.
    unsafe { libc::munmap(start, padded) };
    result
}

fn touch(byte: *const u8) {
    // SAFETY: callers pass a byte of the calibration's own writable pages.
    unsafe { byte.cast_mut().write_volatile(1) };
}

/// The first page of the `len` bytes from `start`, and the number of their pages.
fn pages_of(start: *const u8, len: usize) -> (usize, usize) {
    let size = page_size();
    let first = start.addr() / size;
    let end = start.addr().saturating_add(len).div_ceil(size);
    (first, end - first)
}

/// `None` if mincore fails with another error than ENOMEM, which means "not mapped". libc's function follows `pretend`, so this
/// makes the system call.
fn try_mapped(start: *const u8, len: usize) -> Option<usize> {
    let size = page_size();
    let (first, count) = pages_of(start, len);
    let mut mapped = 0;
    for page in first..first + count {
        let mut resident = 0u8;
        let address = (page * size) as *mut libc::c_void;
        // SAFETY: mincore accesses no memory but its vector, one byte for the one page asked about.
        let result = unsafe { libc::syscall(libc::SYS_mincore, address, size, &raw mut resident) };
        match Errno::result(result) {
            Ok(_) => mapped += 1,
            Err(Errno::ENOMEM) => {}
            Err(_) => return None,
        }
    }
    Some(mapped)
}

/// `None` if /proc/self/pagemap cannot be read.
fn try_resident(start: *const u8, len: usize) -> Option<usize> {
    /// Bit 63 of a page's entry: present. Bit 62: swapped out, which only a page that was touched can be.
    const TOUCHED: u64 = 0b11 << 62;
    const ENTRY: usize = size_of::<u64>();
    let (first, count) = pages_of(start, len);
    let file = open(c"/proc/self/pagemap")?;
    let mut buffer = [0; 64 * ENTRY];
    let mut resident = 0;
    let mut done = 0;
    while done < count {
        let wanted = (count - done).saturating_mul(ENTRY).min(buffer.len());
        let offset = (first + done) * ENTRY;
        let read = retried(|| file.read_at(&mut buffer[..wanted], offset as u64))?;
        let (entries, _) = buffer[..read].as_chunks();
        if entries.is_empty() {
            break; // the file ends where the address space does
        }
        let touched = |entry: &&[u8; ENTRY]| u64::from_ne_bytes(**entry) & TOUCHED != 0;
        resident += entries.iter().filter(touched).count();
        done += entries.len();
    }
    Some(resident)
}

fn try_faults() -> Option<u64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    Some((usage.minor_page_faults() + usage.major_page_faults()) as u64)
}

/// `None` if /proc/self/maps cannot be read.
fn try_in_one_mapping(start: *const u8, len: usize) -> Option<bool> {
    let last = start.addr() + (len - 1);
    let mut is_in_one = false;
    each_line(c"/proc/self/maps", |line| {
        let holds = |address| permissions_in(line, address).is_some();
        is_in_one = holds(start.addr()) && holds(last);
        match holds(start.addr()) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Some(is_in_one)
}

/// `None` if /proc/self/maps cannot be read.
fn try_permissions(start: *const u8) -> Option<Permissions> {
    let mut found = Permissions::default();
    each_line(c"/proc/self/maps", |line| {
        match permissions_in(line, start.addr()) {
            Some(permissions) => {
                found = permissions;
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        }
    })?;
    Some(found)
}

/// Calls `f` with each line of the file, without what exceeds `LONGEST_LINE` bytes, until `f` breaks. Reads through
/// buffers on the stack. `None` if the file cannot be read.
pub(super) fn each_line(path: &CStr, mut f: impl FnMut(&[u8]) -> ControlFlow<()>) -> Option<()> {
    /// Enough for the addresses and permissions in maps, and for all flags in smaps.
    const LONGEST_LINE: usize = 256;
    let mut file = open(path)?;
    let mut line = [0u8; LONGEST_LINE];
    let mut filled = 0;
    let mut buffer = [0u8; 4000];
    loop {
        let read = retried(|| file.read(&mut buffer))?;
        if read == 0 {
            return Some(());
        }
        for byte in &buffer[..read] {
            if *byte == b'\n' {
                if f(&line[..filled]).is_break() {
                    return Some(());
                }
                filled = 0;
            } else if filled < line.len() {
                line[filled] = *byte;
                filled += 1;
            }
        }
    }
}

/// The permissions in a line of maps, if the line's mapping contains `address`.
fn permissions_in(line: &[u8], address: usize) -> Option<Permissions> {
    let cut = line.utf8_chunks().next()?.valid();
    let line = MapsLine::parse(cut)?;
    line.range.contains(&(address as u64)).then(|| Permissions {
        mapped: true,
        read: line.permissions.contains('r'),
        write: line.permissions.contains('w'),
        execute: line.permissions.contains('x'),
        shared: line.permissions.contains('s'),
    })
}

/// Opens a file without allocating, which `File::open` does not promise.
fn open(path: &CStr) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    fcntl::open(path, flags, Mode::empty()).ok().map(File::from)
}

/// Reads into a buffer with `read`, again if a signal interrupts it. Returns the number of bytes read.
fn retried(mut read: impl FnMut() -> io::Result<usize>) -> Option<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.ok(),
        }
    }
}
