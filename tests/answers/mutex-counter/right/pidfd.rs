//! The lock is an atomic with the owner's process ID. A waiter polls a pidfd of the owner, which reports its death.

use std::cell::UnsafeCell;
use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Clean,
    OwnerDied,
}

/// It is not `Sync`, because threads of one process have the same process ID.
pub struct Counter {
    shared: NonNull<Shared>,
}

struct Shared {
    owner: AtomicI32,
    guarded: UnsafeCell<Guarded>,
}

struct Guarded {
    number: u64,
    owner_died: bool,
}

const LEN: NonZero<usize> = NonZero::new(size_of::<Shared>()).expect("it has a size");

impl Counter {
    pub fn new() -> io::Result<Counter> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(None, LEN, protection, MapFlags::MAP_SHARED) }?;
        Ok(Counter {
            shared: start.cast(),
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the memory stays mapped for as long as this value lives. All zeros is a valid `Shared`, and its fields
        // are an atomic and an `UnsafeCell`.
        unsafe { self.shared.as_ref() }
    }

    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let locked = self.lock()?;
        // SAFETY: the lock is held until `locked` is dropped, and this is the only reference made under it.
        let guarded = unsafe { &mut *locked.0.guarded.get() };
        let entry = match guarded.owner_died {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        let result = f(&mut guarded.number, entry);
        // If the closure panics, the next one is told again.
        guarded.owner_died = false;
        Ok(result)
    }

    pub fn get(&self) -> io::Result<u64> {
        let locked = self.lock()?;
        // SAFETY: the lock is held until `locked` is dropped.
        Ok(unsafe { (*locked.0.guarded.get()).number })
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        let shared = self.shared();
        let me = process::id() as i32;
        let mut dead = 0;
        while let Err(owner) = shared.owner.compare_exchange(dead, me, SeqCst, SeqCst) {
            if owner == me {
                return Err(io::Error::from_raw_os_error(libc::EDEADLK));
            }
            dead = if owner != 0 && dies_within_a_millisecond(owner)? {
                owner
            } else {
                0
            };
        }
        if dead != 0 {
            // SAFETY: the lock is held.
            unsafe { (*shared.guarded.get()).owner_died = true };
        }
        Ok(Locked(shared))
    }
}

fn dies_within_a_millisecond(owner: i32) -> io::Result<bool> {
    // SAFETY: the call takes numbers only.
    let pidfd = match Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, owner, 0) }) {
        // SAFETY: the descriptor is new, and nobody else owns it.
        Ok(pidfd) => unsafe { OwnedFd::from_raw_fd(pidfd as i32) },
        Err(Errno::ESRCH) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], 1u8) {
        Ok(ready) => Ok(ready == 1),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

struct Locked<'a>(&'a Shared);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let me = process::id() as i32;
        if self
            .0
            .owner
            .compare_exchange(me, 0, SeqCst, SeqCst)
            .is_err()
        {
            process::abort();
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { munmap(self.shared.cast(), LEN.get()) };
    }
}
