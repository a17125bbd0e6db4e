//! A counter in shared memory, protected by a lock that survives its owner.
//! README.md describes the task, stage by stage.

use std::io;
use std::ptr::NonNull;

/// Whether the previous owner of the lock released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The lock was released.
    Clean,
    /// A process died while it held the lock, so the counter may be half updated.
    OwnerDied,
}

/// A counter and its lock in shared memory. This process and the children that it forks later use the same ones.
///
/// The field is a suggestion. You may change it.
pub struct Counter {
    shared: NonNull<Shared>,
}

/// The contents of the shared memory. You may change this struct, too.
struct Shared {
    // mutex: nix::libc::pthread_mutex_t,
    number: u64,
}

impl Counter {
    /// Stage 1: maps the memory and initialises the lock, once, before any fork. The counter starts at 0.
    ///
    /// # Errors
    /// The error of mmap(2) or of the function that initialises the lock. Then nothing is left mapped or open.
    pub fn new() -> io::Result<Counter> {
        todo!(
            "map {} bytes, shared, and set up a mutex there",
            size_of::<Shared>()
        )
    }

    /// Locks the counter, runs `f` with it, and unlocks it.
    ///
    /// Stage 2: only one process at a time holds the lock.
    ///
    /// Stage 3: if `f` panics, the lock is released, the counter keeps its value, and the panic continues in the caller.
    /// If the unlock fails, the process aborts.
    ///
    /// Stage 4: if a process died while it held the lock, the next call gets the lock and passes `Entry::OwnerDied` to
    /// `f`. Each death is reported once.
    ///
    /// # Errors
    /// Stage 3: returns an error if this thread already holds the lock, or if the lock fails. Then `f` has not run:
    /// otherwise there would be a second `&mut`.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let _ = f;
        todo!("lock the mutex at {:p}", self.shared)
    }

    /// Locks the counter and returns its value. Stage 4: the next `with_lock` still reports the death of an owner.
    ///
    /// # Errors
    /// As for `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        // SAFETY: this is not safe yet, because it reads the counter without the lock.
        let number = unsafe { (*self.shared.as_ptr()).number };
        todo!("lock, and read {number}")
    }
}

/// Stage 1: unmaps the memory in this process. The lock stays usable for the other processes.
impl Drop for Counter {
    fn drop(&mut self) {}
}
