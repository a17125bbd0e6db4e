//! A trait of the module lists the types that may be shared. Several threads may use the same `Shared`.

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::*;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, SysconfVar, fork, sysconf};

/// # Safety
/// Any bytes are a value, and several processes may use it.
pub unsafe trait Plain: Sync {}

macro_rules! plain {
    ($($type:ty)*) => {
        $(
            // SAFETY: a number.
            unsafe impl Plain for $type {}
        )*
    };
}

plain! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }
plain! { AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize }
// SAFETY: all elements are plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: it may contain any bytes.
unsafe impl<T: Sync> Plain for MaybeUninit<T> {}

/// Exit status of a child that panicked. A Rust program uses the same status.
const PANICKED: i32 = 101;

/// Forks a child that calls `answer` and writes the result to shared memory, and returns that result.
///
/// # Errors
/// Returns an error if mmap, fork or waitpid fails, or if the child ends with another status than 0.
///
/// # Safety
/// In a process with several threads, the child has only the thread that forked. `answer` must not need a lock that
/// another thread may have held at that moment: neither the allocator's nor that of standard error, which a panic
/// takes.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    let len = size_of::<u64>();
    // SAFETY: without MAP_FIXED, mmap replaces no mapping.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let number = start.cast::<u64>();
    // SAFETY: the caller's contract. Besides `answer`, the child only writes to its memory and calls _exit.
    let answered = match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = match panic::catch_unwind(answer) {
                Ok(answer) => {
                    // SAFETY: the mapping is aligned and writable, and the parent reads it when this process has ended.
                    unsafe { number.write(answer) };
                    0
                }
                Err(payload) => {
                    // Its destructor could panic again.
                    std::mem::forget(payload);
                    PANICKED
                }
            };
            // SAFETY: _exit accepts any status, and runs no code of the parent's.
            unsafe { libc::_exit(status) }
        }
        child => wait_by_hand(child).map(|()| {
            // SAFETY: the child has exited with status 0, so it has written the number, and nobody else accesses it.
            unsafe { number.read() }
        }),
    };
    // SAFETY: this function has made the mapping, and nothing uses it any more.
    unsafe { libc::munmap(start, len) };
    answered
}

/// Waits for one child, and returns an error if its exit status is not 0.
fn wait_by_hand(child: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` is valid for writes during the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match status {
        0 => Ok(()),
        _ => Err(io::Error::other("the child failed")),
    }
}

/// A `T` in shared anonymous memory. This process and the children that it forks later use the same one.
///
/// Invariant: `value` points to a `T` in a mapping of `Self::LEN` bytes that only this value unmaps in this process. It
/// stays mapped for as long as this value lives, and no process has a `&mut T`.
pub struct Shared<T: Plain> {
    value: NonNull<T>,
}

// SAFETY: `value` points to a `T`, which is `Sync`, and does not change.
unsafe impl<T: Plain> Sync for Shared<T> {}

impl<T: Plain> Shared<T> {
    /// Length of the mapping. It cannot be 0, even if the size of `T` is.
    const LEN: NonZero<usize> = match NonZero::new(size_of::<T>()) {
        Some(len) => len,
        None => NonZero::<usize>::MIN,
    };

    /// Maps a `T` whose bytes are zero. A page becomes resident when it is first touched.
    ///
    /// # Errors
    /// - `InvalidInput` if the alignment of `T` is more than a page.
    /// - The error of mmap(2).
    pub fn new() -> io::Result<Shared<T>> {
        if align_of::<T>() > page_size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(None, Self::LEN, protection, MapFlags::MAP_SHARED) }?;
        Ok(Shared {
            value: start.cast(),
        })
    }

    /// Runs `f` in a forked child, and waits for that child.
    ///
    /// Of the caller's code, the child runs only `f`: no destructors, no `atexit` handlers, no code after this call.
    /// Output that `f` has not flushed is lost.
    ///
    /// # Errors
    /// Returns an error if fork or waitpid fails, or if the child fails. Then the message says how the child ended:
    /// `signal 9`, `panicked`, `status 3`.
    ///
    /// # Safety
    /// In a process with several threads, the child has only the thread that forked. `f` must not need a lock that
    /// another thread may have held at that moment: neither the allocator's nor that of standard error, which a panic
    /// takes.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: the caller's contract. Besides `f`, the child only calls _exit.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => wait_for(child),
            ForkResult::Child => {
                let ended = panic::catch_unwind(AssertUnwindSafe(|| f(self)));
                let status = if ended.is_ok() { 0 } else { PANICKED };
                // The panic's payload is not dropped, because its destructor could panic again.
                // SAFETY: _exit accepts any status, and runs no code of the parent's.
                unsafe { libc::_exit(status) }
            }
        }
    }
}

/// Waits for one child, and again if a signal handler has interrupted the wait.
fn wait_for(child: Pid) -> io::Result<()> {
    let status = loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            // The child was reaped, but nix has no name for the signal that killed it.
            Err(Errno::EINVAL) => {
                return Err(io::Error::other(
                    "the child was killed by a real-time signal",
                ));
            }
            status => break status?,
        }
    };
    Err(io::Error::other(match status {
        WaitStatus::Exited(_, 0) => return Ok(()),
        WaitStatus::Exited(_, PANICKED) => "the child panicked".to_owned(),
        WaitStatus::Exited(_, status) => format!("the child ended with status {status}"),
        WaitStatus::Signaled(_, signal, _) => {
            format!(
                "the child was killed by signal {} ({signal})",
                signal as i32
            )
        }
        other => format!("the child has an unexpected status: {other:?}"),
    }))
}

impl<T: Plain> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the invariant, and any bytes are a valid `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Plain> Drop for Shared<T> {
    fn drop(&mut self) {
        // The mappings of other processes stay.
        // SAFETY: only this value unmaps the mapping, and no reference is left, because they borrow the value.
        let unmapped = unsafe { munmap(self.value.cast(), Self::LEN.get()) };
        // munmap fails only if it would have to split a mapping at the limit of vm.max_map_count. Then the memory
        // leaks, which is sound.
        let _ = unmapped;
    }
}

fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.expect("POSIX requires sysconf to know the page size") as usize
}
