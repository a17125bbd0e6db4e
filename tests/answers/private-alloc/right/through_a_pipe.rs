//! Guard pages on both sides. Populates with a pipe: the kernel writes to the pages, and reports errors.

use std::io::{self, Read, Write};
use std::ptr::{self, NonNull};
use std::slice;

use nix::libc;

/// Stage 1: maps `len` bytes.
///
/// # Errors
/// The error of mmap(2).
pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
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
/// The error of munmap(2).
///
/// # Safety
/// Nothing uses the pages of this range any more.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller promises that nothing uses the range.
    if unsafe { libc::munmap(start.cast(), len) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A private anonymous mapping between two pages without permissions.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

/// Rejects the lengths that no slice may have.
fn check(len: usize) -> io::Result<()> {
    if len == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if isize::try_from(len).is_err() {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

fn page_size() -> usize {
    // SAFETY: sysconf only reads a value.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("the page size is known")
}

/// The length of the whole mapping, guard pages included.
fn reserved(len: usize) -> io::Result<usize> {
    len.checked_next_multiple_of(page_size())
        .and_then(|body| body.checked_add(2 * page_size()))
        .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn map(len: usize) -> io::Result<NonNull<u8>> {
    check(len)?;
    let reserved = reserved(len)?;
    // SAFETY: the kernel chooses the address.
    let all = unsafe {
        libc::mmap(
            ptr::null_mut(),
            reserved,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if all == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is longer than a page.
    let start = unsafe { all.byte_add(page_size()) };
    // SAFETY: nothing uses the mapping yet.
    if unsafe {
        libc::mprotect(
            start,
            reserved - 2 * page_size(),
            libc::PROT_READ | libc::PROT_WRITE,
        )
    } == -1
    {
        let error = io::Error::last_os_error();
        // SAFETY: nothing uses the mapping.
        unsafe { libc::munmap(all, reserved) };
        return Err(error);
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Sends one byte of each page through a pipe and back: the kernel writes it, and reports what a write of the process
/// would be killed for.
fn touch(bytes: &mut [u8]) -> io::Result<()> {
    let (mut reader, mut writer) = io::pipe()?;
    for page in bytes.chunks_mut(page_size()) {
        writer.write_all(&page[..1])?;
        reader.read_exact(&mut page[..1])?;
    }
    Ok(())
}

fn populate(start: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: this advice does not change the contents of the pages.
    if unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[allow(clippy::len_without_is_empty)]
impl Region {
    /// # Errors
    /// `InvalidInput` or `OutOfMemory`.
    pub fn new(len: usize) -> io::Result<Region> {
        let start = map(len)?;
        Ok(Region { start, len })
    }

    /// Stage 2: returns the requested length.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Stage 2: returns the bytes of the region.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is readable, initialized with zeros, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Stage 2: returns the bytes of the region, mutably.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is writable, initialized with zeros, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// # Errors
    /// As for `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        // MAP_POPULATE does not populate pages without permissions, and ignores errors.
        let mut region = Region::new(len)?;
        region.prefault()?;
        Ok(region)
    }

    /// # Errors
    /// The kernel's error.
    pub fn prefault(&mut self) -> io::Result<()> {
        match populate(self.start, self.len) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => touch(self.as_mut_slice()),
            other => other,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: a page lies before the region's first.
        let all = unsafe { self.start.sub(page_size()) };
        let reserved = reserved(self.len).expect("it was mapped");
        // SAFETY: the region owns these pages.
        unsafe { libc::munmap(all.as_ptr().cast(), reserved) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and any thread may unmap it.
unsafe impl Send for Region {}

// SAFETY: through `&Region` the memory and the fields are only read.
unsafe impl Sync for Region {}
