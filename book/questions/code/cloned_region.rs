//! A region that owns its mapping.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

unsafe extern "C" {
    fn munmap(start: *mut c_void, len: usize) -> c_int;
}

/// Private anonymous memory.
#[derive(Clone, Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Region {
    /// # Safety
    /// A mapping of `len` bytes begins at `start`, and the region takes ownership of it.
    pub unsafe fn new(start: NonNull<u8>, len: usize) -> Region {
        Region { start, len }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region owns the mapping, and nothing uses it any more.
        unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
