//! rustix makes the system call without libc.
// needs: rustix = { version = "1.1", features = ["mm", "param"] }

use std::sync::atomic::AtomicU64;
use std::{io, ptr};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Maps memory for a number, which is 0, shared with the children that this process forks later.
///
/// # Errors
/// The error of mmap(2).
pub fn shared_number() -> io::Result<&'static AtomicU64> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let len = size_of::<AtomicU64>();
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::SHARED) }?;
    // SAFETY: the mapping begins at a page, reads as zero, and is never unmapped.
    Ok(unsafe { &*start.cast() })
}
