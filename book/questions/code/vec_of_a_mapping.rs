//! A zero-filled vector in memory from mmap.

use std::ffi::{c_int, c_long, c_void};
use std::{io, ptr};

unsafe extern "C" {
    fn mmap(at: *mut c_void, len: usize, rights: c_int, flags: c_int, fd: c_int, offset: c_long) -> *mut c_void;
}

const READ_AND_WRITE: c_int = 3;
const PRIVATE_AND_ANONYMOUS: c_int = 0x22;
const FAILED: *mut c_void = ptr::without_provenance_mut(usize::MAX);

/// Returns `len` zeros.
pub fn zeros(len: usize) -> io::Result<Vec<u8>> {
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { mmap(ptr::null_mut(), len, READ_AND_WRITE, PRIVATE_AND_ANONYMOUS, -1, 0) };
    if start == FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `len` zero bytes are mapped at `start`, and nobody else uses them.
    Ok(unsafe { Vec::from_raw_parts(start.cast(), len, len) })
}
