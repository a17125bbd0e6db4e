//! Memory that a process shares with its children.

use std::io;
use std::num::NonZero;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, SysconfVar, fork, sysconf};
use zerocopy::FromBytes;

/// How a child ends that panicked: as Rust's own processes do.
const PANICKED: i32 = 101;

/// Forks a child that calls `answer` and hands the number to its parent through shared memory.
///
/// `answer` only computes. It must need no lock, the allocator's included: the child is a copy of this thread alone.
///
/// # Errors
/// What the kernel says where it refuses; and if the child did not end well.
pub fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    let len = size_of::<u64>();
    // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped, so no memory in use changes.
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
    // SAFETY: the child calls `answer`, which needs no lock, writes and ends: no other thread's state matters to it.
    let answered = match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = match panic::catch_unwind(answer) {
                Ok(answer) => {
                    // SAFETY: the mapping is page-aligned and writable, and the parent reads it only after this process.
                    unsafe { number.write(answer) };
                    0
                }
                Err(_) => PANICKED,
            };
            // SAFETY: ends this process at once, with any status.
            unsafe { libc::_exit(status) }
        }
        child => wait_by_hand(child).map(|()| {
            // SAFETY: the child has ended, so nobody writes the number any more; its write came before its end.
            unsafe { number.read() }
        }),
    };
    // SAFETY: the mapping is this function's own, and no reference into it exists.
    unsafe { libc::munmap(start, len) };
    answered
}

/// Waits for that child alone.
fn wait_by_hand(child: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    match status {
        0 => Ok(()),
        _ => Err(io::Error::other("the child did not end well")),
    }
}

/// A `T` in shared anonymous memory: this process and the children that it forks from now on have the same one.
///
/// Any bytes are a `T` (`FromBytes`): so the zeros of a new mapping are, and no pointer is, which would lead elsewhere
/// in another process. All processes have only a `&T` each, so what changes must be `Sync`: an atomic.
///
/// Invariant: `value` points to a `T` in a mapping of `Self::LEN` bytes that is this value's own in this process, and
/// stays mapped for as long as it lives. There is no `&mut T` in any process.
pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
}

impl<T: FromBytes + Sync> Shared<T> {
    /// Bytes to map: a mapping cannot be empty.
    const LEN: NonZero<usize> = match NonZero::new(size_of::<T>()) {
        Some(len) => len,
        None => NonZero::<usize>::MIN,
    };

    /// Maps a `T` whose bytes are zero. No page is resident before it is touched.
    ///
    /// # Errors
    /// - `InvalidInput` if a `T` must be aligned to more than a page.
    /// - What the kernel says where it refuses: mmap(2).
    pub fn new() -> io::Result<Shared<T>> {
        if align_of::<T>() > page_size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped, so no memory in use changes.
        let start = unsafe { mmap_anonymous(None, Self::LEN, protection, MapFlags::MAP_SHARED) }?;
        Ok(Shared {
            value: start.cast(),
        })
    }

    /// Runs `f` in a forked child, and waits until that child has ended.
    ///
    /// Nothing of the caller's runs in the child but `f`: no destructor, no handler of `exit`, no code after this call.
    /// What `f` has printed and not flushed is lost.
    ///
    /// # Errors
    /// What the kernel says where it refuses to fork; and how the child ended, if not well: `signal 9`, `panicked`,
    /// `status 3`.
    ///
    /// # Safety
    /// In a process with several threads the child has only the one that forked. `f` must not need what another thread
    /// may have held at that moment: a lock, the allocator included. fork(2); POSIX.1-2024, fork().
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: the caller's contract is the same.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => wait_for(child),
            ForkResult::Child => {
                let ended = panic::catch_unwind(AssertUnwindSafe(|| f(self)));
                let status = if ended.is_ok() { 0 } else { PANICKED };
                // SAFETY: ends this process at once, with any status. The panic's payload is not dropped: its
                // destructor could panic again.
                unsafe { libc::_exit(status) }
            }
        }
    }
}

/// Waits for that child alone, however often a signal interrupts.
fn wait_for(child: Pid) -> io::Result<()> {
    let status = loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            // The child has been waited for: nix has no name for the signal that killed it.
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
        other => format!("the child ended in an unknown way: {other:?}"),
    }))
}

impl<T: FromBytes + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the invariant; the bytes are a `T` whatever they are.
        unsafe { self.value.as_ref() }
    }
}

impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference is left, because each borrows it. A child's mapping
        // stays: each process unmaps its own.
        let unmapped = unsafe { munmap(self.value.cast(), Self::LEN.get()) };
        // It fails only where the kernel lacks a mapping to split; then the memory leaks, which is sound.
        let _ = unmapped;
    }
}

/// Bytes in a page.
fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.expect("POSIX requires sysconf to know the page size") as usize
}
