//! Keeps the address as a number, so that a region is Send and Sync by itself, and asks for no huge pages.

use std::io;
use std::ptr::{self, NonNull};

use nix::libc;

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
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

/// # Safety
/// Nothing uses the pages of this range any more, now or later.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: by this function's contract nothing uses the range.
    if unsafe { libc::munmap(start.cast(), len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A private anonymous mapping: zero-filled, page-aligned, used only by this value, and unmapped on drop.
pub struct Region {
    /// The exposed address. With it, no `unsafe impl Send for Region {}` is needed.
    start: usize,
    len: usize,
}

impl Region {
    fn ptr(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.start)
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn check_len(len: usize) -> io::Result<()> {
    if len == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if len > isize::MAX as usize {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

/// Maps `len` bytes with additional flags.
fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
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

#[allow(clippy::len_without_is_empty)]
impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        check_len(len)?;
        let start = map(len, 0)?;
        // Kernels without huge pages do not know the advice.
        // SAFETY: the mapping is new.
        let _ = unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) };
        Ok(Region {
            start: start.as_ptr().expose_provenance(),
            len,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` are mapped and initialised while the region lives.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.len) }
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        check_len(len)?;
        Ok(Region {
            start: map(len, libc::MAP_POPULATE)?.as_ptr().expose_provenance(),
            len,
        })
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        // SAFETY: populating a mapping that this region owns changes no byte.
        let result =
            unsafe { libc::madvise(self.ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        for byte in self.as_mut_slice().iter_mut().step_by(page_size()) {
            *byte = std::hint::black_box(*byte);
        }
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region owns these pages, and no view outlives it.
        let _ = unsafe { libc::munmap(self.ptr().cast(), self.len) };
    }
}
