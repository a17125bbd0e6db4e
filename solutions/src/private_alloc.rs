//! A region of private, zero-filled memory straight from the kernel, unmapped when it is dropped.

use std::io;
use std::num::NonZero;
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::unistd::{SysconfVar, sysconf};

/// Maps `len` bytes of private, zero-filled memory that can be read and written; returns the first byte's address.
///
/// The kernel maps whole pages: `len` is rounded up. mmap(2).
///
/// # Errors
/// What the kernel says: EINVAL for `len` 0, ENOMEM for more than it can or will map.
pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped, so no memory in use changes.
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
    // Not null: MAP_FAILED is the address of all ones.
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(start.cast())
}

/// Unmaps every page of which a byte lies in the `len` bytes from `start`. munmap(2).
///
/// # Errors
/// What the kernel says: EINVAL for `len` 0 or a `start` inside a page, ENOMEM where the rest of a mapping cut in two
/// would be one mapping too many (`vm.max_map_count`).
///
/// # Safety
/// Nothing may use those pages any more, nor later.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller gives these pages up.
    match unsafe { libc::munmap(start.cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A private anonymous mapping: zero-filled, page-aligned, this value's own, and unmapped when it is dropped.
///
/// Invariant: `start` is the first of `len` bytes, `1..=isize::MAX`, of a mapping that can be read and written, that
/// nothing else knows, and that stays mapped for as long as this value lives.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// A region is never empty.
#[allow(clippy::len_without_is_empty)]
impl Region {
    /// Maps `len` bytes. No page is resident before it is touched.
    ///
    /// # Errors
    /// - `InvalidInput` for `len` 0.
    /// - `OutOfMemory` for more than `isize::MAX`, for what no address space holds, and for more than the kernel will
    ///   commit.
    pub fn new(len: usize) -> io::Result<Region> {
        Region::map(len, MapFlags::MAP_PRIVATE)
    }

    /// As `new`, but every page is resident at once: the page faults are taken here, in one call.
    ///
    /// Where memory runs short the kernel populates what it can, and says nothing: mmap(2), MAP_POPULATE.
    ///
    /// # Errors
    /// As `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        Region::map(len, MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE)
    }

    fn map(len: usize, flags: MapFlags) -> io::Result<Region> {
        let bytes = NonZero::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // No Rust object is larger; and up to here the kernel's rounding to whole pages cannot overflow.
        if len > isize::MAX as usize {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped, so no memory in use changes.
        let start = unsafe { mmap_anonymous(None, bytes, protection, flags) }?;
        Ok(Region {
            start: start.cast(),
            len,
        })
    }

    /// The length in bytes: exactly what was asked for, though the kernel maps whole pages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The region's bytes, to read.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the invariant, and the kernel has filled the memory with zeros, so every byte is initialised. The
        // slice borrows `self`: until it is gone, the region is neither dropped nor viewed mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The region's bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; and the slice borrows `self` mutably, so it is the only view.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Makes every page writable without a further page fault, and keeps what the region holds.
    ///
    /// That lasts until pages are taken away again: by swapping, by a `fork` (copy-on-write), by MADV_DONTNEED.
    ///
    /// # Errors
    /// What madvise(2) says of MADV_POPULATE_WRITE: ENOMEM or EFAULT where the kernel cannot provide a page. Before
    /// Linux 5.14 there is no such advice; there the pages are touched, and where memory is short there is nobody to
    /// tell: the kernel kills a process.
    pub fn prefault(&mut self) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the pages are this region's own, and the advice changes nothing that they hold.
        let advised = unsafe { libc::madvise(start, self.len, libc::MADV_POPULATE_WRITE) };
        match Errno::result(advised) {
            Ok(_) => Ok(()),
            // The advice is unknown. A start inside a page would be EINVAL too, but ours is not.
            Err(Errno::EINVAL) => {
                self.write_each_page();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes to each page what it holds. Only a write will do: a read maps the one shared page of zeros.
    fn write_each_page(&mut self) {
        for page in self.as_mut_slice().chunks_mut(page_size()) {
            let byte = &raw mut page[0];
            // SAFETY: `byte` points to a byte of the slice, which is initialised and borrowed here alone.
            let value = unsafe { byte.read_volatile() };
            // SAFETY: as for the read. Volatile, because the compiler may leave out a write that changes nothing.
            unsafe { byte.write_volatile(value) };
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no slice of it is left, because each borrows the region.
        let unmapped = unsafe { munmap(self.start.cast(), self.len) };
        // It fails in one case only: ENOMEM, where the kernel has joined the mapping with its neighbours, and the two
        // ends would be one mapping more than vm.max_map_count. Then the memory leaks, which is sound; a panic in
        // Drop would help nobody.
        let _ = unmapped;
    }
}

// SAFETY: a mapping belongs to the process: any thread may use it and unmap it.
unsafe impl Send for Region {}

// SAFETY: through a shared reference the memory is only read.
unsafe impl Sync for Region {}

/// Bytes in a page.
fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.expect("POSIX requires sysconf to know the page size") as usize
}
