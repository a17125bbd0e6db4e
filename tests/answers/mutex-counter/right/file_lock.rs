//! The lock is a record lock on a memfd instead of a mutex. The kernel releases it when its owner ends.

use std::cell::UnsafeCell;
use std::io;
use std::num::NonZero;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Clean,
    OwnerDied,
}

pub struct Counter {
    shared: NonNull<Shared>,
    file: OwnedFd,
}

struct Shared {
    holder: AtomicI32,
    number: UnsafeCell<u64>,
    owner_died: AtomicBool,
}

const LEN: NonZero<usize> = NonZero::new(size_of::<Shared>()).expect("it has a size");

impl Counter {
    pub fn new() -> io::Result<Counter> {
        let file = memfd_create(c"lock", MFdFlags::MFD_CLOEXEC)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(None, LEN, protection, MapFlags::MAP_SHARED) }?;
        Ok(Counter {
            shared: start.cast(),
            file,
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
        if shared.holder.load(SeqCst) == me {
            return Err(io::Error::from_raw_os_error(libc::EDEADLK));
        }
        set(&self.file, libc::F_WRLCK)?;
        if shared.holder.swap(me, SeqCst) != 0 {
            shared.owner_died.store(true, SeqCst);
        }
        Ok(Locked(self))
    }
}

struct Locked<'a>(&'a Counter);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let me = std::process::id() as i32;
        let holder = &self.0.shared().holder;
        // Another process may take the lock as soon as it is released.
        let owned = holder.compare_exchange(me, 0, SeqCst, SeqCst).is_ok();
        // A child that was forked while the lock was held does not own it.
        if !owned || set(&self.0.file, libc::F_UNLCK).is_err() {
            std::process::abort();
        }
    }
}

fn set(file: &OwnedFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeros is a valid `flock`. It describes the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    // SAFETY: `lock` outlives the call.
    while unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &raw const lock) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: only this value uses the mapping.
        let _ = unsafe { munmap(self.shared.cast(), LEN.get()) };
    }
}
