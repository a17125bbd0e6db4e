//! A robust, recursive mutex. A recursive lock is noticed and undone. The memory is a shared mapping of /dev/zero.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::libc;

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

/// The contents of the shared memory. Zeroes are valid, except for the mutex.
#[repr(C)]
struct Shared {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// A death that `with_lock` has not reported yet.
    unreported: AtomicBool,
    /// The owner while a closure or `get` runs, otherwise 0. Only the owner of the mutex uses it.
    inside: AtomicI32,
    number: UnsafeCell<u64>,
}

fn check(code: libc::c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn process() -> i32 {
    // SAFETY: it has no preconditions.
    unsafe { libc::getpid() }
}

struct Attributes(libc::pthread_mutexattr_t);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the pointer is valid for writes.
        check(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: pthread_mutexattr_init has initialised it.
        Ok(Attributes(unsafe { attributes.assume_init() }))
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they are initialised.
        unsafe { libc::pthread_mutexattr_destroy(&mut self.0) };
    }
}

impl Counter {
    /// Maps the memory and initialises the lock.
    pub fn new() -> io::Result<Counter> {
        let zero = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/zero")?;
        // SAFETY: the kernel chooses the address.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                zero.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let shared = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        // From here on, an error drops the counter, which unmaps the memory.
        let counter = Counter { shared };
        let mut attributes = Attributes::new()?;
        // SAFETY: the attributes are initialised.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(&mut attributes.0, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_settype(&mut attributes.0, libc::PTHREAD_MUTEX_RECURSIVE)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_setrobust(&mut attributes.0, libc::PTHREAD_MUTEX_ROBUST)
        })?;
        // SAFETY: the mutex is in the mapping, and nobody uses it yet.
        check(unsafe { libc::pthread_mutex_init(counter.shared().mutex.get(), &attributes.0) })?;
        Ok(counter)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping lives as long as the counter, and everything in it is atomic or in an UnsafeCell.
        unsafe { self.shared.as_ref() }
    }

    fn lock(&self) -> io::Result<Guard<'_>> {
        let shared = self.shared();
        // SAFETY: the mutex is initialised.
        match unsafe { libc::pthread_mutex_lock(shared.mutex.get()) } {
            0 if shared.inside.load(Ordering::Relaxed) != 0 => {
                // SAFETY: this undoes the recursive lock.
                check(unsafe { libc::pthread_mutex_unlock(shared.mutex.get()) })?;
                Err(io::Error::from(io::ErrorKind::Deadlock))
            }
            0 => {
                shared.inside.store(process(), Ordering::Relaxed);
                Ok(Guard { shared })
            }
            libc::EOWNERDEAD => {
                shared.inside.store(process(), Ordering::Relaxed);
                shared.unreported.store(true, Ordering::Relaxed);
                // SAFETY: this thread owns the mutex.
                let code = unsafe { libc::pthread_mutex_consistent(shared.mutex.get()) };
                let guard = Guard { shared };
                check(code)?;
                Ok(guard)
            }
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Locks the counter, runs `f` with it, and unlocks it.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let guard = self.lock()?;
        let entry = match guard.shared.unreported.swap(false, Ordering::Relaxed) {
            true => Entry::OwnerDied,
            false => Entry::Clean,
        };
        // SAFETY: this thread holds the lock, and gets an error if it locks again, so there is no other reference.
        let result = f(unsafe { &mut *guard.shared.number.get() }, entry);
        drop(guard);
        Ok(result)
    }

    /// Locks the counter and returns its value.
    pub fn get(&self) -> io::Result<u64> {
        let guard = self.lock()?;
        // SAFETY: this thread holds the lock.
        Ok(unsafe { *guard.shared.number.get() })
    }
}

/// Unlocks the mutex when it is dropped.
struct Guard<'a> {
    shared: &'a Shared,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // A forked child does not own it.
        if self.shared.inside.load(Ordering::Relaxed) != process() {
            std::process::abort();
        }
        self.shared.inside.store(0, Ordering::Relaxed);
        // SAFETY: the mutex is initialised.
        if unsafe { libc::pthread_mutex_unlock(self.shared.mutex.get()) } != 0 {
            std::process::abort();
        }
    }
}

/// Unmaps the memory in this process.
impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}
