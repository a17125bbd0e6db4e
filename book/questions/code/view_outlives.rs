//! A region that owns its mapping.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::slice;

unsafe extern "C" {
    fn munmap(start: *mut c_void, len: usize) -> c_int;
}

pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Region {
    /// # Safety
    /// A private, readable and writable mapping of `len` bytes begins at `start`. The region takes ownership of it.
    pub unsafe fn new(start: NonNull<u8>, len: usize) -> Region {
        Region { start, len }
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the region owns the mapping, which lives as long as the region.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Returns the bytes of the region, mutably.
    pub fn as_mut_slice<'a>(&mut self) -> &'a mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region owns the mapping, and no slice of it is left.
        unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
