//! The child ends in a guard's destructor, whether the closure returns or panics. The value is in a POSIX object.

use nix::libc;
use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use zerocopy::FromBytes;

/// The status with which a child ends after a panic, as a Rust program does.
const PANICKED: libc::c_int = 101;

/// Ends this process without any of the work that `exit` does.
fn end(status: libc::c_int) -> ! {
    // SAFETY: `_exit` may be called at any time.
    unsafe { libc::_exit(status) }
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

/// Opens a shared-memory object that has no name any more.
fn object() -> io::Result<OwnedFd> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..100 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_nanos());
        let name = format!(
            "/sipc-{}-{now:x}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let name = CString::new(name)?;
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        // SAFETY: `name` is a C string.
        let fd = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
        if fd >= 0 {
            // SAFETY: `name` is a C string.
            let unlinked = unsafe { libc::shm_unlink(name.as_ptr()) };
            let error = io::Error::last_os_error();
            // SAFETY: the descriptor is new and nobody else's.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            return if unlinked == 0 { Ok(fd) } else { Err(error) };
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EEXIST))
}

/// Maps `size` bytes of shared memory.
fn map_object(size: usize) -> io::Result<NonNull<libc::c_void>> {
    let length =
        libc::off_t::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    let fd = object()?;
    // SAFETY: the descriptor is open.
    while unsafe { libc::ftruncate(fd.as_raw_fd(), length) } != 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: no existing mapping is replaced.
    let address = unsafe {
        libc::mmap(
            null_mut(),
            size,
            protection,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address).ok_or_else(|| io::Error::other("mmap returned address 0"))
}

/// Ends the child when the closure has returned, or unwinds.
struct End(Cell<libc::c_int>);

impl Drop for End {
    fn drop(&mut self) {
        end(self.0.get())
    }
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
        let memory = map_object(Self::length())?;
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
            let end = End(Cell::new(PANICKED));
            // Caught only so that there is something to unwind to. The guard ends the process before that.
            let _ = catch_unwind(AssertUnwindSafe(move || {
                let end = end;
                f(self);
                end.0.set(0);
            }));
            unreachable!("the guard has ended the process");
        }
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        wait_for(child).and_then(check)
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
