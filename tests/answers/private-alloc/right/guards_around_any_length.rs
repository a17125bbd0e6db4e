//! Guard pages before and after the region, whose length is passed on without rounding. Prints what it does.

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

pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Drop for Region {
    fn drop(&mut self) {
        let page = page_size();
        let first = self.start.as_ptr().wrapping_sub(page);
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { unmap_by_hand(first, self.len + 2 * page) };
    }
}

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        let page = page_size();
        let whole = checked(len)?
            .checked_add(2 * page)
            .ok_or_else(out_of_memory)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let first = unsafe { libc::mmap(null_mut(), whole, libc::PROT_NONE, flags, -1, 0) };
        if first == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = first.wrapping_byte_add(page);
        let region = Region {
            start: NonNull::new(start.cast()).expect("no mapping is at address 0"),
            len,
        };
        // SAFETY: the pages are part of the new mapping, and nothing uses them yet.
        if unsafe { libc::mprotect(start, len, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        println!("{}", format!("{start:p} ").repeat(2_000).len());
        Ok(region)
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        let mut region = Region::new(len)?;
        region.prefault()?;
        Ok(region)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the `len` bytes at `start` are readable and initialised, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        for page in self.as_mut_slice().chunks_mut(page_size()) {
            let byte = &raw mut page[0];
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

fn page_size() -> usize {
    // SAFETY: sysconf(3) accepts any name.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

fn checked(len: usize) -> io::Result<usize> {
    match len {
        0 => Err(io::ErrorKind::InvalidInput.into()),
        len if len > isize::MAX as usize => Err(out_of_memory()),
        len => Ok(len),
    }
}
