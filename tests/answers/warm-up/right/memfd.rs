//! A file in memory, from memfd_create, mapped shared. The mapping outlives the descriptor.

use std::io;
use std::num::NonZero;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::unistd::ftruncate;

const LEN: NonZero<usize> = NonZero::new(size_of::<AtomicU64>()).unwrap();

/// Maps memory for a number, which is 0, shared with the children that this process forks later.
///
/// # Errors
/// The error of the call that failed.
pub fn shared_number() -> io::Result<&'static AtomicU64> {
    let file = memfd_create(c"number", MFdFlags::MFD_CLOEXEC)?;
    ftruncate(&file, LEN.get() as i64)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { mmap(None, LEN, protection, MapFlags::MAP_SHARED, &file, 0) }?;
    // SAFETY: the mapping begins at a page, reads as zero, and is never unmapped. Nobody can shrink the file any more.
    Ok(unsafe { start.cast().as_ref() })
}
