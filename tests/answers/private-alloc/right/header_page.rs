//! A page before the memory holds the length, so that a region is a single pointer.

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

struct Header {
    len: usize,
    page_size: usize,
}

/// The mapping begins with the header, and the region's bytes begin on the next page.
pub struct Region(NonNull<Header>);

impl Drop for Region {
    fn drop(&mut self) {
        let mapped = self.header().page_size + self.len();
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { unmap_by_hand(self.0.as_ptr().cast(), mapped) };
    }
}

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        // SAFETY: sysconf(3) accepts any name.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mapped = checked(len)?.checked_add(page_size);
        let mapped = mapped.filter(|bytes| *bytes <= isize::MAX as usize);
        let header: *mut Header = map_by_hand(mapped.ok_or(io::ErrorKind::OutOfMemory)?)?.cast();
        // SAFETY: the first page was mapped just now, and is aligned for the header.
        unsafe { header.write(Header { len, page_size }) };
        let header = NonNull::new(header).expect("no mapping is at address 0");
        Ok(Region(header))
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        let mut region = Region::new(len)?;
        region.prefault()?;
        Ok(region)
    }

    fn header(&self) -> &Header {
        // SAFETY: `new` has written the header, and nothing changes it.
        unsafe { self.0.as_ref() }
    }

    fn start(&self) -> *mut u8 {
        let start: *mut u8 = self.0.as_ptr().cast();
        start.wrapping_add(self.header().page_size)
    }

    pub fn len(&self) -> usize {
        self.header().len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: these bytes are readable and initialised, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start(), self.len()) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len()) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        let start = self.start().cast();
        // SAFETY: the pages belong to this region, and the advice does not change their contents.
        if unsafe { libc::madvise(start, self.len(), libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        let page_size = self.header().page_size;
        for page in self.as_mut_slice().chunks_mut(page_size) {
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

fn checked(len: usize) -> io::Result<usize> {
    match len {
        0 => Err(io::ErrorKind::InvalidInput.into()),
        len if len > isize::MAX as usize => Err(io::ErrorKind::OutOfMemory.into()),
        len => Ok(len),
    }
}
