//! The memory is populated and locked, so that a real-time process does not wait for a page. Clones share it, and its mutex
//! inherits priorities.

use nix::libc;
use std::io;
use std::mem::MaybeUninit;
use std::process::abort;
use std::ptr;
use std::sync::Arc;

/// Whether the previous owner of the lock released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The lock was released.
    Clean,
    /// A process died while it held the lock.
    OwnerDied,
}

/// A counter in shared memory. A clone is the same counter.
#[derive(Clone)]
pub struct Counter {
    segment: Arc<Segment>,
}

/// The contents of the segment.
#[repr(C)]
struct Shared {
    mutex: libc::pthread_mutex_t,
    books: Books,
}

/// What the mutex protects.
#[repr(C)]
struct Books {
    number: u64,
    /// The number of deaths, and how many of them a closure was told.
    deaths: u64,
    reported: u64,
}

/// Detached by the last clone of a process.
struct Segment(*mut Shared);

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

/// Initialised mutex attributes.
struct Attributes(Box<MaybeUninit<libc::pthread_mutexattr_t>>);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = Box::new(MaybeUninit::uninit());
        // SAFETY: the pointer is valid.
        check(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) })?;
        Ok(Attributes(attributes))
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: the attributes are initialised.
        unsafe { libc::pthread_mutexattr_destroy(self.0.as_mut_ptr()) };
    }
}

impl Segment {
    fn new() -> io::Result<Segment> {
        // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A real-time process must not wait for a page. If RLIMIT_MEMLOCK forbids it, it may have to.
        // SAFETY: a lock changes no contents.
        unsafe { libc::mlock(start, size_of::<Shared>()) };
        Ok(Segment(start.cast()))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: nothing in this process points to the memory any more.
        unsafe { libc::munmap(self.0.cast(), size_of::<Shared>()) };
    }
}

// SAFETY: the segment belongs to no thread, and is only accessed under its mutex.
unsafe impl Send for Segment {}

// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Counter {
    /// Creates the segment and initialises the lock.
    ///
    /// # Errors
    /// The error of the call that failed.
    pub fn new() -> io::Result<Counter> {
        let segment = Segment::new()?;
        let mut attributes = Attributes::new()?;
        let attributes = attributes.0.as_mut_ptr();
        // SAFETY: the attributes are initialised, here and below.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK)
        })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_mutexattr_setprotocol(attributes, libc::PTHREAD_PRIO_INHERIT)
        })?;
        let counter = Counter {
            segment: Arc::new(segment),
        };
        // SAFETY: nobody else has the memory yet.
        check(unsafe { libc::pthread_mutex_init(counter.mutex(), attributes) })?;
        Ok(counter)
    }

    fn shared(&self) -> *mut Shared {
        self.segment.0
    }

    fn mutex(&self) -> *mut libc::pthread_mutex_t {
        // SAFETY: the segment is attached.
        unsafe { &raw mut (*self.shared()).mutex }
    }

    fn lock(&self) -> io::Result<Guard<'_>> {
        // SAFETY: the mutex is initialised.
        let code = unsafe { libc::pthread_mutex_lock(self.mutex()) };
        if code == libc::EOWNERDEAD {
            // SAFETY: this thread holds the lock.
            let deaths = unsafe { &raw mut (*self.shared()).books.deaths };
            // SAFETY: as above.
            let count = unsafe { deaths.read_volatile() };
            // Before the mutex forgets the death.
            // SAFETY: as above.
            unsafe { deaths.write_volatile(count.wrapping_add(1)) };
            // SAFETY: this thread holds the lock.
            if unsafe { libc::pthread_mutex_consistent(self.mutex()) } != 0 {
                abort();
            }
        } else {
            check(code)?;
        }
        Ok(Guard(self))
    }

    /// Locks, runs `f`, and unlocks.
    ///
    /// # Errors
    /// EDEADLK inside a closure of the same counter, or the error of the lock.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let guard = self.lock()?;
        // SAFETY: this thread holds the lock; the mutex itself is not part of the reference.
        let Books {
            number,
            deaths,
            reported,
        } = unsafe { &mut (*guard.0.shared()).books };
        let entry = if deaths == reported {
            Entry::Clean
        } else {
            *reported = *deaths;
            Entry::OwnerDied
        };
        Ok(f(number, entry))
    }

    /// Locks and reads the number.
    ///
    /// # Errors
    /// As for `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        let guard = self.lock()?;
        // SAFETY: this thread holds the lock.
        Ok(unsafe { (*guard.0.shared()).books.number })
    }
}

/// The lock is held by this thread.
struct Guard<'a>(&'a Counter);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // EPERM in a child that was forked inside the closure.
        // SAFETY: the mutex is initialised.
        if unsafe { libc::pthread_mutex_unlock(self.0.mutex()) } != 0 {
            abort();
        }
    }
}
