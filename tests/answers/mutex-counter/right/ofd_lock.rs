//! Each lock opens a memfd again and takes an OFD lock on it, which also excludes threads.

use std::cell::UnsafeCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::unistd::gettid;

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
    /// The owner's thread ID, or 0.
    owner: AtomicI32,
    guarded: UnsafeCell<Guarded>,
}

struct Guarded {
    number: u64,
    owner_died: bool,
}

// SAFETY: a mapping is not tied to a thread, and any thread may take the lock.
unsafe impl Send for Counter {}

// SAFETY: `guarded` is only accessed under the lock.
unsafe impl Sync for Counter {}

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
        // SAFETY: the memory stays mapped for as long as this value lives. All zeros is a valid `Shared`, and its fields
        // are an atomic and an `UnsafeCell`.
        unsafe { self.shared.as_ref() }
    }

    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let locked = self.lock()?;
        // SAFETY: the lock is held until `locked` is dropped, and this is the only reference made under it.
        let guarded = unsafe { &mut *locked.shared.guarded.get() };
        let entry = match std::mem::take(&mut guarded.owner_died) {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        Ok(f(&mut guarded.number, entry))
    }

    pub fn get(&self) -> io::Result<u64> {
        let locked = self.lock()?;
        // SAFETY: the lock is held until `locked` is dropped.
        Ok(unsafe { (*locked.shared.guarded.get()).number })
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        let shared = self.shared();
        let me = gettid().as_raw();
        if shared.owner.load(SeqCst) == me {
            return Err(io::Error::from_raw_os_error(libc::EDEADLK));
        }
        // An OFD lock belongs to an open file, and a forked child shares the open files of its parent.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        set(&file, libc::F_WRLCK)?;
        if shared.owner.swap(me, SeqCst) != 0 {
            // SAFETY: the lock is held.
            unsafe { (*shared.guarded.get()).owner_died = true };
        }
        Ok(Locked { shared, file })
    }
}

struct Locked<'a> {
    shared: &'a Shared,
    file: File,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let me = gettid().as_raw();
        let owned = self.shared.owner.compare_exchange(me, 0, SeqCst, SeqCst);
        // A child that was forked while the lock was held does not own it. It shares the open file, so it must not
        // unlock.
        if owned.is_err() || set(&self.file, libc::F_UNLCK).is_err() {
            process::abort();
        }
    }
}

fn set(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: all zeros is a valid `flock`. It describes the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    // SAFETY: `lock` outlives the call.
    while unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &raw const lock) } == -1 {
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
