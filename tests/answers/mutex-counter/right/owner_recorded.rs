//! The lock is an atomic with the owner's process ID. Waiters poll it, and take it over if that process has ended.

use std::cell::UnsafeCell;
use std::io;
use std::num::NonZero;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Clean,
    OwnerDied,
}

pub struct Counter {
    shared: NonNull<Shared>,
}

struct Shared {
    owner: AtomicI32,
    number: UnsafeCell<u64>,
    owner_died: AtomicBool,
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
        // SAFETY: the memory stays mapped for as long as this value lives, and all zeros is a valid `Shared`.
        unsafe { self.shared.as_ref() }
    }

    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let locked = self.lock()?;
        let entry = match locked.0.shared().owner_died.swap(false, SeqCst) {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        // SAFETY: the lock is held, and this is the only reference.
        Ok(f(unsafe { &mut *locked.0.shared().number.get() }, entry))
    }

    pub fn get(&self) -> io::Result<u64> {
        let locked = self.lock()?;
        // SAFETY: the lock is held.
        Ok(unsafe { *locked.0.shared().number.get() })
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        let shared = self.shared();
        let me = std::process::id() as i32;
        let mut seen = 0;
        while let Err(owner) = shared.owner.compare_exchange(seen, me, SeqCst, SeqCst) {
            if owner == me {
                return Err(io::Error::from_raw_os_error(libc::EDEADLK));
            }
            // If the owner has ended, the first waiter to replace its process ID gets the lock.
            let ended = owner != 0 && has_ended(owner);
            seen = if ended { owner } else { 0 };
            if !ended {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        if seen != 0 {
            shared.owner_died.store(true, SeqCst);
        }
        Ok(Locked(self))
    }
}

/// Whether a process has ended. A zombie has: kill(2) finds it until its parent waits for it.
fn has_ended(owner: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{owner}/stat")) {
        Ok(text) => text
            .rsplit_once(") ")
            .is_some_and(|(_, state)| state.starts_with(['Z', 'X'])),
        Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
    }
}

struct Locked<'a>(&'a Counter);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let me = std::process::id() as i32;
        let released = self
            .0
            .shared()
            .owner
            .compare_exchange(me, 0, SeqCst, SeqCst);
        if released.is_err() {
            // This is a child that was forked while the lock was held, or the lock was overwritten.
            std::process::abort();
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { munmap(self.shared.cast(), LEN.get()) };
    }
}
