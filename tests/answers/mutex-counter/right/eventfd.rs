//! The lock is an atomic with the owner's process ID. A waiter polls a pidfd of the owner and an eventfd, to which an owner
//! writes when it has released the lock.

use nix::libc;
use std::cell::UnsafeCell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::abort;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether the previous owner of the lock released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The lock was released.
    Clean,
    /// A process died while it held the lock.
    OwnerDied,
}

/// A counter in shared memory.
pub struct Counter {
    shared: NonNull<Shared>,
    /// Readable while nobody holds the lock, and for a short time after somebody has taken it.
    released: OwnedFd,
    /// Neither `Send` nor `Sync`: the owner of the lock is a process.
    unsend: PhantomData<*mut ()>,
}

#[repr(C)]
struct Shared {
    lock: AtomicU64,
    number: UnsafeCell<u64>,
}

/// An owner died, and no closure was told.
const DIED: u64 = 1 << 63;
/// The ID of the owner.
const OWNER: u64 = DIED - 1;

fn process() -> u64 {
    // SAFETY: getpid has no preconditions.
    u64::from(unsafe { libc::getpid() }.unsigned_abs())
}

/// Waits until a release or the end of the owner. Returns whether the owner has ended.
fn wait_for(owner: u64, released: &OwnedFd) -> io::Result<bool> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, owner, 0) };
    if fd == -1 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ESRCH) => Ok(true),
            _ => Err(error),
        };
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    let owner = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    let mut polls = [&owner, released].map(|fd| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: there are two entries.
    if unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) } == -1 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => Ok(false),
            _ => Err(error),
        };
    }
    Ok(polls[0].revents != 0)
}

impl Counter {
    /// Maps the memory. A lock of zeros is free.
    ///
    /// # Errors
    /// The error of mmap(2).
    pub fn new() -> io::Result<Counter> {
        // SAFETY: eventfd takes two integers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let released = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Counter {
            shared: NonNull::new(start.cast()).expect("mmap does not return null"),
            released,
            unsend: PhantomData,
        })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the memory is mapped as long as `self` lives; all of it is in cells.
        unsafe { self.shared.as_ref() }
    }

    /// Locks, runs `f`, and unlocks.
    ///
    /// # Errors
    /// EDEADLK inside a closure of the same counter, or the error of the lock.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let _held = self.lock()?;
        let entry = if self.shared().lock.fetch_and(!DIED, Ordering::Relaxed) & DIED == 0 {
            Entry::Clean
        } else {
            Entry::OwnerDied
        };
        // SAFETY: this process holds the lock, and cannot lock it twice.
        Ok(f(unsafe { &mut *self.shared().number.get() }, entry))
    }

    /// Locks and reads the number.
    ///
    /// # Errors
    /// As for `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        let _held = self.lock()?;
        // SAFETY: this process holds the lock.
        Ok(unsafe { *self.shared().number.get() })
    }

    fn word(&self) -> &AtomicU64 {
        &self.shared().lock
    }

    fn lock(&self) -> io::Result<Held<'_>> {
        let word = self.word();
        let me = process();
        loop {
            let seen = word.load(Ordering::Relaxed);
            let owner = seen & OWNER;
            let next = if owner == 0 {
                seen | me
            } else if owner == me {
                return Err(io::Error::from_raw_os_error(libc::EDEADLK));
            } else if wait_for(owner, &self.released)? {
                DIED | me
            } else {
                continue;
            };
            let taken = word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                break;
            }
        }
        // Only the owner takes the event away, so it is not lost with a waiter that is killed.
        let mut count = 0u64;
        // SAFETY: the buffer has 8 bytes. EAGAIN: the last owner died, or there was none.
        unsafe { libc::read(self.released.as_raw_fd(), (&raw mut count).cast(), 8) };
        Ok(Held { counter: self, me })
    }
}

struct Held<'a> {
    counter: &'a Counter,
    me: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let word = self.counter.word();
        // A child that was forked inside the closure, or a word that something has overwritten.
        if self.me != process() || word.load(Ordering::Relaxed) & OWNER != self.me {
            abort();
        }
        word.fetch_and(DIED, Ordering::Release);
        let one = 1u64;
        // SAFETY: the buffer has 8 bytes. EAGAIN: the event is there already.
        unsafe {
            libc::write(
                self.counter.released.as_raw_fd(),
                (&raw const one).cast(),
                8,
            )
        };
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: nothing in this process points to the memory any more.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<Shared>()) };
    }
}
