//! rustix makes the system calls directly, without libc, except for mmap in `map_by_hand`.
// needs: rustix = { version = "1.1", features = ["mm", "param"] }

use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};

use nix::libc;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    match unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        start => Ok(start.cast()),
    }
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller no longer uses the range.
    Ok(unsafe { munmap(start.cast(), len) }?)
}

pub struct Region(NonNull<[u8]>);

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        Region::with(len, MapFlags::PRIVATE)
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        Region::with(len, MapFlags::PRIVATE | MapFlags::POPULATE)
    }

    fn with(len: usize, flags: MapFlags) -> io::Result<Region> {
        match len {
            0 => return Err(Errno::INVAL.into()),
            len if isize::try_from(len).is_ok() => {}
            _ => return Err(Errno::NOMEM.into()),
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(null_mut(), len, protection, flags) }?;
        let start = NonNull::new(start.cast()).expect("the kernel gives no null pointer here");
        Ok(Region(NonNull::slice_from_raw_parts(start, len)))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes are readable and initialised, and borrowed with `self`.
        unsafe { self.0.as_ref() }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }

    fn start(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        // SAFETY: this advice does not change the contents.
        match unsafe { madvise(self.start(), self.len(), Advice::LinuxPopulateWrite) } {
            Err(Errno::INVAL) => {
                let page = rustix::param::page_size();
                for byte in self.as_mut_slice().iter_mut().step_by(page) {
                    let value = *byte;
                    // SAFETY: a mutable reference is valid for writes.
                    unsafe { std::ptr::from_mut(byte).write_volatile(value) };
                }
                Ok(())
            }
            result => Ok(result?),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { munmap(self.start(), self.len()) };
    }
}

// SAFETY: a mapping is not tied to a thread.
unsafe impl Send for Region {}
// SAFETY: a `&Region` gives read access only.
unsafe impl Sync for Region {}
