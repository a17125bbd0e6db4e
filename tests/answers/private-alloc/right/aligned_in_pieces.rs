//! Aligns large regions to 2 MiB, and unmaps all if it cannot trim them. Asks once whether the kernel knows the advice of
//! `prefault`, populates piece by piece, and tries each piece up to four times. Gives the frames back before it unmaps.

use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

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

/// The owner of the mapping. `Region` has no `Drop`.
struct Mapping(NonNull<[u8]>);

// SAFETY: a mapping belongs to the process, so any thread may use and unmap it.
unsafe impl Send for Mapping {}

// SAFETY: a shared reference only allows reading.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (start, len) = (self.0.cast::<u8>().as_ptr(), self.0.len());
        // Frees the frames even if munmap fails.
        // SAFETY: nothing needs the contents any more.
        let _ = unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { unmap_by_hand(start, len) };
    }
}

pub struct Region {
    bytes: Mapping,
}

const ALIGNMENT: usize = 2 << 20;

impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if len > isize::MAX as usize {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let start = match len {
            ..ALIGNMENT => map_by_hand(len)?,
            _ => map_aligned(len)?,
        };
        let start = NonNull::new(start).expect("no mapping is at address 0");
        let bytes = Mapping(NonNull::slice_from_raw_parts(start, len));
        Ok(Region { bytes })
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        let mut region = Region::new(len)?;
        region.prefault()?;
        Ok(region)
    }

    pub fn len(&self) -> usize {
        self.bytes.0.len()
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes are readable and initialised, and borrowed with `self`.
        unsafe { self.bytes.0.as_ref() }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { self.bytes.0.as_mut() }
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        let page = page_size();
        for piece in self.as_mut_slice().chunks_mut(16 * page) {
            if !knows_the_advice() || !populated(piece)? {
                for bytes in piece.chunks_mut(page) {
                    let byte = &raw mut bytes[0];
                    // SAFETY: the byte is borrowed mutably.
                    let value = unsafe { byte.read_volatile() };
                    // SAFETY: as above.
                    unsafe { byte.write_volatile(value) };
                }
            }
        }
        Ok(())
    }
}

/// Returns false if the kernel does not know the advice.
fn populated(piece: &mut [u8]) -> io::Result<bool> {
    for tries_left in (0..4).rev() {
        let start = piece.as_mut_ptr().cast();
        // SAFETY: the advice does not change the contents.
        if unsafe { libc::madvise(start, piece.len(), libc::MADV_POPULATE_WRITE) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINVAL) => return Ok(false),
            Some(libc::EAGAIN) if tries_left > 0 => {}
            _ => return Err(error),
        }
    }
    unreachable!("the last try returns")
}

fn knows_the_advice() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(|| {
        // SAFETY: the advice is for no byte.
        let advised = unsafe { libc::madvise(null_mut(), 0, libc::MADV_POPULATE_WRITE) };
        advised == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
    })
}

fn map_aligned(len: usize) -> io::Result<*mut u8> {
    let too_long = || io::Error::from(io::ErrorKind::OutOfMemory);
    let pages = len
        .checked_next_multiple_of(page_size())
        .ok_or_else(too_long)?;
    let whole = pages.checked_add(ALIGNMENT).ok_or_else(too_long)?;
    let first = map_by_hand(whole)?;
    let before = first.addr().next_multiple_of(ALIGNMENT) - first.addr();
    let start = first.wrapping_add(before);
    let after = ALIGNMENT - before;
    if before > 0 {
        // SAFETY: nothing uses the new mapping yet.
        unsafe { unmap_by_hand(first, before) }.inspect_err(|_| {
            // SAFETY: as above.
            let _ = unsafe { unmap_by_hand(first, whole) };
        })?;
    }
    if after > 0 {
        // SAFETY: as above.
        unsafe { unmap_by_hand(start.wrapping_add(pages), after) }.inspect_err(|_| {
            // SAFETY: as above.
            let _ = unsafe { unmap_by_hand(start, pages + after) };
        })?;
    }
    Ok(start)
}

fn page_size() -> usize {
    // SAFETY: sysconf only reads.
    (unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) as usize
}
