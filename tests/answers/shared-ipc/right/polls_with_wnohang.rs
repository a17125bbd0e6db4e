//! The parent polls with WNOHANG and sleeps in between. The child ends with the system call exit_group.

use nix::libc;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use zerocopy::FromBytes;

/// The status with which a child ends after a panic, as a Rust program does.
const PANICKED: libc::c_int = 101;

/// Ends this process without any of the work that `exit` does.
fn end(status: libc::c_int) -> ! {
    loop {
        // SAFETY: exit_group may be called at any time.
        unsafe { libc::syscall(libc::SYS_exit_group, status) };
    }
}

/// Waits for the child, and returns its wait status.
fn wait_for(child: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable.
        if unsafe { libc::waitpid(child, &mut status, 0) } == child {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Returns an error that says how the child ended, unless it ended with status 0.
fn check(status: libc::c_int) -> io::Result<()> {
    if libc::WIFSIGNALED(status) {
        return Err(io::Error::other(format!(
            "the child was killed by signal {}",
            libc::WTERMSIG(status)
        )));
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        PANICKED => Err(io::Error::other("the child panicked (status 101)")),
        other => Err(io::Error::other(format!(
            "the child ended with status {other}"
        ))),
    }
}

/// Maps `size` bytes of zeroed memory that is shared with the children.
fn map(size: usize) -> io::Result<NonNull<libc::c_void>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: no existing mapping is replaced.
    let address = unsafe {
        libc::mmap(
            null_mut(),
            size,
            protection,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address).ok_or_else(|| io::Error::other("mmap returned address 0"))
}

/// Returns the size of a page.
fn page_size() -> io::Result<usize> {
    // SAFETY: `sysconf` has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).map_err(io::Error::other)
}

/// Stage 1: forks a child that calls `answer`, and returns what it answered.
///
/// # Errors
/// The error of mmap(2), fork(2) or waitpid(2). Any error if the child ends without an answer.
///
/// # Safety
/// `answer` must not need a lock that another thread may have held at the fork.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    let memory = map(size_of::<u64>())?;
    let slot = memory.cast::<u64>();
    // SAFETY: the child runs only `answer`, which the caller vouches for.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let outcome = catch_unwind(answer);
        match &outcome {
            Ok(value) => {
                // SAFETY: the mapping is writable, aligned and large enough.
                unsafe { slot.write_volatile(*value) };
                end(0)
            }
            Err(_) => end(PANICKED),
        }
    }
    let result = if child < 0 {
        Err(io::Error::last_os_error())
    } else {
        wait_for(child).and_then(check).map(|()| {
            // SAFETY: the mapping is readable, and the child has ended.
            unsafe { slot.read_volatile() }
        })
    };
    // SAFETY: nothing refers to the mapping any more.
    unsafe { libc::munmap(memory.as_ptr(), size_of::<u64>()) };
    result
}

/// A `T` in shared anonymous memory. This process and the children that it forks later use the same one.
pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
}

// SAFETY: a `Shared` only lends `&T`, and `T` is `Sync`.
unsafe impl<T: FromBytes + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: FromBytes + Sync> Sync for Shared<T> {}

impl<T: FromBytes + Sync> Shared<T> {
    /// Maps a `T` whose bytes are zero.
    ///
    /// # Errors
    /// - `InvalidInput` if the alignment of `T` is more than a page.
    /// - The error of mmap(2).
    pub fn new() -> io::Result<Shared<T>> {
        if align_of::<T>() > page_size()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the alignment is more than a page",
            ));
        }
        let memory = map(Self::length())?;
        Ok(Shared {
            value: memory.cast(),
        })
    }

    /// The length of the mapping. It is never 0.
    fn length() -> usize {
        size_of::<T>().max(1)
    }

    /// Runs `f` in a forked child, and waits for that child to end.
    ///
    /// # Errors
    /// Returns an error if fork or waitpid fails, or if the child fails.
    ///
    /// # Safety
    /// `f` must not need a lock that another thread may have held at the fork.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: the child runs only `f`, which the caller vouches for.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let outcome = catch_unwind(AssertUnwindSafe(|| f(self)));
            end(if outcome.is_ok() { 0 } else { PANICKED })
        }
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut pause = 20_000;
        loop {
            let mut status = 0;
            // SAFETY: `status` is writable.
            match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
                0 => {
                    let pause = libc::timespec {
                        tv_sec: 0,
                        tv_nsec: pause,
                    };
                    // SAFETY: `pause` is valid. An error only makes the pause shorter.
                    unsafe { libc::nanosleep(&pause, null_mut()) };
                }
                -1 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                _ => return check(status),
            }
            pause = (2 * pause).min(5_000_000);
        }
    }
}

/// Gives shared access to the value.
impl<T: FromBytes + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping lives as long as `self`, any bytes are a `T`, and nothing lends a `&mut T`.
        unsafe { self.value.as_ref() }
    }
}

/// Unmaps the memory in this process.
impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's alone.
        unsafe { libc::munmap(self.value.as_ptr().cast(), Self::length()) };
    }
}
