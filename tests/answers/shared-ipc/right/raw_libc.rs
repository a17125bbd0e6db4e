//! Raw calls throughout.

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
    // SAFETY: the child calls `answer` and nothing else of this process's; what `answer` needs is its own matter.
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
        child => wait_by_hand(child).map(|_| {
            // SAFETY: the child has ended, so nobody writes the number any more; its write came before its end.
            unsafe { number.read() }
        }),
    };
    // SAFETY: the mapping is this function's own, and no reference into it exists.
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
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: without MAP_FIXED nothing is replaced.
        let start = unsafe { libc::mmap(ptr::null_mut(), Self::LEN.get(), rights, flags, -1, 0) };
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
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(status) }
            }
            child => told(wait_by_hand(child)?),
        }
    }
}

fn told(status: libc::c_int) -> io::Result<()> {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return Err(io::Error::other(format!("killed by signal {signal}")));
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        PANICKED => Err(io::Error::other("the closure panicked")),
        status => Err(io::Error::other(format!("ended with status {status}"))),
    }
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
        let unmapped = unsafe { libc::munmap(self.value.as_ptr().cast(), Self::LEN.get()) };
        // It fails only where the kernel lacks a mapping to split; then the memory leaks, which is sound.
        let _ = unmapped;
    }
}

fn page_size() -> usize {
    // SAFETY: any name may be asked for.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}
