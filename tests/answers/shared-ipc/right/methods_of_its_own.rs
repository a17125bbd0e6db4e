//! `Shared` has more methods, some with the names of its value's methods. All of them are sound. The memory is a file in
//! /dev/shm that never has a name: O_TMPFILE with O_EXCL.

use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use nix::libc;
use zerocopy::FromBytes;

/// The exit status of a child whose closure panicked, as of a Rust program.
const PANICKED: libc::c_int = 101;

/// Waits for one child and returns its wait status.
fn wait_for(pid: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for a write.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Says how a child failed, if it did.
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
        code => Err(io::Error::other(format!(
            "the child ended with status {code}"
        ))),
    }
}

/// # Safety
/// See the task: `answer` must not need a lock that another thread may have held.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    let size = size_of::<u64>();
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: by this function's contract the child may call `answer`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let outcome = catch_unwind(answer);
        let code = match &outcome {
            Ok(value) => {
                // SAFETY: the mapping is aligned and large enough, and the parent reads it only after the child's end.
                unsafe { page.cast::<u64>().write(*value) };
                0
            }
            Err(_) => PANICKED,
        };
        // SAFETY: _exit has no preconditions.
        unsafe { libc::_exit(code) };
    }
    let result = if pid == -1 {
        Err(io::Error::last_os_error())
    } else {
        wait_for(pid).and_then(check).map(|()| {
            // SAFETY: the child has ended, so nothing writes to the mapping.
            unsafe { page.cast::<u64>().read() }
        })
    };
    // SAFETY: nothing refers to the mapping any more.
    let _ = unsafe { libc::munmap(page, size) };
    result
}

/// A `T` in shared anonymous memory.
pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
}

/// The number of bytes to map for a `T`.
fn mapped_size<T>() -> usize {
    size_of::<T>().max(1)
}

impl<T: FromBytes + Sync> Shared<T> {
    pub fn new() -> io::Result<Shared<T>> {
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        if align_of::<T>() > page {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the path is a C string.
        let fd = unsafe {
            libc::open(
                c"/dev/shm".as_ptr(),
                libc::O_TMPFILE | libc::O_RDWR | libc::O_EXCL | libc::O_CLOEXEC,
                0o600,
            )
        };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        let size = mapped_size::<T>();
        // SAFETY: the descriptor is open, and a new mapping touches no existing memory.
        let (start, error) = unsafe {
            let start = if libc::ftruncate(fd, size as libc::off_t) == -1 {
                libc::MAP_FAILED
            } else {
                libc::mmap(
                    ptr::null_mut(),
                    size,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    fd,
                    0,
                )
            };
            let error = io::Error::last_os_error();
            libc::close(fd);
            (start, error)
        };
        if start == libc::MAP_FAILED {
            return Err(error);
        }
        match NonNull::new(start.cast()) {
            Some(value) => Ok(Shared { value }),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// # Safety
    /// See the task: `f` must not need a lock that another thread may have held.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: by this function's contract the child may run `f`.
        let pid = unsafe { libc::fork() };
        if pid == -1 {
            return Err(io::Error::last_os_error());
        }
        if pid == 0 {
            let outcome = catch_unwind(AssertUnwindSafe(|| f(self)));
            let code = if outcome.is_ok() { 0 } else { PANICKED };
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(code) };
        }
        check(wait_for(pid)?)
    }
}

impl<T: FromBytes + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value is mapped while `self` lives, and any bytes are a valid `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: FromBytes + Sync> AsRef<T> for Shared<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: FromBytes + Sync + std::fmt::Debug> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&**self).finish()
    }
}

impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: no reference to the value outlives `self`.
        let _ = unsafe { libc::munmap(self.value.as_ptr().cast(), mapped_size::<T>()) };
    }
}
