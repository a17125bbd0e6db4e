//! Aligns long regions to 2 MiB. Populates with process_vm_readv, which copies a byte of each page onto itself: the kernel
//! writes to the pages, and reports errors.

use nix::libc;
use std::io;
use std::ptr::{self, NonNull};

/// Maps `len` bytes of private, zero-filled memory.
///
/// # Errors
/// The error of mmap(2).
pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {
    // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
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
    if start == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(start.cast())
    }
}

/// Unmaps the `len` bytes at `start`.
///
/// # Errors
/// The error of munmap(2).
///
/// # Safety
/// Nothing uses the pages of this range any more.
pub unsafe fn unmap_by_hand(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller promises that nothing uses these pages.
    match unsafe { libc::munmap(start.cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The bytes, and the mapping around them. The two differ if trimming failed.
pub struct Region {
    bytes: NonNull<[u8]>,
    mapping: NonNull<[u8]>,
}

const ALIGNMENT: usize = 2 << 20;

fn page_size() -> usize {
    // SAFETY: sysconf only reads a value.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn map(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

#[allow(clippy::len_without_is_empty)]
impl Region {
    /// Maps `len` bytes.
    ///
    /// # Errors
    /// `InvalidInput` if `len` is 0, `OutOfMemory` if the kernel does not map that much.
    pub fn new(len: usize) -> io::Result<Region> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let page = page_size();
        let rounded = len
            .checked_next_multiple_of(page)
            .ok_or_else(out_of_memory)?;
        if rounded > isize::MAX as usize {
            return Err(out_of_memory());
        }
        let region = if rounded < ALIGNMENT {
            Region::short(len, rounded)?
        } else {
            Region::aligned(len, rounded, page).or_else(|_| Region::short(len, rounded))?
        };
        // SAFETY: the pages are ours; the advice does not change their contents. EINVAL: a kernel without huge pages.
        unsafe {
            libc::madvise(
                region.mapping.as_ptr().cast(),
                region.mapping.len(),
                libc::MADV_NOHUGEPAGE,
            )
        };
        Ok(region)
    }

    fn short(len: usize, rounded: usize) -> io::Result<Region> {
        let start = map(rounded)?;
        Ok(Region {
            bytes: NonNull::slice_from_raw_parts(start, len),
            mapping: NonNull::slice_from_raw_parts(start, rounded),
        })
    }

    fn aligned(len: usize, rounded: usize, page: usize) -> io::Result<Region> {
        let total = rounded
            .checked_add(ALIGNMENT.max(page) - page)
            .filter(|&total| total <= isize::MAX as usize)
            .ok_or_else(out_of_memory)?;
        let start = map(total)?;
        let mut head = start.addr().get().wrapping_neg() % ALIGNMENT;
        // SAFETY: `head` is at most the surplus that was mapped.
        let aligned = unsafe { start.add(head) };
        let mut first = start;
        let mut mapped = total;
        // SAFETY: nothing uses the head.
        if head > 0 && unsafe { unmap_by_hand(start.as_ptr(), head) }.is_ok() {
            first = aligned;
            mapped -= head;
            head = 0;
        }
        let needed = head + rounded;
        if mapped > needed {
            // SAFETY: `needed` is less than what is mapped.
            let tail = unsafe { first.add(needed) };
            // SAFETY: nothing uses the tail.
            if unsafe { unmap_by_hand(tail.as_ptr(), mapped - needed) }.is_ok() {
                mapped = needed;
            }
        }
        Ok(Region {
            bytes: NonNull::slice_from_raw_parts(aligned, len),
            mapping: NonNull::slice_from_raw_parts(first, mapped),
        })
    }

    /// The length that was requested.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes are mapped as long as `self` lives.
        unsafe { self.bytes.as_ref() }
    }

    /// The bytes, mutably.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the view exclusive.
        unsafe { self.bytes.as_mut() }
    }

    /// Like `new`, and all pages are resident.
    ///
    /// # Errors
    /// As for `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        let mut region = Region::new(len)?;
        region.prefault()?;
        Ok(region)
    }

    /// Populates every page for writing.
    ///
    /// # Errors
    /// The kernel's error if it cannot provide the pages.
    pub fn prefault(&mut self) -> io::Result<()> {
        let start: *mut u8 = self.bytes.as_ptr().cast();
        for attempt in 0.. {
            // SAFETY: the pages are ours; the advice does not change their contents.
            if 0 == unsafe { libc::madvise(start.cast(), self.len(), libc::MADV_POPULATE_WRITE) } {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) if attempt < 20 => std::thread::yield_now(),
                Some(libc::EINVAL) => break,
                _ => return Err(error),
            }
        }
        let page = page_size();
        let pages = self.len().div_ceil(page);
        let mut done = 0;
        while done < pages {
            done += match copy_onto_itself(start, done..pages, page) {
                Ok(0) => return Err(io::ErrorKind::OutOfMemory.into()),
                Ok(copied) => copied,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EFAULT | libc::ENOMEM) => return Err(error),
                    // The call is forbidden here, as in some containers.
                    _ => {
                        for number in done..pages {
                            self.touch(number * page);
                        }
                        return Ok(());
                    }
                },
            };
        }
        Ok(())
    }

    fn touch(&mut self, offset: usize) {
        let byte: *mut u8 = &mut self.as_mut_slice()[offset];
        // SAFETY: the pointer comes from a reference.
        let value = unsafe { byte.read_volatile() };
        // SAFETY: the pointer comes from a unique reference.
        unsafe { byte.write_volatile(value) };
    }
}

/// Copies the first byte of up to 64 pages onto itself, by one system call. Returns the number of bytes.
fn copy_onto_itself(
    start: *mut u8,
    pages: std::ops::Range<usize>,
    page: usize,
) -> io::Result<usize> {
    let mut bytes = [libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    }; 64];
    let mut count = 0;
    for (number, byte) in pages.zip(&mut bytes) {
        byte.iov_base = start.wrapping_add(number * page).cast();
        byte.iov_len = 1;
        count += 1;
    }
    // SAFETY: getpid has no preconditions.
    let me = unsafe { libc::getpid() };
    // SAFETY: source and destination are the same bytes of the region, which the caller has borrowed mutably.
    let copied =
        unsafe { libc::process_vm_readv(me, bytes.as_ptr(), count, bytes.as_ptr(), count, 0) };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no view outlives the region.
        let _ = unsafe { unmap_by_hand(self.mapping.as_ptr().cast(), self.mapping.len()) };
    }
}

// SAFETY: the region is the only owner of its mapping, which belongs to no thread.
unsafe impl Send for Region {}

// SAFETY: `&Region` only reads.
unsafe impl Sync for Region {}
