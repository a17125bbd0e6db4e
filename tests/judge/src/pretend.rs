//! Makes this process's libc and kernel look like another machine's.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;

use crate::filter;

/// The page size to answer, or 0 for the true one.
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);

/// From here on `sysconf(_SC_PAGESIZE)` and `getpagesize()` answer `bytes`, in this process and what it forks.
///
/// The kernel's own pages stay as they are: `bytes` must be a multiple of them.
pub fn page_size(bytes: usize) {
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
    let mut real = REAL.load(Ordering::Relaxed);
    if real == 0 {
        // SAFETY: the name is a C string, and RTLD_NEXT asks for the definition behind this one.
        real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"sysconf".as_ptr()) }.addr();
        REAL.store(real, Ordering::Relaxed);
    }
    // SAFETY: libc defines `sysconf` with this type; dlsym finds it, or nothing of this process would have started.
    let real: Sysconf = unsafe { std::mem::transmute(real) };
    // SAFETY: the caller's contract is the same.
    unsafe { real(name) }
}

/// libc's `getpagesize`.
#[unsafe(no_mangle)]
pub extern "C" fn getpagesize() -> libc::c_int {
    // SAFETY: any name may be asked for.
    unsafe { sysconf(libc::_SC_PAGESIZE) as libc::c_int }
}
