//! A robust mutex, polled every millisecond with pthread_mutex_trylock. The owner's thread ID is recorded next to it.

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

// SAFETY: a mapping is not tied to a thread, and any thread may lock the mutex.
unsafe impl Send for Counter {}

// SAFETY: `guarded` is only accessed while the mutex is locked. The other fields are thread-safe.
unsafe impl Sync for Counter {}

impl Counter {
    const LEN: NonZero<usize> = NonZero::new(size_of::<Shared>()).expect("a mutex has a size");

    pub fn new() -> io::Result<Counter> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap_anonymous(None, Self::LEN, protection, MapFlags::MAP_SHARED) }?;
        let counter = Counter {
            shared: start.cast(),
        };
        // SAFETY: the mapping is new, so no other thread or process uses it yet.
        unsafe { set_up(counter.shared().mutex.get()) }?;
        Ok(counter)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the memory stays mapped for as long as this value lives. All zeros is valid for every field, and
        // every field is an atomic or an `UnsafeCell`.
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
            // SAFETY: the mutex is initialised.
            match unsafe { libc::pthread_mutex_trylock(shared.mutex.get()) } {
                0 => break,
                libc::EOWNERDEAD => {
                    // SAFETY: after EOWNERDEAD this thread holds the lock.
                    unsafe { (*shared.guarded.get()).owner_died = true };
                    // SAFETY: as above.
                    check(unsafe { libc::pthread_mutex_consistent(shared.mutex.get()) })?;
                    break;
                }
                libc::EBUSY if shared.holder.load(Relaxed) == me() => {
                    return Err(io::Error::from_raw_os_error(libc::EDEADLK));
                }
                libc::EBUSY => std::thread::sleep(std::time::Duration::from_millis(1)),
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        }
        shared.holder.store(me(), Relaxed);
        Ok(Locked(shared))
    }
}

struct Locked<'a>(&'a Shared);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // A child that was forked while the lock was held must not change the record, either.
        if self.0.holder.load(Relaxed) != me() {
            process::abort();
        }
        self.0.holder.store(0, Relaxed);
        // SAFETY: this thread has locked the mutex.
        let unlocked = unsafe { libc::pthread_mutex_unlock(self.0.mutex.get()) };
        if unlocked != 0 {
            // The mutex was overwritten.
            process::abort();
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // The mutex is not destroyed, because other processes may still use it.
        // SAFETY: only this value uses the mapping, and every reference into it borrows this value.
        let unmapped = unsafe { munmap(self.shared.cast(), Self::LEN.get()) };
        // If munmap fails, the memory leaks, which is sound. It fails only if splitting a mapping would exceed
        // vm.max_map_count.
        let _ = unmapped;
    }
}

fn me() -> i32 {
    nix::unistd::gettid().as_raw()
}

unsafe fn set_up(mutex: *mut libc::pthread_mutex_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: the pointer is valid for writes.
    check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
    // SAFETY: the attributes are initialised.
    check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: as above.
    check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
    // SAFETY: the caller's contract, and as above.
    check(unsafe { libc::pthread_mutex_init(mutex, attributes) })?;
    // SAFETY: as above. The mutex does not use its attributes after its initialisation.
    check(unsafe { libc::pthread_mutexattr_destroy(attributes) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
