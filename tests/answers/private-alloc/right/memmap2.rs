//! The region is a `MmapMut` of memmap2, which already implements `Drop`, `Send` and `Sync`.
// needs: memmap2 = "0.9"

use std::io;
use std::ptr::null_mut;

use memmap2::{Advice, MmapMut, MmapOptions};
use nix::libc;

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe { libc::mmap(null_mut(), len, protection, flags, -1, 0) };
    if start.addr() == usize::MAX {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller no longer uses the range.
    let result = unsafe { libc::munmap(start.cast(), len) };
    nix::errno::Errno::result(result)?;
    Ok(())
}

pub struct Region {
    map: MmapMut,
}

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        Region::with(MmapOptions::new().len(checked(len)?))
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        Region::with(MmapOptions::new().len(checked(len)?).populate())
    }

    fn with(options: &MmapOptions) -> io::Result<Region> {
        let map = options.map_anon()?;
        Ok(Region { map })
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.map
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.map
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        let advised = self.map.advise(Advice::PopulateWrite);
        if !matches!(&advised, Err(error) if error.kind() == io::ErrorKind::InvalidInput) {
            return advised;
        }
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
        for byte in self.map.iter_mut().step_by(page.unwrap_or(1) as usize) {
            // A volatile write of the byte's own value. The compiler replaces an atomic operation that changes nothing,
            // such as `fetch_or(0)`, by a load.
            let value = *byte;
            let byte: *mut u8 = byte;
            // SAFETY: the byte is borrowed mutably.
            unsafe { byte.write_volatile(value) };
        }
        Ok(())
    }
}

fn checked(len: usize) -> io::Result<usize> {
    match len {
        0 => Err(io::ErrorKind::InvalidInput.into()),
        len if len > isize::MAX as usize => Err(io::ErrorKind::OutOfMemory.into()),
        len => Ok(len),
    }
}
