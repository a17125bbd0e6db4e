//! The message of each error ends with the whole wait status. The value is in System V shared memory, and a destructor ends
//! the child.

use nix::libc;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::FromBytes;

/// Ends the process when it is dropped. Created in a child, so that no way leads out of it.
struct EndOfChild(libc::c_int);

impl Drop for EndOfChild {
    fn drop(&mut self) {
        // SAFETY: _exit only ends the process.
        unsafe { libc::_exit(self.0) }
    }
}

/// How a child ended, if not well.
#[derive(Debug, Clone, Copy)]
struct Failure(libc::c_int);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure(status) = *self;
        if libc::WIFSIGNALED(status) {
            write!(f, "child died of signal {}", libc::WTERMSIG(status))?;
        } else if libc::WEXITSTATUS(status) == PANICKED {
            f.write_str("child panicked")?;
        } else {
            write!(f, "child exited with status {}", libc::WEXITSTATUS(status))?;
        }
        write!(f, " (wait status {status:#06x})")
    }
}

impl std::error::Error for Failure {}

const PANICKED: libc::c_int = 101;

/// Waits for the end of this child.
fn reap(child: libc::pid_t) -> io::Result<Result<(), Failure>> {
    let mut status = 0;
    // SAFETY: `status` is valid for a write.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    Ok(if status == 0 {
        Ok(())
    } else {
        Err(Failure(status))
    })
}

/// Forks a child that runs `work`, and waits for it.
///
/// # Safety
/// As for `ask_a_child`.
unsafe fn in_a_child(work: impl FnOnce()) -> io::Result<()> {
    // SAFETY: the caller keeps the promise.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let mut end = EndOfChild(PANICKED);
            work();
            end.0 = 0;
            drop(end);
            unreachable!("the process has ended")
        }
        child => reap(child)?.map_err(io::Error::other),
    }
}

/// Forks a child that calls `answer`, and returns what it answered.
///
/// # Errors
/// The error of mmap(2), fork(2) or waitpid(2), or another one if the child did not answer.
///
/// # Safety
/// In a process with several threads, `answer` needs no lock that another thread may have held.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    const LEN: usize = size_of::<u64>();
    const ACCESS: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
    const SHARED: libc::c_int = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
    let page = unsafe { libc::mmap(ptr::null_mut(), LEN, ACCESS, SHARED, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page is mapped and zero until it is unmapped below.
    let number = unsafe { AtomicU64::from_ptr(page.cast()) };
    // SAFETY: the caller keeps the promise.
    let asked = unsafe { in_a_child(|| number.store(answer(), Ordering::Release)) };
    let answered = asked.map(|()| number.load(Ordering::Acquire));
    // SAFETY: nothing uses the page from here on.
    if unsafe { libc::munmap(page, LEN) } == -1 {
        return answered.and_then(|_| Err(io::Error::last_os_error()));
    }
    answered
}

/// What can be shared between processes: a value for any bytes, which several threads may use.
pub trait Shareable: FromBytes + Sync {}

impl<T: FromBytes + Sync> Shareable for T {}

/// A `T` that this process shares with its later children.
#[repr(transparent)]
pub struct Shared<T>
where
    T: Shareable,
{
    value: NonNull<T>,
}

impl<T> Shared<T>
where
    T: Shareable,
{
    /// Attaches a segment for a `T` whose bytes are zero.
    ///
    /// # Errors
    /// `InvalidInput` if the alignment of `T` is more than a page, or the error of a system call.
    pub fn new() -> io::Result<Shared<T>> {
        // SAFETY: sysconf only reads a value.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        if align_of::<T>() > page {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let size = size_of::<T>().max(1);
        // SAFETY: shmget takes three integers.
        let id = unsafe {
            libc::shmget(
                libc::IPC_PRIVATE,
                size,
                libc::IPC_CREAT | libc::SHM_NORESERVE | 0o600,
            )
        };
        if id == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: without an address, shmat replaces no mapping.
        let start = unsafe { libc::shmat(id, ptr::null(), 0) };
        let attached = if start.addr() == usize::MAX {
            Err(io::Error::last_os_error())
        } else {
            Ok(start)
        };
        // SAFETY: IPC_RMID does not use the buffer. The segment lives until the last process detaches it.
        let removed = unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
        let removal = io::Error::last_os_error();
        let start = attached?;
        if removed == -1 {
            // SAFETY: nothing points to the segment.
            unsafe { libc::shmdt(start) };
            return Err(removal);
        }
        match NonNull::new(start.cast()) {
            Some(value) => Ok(Shared { value }),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Runs `f` in a child and waits for its end.
    ///
    /// # Errors
    /// The error of a system call, or how the child ended.
    ///
    /// # Safety
    /// In a process with several threads, `f` needs no lock that another thread may have held.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: the caller keeps the promise.
        unsafe { in_a_child(|| f(self)) }
    }
}

impl<T: Shareable> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value is attached, aligned, and valid with any bytes.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Shareable> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the segment is attached here, and no view outlives `self`.
        unsafe { libc::shmdt(self.value.as_ptr().cast()) };
    }
}
