//! Passes mmap the length as it is, and mprotect whole pages. The errors of `prefault` wrap the kernel's.

use std::error::Error;
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};

use nix::libc;

/// `prefault` has failed.
#[derive(Debug)]
struct NotPopulated {
    len: usize,
    cause: io::Error,
}

impl fmt::Display for NotPopulated {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "cannot populate {} bytes", self.len)
    }
}

impl Error for NotPopulated {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// Stage 1: maps `len` bytes of private, zero-filled memory.
///
/// # Errors
/// The error of mmap(2), for example EINVAL if `len` is 0.
pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

/// Stage 1: unmaps the `len` bytes at `start`.
///
/// # Errors
/// The error of munmap(2), for example EINVAL if `start` is not page-aligned.
///
/// # Safety
/// Nothing uses the pages of this range any more, now or later.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller's contract.
    let rc = unsafe { libc::munmap(start.cast(), len) };
    if rc == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("the page size is positive")
}

/// Rejects the lengths that no region can have.
fn check(len: usize) -> io::Result<()> {
    if len == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if len > isize::MAX as usize {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

/// A mapping with these extra flags.
fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// A private anonymous mapping: zero-filled, page-aligned, used only by this value, and unmapped on drop.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// A region is never empty, because `new` rejects length 0 (stage 3).
#[allow(clippy::len_without_is_empty)]
impl Region {
    /// Maps `len` bytes. A page becomes resident when it is first touched.
    ///
    /// # Errors
    /// - `InvalidInput` if `len` is 0.
    /// - `OutOfMemory` if `len` is more than `isize::MAX`, or if the kernel does not map that much.
    pub fn new(len: usize) -> io::Result<Region> {
        check(len)?;
        let start = map(len, 0)?;
        let whole = len.next_multiple_of(page_size());
        // SAFETY: the pages are ours.
        if unsafe {
            libc::mprotect(
                start.as_ptr().cast(),
                whole,
                libc::PROT_READ | libc::PROT_WRITE,
            )
        } == -1
        {
            let error = io::Error::last_os_error();
            // SAFETY: as above.
            unsafe { libc::munmap(start.as_ptr().cast(), len) };
            return Err(error);
        }
        Ok(Region { start, len })
    }

    /// The length in bytes that was requested.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes of the region.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as self, and is written only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes of the region, mutably.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping lives as long as self, and `&mut self` makes it ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Like `new`, but every page is resident on return.
    ///
    /// # Errors
    /// As for `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        check(len)?;
        let start = map(len, libc::MAP_POPULATE)?;
        Ok(Region { start, len })
    }

    /// Populates every page, so that the next write to it causes no page fault. The contents are kept.
    ///
    /// # Errors
    /// The kernel's error if it cannot provide the pages. The contents are kept then, too.
    pub fn prefault(&mut self) -> io::Result<()> {
        // SAFETY: the pages are this region's own, and the advice changes no byte.
        let advised = unsafe {
            libc::madvise(
                self.start.as_ptr().cast(),
                self.len,
                libc::MADV_POPULATE_WRITE,
            )
        };
        if advised == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            let (kind, len) = (error.kind(), self.len);
            return Err(io::Error::new(kind, NotPopulated { len, cause: error }));
        }
        self.touch();
        Ok(())
    }

    /// Writes to each page the byte that it holds.
    fn touch(&mut self) {
        for offset in (0..self.len).step_by(page_size()) {
            // SAFETY: the offset is less than the length.
            let byte = unsafe { self.start.as_ptr().add(offset) };
            // SAFETY: the byte lies in the region, which `&mut self` makes ours alone.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: as above.
            unsafe { byte.write_volatile(value) };
        }
    }
}

/// Unmaps the region. If munmap fails, the memory leaks.
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and it is dropped once.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: a mapping belongs to the process, so another thread may use and unmap it.
unsafe impl Send for Region {}
// SAFETY: the methods that take `&self` only read the fields and the bytes.
unsafe impl Sync for Region {}
