//! Raw calls throughout; the length that the kernel is given is rounded up by hand.

use std::io;

use nix::libc;

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    map(len, 0)
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller gives the range up.
    if unsafe { libc::munmap(start.cast(), len) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn map(len: usize, more: libc::c_int) -> io::Result<*mut u8> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more;
    // SAFETY: without MAP_FIXED nothing is replaced.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

fn page_size() -> usize {
    // SAFETY: any name may be asked for.
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
        // SAFETY: `len` bytes are mapped, zero-filled, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        // SAFETY: the advice changes no contents.
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
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.start.cast(), self.mapped) };
    }
}

// SAFETY: a mapping belongs to no thread.
unsafe impl Send for Region {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Region {}
