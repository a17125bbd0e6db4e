//! `run_child` waits with waitid instead of waitpid.

use std::io;
use std::num::NonZero;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{ForkResult, Pid, SysconfVar, fork, sysconf};
use zerocopy::FromBytes;

const PANICKED: i32 = 101;

pub fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
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
    // SAFETY: of the caller's code, the child runs only `answer`, and the caller guarantees that `answer` can run
    // there.
    let answered = match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = match panic::catch_unwind(answer) {
                Ok(answer) => {
                    // SAFETY: the mapping is writable and page-aligned. The parent reads it after this process has
                    // ended.
                    unsafe { number.write(answer) };
                    0
                }
                Err(payload) => {
                    // Its destructor could panic again.
                    std::mem::forget(payload);
                    PANICKED
                }
            };
            // SAFETY: _exit ends the process immediately.
            unsafe { libc::_exit(status) }
        }
        child => wait_by_hand(child).map(|()| {
            // SAFETY: the child wrote the number before it ended, and nobody writes it any more.
            unsafe { number.read() }
        }),
    };
    // SAFETY: only this function uses the mapping, and no reference into it exists.
    unsafe { libc::munmap(start, len) };
    answered
}

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

pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
}

impl<T: FromBytes + Sync> Shared<T> {
    const LEN: NonZero<usize> = match NonZero::new(size_of::<T>()) {
        Some(len) => len,
        None => NonZero::<usize>::MIN,
    };

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

    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: the caller's contract is the same.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => wait_for(child),
            ForkResult::Child => {
                let ended = panic::catch_unwind(AssertUnwindSafe(|| f(self)));
                let status = if ended.is_ok() { 0 } else { PANICKED };
                // The payload of a panic is not dropped, because its destructor could panic again.
                // SAFETY: _exit ends the process immediately.
                unsafe { libc::_exit(status) }
            }
        }
    }
}

fn wait_for(child: Pid) -> io::Result<()> {
    let status = loop {
        match waitid(Id::Pid(child), WaitPidFlag::WEXITED) {
            Err(Errno::EINTR) => {}
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
        // SAFETY: the memory stays mapped for as long as this value lives, and any bytes are a valid `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // This unmaps the memory in this process only. A child's mapping stays.
        // SAFETY: only this value uses the mapping, and every reference into it borrows this value.
        let unmapped = unsafe { munmap(self.value.cast(), Self::LEN.get()) };
        // If munmap fails, the memory leaks, which is sound. It fails only if splitting a mapping would exceed
        // vm.max_map_count.
        let _ = unmapped;
    }
}

fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.expect("POSIX requires sysconf to know the page size") as usize
}
