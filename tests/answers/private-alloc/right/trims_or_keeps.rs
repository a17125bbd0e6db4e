//! Aligns long regions by trimming a longer mapping, and keeps in each region what it could not trim, for Drop. Names its
//! mappings, and reserves no swap space for them.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

/// Set once the kernel has answered EINVAL to `MADV_POPULATE_WRITE`.
static ADVICE_UNKNOWN: AtomicBool = AtomicBool::new(false);

pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(start.cast())
    }
}

/// # Safety
/// Nothing uses the pages of this range any more, now or later.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller promises that nothing uses the range.
    if unsafe { libc::munmap(start.cast(), len) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf takes no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("the page size is known")
}

/// Large regions begin at a multiple of this, so that they need few page tables.
const LARGE: usize = 2 << 20;

/// Maps `len` bytes, at a multiple of `LARGE` if there are as many. Returns what is mapped, and its first byte to use.
fn map(len: usize, flags: libc::c_int) -> io::Result<(NonNull<[u8]>, NonNull<u8>)> {
    let len = len.next_multiple_of(page_size());
    let spare = if len < LARGE { 0 } else { LARGE };
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | flags;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), len + spare, prot, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut mapped: *mut u8 = mapped.cast();
    let mut size = len + spare;
    let mut start = mapped;
    if spare > 0 {
        let before = mapped.align_offset(LARGE);
        start = mapped.wrapping_add(before);
        // What cannot be unmapped now is unmapped with the rest.
        let after = spare - before;
        // SAFETY: nothing uses these pages.
        if after > 0 && unsafe { libc::munmap(start.wrapping_add(len).cast(), after) } == 0 {
            size -= after;
        }
        // SAFETY: likewise.
        if before > 0 && unsafe { libc::munmap(mapped.cast(), before) } == 0 {
            size -= before;
            mapped = start;
        }
    }
    // The name is for /proc/self/maps. Not every kernel has names.
    // SAFETY: the name is a C string that lives as long as the program.
    unsafe {
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            start,
            len,
            c"region".as_ptr(),
        )
    };
    let mapped = NonNull::new(mapped).ok_or(io::ErrorKind::OutOfMemory)?;
    let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
    Ok((NonNull::slice_from_raw_parts(mapped, size), start))
}

fn check(len: usize) -> io::Result<()> {
    if len == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if len > isize::MAX as usize {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(())
}

pub struct Region {
    mapped: NonNull<[u8]>,
    start: NonNull<u8>,
    len: usize,
}

#[allow(clippy::len_without_is_empty)]
impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        check(len)?;
        let (mapped, start) = map(len, 0)?;
        Ok(Region { mapped, start, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the region owns `len` mapped bytes at `start` for as long as it lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the region is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    pub fn new_populated(len: usize) -> io::Result<Region> {
        check(len)?;
        let (mapped, start) = map(len, 0)?;
        let mut region = Region { mapped, start, len };
        region.prefault()?;
        Ok(region)
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        if ADVICE_UNKNOWN.load(Ordering::Relaxed) {
            self.touch();
            return Ok(());
        }
        let mut tries = 0;
        loop {
            // SAFETY: this advice keeps the contents.
            let result = unsafe {
                libc::madvise(
                    self.start.as_ptr().cast(),
                    self.len,
                    libc::MADV_POPULATE_WRITE,
                )
            };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINVAL) => {
                    ADVICE_UNKNOWN.store(true, Ordering::Relaxed);
                    self.touch();
                    return Ok(());
                }
                Some(libc::EAGAIN) if tries < 8 => tries += 1,
                _ => return Err(error),
            }
        }
    }

    /// Writes one byte of each page, with the value it has.
    fn touch(&mut self) {
        let page = page_size();
        for byte in self.as_mut_slice().iter_mut().step_by(page) {
            let byte: *mut u8 = byte;
            // SAFETY: a byte of the region, borrowed exclusively.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: as above.
            unsafe { byte.write_volatile(value) };
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region owns the mapping, and no view outlives it.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped.len()) };
    }
}

// SAFETY: the region owns its memory alone, and munmap works on any thread.
unsafe impl Send for Region {}

// SAFETY: methods that take `&self` only read.
unsafe impl Sync for Region {}
