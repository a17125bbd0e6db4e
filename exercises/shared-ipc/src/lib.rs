//! Anonymous memory that a process shares with its child processes.
//! README.md describes the task, stage by stage.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;

/// Stage 1: forks a child that calls `answer` and writes the result to shared memory, and returns that result.
///
/// Uses raw calls of `nix::libc`: `mmap` of `size_of::<u64>()` bytes, `fork`, `waitpid` for that child (again if a
/// signal interrupts it), `munmap`. The child ends with `_exit`.
///
/// # Errors
/// The error of mmap(2), fork(2) or waitpid(2). Any error if the child ends without an answer.
///
/// # Safety
/// In a process with several threads, the child has only the thread that forked. `answer` must not need a lock that
/// another thread may have held at that moment: neither the allocator's nor that of standard error, which a panic
/// takes.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    todo!("fork a child that calls {answer:p}")
}

/// A `T` in shared anonymous memory. This process and the children that it forks later use the same one.
///
/// Stage 2. The field is a suggestion. You may change it. There is no `DerefMut`: after a fork, two processes could
/// each hold a `&mut` to the same value.
///
/// Stage 4: without a bound, any `T` can be shared, but this is sound for few types. Add the bound.
pub struct Shared<T> {
    value: NonNull<T>,
}

impl<T> Shared<T> {
    /// Stage 2: maps a `T` whose bytes are zero. The value is never built on the stack. A page becomes resident when it
    /// is first touched. A `T` of size 0 also gets a page.
    ///
    /// # Errors
    /// - `InvalidInput` if the alignment of `T` is more than a page.
    /// - The error of mmap(2).
    pub fn new() -> io::Result<Shared<T>> {
        todo!("map {} bytes, shared", size_of::<T>())
    }

    /// Stage 3: runs `f` in a forked child, and waits for that child to end.
    ///
    /// The child runs only `f`, and no other code of the caller: no destructors, no `atexit` handlers, no code after this
    /// call.
    /// Other children of this process are not waited for.
    ///
    /// # Errors
    /// Returns an error if fork or waitpid fails, or if the child fails. Then the message says how the child ended:
    /// `signal 9`, `panicked`, `status 3`. A Rust program that panics exits with status 101.
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

/// Stage 2: gives shared access to the value.
impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        todo!("the value at {:p}", self.value)
    }
}

/// Stage 2: unmaps the memory in this process. If munmap fails, the memory leaks.
impl<T> Drop for Shared<T> {
    fn drop(&mut self) {}
}
