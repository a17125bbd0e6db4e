//! A region of private, zero-filled memory, mapped with mmap and unmapped on drop.

use std::io;
use std::num::NonZero;
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::unistd::{SysconfVar, sysconf};

/// Maps `len` bytes of private, zero-filled memory, readable and writable, and returns its address.
///
/// The kernel maps whole pages, so it rounds `len` up.
///
/// # Errors
/// The error of mmap(2): EINVAL if `len` is 0, ENOMEM if the kernel cannot map that much.
pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    // MAP_FAILED is not null: all of its bits are set.
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

/// Unmaps every page that overlaps the `len` bytes at `start`.
///
/// # Errors
/// The error of munmap(2): EINVAL if `len` is 0 or `start` is not page-aligned, ENOMEM if splitting a mapping would
/// exceed the limit on mappings (`vm.max_map_count`).
///
/// # Safety
/// Nothing uses these pages any more, now or later.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller's contract.
    match unsafe { libc::munmap(start.cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A private anonymous mapping: zero-filled, page-aligned, and unmapped on drop.
///
/// Invariant: the `len` bytes at `start` (`1..=isize::MAX`) are readable and writable memory that only this value uses.
/// They stay mapped for as long as it lives.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// A region is never empty.
#[allow(clippy::len_without_is_empty)]
impl Region {
    /// Maps `len` bytes. A page becomes resident when it is first touched.
    ///
    /// # Errors
    /// - `InvalidInput` if `len` is 0.
    /// - `OutOfMemory` if `len` is more than `isize::MAX`, if the address space has no room for it, or if the kernel
    ///   refuses to commit that much.
    pub fn new(len: usize) -> io::Result<Region> {
        Region::map(len, MapFlags::MAP_PRIVATE)
    }

    /// Like `new`, but mmap populates all pages, so that later accesses cause no page fault.
    ///
    /// If memory runs short, mmap populates fewer pages and reports no error: see MAP_POPULATE in mmap(2).
    ///
    /// # Errors
    /// As for `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        Region::map(len, MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE)
    }

    fn map(len: usize, flags: MapFlags) -> io::Result<Region> {
        let bytes = NonZero::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // No Rust object is larger. Up to this length, the kernel's rounding to whole pages cannot overflow either.
        if len > isize::MAX as usize {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(None, bytes, protection, flags) }?;
        Ok(Region {
            start: start.cast(),
            len,
        })
    }

    /// Returns the length that was requested, although the kernel maps whole pages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the bytes of the region.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the invariant. Every byte is initialised, because the kernel fills new pages with zeros. The slice
        // borrows `self`, so the region is neither dropped nor written to while the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Returns the bytes of the region, mutably.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the slice borrows `self` mutably, so it is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Populates every page, so that the next write to it causes no page fault. The contents are kept.
    ///
    /// Pages can fault again after swapping, after a `fork` (copy-on-write), and after MADV_DONTNEED.
    ///
    /// # Errors
    /// The error of madvise(2) for MADV_POPULATE_WRITE: ENOMEM or EFAULT if the kernel cannot provide a page. Linux
    /// before 5.14 does not know this advice. There each page is written to instead, and if memory runs short, the OOM
    /// killer ends a process.
    pub fn prefault(&mut self) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the pages belong to this region, and the advice does not change their contents.
        let advised = unsafe { libc::madvise(start, self.len, libc::MADV_POPULATE_WRITE) };
        match Errno::result(advised) {
            Ok(_) => Ok(()),
            // The kernel does not know the advice: `start` is page-aligned, so that is not the cause of EINVAL.
            Err(Errno::EINVAL) => {
                self.write_each_page();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a byte of each page and writes it back. A read alone would only map the shared zero page.
    fn write_each_page(&mut self) {
        for page in self.as_mut_slice().chunks_mut(page_size()) {
            let byte = &raw mut page[0];
            // SAFETY: `byte` points to an initialised byte of a slice that is borrowed mutably.
            let value = unsafe { byte.read_volatile() };
            // The write is volatile, because the compiler could omit one that changes nothing.
            // SAFETY: as for the read.
            unsafe { byte.write_volatile(value) };
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping, and no slice of it is left, because they borrow the region.
        let unmapped = unsafe { munmap(self.start.cast(), self.len) };
        // munmap fails only with ENOMEM: if the kernel has merged the mapping with its neighbours, and splitting them
        // would exceed vm.max_map_count. Then the memory leaks, which is sound. A panic in `drop` would be worse.
        let _ = unmapped;
    }
}

// SAFETY: a mapping belongs to the process, so any thread may use and unmap it.
unsafe impl Send for Region {}

// SAFETY: a shared reference only allows reading.
unsafe impl Sync for Region {}

fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.expect("POSIX requires sysconf to know the page size") as usize
}
