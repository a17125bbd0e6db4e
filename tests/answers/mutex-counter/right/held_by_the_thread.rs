//! A robust mutex without detection of deadlocks: each thread has a list of the counters that it holds. Counters are clones
//! of an Arc.

use std::cell::{RefCell, UnsafeCell};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

/// Whether the previous owner of the lock released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The lock was released.
    Clean,
    /// A process died while it held the lock, so the counter may be half updated.
    OwnerDied,
}

/// A counter and its lock in shared memory. A clone is the same counter.
#[derive(Clone)]
pub struct Counter {
    mapping: Arc<Mapping>,
}

struct Mapping {
    shared: NonNull<Shared>,
}

// SAFETY: the mutex excludes threads as well as processes, and the mapping is not bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

thread_local! {
    /// The counters that this thread has locked, and the process that did so: a forked child inherits the list.
    static HELD: RefCell<Vec<(u32, usize)>> = const { RefCell::new(Vec::new()) };
}

/// The contents of the shared memory. Zeroes are valid, except for the mutex.
#[repr(C)]
struct Shared {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// A death that `with_lock` has not reported yet.
    unreported: AtomicBool,
    number: UnsafeCell<u64>,
}

impl Shared {
    fn key(&self) -> (u32, usize) {
        (std::process::id(), ptr::from_ref(self).addr())
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
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
        // SAFETY: the kernel chooses the address.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let shared = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        // From here on, an error drops the counter, which unmaps the memory.
        let counter = Counter {
            mapping: Arc::new(Mapping { shared }),
        };
        let mut attributes = Attributes::new()?;
        // SAFETY: the attributes are initialised.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(&mut attributes.0, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_settype(&mut attributes.0, libc::PTHREAD_MUTEX_NORMAL)
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
        unsafe { self.mapping.shared.as_ref() }
    }

    fn lock(&self) -> io::Result<Guard<'_>> {
        let shared = self.shared();
        let key = shared.key();
        if HELD.with_borrow(|held| held.contains(&key)) {
            return Err(io::ErrorKind::Deadlock.into());
        }
        let guard = self.lock_unchecked()?;
        HELD.with_borrow_mut(|held| held.push(key));
        Ok(guard)
    }

    fn lock_unchecked(&self) -> io::Result<Guard<'_>> {
        let shared = self.shared();
        // SAFETY: the mutex is initialised.
        match unsafe { libc::pthread_mutex_lock(shared.mutex.get()) } {
            0 => Ok(Guard { shared }),
            libc::EOWNERDEAD => {
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
        let key = self.shared.key();
        HELD.with_borrow_mut(|held| held.retain(|other| *other != key));
        // SAFETY: the mutex is initialised. It checks whether this thread owns it: a forked child does not.
        if unsafe { libc::pthread_mutex_unlock(self.shared.mutex.get()) } != 0 {
            std::process::abort();
        }
    }
}

/// Unmaps the memory in this process.
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}
