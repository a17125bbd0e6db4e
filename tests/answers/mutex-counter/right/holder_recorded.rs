//! A normal robust mutex; who has it stands beside it, and is asked first.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

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
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    holder: AtomicI32,
    guarded: UnsafeCell<Guarded>,
}

struct Guarded {
    number: u64,
    owner_died: bool,
}

// SAFETY: a mapping belongs to the process, and the mutex lets any thread in, one at a time.
unsafe impl Send for Counter {}

// SAFETY: what is behind the pointer is only touched under the mutex.
unsafe impl Sync for Counter {}

impl Counter {
    const LEN: NonZero<usize> = NonZero::new(size_of::<Shared>()).expect("a mutex has a size");

    pub fn new() -> io::Result<Counter> {
        let rights = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel takes addresses where nothing is mapped, so no memory in use changes.
        let start = unsafe { mmap_anonymous(None, Self::LEN, rights, MapFlags::MAP_SHARED) }?;
        let counter = Counter {
            shared: start.cast(),
        };
        // SAFETY: the memory is this function's own until it returns, and no process has been forked since.
        unsafe { set_up(counter.shared().mutex.get()) }?;
        Ok(counter)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the invariant; the kernel's zeros are valid in every field, and what changes stands in UnsafeCells.
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
        let me = nix::unistd::gettid().as_raw();
        // Only this thread writes its own number there.
        if shared.holder.load(Relaxed) == me {
            return Err(io::Error::from_raw_os_error(libc::EDEADLK));
        }
        // SAFETY: the mutex is set up.
        match unsafe { libc::pthread_mutex_lock(shared.mutex.get()) } {
            0 => {
                shared.holder.store(me, Relaxed);
                Ok(Locked(shared))
            }
            libc::EOWNERDEAD => {
                shared.holder.store(me, Relaxed);
                let locked = Locked(shared);
                // SAFETY: with EOWNERDEAD the lock is ours. The note comes first: should we die now, it stands.
                unsafe { (*shared.guarded.get()).owner_died = true };
                // SAFETY: as above. Without this call the mutex could never be locked again.
                check(unsafe { libc::pthread_mutex_consistent(shared.mutex.get()) })?;
                Ok(locked)
            }
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

struct Locked<'a>(&'a Shared);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.holder.store(0, Relaxed);
        // SAFETY: this thread has locked the mutex.
        let unlocked = unsafe { libc::pthread_mutex_unlock(self.0.mutex.get()) };
        if unlocked != 0 {
            // Somebody has written over the mutex, or the process has forked meanwhile: nothing can be trusted.
            process::abort();
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // The mutex is not destroyed: other processes go on using it.
        // SAFETY: the mapping is this value's own, and no reference is left, because each borrows it.
        let unmapped = unsafe { munmap(self.shared.cast(), Self::LEN.get()) };
        // It fails only where the kernel lacks a mapping to split; then the memory leaks, which is sound.
        let _ = unmapped;
    }
}

unsafe fn set_up(mutex: *mut libc::pthread_mutex_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: there is room for the attributes.
    check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
    // SAFETY: they are set up now, here and below.
    check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: as above.
    check(unsafe { libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_NORMAL) })?;
    // SAFETY: as above.
    check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
    // SAFETY: the caller's contract, and as above.
    check(unsafe { libc::pthread_mutex_init(mutex, attributes) })?;
    // SAFETY: as above; a mutex does not need its attributes any more.
    check(unsafe { libc::pthread_mutexattr_destroy(attributes) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
