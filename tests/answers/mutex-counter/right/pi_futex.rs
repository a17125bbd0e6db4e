//! The lock is a priority-inheritance futex. The kernel stores the owner's thread ID in it, and detects dead owners.

use std::cell::UnsafeCell;
use std::io;
use std::num::NonZero;
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use nix::errno::Errno;
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
    futex: AtomicU32,
    guarded: UnsafeCell<Guarded>,
}

struct Guarded {
    number: u64,
    owner_died: bool,
}

// SAFETY: a mapping is not tied to a thread, and any thread may lock the futex.
unsafe impl Send for Counter {}

// SAFETY: `guarded` is only accessed while the futex is locked.
unsafe impl Sync for Counter {}

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
        let entry = match std::mem::take(&mut guarded.owner_died) {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        Ok(f(&mut guarded.number, entry))
    }

    pub fn get(&self) -> io::Result<u64> {
        let locked = self.lock()?;
        // SAFETY: the lock is held until `locked` is dropped.
        Ok(unsafe { (*locked.0.guarded.get()).number })
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        let shared = self.shared();
        loop {
            let before = shared.futex.load(SeqCst);
            let died = match call(&shared.futex, libc::FUTEX_LOCK_PI) {
                // The owner died while this thread waited.
                Ok(()) => {
                    shared.futex.fetch_and(!libc::FUTEX_OWNER_DIED, SeqCst) & libc::FUTEX_OWNER_DIED
                        != 0
                }
                // The owner had died before. Only one thread replaces its thread ID.
                Err(Errno::ESRCH) => {
                    let me = nix::unistd::gettid().as_raw() as u32;
                    if before == 0
                        || shared
                            .futex
                            .compare_exchange(before, me, SeqCst, SeqCst)
                            .is_err()
                    {
                        continue;
                    }
                    true
                }
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            if died {
                // SAFETY: the lock is held.
                unsafe { (*shared.guarded.get()).owner_died = true };
            }
            return Ok(Locked(shared));
        }
    }
}

/// Locks or unlocks. The futex is not private, because other processes use it.
fn call(futex: &AtomicU32, operation: libc::c_int) -> nix::Result<()> {
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the address is that of a live atomic.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, futex.as_ptr(), operation, 0, no_timeout) };
    Errno::result(result).map(drop)
}

struct Locked<'a>(&'a Shared);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // The kernel refuses a thread that does not own the lock.
        if call(&self.0.futex, libc::FUTEX_UNLOCK_PI).is_err() {
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
