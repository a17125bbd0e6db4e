//! Clones are deep. A label is made on demand. Before Linux 5.14, `prefault` exchanges a byte of each page for itself.

use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

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
    label: OnceLock<String>,
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { unmap_by_hand(self.start.as_ptr(), self.len) };
    }
}

impl Clone for Region {
    fn clone(&self) -> Region {
        let mut copy = Region::new(self.len).expect("memory for a clone");
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        Region::map(len, 0)
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        Region::map(len, libc::MAP_POPULATE)
    }

    fn map(len: usize, more: libc::c_int) -> io::Result<Region> {
        let len = checked(len)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Region {
            start: NonNull::new(start.cast()).expect("no mapping is at address 0"),
            len,
            label: OnceLock::new(),
        })
    }

    pub fn label(&self) -> &str {
        self.label.get_or_init(|| format!("{} bytes", self.len))
    }

    pub fn len(&self) -> usize {
        let _ = self.label();
        self.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: these bytes are readable and initialised, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the pages belong to this region, and the advice does not change their contents.
        if unsafe { libc::madvise(start, self.len, libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        // SAFETY: any name may be asked for.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        for page in self.as_mut_slice().chunks_mut(page_size) {
            // SAFETY: the byte is borrowed mutably, so nothing else accesses it.
            let byte = unsafe { AtomicU8::from_ptr(page.as_mut_ptr()) };
            let value = byte.load(Ordering::Relaxed);
            let _ = byte.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed);
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
