//! Maps /dev/zero privately, and keeps the descriptor open as long as the region lives.

use nix::libc;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

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

/// The pointer is an `AtomicPtr` only because that type is `Send` and `Sync`. It is written once, by `new`.
pub struct Region {
    start: AtomicPtr<u8>,
    len: usize,
    /// Kept open, so that /proc/PID/fd shows what the memory is.
    _file: Option<File>,
}

/// Set when the kernel has said that it does not know MADV_POPULATE_WRITE.
static OLD_KERNEL: AtomicBool = AtomicBool::new(false);

fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf only reads a value.
    *SIZE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

fn map(len: usize, populate: libc::c_int) -> io::Result<Region> {
    if len == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a region has at least one byte",
        ));
    }
    if len > isize::MAX as usize {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let zero = OpenOptions::new().read(true).write(true).open("/dev/zero");
    let (kind, fd) = match &zero {
        Ok(file) => (0, file.as_raw_fd()),
        Err(_) => (libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_NORESERVE | kind | populate,
            fd,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(Region {
        start: AtomicPtr::new(start.cast()),
        len,
        _file: zero.ok(),
    })
}

#[allow(clippy::len_without_is_empty)]
impl Region {
    /// Maps `len` bytes.
    ///
    /// # Errors
    /// `InvalidInput` if `len` is 0, `OutOfMemory` if the kernel does not map that much.
    pub fn new(len: usize) -> io::Result<Region> {
        map(len, 0)
    }

    /// The length that was requested.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped there as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.load(Ordering::Relaxed), self.len) }
    }

    /// The bytes, mutably.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the view exclusive.
        unsafe { std::slice::from_raw_parts_mut(*self.start.get_mut(), self.len) }
    }

    /// Maps with MAP_POPULATE, and then asks again: mmap does not report that it could not populate.
    ///
    /// # Errors
    /// As for `new`.
    pub fn new_populated(len: usize) -> io::Result<Region> {
        let mut region = map(len, libc::MAP_POPULATE)?;
        region.prefault()?;
        Ok(region)
    }

    /// Populates every page for writing.
    ///
    /// # Errors
    /// The kernel's error if it cannot provide the pages.
    pub fn prefault(&mut self) -> io::Result<()> {
        let start: *mut u8 = *self.start.get_mut();
        if !OLD_KERNEL.load(Ordering::Relaxed) {
            // SAFETY: the pages are ours; the advice does not change their contents.
            let done = unsafe { libc::madvise(start.cast(), self.len, libc::MADV_POPULATE_WRITE) };
            if done == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
            OLD_KERNEL.store(true, Ordering::Relaxed);
        }
        for page in self.as_mut_slice().chunks_mut(page_size()) {
            // The assembler text is opaque to the compiler, which must assume that it changes the byte.
            write_back(&mut page[0]);
        }
        Ok(())
    }
}

#[cfg(target_arch = "x86_64")]
fn write_back(byte: &mut u8) {
    // SAFETY: adds 0 to a byte that is mapped writable.
    unsafe { std::arch::asm!("lock add byte ptr [{}], 0", in(reg) byte, options(nostack)) };
}

#[cfg(not(target_arch = "x86_64"))]
fn write_back(byte: &mut u8) {
    // SAFETY: an AtomicU8 has the layout of a u8, and the reference is exclusive.
    unsafe { std::sync::atomic::AtomicU8::from_ptr(byte) }.fetch_add(0, Ordering::SeqCst);
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no view outlives the region.
        let _ = unsafe { unmap_by_hand(*self.start.get_mut(), self.len) };
    }
}
