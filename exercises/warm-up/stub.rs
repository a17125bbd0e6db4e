//! A number in memory that a process shares with its children. One flag is wrong: README.md describes the task.

use std::io;
use std::num::NonZero;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

const LEN: NonZero<usize> = NonZero::new(size_of::<AtomicU64>()).unwrap();

/// Maps memory for a number, which is 0. This process shares it with the children that it forks later, and never
/// unmaps it.
///
/// # Errors
/// The error of mmap(2).
pub fn shared_number() -> io::Result<&'static AtomicU64> {
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { mmap_anonymous(None, LEN, protection, flags) }?;
    // SAFETY: the mapping begins at a page, reads as zero, and is never unmapped. An AtomicU64 may change at any time.
    Ok(unsafe { start.cast().as_ref() })
}
