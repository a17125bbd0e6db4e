//! Reserves addresses without access, and commits them with MAP_FIXED. Writes back every byte, whatever the page size.

use std::io;
use std::ptr::{NonNull, null_mut};

use nix::libc;

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
    match start {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        start => Ok(start.cast()),
    }
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller no longer uses the range.
    match unsafe { libc::munmap(start.cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Addresses that are reserved until this value is dropped.
struct Reservation {
    start: NonNull<u8>,
    len: usize,
}

impl Reservation {
    fn new(len: usize) -> io::Result<Reservation> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("no mapping is at address 0");
        Ok(Reservation { start, len })
    }

    fn commit(&mut self, more: libc::c_int) -> io::Result<()> {
        let (start, protection) = (
            self.start.as_ptr().cast(),
            libc::PROT_READ | libc::PROT_WRITE,
        );
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | more;
        // SAFETY: the call replaces only this reservation, which nothing uses yet.
        match unsafe { libc::mmap(start, self.len, protection, flags, -1, 0) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { unmap_by_hand(self.start.as_ptr(), self.len) };
    }
}

/// The reservation unmaps the memory.
pub struct Region(Reservation);

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        Region::with(len, 0)
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        Region::with(len, libc::MAP_POPULATE)
    }

    fn with(len: usize, flags: libc::c_int) -> io::Result<Region> {
        let mut memory = Reservation::new(checked(len)?)?;
        memory.commit(flags)?;
        Ok(Region(memory))
    }

    pub fn len(&self) -> usize {
        self.0.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: these bytes are readable and initialised, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        let start = self.0.start.as_ptr().cast();
        // SAFETY: the pages belong to this region, and the advice does not change their contents.
        if unsafe { libc::madvise(start, self.0.len, libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        for byte in self.as_mut_slice() {
            let byte = &raw mut *byte;
            // SAFETY: the byte is mutably borrowed.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: as above.
            unsafe { byte.write_volatile(value) };
        }
        Ok(())
    }
}

// SAFETY: a mapping is not tied to a thread.
unsafe impl Send for Region {}
// SAFETY: a `&Region` gives read access only.
unsafe impl Sync for Region {}

fn checked(len: usize) -> io::Result<usize> {
    match len {
        0 => Err(io::ErrorKind::InvalidInput.into()),
        len if len > isize::MAX as usize => Err(io::ErrorKind::OutOfMemory.into()),
        len => Ok(len),
    }
}
