//! rustix makes the system calls itself, without libc.
// needs: rustix = { version = "1.1", features = ["mm", "param"] }

use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};

use nix::libc;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED nothing is replaced.
    match unsafe { libc::mmap(null_mut(), len, rights, flags, -1, 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        start => Ok(start.cast()),
    }
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller gives the range up.
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
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED nothing is replaced.
        let start = unsafe { mmap_anonymous(null_mut(), len, rights, flags) }?;
        let start = NonNull::new(start.cast()).expect("the kernel gives no null pointer here");
        Ok(Region(NonNull::slice_from_raw_parts(start, len)))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes are mapped and zero-filled, and borrowed with `self`.
        unsafe { self.0.as_ref() }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow is the only one.
        unsafe { self.0.as_mut() }
    }

    fn start(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        // SAFETY: the advice changes no contents.
        match unsafe { madvise(self.start(), self.len(), Advice::LinuxPopulateWrite) } {
            Err(Errno::INVAL) => {
                let page = rustix::param::page_size();
                for byte in self.as_mut_slice().iter_mut().step_by(page) {
                    let value = *byte;
                    // SAFETY: a reference is valid to write through.
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
        // SAFETY: the mapping is this value's own.
        let _ = unsafe { munmap(self.start(), self.len()) };
    }
}

// SAFETY: a mapping belongs to no thread.
unsafe impl Send for Region {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Region {}
