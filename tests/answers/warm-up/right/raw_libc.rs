//! Raw calls of libc.

use std::sync::atomic::AtomicU64;
use std::{io, ptr};

use nix::libc;

/// Maps memory for a number, which is 0, shared with the children that this process forks later.
///
/// # Errors
/// The error of mmap(2).
pub fn shared_number() -> io::Result<&'static AtomicU64> {
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<AtomicU64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping begins at a page, reads as zero, and is never unmapped.
    Ok(unsafe { &*start.cast() })
}
