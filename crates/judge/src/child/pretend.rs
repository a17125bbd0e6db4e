//! Makes this process's libc and kernel look like another machine's.

use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;

use crate::child::filter;

/// The page size to answer, or 0 for the true one.
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Where the next mapping goes, while a page size is pretended: at a multiple of it, where nothing is mapped.
static NEXT_PLACE: AtomicUsize = AtomicUsize::new(0);

/// Addresses to place mappings at.
const PLACES: usize = 1 << 30;

/// From here on `sysconf(_SC_PAGESIZE)` and `getpagesize()` answer `bytes`, and `mmap` begins each mapping at a multiple
/// of it, in this process and what it forks.
///
/// The kernel's own pages stay as they are: `bytes` must be a multiple of them, and a system call that goes past libc is
/// answered by the real machine.
///
/// # Panics
/// If there is not 1 GiB of addresses left.
pub fn page_size(bytes: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let free = unsafe { libc::mmap(null_mut(), PLACES, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(free, libc::MAP_FAILED, "1 GiB of addresses");
    // SAFETY: the range was mapped just now, and nothing knows of it.
    unsafe { libc::munmap(free, PLACES) };
    NEXT_PLACE.store(free.addr().next_multiple_of(bytes), Ordering::SeqCst);
    PAGE_SIZE.store(bytes, Ordering::SeqCst);
}

/// From here on `madvise` refuses MADV_POPULATE_READ and MADV_POPULATE_WRITE, as a kernel before 5.14 does.
///
/// # Panics
/// If the kernel takes no seccomp filter.
pub fn no_populate_advice() {
    // SAFETY: the option takes numbers only; a filter needs it where the process is not privileged.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    filter::refuse_advice(&[libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE])
        .expect("this kernel takes a seccomp filter");
}

fn pretended() -> Option<usize> {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => None,
        bytes => Some(bytes),
    }
}

/// The address of libc's own definition of `name`, which stands behind the one in this file.
fn behind(cache: &AtomicUsize, name: &CStr) -> usize {
    let mut found = cache.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: the name is a C string, and RTLD_NEXT asks for the definition behind this one.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.addr();
        cache.store(found, Ordering::Relaxed);
    }
    found
}

/// libc's `sysconf`, which this stands before.
///
/// # Safety
/// As for sysconf(3): any `name` may be asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysconf(name: libc::c_int) -> libc::c_long {
    if name == libc::_SC_PAGESIZE
        && let Some(bytes) = pretended()
    {
        return bytes as libc::c_long;
    }
    type Sysconf = unsafe extern "C" fn(libc::c_int) -> libc::c_long;
    static REAL: AtomicUsize = AtomicUsize::new(0);
    let real = behind(&REAL, c"sysconf");
    // SAFETY: libc defines `sysconf` with this type; dlsym finds it, or nothing of this process would have started.
    let real: Sysconf = unsafe { std::mem::transmute(real) };
    // SAFETY: the caller's contract is the same.
    unsafe { real(name) }
}

/// libc's `mmap`, which this stands before.
///
/// # Safety
/// As for mmap(2): with MAP_FIXED the range must not be in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    start: *mut libc::c_void,
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    fd: libc::c_int,
    offset: libc::off_t,
) -> *mut libc::c_void {
    type Mmap = unsafe extern "C" fn(
        *mut libc::c_void,
        usize,
        libc::c_int,
        libc::c_int,
        libc::c_int,
        libc::off_t,
    ) -> *mut libc::c_void;
    static REAL: AtomicUsize = AtomicUsize::new(0);
    let real = behind(&REAL, c"mmap");
    // SAFETY: libc defines `mmap` with this type; dlsym finds it, or nothing of this process would have started.
    let real: Mmap = unsafe { std::mem::transmute(real) };
    let start = match pretended() {
        Some(page) if start.is_null() => next_place(len, page),
        _ => start,
    };
    // SAFETY: the caller's contract is the same; where there was no address there is a hint now, which replaces nothing.
    unsafe { real(start, len, protection, flags, fd, offset) }
}

/// libc's `mmap64`: on a 64-bit machine the same as `mmap`.
///
/// # Safety
/// As for mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    start: *mut libc::c_void,
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    fd: libc::c_int,
    offset: libc::off_t,
) -> *mut libc::c_void {
    // SAFETY: the caller's contract is the same.
    unsafe { mmap(start, len, protection, flags, fd, offset) }
}

/// A place for `len` bytes, as a hint; null where there is none.
fn next_place(len: usize, page: usize) -> *mut libc::c_void {
    if len > PLACES {
        return null_mut();
    }
    let place = NEXT_PLACE.fetch_add(len.next_multiple_of(page), Ordering::Relaxed);
    std::ptr::without_provenance_mut(place)
}

/// libc's `getpagesize`.
#[unsafe(no_mangle)]
pub extern "C" fn getpagesize() -> libc::c_int {
    // SAFETY: any name may be asked for.
    unsafe { sysconf(libc::_SC_PAGESIZE) as libc::c_int }
}
