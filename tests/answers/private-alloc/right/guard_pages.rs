//! A page without access on either side, so that a write past the end is a signal; `prefault` by touching alone.

use std::io;
use std::num::NonZero;
use std::ptr::{NonNull, null_mut};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::unistd::{SysconfVar, sysconf};

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED nothing is replaced.
    let start = unsafe { libc::mmap(null_mut(), len, rights, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(start.cast())
    }
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller gives the range up.
    match unsafe { libc::munmap(start.cast(), len) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub struct Region {
    /// The guard, the region in whole pages, the guard.
    whole: Mapping,
    len: usize,
}

struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

fn page_size() -> usize {
    sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .expect("a page size") as usize
}

fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let page = page_size();
        let limit = isize::MAX as usize - 2 * page;
        let usable = len
            .checked_next_multiple_of(page)
            .filter(|usable| *usable <= limit)
            .ok_or_else(out_of_memory)?;
        let bytes = NonZero::new(usable + 2 * page).ok_or_else(out_of_memory)?;
        // SAFETY: without MAP_FIXED nothing is replaced.
        let start =
            unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let whole = Mapping {
            start: start.cast(),
            len: bytes.get(),
        };
        let region = Region { whole, len };
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the pages are the mapping's own, and nothing uses them yet.
        unsafe { mprotect(region.start().cast(), usable, rights)? };
        Ok(region)
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        let mut region = Region::new(len)?;
        region.prefault()?;
        Ok(region)
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: the mapping is longer than its first guard page.
        unsafe { self.whole.start.add(page_size()) }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes between the guards are zero-filled, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        for page in self.as_mut_slice().chunks_mut(page_size()) {
            let byte = &raw mut page[0];
            // SAFETY: the byte is borrowed here alone.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: as above.
            unsafe { byte.write_volatile(value) };
        }
        Ok(())
    }
}

// SAFETY: a mapping belongs to no thread.
unsafe impl Send for Region {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Region {}
