//! The process id of the owner in a futex word. Those who wait wake up now and then and read /proc.

use nix::libc;
use std::cell::UnsafeCell;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Whether the previous owner of the lock released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The lock was released.
    Clean,
    /// A process died while it held the lock, so the counter may be half updated.
    OwnerDied,
}

/// A counter and its lock in shared memory.
pub struct Counter {
    shared: NonNull<Shared>,
}

struct Shared {
    owner: AtomicI32,
    died: AtomicBool,
    number: UnsafeCell<u64>,
}

fn pid() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::getpid() }
}

/// Whether a process has exited, waited for or not. The name of the program may contain spaces and parentheses.
fn dead(pid: i32) -> bool {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            let after = stat
                .iter()
                .rposition(|&byte| byte == b')')
                .map_or(0, |at| at + 2);
            matches!(stat.get(after), Some(b'Z' | b'X' | b'x'))
        }
        Err(error) => {
            error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
        }
    }
}

fn sleep_while(word: &AtomicI32, value: i32) {
    let limit = libc::timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    // SAFETY: the word lives. Any return is fine, because the caller looks again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            &raw const limit,
            0usize,
            0,
        )
    };
}

fn wake_all(word: &AtomicI32) {
    // SAFETY: the word lives.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE,
            i32::MAX,
            0usize,
            0usize,
            0,
        )
    };
}

struct Guard<'a> {
    shared: &'a Shared,
    pid: i32,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let owner = &self.shared.owner;
        if self.pid != pid()
            || owner
                .compare_exchange(self.pid, 0, Ordering::Release, Ordering::Relaxed)
                .is_err()
        {
            std::process::abort();
        }
        wake_all(owner);
    }
}

impl Counter {
    /// Maps the memory.
    ///
    /// # Errors
    /// The error of mmap.
    pub fn new() -> io::Result<Counter> {
        // SAFETY: a new mapping.
        let address = unsafe {
            libc::mmap(
                null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Counter {
            shared: NonNull::new(address.cast()).expect("mmap does not return null"),
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping lives as long as self, and all of it is in cells.
        unsafe { self.shared.as_ref() }
    }

    fn lock(&self) -> io::Result<Guard<'_>> {
        let shared = self.shared();
        let pid = pid();
        loop {
            match shared
                .owner
                .compare_exchange(0, pid, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Ok(Guard { shared, pid }),
                Err(owner) if owner == pid => {
                    return Err(io::Error::from_raw_os_error(libc::EDEADLK));
                }
                Err(owner) => {
                    if dead(owner)
                        && shared
                            .owner
                            .compare_exchange(owner, pid, Ordering::Acquire, Ordering::Relaxed)
                            .is_ok()
                    {
                        shared.died.store(true, Ordering::SeqCst);
                        return Ok(Guard { shared, pid });
                    }
                    sleep_while(&shared.owner, owner);
                }
            }
        }
    }

    /// Locks the counter, runs `f` with it, and unlocks it.
    ///
    /// # Errors
    /// If this process already holds the lock.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let guard = self.lock()?;
        let entry = if guard.shared.died.swap(false, Ordering::SeqCst) {
            Entry::OwnerDied
        } else {
            Entry::Clean
        };
        // SAFETY: this process holds the lock, and the counter is not Sync.
        Ok(f(unsafe { &mut *guard.shared.number.get() }, entry))
    }

    /// Locks the counter and returns its value.
    ///
    /// # Errors
    /// As for `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        let guard = self.lock()?;
        // SAFETY: this process holds the lock.
        Ok(unsafe { guard.shared.number.get().read() })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: nobody in this process uses the mapping any more.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}
