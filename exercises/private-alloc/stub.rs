//! A region of private, zero-filled memory straight from the kernel. README.md has the task, stage by stage.

use std::io;
use std::ptr::NonNull;

/// Stage 1: maps `len` bytes of private, zero-filled memory that can be read and written, by a raw call of
/// `nix::libc::mmap`. Returns the first byte's address.
///
/// # Errors
/// What the kernel says where it refuses: for `len` 0 that is EINVAL.
pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    todo!("map {len} bytes with nix::libc::mmap")
}

/// Stage 1: unmaps the `len` bytes from `start`, by a raw call of `nix::libc::munmap`.
///
/// # Errors
/// What the kernel says where it refuses: for a `start` inside a page that is EINVAL.
///
/// # Safety
/// Nothing may use the pages of the range any more, nor later.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    todo!("unmap {len} bytes at {start:p} with nix::libc::munmap")
}

/// A private anonymous mapping: zero-filled, page-aligned, this value's own, and unmapped when it is dropped.
///
/// Stage 2. The fields are a proposal, and yours to change.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// A region is never empty: stage 3 sees to that.
#[allow(clippy::len_without_is_empty)]
impl Region {
    /// Stages 2 and 3: maps `len` bytes. No page is resident before it is touched.
    ///
    /// Where you need the page size, ask `sysconf(_SC_PAGESIZE)`: not every machine has 4 KiB.
    ///
    /// # Errors
    /// - `InvalidInput` for `len` 0.
    /// - `OutOfMemory` for more than `isize::MAX`, and for what no address space holds.
    pub fn new(len: usize) -> io::Result<Region> {
        todo!("map a region of {len} bytes")
    }

    /// Stage 2: the length in bytes: exactly what was asked for.
    pub fn len(&self) -> usize {
        todo!("tell the length, {} bytes", self.len)
    }

    /// Stage 2: the region's bytes, to read.
    ///
    /// Stage 5: as given, this signature lets a view outlive its region.
    pub fn as_slice<'a>(&self) -> &'a [u8] {
        todo!("view {} bytes from {:p}", self.len, self.start)
    }

    /// Stage 2: the region's bytes, to write.
    ///
    /// Stage 5: as given, this signature lets two threads write the same byte.
    pub fn as_mut_slice<'a>(&mut self) -> &'a mut [u8] {
        todo!("view {} bytes from {:p}", self.len, self.start)
    }

    /// Stage 4: as `new`, but every page is resident at once (`MAP_POPULATE`).
    ///
    /// # Errors
    /// As `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        todo!("map a region of {len} bytes, populated")
    }

    /// Stage 4: makes every page writable without a further page fault, and keeps what the region holds.
    ///
    /// Works on kernels with `MADV_POPULATE_WRITE` (Linux 5.14) and on those without.
    ///
    /// # Errors
    /// What the kernel says where it cannot provide the pages.
    pub fn prefault(&mut self) -> io::Result<()> {
        todo!("bring in every page of {} bytes", self.len)
    }
}

/// Stage 2: a region is unmapped when it is dropped.
impl Drop for Region {
    fn drop(&mut self) {}
}

// Stage 5: state here that a Region may be sent to another thread, and shared with one; and say why that is sound.
