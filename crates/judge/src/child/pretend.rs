//! Makes libc and the kernel answer this process as on another machine.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::libc;

use super::{filter, panics, state};

/// The page size to report, or 0 for the real one.
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// The address of the next mapping while a page size is pretended: a multiple of it, where nothing is mapped.
static NEXT_ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// Whether children that a signal has killed have dumped core.
static CORE_DUMPS: AtomicBool = AtomicBool::new(false);

/// The size of the address range for these mappings.
const RANGE: usize = 8 << 30;

/// From here on `sysconf(_SC_PAGESIZE)` and `getpagesize()` return `bytes`, and `mmap` places each mapping at a
/// multiple of it, in this process and in the processes that it forks.
///
/// The kernel's pages stay as they are, so `bytes` must be a multiple of their size. Raw system calls, which bypass
/// libc, see the real page size.
///
/// # Panics
/// If 8 GiB of free addresses cannot be found.
pub fn page_size(bytes: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let free = unsafe { libc::mmap(null_mut(), RANGE, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(free, libc::MAP_FAILED, "8 GiB of free addresses");
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
        panics::judge_failed(format!("the kernel rejected the seccomp filter: {error}"));
    }
    state::expect_filter();
}

/// From here on a child that a signal has killed is reported to have dumped core by `waitpid` and `waitid`. The judge
/// allows no core files, so the kernel never says so. Raw system calls, which bypass libc, see the kernel's status.
pub fn core_dumps() {
    CORE_DUMPS.store(true, Ordering::SeqCst);
}

/// Adds the core dump to the status of a child that a signal has killed.
pub fn add_core_dump(status: &mut libc::c_int) {
    /// The bit that WCOREDUMP tests.
    const DUMPED: libc::c_int = 0x80;
    if CORE_DUMPS.load(Ordering::Relaxed) && libc::WIFSIGNALED(*status) {
        *status |= DUMPED;
    }
}

/// Like `add_core_dump`, for `waitid`.
pub fn add_core_dump_to_info(info: &mut libc::siginfo_t) {
    if CORE_DUMPS.load(Ordering::Relaxed) && info.si_code == libc::CLD_KILLED {
        info.si_code = libc::CLD_DUMPED;
    }
}

/// The pretended page size, if there is one.
pub fn pretended() -> Option<usize> {
    match PAGE_SIZE.load(Ordering::Relaxed) {
        0 => None,
        bytes => Some(bytes),
    }
}

/// An address for a mapping of `len` bytes, as a hint, if a page size is pretended; null if there is none.
pub fn next_address(len: usize) -> Option<*mut libc::c_void> {
    let page = pretended()?;
    if len > RANGE {
        return Some(null_mut());
    }
    let address = NEXT_ADDRESS.fetch_add(len.next_multiple_of(page), Ordering::Relaxed);
    Some(std::ptr::without_provenance_mut(address))
}
