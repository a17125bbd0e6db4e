//! Memory that a process shares with its children. README.md has the task, stage by stage.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

/// Stage 1: forks a child that calls `answer` and hands the number to its parent through shared memory.
///
/// Uses raw calls of `nix::libc`: `mmap` of `size_of::<u64>()` bytes, `fork`, `waitpid` for that child, `munmap`. The
/// child ends with `_exit`.
///
/// # Errors
/// What the kernel says where it refuses.
///
/// # Safety
/// In a process with several threads, the child has only the thread that forked. `answer` must not need a lock that
/// another thread may have held at that moment: neither the allocator's nor that of standard error, which a panic
/// takes.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    todo!("fork a child that calls {answer:p}")
}

/// A `T` in shared anonymous memory: this process and the children that it forks from now on have the same one.
///
/// Stage 2. The fields are a proposal, and yours to change. There is no `DerefMut`: after a fork two processes would
/// each have the only `&mut`.
///
/// Stage 4: as given, any `T` may be shared, and few may.
pub struct Shared<T> {
    value: NonNull<T>,
}

impl<T> Shared<T> {
    /// Stage 2: maps a `T` whose bytes are zero. It is never built on the stack, and no page is resident before it is
    /// touched. A `T` of no size has a page too.
    ///
    /// # Errors
    /// - `InvalidInput` if a `T` must be aligned to more than a page.
    /// - What the kernel says where it refuses.
    pub fn new() -> io::Result<Shared<T>> {
        todo!("map {} bytes, shared", size_of::<T>())
    }

    /// Stage 3: runs `f` in a forked child, and waits until that child has ended.
    ///
    /// Nothing of the caller's runs in the child but `f`: no destructor, no handler of `exit`, no code after this call.
    /// Other children of this process are not waited for.
    ///
    /// # Errors
    /// Its words name how the child ended, if not well: `signal 9`, `panicked`, `status 3`. Rust's own status after a
    /// panic is 101.
    ///
    /// # Safety
    /// In a process with several threads, the child has only the thread that forked. `f` must not need a lock that
    /// another thread may have held at that moment: neither the allocator's nor that of standard error, which a panic
    /// takes.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        let _ = f;
        todo!("fork")
    }
}

/// Stage 2: the value.
impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        todo!("the value at {:p}", self.value)
    }
}

/// Stage 2: the memory is unmapped when the value is dropped.
impl<T> Drop for Shared<T> {
    fn drop(&mut self) {}
}
