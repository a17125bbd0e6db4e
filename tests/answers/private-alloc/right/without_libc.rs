//! Makes the system calls of `Region` itself, without the C library. Prefaults from the last page to the first, with an
//! atomic `or` of 0 in assembly, which the compiler cannot turn into a load.

use std::io;
use std::ptr::{self, NonNull};

use nix::libc;

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

/// A system call without the C library. Returns the negated errno on failure.
///
/// # Safety
/// As for the call.
unsafe fn call(number: libc::c_long, args: [usize; 6]) -> Result<usize, i32> {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise. The kernel changes rax, rcx and r11.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack))
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller's promise.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
            in("x3") d, in("x4") e, in("x5") f, options(nostack))
    };
    if (-4095..0).contains(&result) {
        Err(-result as i32)
    } else {
        Ok(result as usize)
    }
}

fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let start = unsafe {
        call(
            libc::SYS_mmap,
            [0, len, prot as usize, flags as usize, usize::MAX, 0],
        )
    };
    let start = start.map_err(io::Error::from_raw_os_error)?;
    NonNull::new(ptr::with_exposed_provenance_mut(start))
        .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
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
    start: NonNull<u8>,
    len: usize,
}

#[allow(clippy::len_without_is_empty)]
impl Region {
    pub fn new(len: usize) -> io::Result<Region> {
        check(len)?;
        let start = map(len, 0)?;
        Ok(Region { start, len })
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
        let start = map(len, libc::MAP_POPULATE)?;
        Ok(Region { start, len })
    }

    pub fn prefault(&mut self) -> io::Result<()> {
        let args = [
            self.start.as_ptr().expose_provenance(),
            self.len,
            libc::MADV_POPULATE_WRITE as usize,
            0,
            0,
            0,
        ];
        // SAFETY: this advice keeps the contents.
        match unsafe { call(libc::SYS_madvise, args) } {
            Ok(_) => Ok(()),
            Err(libc::EINVAL) => {
                self.touch();
                Ok(())
            }
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Writes one byte of each page, with the value it has. The order is from the last page to the first.
    fn touch(&mut self) {
        let page = page_size();
        for byte in self.as_mut_slice().iter_mut().step_by(page).rev() {
            let byte: *mut u8 = byte;
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a byte of the region.
            unsafe {
                std::arch::asm!("lock or byte ptr [{}], 0", in(reg) byte, options(nostack))
            };
            #[cfg(not(target_arch = "x86_64"))]
            {
                // SAFETY: a byte of the region, borrowed exclusively.
                let value = unsafe { byte.read_volatile() };
                // SAFETY: as above.
                unsafe { byte.write_volatile(value) };
            }
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region owns the mapping, and no view outlives it.
        let _ = unsafe {
            call(
                libc::SYS_munmap,
                [
                    self.start.as_ptr().expose_provenance(),
                    self.len,
                    0,
                    0,
                    0,
                    0,
                ],
            )
        };
    }
}

// SAFETY: the region owns its memory alone, and munmap works on any thread.
unsafe impl Send for Region {}

// SAFETY: methods that take `&self` only read.
unsafe impl Sync for Region {}
