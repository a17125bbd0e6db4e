//! Raw libc calls throughout. The length of the mapping is rounded up to whole pages explicitly.

use std::io;

use nix::libc;

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    map(len, 0)
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller no longer uses the range.
    if unsafe { libc::munmap(start.cast(), len) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn map(len: usize, more: libc::c_int) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

fn page_size() -> usize {
    // SAFETY: sysconf accepts any name.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

pub struct Region {
    start: *mut u8,
    len: usize,
    mapped: usize,
}

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        Region::with(len, 0)
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        Region::with(len, libc::MAP_POPULATE)
    }

    fn with(len: usize, more: libc::c_int) -> io::Result<Region> {
        if len == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        if isize::try_from(len).is_err() {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        let mapped = len.next_multiple_of(page_size());
        Ok(Region {
            start: map(mapped, more)?,
            len,
            mapped,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the `len` bytes are readable and initialised, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        // SAFETY: this advice does not change the contents.
        if unsafe { libc::madvise(self.start.cast(), self.mapped, libc::MADV_POPULATE_WRITE) } == 0
        {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        for offset in (0..self.len).step_by(page_size()) {
            let byte = self.start.wrapping_add(offset);
            // SAFETY: `offset` is less than `len`.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: as above, and `self` is borrowed mutably.
            unsafe { byte.write_volatile(value) };
        }
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        unsafe { libc::munmap(self.start.cast(), self.mapped) };
    }
}

// SAFETY: a mapping is not tied to a thread.
unsafe impl Send for Region {}
// SAFETY: a `&Region` gives read access only.
unsafe impl Sync for Region {}
