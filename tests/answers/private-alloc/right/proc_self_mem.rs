//! Maps /dev/zero. Populates with /proc/self/mem: the kernel writes to the pages, and reports errors.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
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

/// A private mapping of /dev/zero.
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

fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let zero = File::options().read(true).write(true).open("/dev/zero")?;
    // SAFETY: the kernel chooses the address.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | flags,
            zero.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            // For a file, lengths that no address space has are errors of another kind.
            Some(libc::EOVERFLOW | libc::EINVAL) => {
                io::Error::new(io::ErrorKind::OutOfMemory, error)
            }
            _ => error,
        });
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: the region owns these pages, and is being dropped.
    unsafe { libc::munmap(start.as_ptr().cast(), len) };
}

/// Lets the kernel write one byte of each page, so that it reports errors instead of sending a signal.
fn touch(bytes: &mut [u8]) -> io::Result<()> {
    let memory = File::options()
        .read(true)
        .write(true)
        .open("/proc/self/mem")?;
    for byte in bytes.iter_mut().step_by(page_size()) {
        let mut copy = [0];
        let address = ptr::from_mut(byte).expose_provenance() as u64;
        memory.read_exact_at(&mut copy, address)?;
        memory.write_all_at(&copy, address)?;
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
    /// Stages 2 and 3: maps `len` bytes.
    ///
    /// # Errors
    /// `InvalidInput` or `OutOfMemory`.
    pub fn new(len: usize) -> io::Result<Region> {
        check(len)?;
        let start = map(len, 0)?;
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

    /// Stage 4: like `new`, but populated.
    ///
    /// # Errors
    /// As for `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        check(len)?;
        let start = map(len, libc::MAP_POPULATE)?;
        Ok(Region { start, len })
    }

    /// Stage 4: populates every page.
    ///
    /// # Errors
    /// The kernel's error if it cannot provide the pages.
    pub fn prefault(&mut self) -> io::Result<()> {
        for _ in 0..10 {
            match populate(self.start, self.len) {
                Ok(()) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {}
                    Some(libc::EINVAL) => {
                        return touch(self.as_mut_slice());
                    }
                    _ => return Err(error),
                },
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }
}

/// Stage 2: unmaps the region.
impl Drop for Region {
    fn drop(&mut self) {
        unmap(self.start, self.len);
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and any thread may unmap it.
unsafe impl Send for Region {}

// SAFETY: through `&Region` the memory and the fields are only read.
unsafe impl Sync for Region {}
