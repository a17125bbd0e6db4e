//! The mapping begins with a counter, so the value does not begin where a page begins.

use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;
use zerocopy::FromBytes;

/// Maps `len` bytes, shared and anonymous.
fn map(len: usize) -> io::Result<*mut libc::c_void> {
    // SAFETY: the kernel chooses the address, so no existing mapping changes.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(address)
    }
}

/// Waits for the child `pid`, and returns its wait status.
fn wait_for(pid: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for a write.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Runs `f` in the child and ends the child.
fn run_and_exit(f: impl FnOnce()) -> ! {
    let result = catch_unwind(AssertUnwindSafe(f));
    let status = if result.is_ok() { 0 } else { 101 };
    // SAFETY: _exit has no preconditions. `result` is not dropped before.
    unsafe { libc::_exit(status) }
}

/// Stage 1.
///
/// # Errors
/// The error of mmap(2), fork(2) or waitpid(2). Any error if the child ends without an answer.
///
/// # Safety
/// In a process with several threads, the child has only the thread that forked. `answer` must not need a lock that
/// another thread may have held at that moment: neither the allocator's nor that of standard error, which a panic
/// takes.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    let address = map(size_of::<u64>())?;
    let slot = address.cast::<u64>();
    // SAFETY: the caller promises that `answer` may run in the child.
    let pid = unsafe { libc::fork() };
    let outcome = match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => run_and_exit(|| {
            let value = answer();
            // SAFETY: the slot is mapped, aligned, and nobody reads it before this process has ended.
            unsafe { slot.write(value) }
        }),
        _ => wait_for(pid).and_then(|status| {
            if status == 0 {
                // SAFETY: the slot is mapped, aligned, and the child that wrote it has ended.
                Ok(unsafe { slot.read() })
            } else {
                Err(io::Error::other("the child ended without an answer"))
            }
        }),
    };
    // SAFETY: no reference to the mapping is left.
    unsafe { libc::munmap(address, size_of::<u64>()) };
    outcome
}

/// A `T` in shared anonymous memory.
pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
    base: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: a `Shared` lends only `&T`, and `T` is `Sync`. munmap may be called by any thread.
unsafe impl<T: FromBytes + Sync> Send for Shared<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: FromBytes + Sync> Sync for Shared<T> {}

fn page_size() -> io::Result<usize> {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_err(|_| io::Error::last_os_error())
}

impl<T: FromBytes + Sync> Shared<T> {
    /// How many bytes are mapped.
    const LEN: usize = if size_of::<T>() == 0 {
        1
    } else {
        size_of::<T>()
    };

    /// Stage 2: maps a `T` whose bytes are zero.
    ///
    /// # Errors
    /// - `InvalidInput` if the alignment of `T` is more than a page.
    /// - The error of mmap(2).
    pub fn new() -> io::Result<Shared<T>> {
        if align_of::<T>() > page_size()? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let offset = size_of::<AtomicUsize>().next_multiple_of(align_of::<T>());
        let len = offset + Self::LEN;
        let base = NonNull::new(map(len)?).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the offset is inside the mapping.
        let value = unsafe { base.byte_add(offset) }.cast();
        Ok(Shared { value, base, len })
    }

    /// Stage 3: runs `f` in a forked child, and waits for that child to end.
    ///
    /// # Errors
    /// Returns an error if fork or waitpid fails, or if the child fails.
    ///
    /// # Safety
    /// In a process with several threads, the child has only the thread that forked. `f` must not need a lock that
    /// another thread may have held at that moment: neither the allocator's nor that of standard error, which a panic
    /// takes.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // The first word of the mapping counts the children of all processes.
        // SAFETY: the word is mapped while `self` lives.
        unsafe { self.base.cast::<AtomicUsize>().as_ref() }.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller promises that `f` may run in the child.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => run_and_exit(|| f(self)),
            _ => explain(wait_for(pid)?),
        }
    }
}

/// Says how a child with this wait status ended.
fn explain(status: i32) -> io::Result<()> {
    if libc::WIFSIGNALED(status) {
        return Err(io::Error::other(format!(
            "the child was killed by signal {}",
            libc::WTERMSIG(status)
        )));
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        101 => Err(io::Error::other("the child panicked")),
        code => Err(io::Error::other(format!(
            "the child ended with status {code}"
        ))),
    }
}

/// Stage 2: gives shared access to the value.
impl<T: FromBytes + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the memory is mapped while `self` lives, and any bytes are a valid `T`, which is `Sync`.
        unsafe { self.value.as_ref() }
    }
}

/// Stage 2: unmaps the memory in this process.
impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: `new` mapped these bytes, and no reference to them outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr(), self.len) };
    }
}
