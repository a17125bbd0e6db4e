//! /dev/zero, mapped shared: the older way to anonymous memory.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

const LEN: NonZero<usize> = NonZero::new(size_of::<AtomicU64>()).unwrap();

/// Maps memory for a number, which is 0, shared with the children that this process forks later.
///
/// # Errors
/// The error of the call that failed.
pub fn shared_number() -> io::Result<&'static AtomicU64> {
    let zero = File::options().read(true).write(true).open("/dev/zero")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { mmap(None, LEN, protection, MapFlags::MAP_SHARED, &zero, 0) }?;
    // SAFETY: the mapping begins at a page, reads as zero, and is never unmapped.
    Ok(unsafe { start.cast().as_ref() })
}
