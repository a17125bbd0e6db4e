//! The lock is a record lock. The process remembers that it is inside a closure, so that a second call fails. A child that
//! was forked inside the closure has a copy of that note: its calls fail, and do not wait.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::num::NonZero;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

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
    inside: Cell<bool>,
}

struct Shared {
    number: UnsafeCell<u64>,
    /// The lock is held, or a process has died with it and that was not reported.
    dirty: AtomicBool,
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
            inside: Cell::new(false),
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the memory stays mapped for as long as this value lives, and all zeros is a valid `Shared`.
        unsafe { self.shared.as_ref() }
    }

    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let mut locked = self.lock()?;
        let entry = match std::mem::take(&mut locked.dirty_after) {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        // SAFETY: the lock is held, and this is the only reference.
        Ok(f(unsafe { &mut *self.shared().number.get() }, entry))
    }

    pub fn get(&self) -> io::Result<u64> {
        let _locked = self.lock()?;
        // SAFETY: the lock is held.
        Ok(unsafe { *self.shared().number.get() })
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        if self.inside.get() {
            return Err(io::Error::from_raw_os_error(libc::EDEADLK));
        }
        set(&self.file, libc::F_WRLCK)?;
        self.inside.set(true);
        Ok(Locked {
            counter: self,
            process: std::process::id(),
            dirty_after: self.shared().dirty.swap(true, SeqCst),
        })
    }
}

struct Locked<'a> {
    counter: &'a Counter,
    process: u32,
    /// The value of `dirty` after the release.
    dirty_after: bool,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            std::process::abort();
        }
        let counter = self.counter;
        counter.shared().dirty.store(self.dirty_after, SeqCst);
        counter.inside.set(false);
        if set(&counter.file, libc::F_UNLCK).is_err() {
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
