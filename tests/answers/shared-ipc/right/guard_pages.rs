//! A page on each side of the value that cannot be accessed. The child notes a panic in a page of its own, and prints none.

use std::io;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use nix::libc;
use zerocopy::FromBytes;

const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const SHARED: libc::c_int = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    let number = map(ptr::null_mut(), size_of::<u64>(), READ_WRITE, SHARED)?;
    // SAFETY: the caller's contract. Besides `answer`, the child only writes to its memory and calls _exit.
    let result = match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let ended = panic::catch_unwind(answer);
            if let Ok(answer) = &ended {
                // SAFETY: the mapping is aligned and writable, and the parent reads it when this process has ended.
                unsafe { number.cast().write(*answer) };
            }
            // SAFETY: _exit accepts any status, and runs no code of the parent's.
            unsafe { libc::_exit(libc::c_int::from(ended.is_err())) }
        }
        child => match wait_for(child) {
            // SAFETY: the child has written the number, and nobody else accesses it.
            Ok(0) => Ok(unsafe { number.cast().read() }),
            Ok(status) => Err(io::Error::other(format!("wait status {status}"))),
            Err(error) => Err(error),
        },
    };
    // SAFETY: this function has made the mapping, and nothing uses it any more.
    unsafe { libc::munmap(number.as_ptr(), size_of::<u64>()) };
    result
}

/// The wait status of this child.
fn wait_for(child: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writes during the call.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } != -1 {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Maps memory; with MAP_FIXED, only over what this file has mapped.
fn map(
    start: *mut libc::c_void,
    len: usize,
    protection: libc::c_int,
    flags: libc::c_int,
) -> io::Result<NonNull<libc::c_void>> {
    // SAFETY: with MAP_FIXED, the caller's range is its own.
    let start = unsafe { libc::mmap(start, len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start).ok_or_else(|| io::Error::other("mapped at address 0"))
}

fn page_size() -> usize {
    // SAFETY: sysconf(3) accesses no memory.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Invariant: `value` is mapped for as long as this value lives, after a guard page.
pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
}

impl<T: FromBytes + Sync> Shared<T> {
    const LEN: usize = if size_of::<T>() == 0 {
        1
    } else {
        size_of::<T>()
    };

    /// The length of the whole mapping, guard pages included.
    fn guarded() -> usize {
        Self::LEN.next_multiple_of(page_size()) + 2 * page_size()
    }

    pub fn new() -> io::Result<Shared<T>> {
        if align_of::<T>() > page_size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let reserved = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let start = map(ptr::null_mut(), Self::guarded(), libc::PROT_NONE, reserved)?;
        let value = start.as_ptr().wrapping_byte_add(page_size());
        match map(value, Self::LEN, READ_WRITE, SHARED | libc::MAP_FIXED) {
            Ok(value) => Ok(Shared {
                value: value.cast(),
            }),
            Err(error) => {
                // SAFETY: the mapping was made just now, and nothing uses it.
                unsafe { libc::munmap(start.as_ptr(), Self::guarded()) };
                Err(error)
            }
        }
    }

    /// Gives up the mapping.
    pub fn into_raw(self) -> NonNull<T> {
        std::mem::ManuallyDrop::new(self).value
    }

    /// Takes back what `into_raw` has given up.
    ///
    /// # Safety
    /// The pointer is from `into_raw`, and this is the only call with it in this process.
    pub unsafe fn from_raw(value: NonNull<T>) -> Shared<T> {
        Shared { value }
    }

    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        let note = map(ptr::null_mut(), size_of::<AtomicU32>(), READ_WRITE, SHARED)?;
        // SAFETY: the mapping stays until the end of this function, and any byte of a new mapping is 0.
        let panicked: &AtomicU32 = unsafe { note.cast().as_ref() };
        // SAFETY: the caller's contract.
        let waited = match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // In a thread that panics, the hook cannot be changed.
                if !std::thread::panicking() {
                    panic::set_hook(Box::new(|_| ()));
                }
                let ended = panic::catch_unwind(AssertUnwindSafe(|| f(self)));
                if ended.is_err() {
                    // A process that the closure has forked notes another id.
                    panicked.store(std::process::id(), SeqCst);
                }
                // SAFETY: _exit accepts any status, and runs no code of the parent's.
                unsafe { libc::_exit(libc::c_int::from(ended.is_err())) }
            }
            child => wait_for(child).map(|status| (child, status)),
        };
        let panicked = panicked.load(SeqCst);
        // SAFETY: this function has made the mapping, and nothing uses it any more.
        unsafe { libc::munmap(note.as_ptr(), size_of::<AtomicU32>()) };
        let (child, status) = waited?;
        Err(io::Error::other(if panicked == child.unsigned_abs() {
            "the child panicked".to_owned()
        } else if libc::WIFSIGNALED(status) {
            format!("signal {}", libc::WTERMSIG(status))
        } else if status == 0 {
            return Ok(());
        } else {
            format!("status {}", libc::WEXITSTATUS(status))
        }))
    }
}

impl<T: FromBytes + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the invariant, and any bytes are a valid `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        let start = self.value.as_ptr().wrapping_byte_sub(page_size());
        // SAFETY: only this value unmaps the mapping, and no reference is left, because they borrow the value.
        unsafe { libc::munmap(start.cast(), Self::guarded()) };
    }
}
