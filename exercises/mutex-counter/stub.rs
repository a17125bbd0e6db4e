//! A counter that processes share, behind a lock that survives its owner. README.md has the task, stage by stage.

use std::io;
use std::ptr::NonNull;

/// What the one who gets the lock should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Whoever had the lock before has given it back.
    Clean,
    /// A process died with the lock in its hands: the number may be half changed.
    OwnerDied,
}

/// A number in shared memory, and the lock that guards it: this process and the children that it forks from now on have
/// the same ones.
///
/// The field is a proposal, and yours to change.
pub struct Counter {
    shared: NonNull<Shared>,
}

/// What lies in the shared memory: a proposal, too.
struct Shared {
    // mutex: nix::libc::pthread_mutex_t,
    number: u64,
}

impl Counter {
    /// Stage 1: maps the memory and sets up the lock, once and before any fork. The number is 0.
    ///
    /// # Errors
    /// What the kernel or the library says where it refuses.
    pub fn new() -> io::Result<Counter> {
        todo!(
            "map {} bytes, shared, and set up a mutex there",
            size_of::<Shared>()
        )
    }

    /// Runs `f` with the number while no other process has it.
    ///
    /// Stage 2: one process at a time. Stage 3: a panic in `f` goes on to the caller, and the lock is given back. Stage 4:
    /// where a process died with the lock, the next one that comes here gets it, and is told so once.
    ///
    /// # Errors
    /// Stage 3: if this thread has the lock already: there would be a second `&mut`.
    pub fn with_lock<R>(&self, f: impl FnOnce(&mut u64, Entry) -> R) -> io::Result<R> {
        let _ = f;
        todo!("lock the mutex at {:p}", self.shared)
    }

    /// The number, read under the lock. Stage 4: that an owner died is still told to the next `with_lock`.
    ///
    /// # Errors
    /// As `with_lock`.
    pub fn get(&self) -> io::Result<u64> {
        // SAFETY: there is none yet: a read without the lock.
        let number = unsafe { (*self.shared.as_ptr()).number };
        todo!("lock, and read {number}")
    }
}

/// Stage 1: unmaps the memory, and leaves the lock to the other processes.
impl Drop for Counter {
    fn drop(&mut self) {}
}
