//! `run_child` polls a pidfd, and takes the status with waitid.

use std::io;
use std::num::NonZero;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};

use nix::libc;
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
        child => wait_by_hand(child).and_then(|status| match status {
            // SAFETY: the child wrote the number before it ended, and nobody writes it any more.
            0 => Ok(unsafe { number.read() }),
            _ => Err(io::Error::other("the child did not answer")),
        }),
    };
    // SAFETY: only this function uses the mapping, and no reference into it exists.
    unsafe { libc::munmap(start, len) };
    answered
}

fn wait_by_hand(child: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(status)
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
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), Self::LEN.get(), protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let value = NonNull::new(start.cast()).expect("the kernel gives no null pointer here");
        Ok(Shared { value })
    }

    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: the caller's contract is the same.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let body = AssertUnwindSafe(|| f(self));
                let status = match panic::catch_unwind(body) {
                    Ok(()) => 0,
                    Err(payload) => {
                        std::mem::forget(payload);
                        PANICKED
                    }
                };
                // SAFETY: _exit ends the process immediately.
                unsafe { libc::_exit(status) }
            }
            child => wait_by_pidfd(child),
        }
    }
}

fn wait_by_pidfd(child: libc::pid_t) -> io::Result<()> {
    // SAFETY: pidfd_open(2) accesses no memory.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) } as i32;
    if pidfd != -1 {
        let mut poll = libc::pollfd {
            fd: pidfd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `poll` outlives the call. If it is interrupted, waitid waits.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
        // SAFETY: this function has opened the descriptor.
        unsafe { libc::close(pidfd) };
    }
    // SAFETY: any bytes are a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = child as libc::id_t;
    // SAFETY: `info` outlives the call.
    while unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: waitid has filled in the fields for SIGCHLD.
    let status = unsafe { info.si_status() };
    Err(io::Error::other(match (info.si_code, status) {
        (libc::CLD_EXITED, 0) => return Ok(()),
        (libc::CLD_EXITED, PANICKED) => "the closure panicked".to_owned(),
        (libc::CLD_EXITED, status) => format!("ended with status {status}"),
        (_, signal) => format!("killed by signal {signal}"),
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
        let unmapped = unsafe { libc::munmap(self.value.as_ptr().cast(), Self::LEN.get()) };
        // If munmap fails, the memory leaks, which is sound. It fails only if splitting a mapping would exceed
        // vm.max_map_count.
        let _ = unmapped;
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf accepts any name.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
