//! A robust mutex in a shared mapping of /dev/zero, which clones share. It is locked with pthread_mutex_timedlock, again
//! after each time-out.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

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
#[derive(Clone)]
pub struct Counter {
    mapping: Arc<Mapping>,
}

/// The shared memory.
struct Mapping(NonNull<Shared>);

// SAFETY: the lock excludes threads as it does processes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// The contents of the shared memory.
struct Shared {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    guarded: UnsafeCell<Guarded>,
}

/// What only the owner of the lock may access.
struct Guarded {
    owner_died: bool,
    number: u64,
}

/// The held lock.
struct Locked<'a>(&'a Shared);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: the mutex is initialised and mapped as long as the borrow lives.
        if unsafe { libc::pthread_mutex_unlock(self.0.mutex.get()) } != 0 {
            std::process::abort();
        }
    }
}

fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

fn initialise(mutex: *mut libc::pthread_mutex_t) -> io::Result<()> {
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: the pointer is valid for writes.
    check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
    let result = (|| {
        // SAFETY: the attributes are initialised.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
        })?;
        // SAFETY: nobody else uses the mutex yet.
        check(unsafe { libc::pthread_mutex_init(mutex, attributes) })
    })();
    // SAFETY: the attributes are initialised, and not used any more.
    unsafe { libc::pthread_mutexattr_destroy(attributes) };
    result
}

impl Counter {
    /// Maps the memory and initialises the lock.
    ///
    /// # Errors
    /// The error of the call that failed.
    pub fn new() -> io::Result<Counter> {
        // A shared mapping of /dev/zero is as anonymous as one of MAP_ANONYMOUS, and does not need the file any more.
        let zero = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/zero")?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
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
        let shared = NonNull::new(address.cast::<Shared>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let counter = Counter {
            mapping: Arc::new(Mapping(shared)),
        };
        initialise(counter.shared().mutex.get())?;
        Ok(counter)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping lives as long as self. All that changes in it is in an UnsafeCell.
        unsafe { self.mapping.0.as_ref() }
    }

    fn lock(&self) -> io::Result<Locked<'_>> {
        let shared = self.shared();
        // In steps of at most a second, for as long as it takes.
        let result = loop {
            let mut until = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: the pointer is valid during the call.
            if unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut until) } == -1 {
                return Err(io::Error::last_os_error());
            }
            until.tv_sec += 1;
            // SAFETY: the mutex is initialised.
            match unsafe { libc::pthread_mutex_timedlock(shared.mutex.get(), &raw const until) } {
                libc::ETIMEDOUT => {}
                other => break other,
            }
        };
        match result {
            0 => Ok(Locked(shared)),
            libc::EOWNERDEAD => {
                // SAFETY: this thread holds the lock.
                unsafe { (*shared.guarded.get()).owner_died = true };
                // SAFETY: the mutex is initialised.
                let result = check(unsafe { libc::pthread_mutex_consistent(shared.mutex.get()) });
                let locked = Locked(shared);
                result.map(|()| locked)
            }
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Locks the counter, runs `f` with it, and unlocks it.
    ///
    /// # Errors
    /// If the lock fails, or if this thread holds it. Then `f` has not run.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let locked = self.lock()?;
        let guarded = locked.0.guarded.get();
        // SAFETY: this thread holds the lock.
        let died = unsafe { std::mem::take(&mut (*guarded).owner_died) };
        let entry = if died { Entry::OwnerDied } else { Entry::Clean };
        // SAFETY: this thread holds the lock until `locked` is dropped.
        let result = f(unsafe { &mut (*guarded).number }, entry);
        drop(locked);
        Ok(result)
    }

    /// Locks the counter and returns its value.
    ///
    /// # Errors
    /// As for `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        let locked = self.lock()?;
        // SAFETY: this thread holds the lock.
        Ok(unsafe { (*locked.0.guarded.get()).number })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this counter's, and nothing borrows it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
    }
}
