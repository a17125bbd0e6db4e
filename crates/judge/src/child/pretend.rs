//! Makes libc and the kernel answer this process as on another machine.

use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;

use super::{filter, panics};

/// The page size to report, or 0 for the real one.
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// The address of the next mapping while a page size is pretended: a multiple of it, where nothing is mapped.
static NEXT_ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// The size of the address range for these mappings.
const RANGE: usize = 1 << 30;

/// From here on `sysconf(_SC_PAGESIZE)` and `getpagesize()` return `bytes`, and `mmap` places each mapping at a
/// multiple of it, in this process and in the processes that it forks.
///
/// The kernel's pages stay as they are, so `bytes` must be a multiple of their size. Raw system calls, which bypass
/// libc, see the real page size.
///
/// # Panics
/// If 1 GiB of free addresses cannot be found.
pub fn page_size(bytes: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let free = unsafe { libc::mmap(null_mut(), RANGE, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(free, libc::MAP_FAILED, "1 GiB of free addresses");
    // SAFETY: the range was mapped just now, and nothing uses it.
    unsafe { libc::munmap(free, RANGE) };
    NEXT_ADDRESS.store(free.addr().next_multiple_of(bytes), Ordering::SeqCst);
    PAGE_SIZE.store(bytes, Ordering::SeqCst);
}

/// From here on `madvise` fails with EINVAL for MADV_POPULATE_READ and MADV_POPULATE_WRITE, as on a kernel before 5.14.
///
/// # Panics
/// If the kernel refuses a seccomp filter: the case then cannot be graded.
pub fn no_populate_advice() {
    // An unprivileged process may not install a filter without it.
    // SAFETY: the option takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let advice = [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE];
    if let Err(error) = filter::refuse_advice(&advice) {
        panics::judge_failed(format!("the kernel refuses a seccomp filter: {error}"));
    }
}

fn pretended() -> Option<usize> {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => None,
        bytes => Some(bytes),
    }
}

/// The address of libc's own definition of `name`, which the one in this file overrides.
fn libc_function(cache: &AtomicUsize, name: &CStr) -> usize {
    let mut found = cache.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: the name is a C string, and RTLD_NEXT asks for the definition after this one.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }.addr();
        cache.store(found, Ordering::Relaxed);
    }
    found
}

/// Overrides libc's `sysconf`.
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
    let real = libc_function(&REAL, c"sysconf");
    // SAFETY: libc defines `sysconf` with this type; dlsym finds it, because this process is linked with libc.
    let real: Sysconf = unsafe { std::mem::transmute(real) };
    // SAFETY: the caller's contract is the same.
    unsafe { real(name) }
}

/// Overrides libc's `mmap`.
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
    let real = libc_function(&REAL, c"mmap");
    // SAFETY: libc defines `mmap` with this type; dlsym finds it, because this process is linked with libc.
    let real: Mmap = unsafe { std::mem::transmute(real) };
    let start = match pretended() {
        Some(page) if start.is_null() => next_address(len, page),
        _ => start,
    };
    // SAFETY: the caller's contract is the same. A null address became a hint, which replaces no mapping.
    unsafe { real(start, len, protection, flags, fd, offset) }
}

/// Overrides libc's `mmap64`, which is the same as `mmap` on a 64-bit machine.
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

/// An address for `len` bytes, as a hint; null if there is none.
fn next_address(len: usize, page: usize) -> *mut libc::c_void {
    if len > RANGE {
        return null_mut();
    }
    let address = NEXT_ADDRESS.fetch_add(len.next_multiple_of(page), Ordering::Relaxed);
    std::ptr::without_provenance_mut(address)
}

/// Overrides libc's `getpagesize`.
#[unsafe(no_mangle)]
pub extern "C" fn getpagesize() -> libc::c_int {
    // SAFETY: any name may be asked for.
    unsafe { sysconf(libc::_SC_PAGESIZE) as libc::c_int }
}
