//! Guard pages before and after the region, so that an overrun is SIGSEGV. `prefault` only touches the pages.

use std::io;
use std::num::NonZero;
use std::ptr::{NonNull, null_mut};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::unistd::{SysconfVar, sysconf};

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(start.cast())
    }
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller no longer uses the range.
    match unsafe { libc::munmap(start.cast(), len) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub struct Region {
    /// A guard page, the region rounded up to whole pages, and another guard page.
    whole: Mapping,
    len: usize,
}

struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
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
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start =
            unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let whole = Mapping {
            start: start.cast(),
            len: bytes.get(),
        };
        let region = Region { whole, len };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the pages are part of the new mapping, and nothing uses them yet.
        unsafe { mprotect(region.start().cast(), usable, protection)? };
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
        // SAFETY: the `len` bytes after the first guard page are readable and initialised, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        for page in self.as_mut_slice().chunks_mut(page_size()) {
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
