//! A region of private, zero-filled memory, mapped with mmap and unmapped on drop.
//! README.md describes the task, stage by stage.

use std::io;
use std::ptr::NonNull;

/// Stage 1: maps `len` bytes of private, zero-filled memory, readable and writable, with a raw call of
/// `nix::libc::mmap`. Returns the address of the first byte.
///
/// # Errors
/// The error of mmap(2), for example EINVAL if `len` is 0.
pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    todo!("map {len} bytes with nix::libc::mmap")
}

/// Stage 1: unmaps the `len` bytes at `start` with a raw call of `nix::libc::munmap`.
///
/// # Errors
/// The error of munmap(2), for example EINVAL if `start` is not page-aligned.
///
/// # Safety
/// Nothing uses the pages of this range any more, now or later.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    todo!("unmap {len} bytes at {start:p} with nix::libc::munmap")
}

/// A private anonymous mapping: zero-filled, page-aligned, used only by this value, and unmapped on drop.
///
/// Stage 2. The fields are a suggestion. You may change them.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// A region is never empty, because `new` rejects length 0 (stage 3).
#[allow(clippy::len_without_is_empty)]
impl Region {
    /// Stages 2 and 3: maps `len` bytes. A page becomes resident when it is first touched.
    ///
    /// If you need the page size, call `sysconf(_SC_PAGESIZE)`: it is not 4 KiB on every machine.
    ///
    /// # Errors
    /// - `InvalidInput` if `len` is 0.
    /// - `OutOfMemory` if `len` is more than `isize::MAX`, or if the kernel does not map that much.
    pub fn new(len: usize) -> io::Result<Region> {
        todo!("map a region of {len} bytes")
    }

    /// Stage 2: returns the length in bytes that was requested, although the kernel maps whole pages.
    pub fn len(&self) -> usize {
        todo!("tell the length, {} bytes", self.len)
    }

    /// Stage 2: returns the bytes of the region.
    ///
    /// Stage 5: with this signature, the slice can outlive the region. Change the signature.
    pub fn as_slice<'a>(&self) -> &'a [u8] {
        todo!("view {} bytes from {:p}", self.len, self.start)
    }

    /// Stage 2: returns the bytes of the region, mutably.
    ///
    /// Stage 5: with this signature, two threads can write the same byte. Change the signature.
    pub fn as_mut_slice<'a>(&mut self) -> &'a mut [u8] {
        todo!("view {} bytes from {:p}", self.len, self.start)
    }

    /// Stage 4: like `new`, but mmap populates all pages (`MAP_POPULATE`), so that every page is resident on return.
    ///
    /// # Errors
    /// As for `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        todo!("map a region of {len} bytes, populated")
    }

    /// Stage 4: populates every page, so that the next write to it causes no page fault. The contents are kept.
    ///
    /// Works on kernels with `MADV_POPULATE_WRITE` (Linux 5.14 and later) and on older ones.
    ///
    /// # Errors
    /// The kernel's error if it cannot provide the pages. The contents are kept then, too.
    pub fn prefault(&mut self) -> io::Result<()> {
        todo!("bring in every page of {} bytes", self.len)
    }
}

/// Stage 2: unmaps the region. If munmap fails, the memory leaks.
impl Drop for Region {
    fn drop(&mut self) {}
}

// Stage 5: make `Region` `Send` and `Sync` here, and say in a `SAFETY:` comment why that is sound.
