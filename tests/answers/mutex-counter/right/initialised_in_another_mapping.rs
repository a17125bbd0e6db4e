//! The mutex is initialised through one mapping of a memfd, and used through another one.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process;
use std::ptr::NonNull;

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// Whether the previous owner of the lock has released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The lock was released.
    Clean,
    /// A process died while it held the lock, so the counter may be half updated.
    OwnerDied,
}

/// A counter and its lock in shared memory. This process and the children that it forks later use the same ones.
///
/// Invariant: `shared` points to a `Shared` with an initialised mutex, in a mapping that only this value unmaps in this
/// process. It stays mapped for as long as this value lives.
pub struct Counter {
    shared: NonNull<Shared>,
}

/// The contents of the shared memory.
struct Shared {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// Accessed only while the mutex is locked.
    guarded: UnsafeCell<Guarded>,
}

/// The data that the mutex protects. All zeros is its initial value.
struct Guarded {
    number: u64,
    /// An owner has died, and `with_lock` has not reported it yet.
    owner_died: bool,
}

// SAFETY: a mapping belongs to the process, and any thread may lock the mutex.
unsafe impl Send for Counter {}

// SAFETY: the shared data is accessed only while the mutex is locked.
unsafe impl Sync for Counter {}

impl Counter {
    const LEN: NonZero<usize> = NonZero::new(size_of::<Shared>()).expect("a mutex is not empty");

    /// Maps the memory and initialises the lock. The counter starts at 0.
    ///
    /// # Errors
    /// The error of mmap(2) or of a `pthread_mutex` function.
    pub fn new() -> io::Result<Counter> {
        let file = memfd_create(c"counter", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&file, Self::LEN.get() as libc::off_t)?;
        let first = Self::map(&file)?;
        // SAFETY: the memory is new, so nobody else uses the mutex yet.
        unsafe { init_mutex(first.shared().mutex.get()) }?;
        // The mutex is the same one at any address.
        Self::map(&file)
    }

    fn map(file: &OwnedFd) -> io::Result<Counter> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED, mmap replaces no mapping.
        let start = unsafe { mmap(None, Self::LEN, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Counter {
            shared: start.cast(),
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the invariant. Zeros are valid in every field, and all fields that change are `UnsafeCell`s.
        unsafe { self.shared.as_ref() }
    }

    /// Locks the counter, runs `f` with it, and unlocks it, even if `f` panics. If a process died while it held the
    /// lock, one later call receives `Entry::OwnerDied`.
    ///
    /// # Errors
    /// Returns EDEADLK if this thread already holds the lock.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let locked = self.lock()?;
        // SAFETY: the mutex stays locked until `locked` is dropped, and this is the only reference made under it.
        let guarded = unsafe { &mut *locked.0.guarded.get() };
        let entry = match std::mem::take(&mut guarded.owner_died) {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        Ok(f(&mut guarded.number, entry))
    }

    /// Locks the counter and returns its value. The death of an owner is still reported by the next `with_lock`.
    ///
    /// # Errors
    /// As for `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        let locked = self.lock()?;
        // SAFETY: the mutex stays locked until `locked` is dropped.
        Ok(unsafe { (*locked.0.guarded.get()).number })
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        let shared = self.shared();
        // SAFETY: the mutex is initialised.
        match unsafe { libc::pthread_mutex_lock(shared.mutex.get()) } {
            0 => Ok(Locked(shared)),
            libc::EOWNERDEAD => {
                let locked = Locked(shared);
                // Record the death first, so that it is not lost if the next call fails.
                // SAFETY: EOWNERDEAD means that this thread holds the mutex.
                unsafe { (*shared.guarded.get()).owner_died = true };
                // Otherwise unlocking would make the mutex permanently unusable.
                // SAFETY: as above.
                check(unsafe { libc::pthread_mutex_consistent(shared.mutex.get()) })?;
                Ok(locked)
            }
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Proof that this thread holds the mutex. Unlocks it on drop, including during a panic.
struct Locked<'a>(&'a Shared);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread holds the mutex.
        let unlocked = unsafe { libc::pthread_mutex_unlock(self.0.mutex.get()) };
        if unlocked != 0 {
            // The mutex was overwritten, or this is a child that was forked while the mutex was locked.
            process::abort();
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // Do not destroy the mutex: other processes may still use it.
        // SAFETY: only this value unmaps the mapping, and no reference is left, because they borrow the value.
        let unmapped = unsafe { munmap(self.shared.cast(), Self::LEN.get()) };
        // munmap fails only if it would have to split a mapping at the limit of vm.max_map_count. Then the memory
        // leaks, which is sound.
        let _ = unmapped;
    }
}

/// Initialises a mutex that is process-shared, error-checking and robust.
///
/// # Safety
/// `mutex` is valid for writes, and nobody else uses it yet.
unsafe fn init_mutex(mutex: *mut libc::pthread_mutex_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: the pointer is valid for writes.
    check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
    // SAFETY: the attributes are initialised.
    check(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
    // SAFETY: as above.
    check(unsafe { libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK) })?;
    // SAFETY: as above.
    check(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
    // SAFETY: the caller's contract, and the attributes are initialised.
    check(unsafe { libc::pthread_mutex_init(mutex, attributes) })?;
    // SAFETY: the attributes are initialised. The mutex does not refer to them.
    check(unsafe { libc::pthread_mutexattr_destroy(attributes) })
}

/// Converts the result of a pthread function, which returns its error and does not set errno.
fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
