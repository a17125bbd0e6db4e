//! A `MmapMut` of memmap2 owns the mapping: no Drop, no Send and no Sync to write.
// needs: memmap2 = "0.9"

use std::io;
use std::ptr::null_mut;

use memmap2::{Advice, MmapMut, MmapOptions};
use nix::libc;

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED nothing is replaced.
    let start = unsafe { libc::mmap(null_mut(), len, rights, flags, -1, 0) };
    if start.addr() == usize::MAX {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller gives the range up.
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
            // An atomic operation is never optimised away in practice, and writes even what is there already.
            let byte: *mut u8 = byte;
            // SAFETY: the byte is borrowed mutably, and a byte is always aligned.
            let byte = unsafe { std::sync::atomic::AtomicU8::from_ptr(byte) };
            byte.fetch_or(0, std::sync::atomic::Ordering::Relaxed);
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
