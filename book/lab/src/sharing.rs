//! Helpers for programs with several processes: children that do not outlive the program, atomics and mutexes.

use std::fs;
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

/// The two kinds of anonymous mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// `MAP_PRIVATE`
    Private,
    /// `MAP_SHARED`
    Shared,
}

impl Memory {
    /// Maps `pages` pages, readable and writable. The mapping is never unmapped.
    pub fn map(self, pages: usize) -> NonNull<u8> {
        match self {
            Memory::Private => crate::map_private(pages),
            Memory::Shared => crate::map_shared(pages),
        }
    }

    /// Returns `N` atomics with the value 0 in a new mapping.
    pub fn atomics<const N: usize>(self) -> &'static [AtomicU32; N] {
        let len = size_of::<[AtomicU32; N]>().max(1);
        let start = self.map(len.div_ceil(crate::page_size()));
        // SAFETY: the mapping is large enough, page-aligned and never unmapped. Zero bytes are valid atomics, and the
        // memory is accessed only through this reference.
        unsafe { start.cast().as_ref() }
    }
}

/// A forked child process. Dropping it kills and reaps the child, unless it was waited for.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// Forks a child that calls `run` and passes its result to _exit(2), so no exit handlers run. The child is killed
    /// if this process ends first, and writes no core file if it crashes.
    ///
    /// # Panics
    /// If this process has more than one thread: another thread might hold a lock that the child needs.
    pub fn start(run: impl FnOnce() -> i32) -> Child {
        let threads = fs::read_dir("/proc/self/task").expect("/proc/self/task");
        assert_eq!(threads.count(), 1, "fork copies only one thread");
        let parent = getpid();
        // SAFETY: this process has one thread, so the child inherits no lock of another thread.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child: pid } => Child { pid, reaped: false },
            ForkResult::Child => {
                let run = || {
                    prctl::set_pdeathsig(Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
                    assert_eq!(getppid(), parent, "the parent has ended");
                    setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("RLIMIT_CORE");
                    run()
                };
                let status = panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or(101);
                // SAFETY: _exit only ends this process. It runs no exit handlers.
                unsafe { libc::_exit(status) }
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the child has ended, and returns its wait status.
    pub fn wait(mut self) -> WaitStatus {
        self.reaped = true;
        waitpid(self.pid, None).expect("waitpid")
    }

    /// Waits until the child has ended, and returns its exit code.
    ///
    /// # Panics
    /// If a signal killed the child.
    pub fn exit_code(self) -> i32 {
        match self.wait() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("unexpected wait status: {other:?}"),
        }
    }

    /// Waits until `condition` holds, which the child brings about.
    ///
    /// # Panics
    /// If the child ends before the condition holds.
    pub fn wait_until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            assert!(
                self.is_running() || condition(),
                "the child ended before the condition held"
            );
            thread::yield_now();
        }
    }

    /// Returns whether the child has not ended yet.
    pub fn is_running(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.pid), flags).expect("waitid") == WaitStatus::StillAlive
    }

    /// Returns whether the child sleeps in the kernel: state `S` in /proc/PID/stat. A call that wakes it changes the
    /// state before it returns.
    pub fn is_sleeping(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("/proc/PID/stat");
        // The state follows the name, which is in parentheses and may contain any character.
        let (_, state) = stat.rsplit_once(") ").expect("a name in parentheses");
        state.starts_with('S')
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // An error means that the process no longer exists, which is the goal.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// A pthread mutex in a mapping that is never unmapped. In shared memory, forked processes use the same mutex.
///
/// Invariant: the pointer leads to an initialized mutex.
#[derive(Debug, Clone, Copy)]
pub struct Lock(NonNull<libc::pthread_mutex_t>);

impl Lock {
    // ANCHOR: new
    /// Initializes a mutex in a new mapping. `pshared` and `robust` are the values
    /// of pthread_mutexattr_setpshared(3) and pthread_mutexattr_setrobust(3).
    pub fn new(memory: Memory, pshared: libc::c_int, robust: libc::c_int) -> Lock {
        let mutex = memory.map(1).cast();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: `attributes` points to memory for the attributes.
        check(unsafe { libc::pthread_mutexattr_init(attributes) }).expect("init");
        // SAFETY: the attributes are initialized.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, pshared) }).expect("pshared");
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, robust) }).expect("robust");
        // SAFETY: the new page has room for a mutex, and the attributes are initialized.
        check(unsafe { libc::pthread_mutex_init(mutex.as_ptr(), attributes) }).expect("mutex");
        // SAFETY: the attributes are initialized, and the mutex keeps no pointer to them.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) }).expect("destroy");
        Lock(mutex)
    }
    // ANCHOR_END: new

    /// Returns the mutex, for functions that take a mutex and something else.
    pub fn as_ptr(self) -> *mut libc::pthread_mutex_t {
        self.0.as_ptr()
    }

    /// Locks the mutex, and waits if another thread owns it.
    ///
    /// # Errors
    /// Those of pthread_mutex_lock(3). After EOWNERDEAD the caller owns the mutex.
    pub fn lock(self) -> Result<(), Errno> {
        // SAFETY: the pointer leads to an initialized mutex.
        check(unsafe { libc::pthread_mutex_lock(self.0.as_ptr()) })
    }

    /// Locks the mutex if it is free.
    ///
    /// # Errors
    /// Those of pthread_mutex_trylock(3): EBUSY if a thread owns the mutex.
    pub fn try_lock(self) -> Result<(), Errno> {
        // SAFETY: the pointer leads to an initialized mutex.
        check(unsafe { libc::pthread_mutex_trylock(self.0.as_ptr()) })
    }

    /// Unlocks the mutex.
    ///
    /// # Safety
    /// The calling thread must own the mutex.
    pub unsafe fn unlock(self) {
        // SAFETY: the mutex is initialized, and the caller guarantees that this thread owns it.
        check(unsafe { libc::pthread_mutex_unlock(self.0.as_ptr()) }).expect("unlock");
    }

    /// Marks the state that the mutex protects as consistent again, after EOWNERDEAD.
    ///
    /// # Errors
    /// EINVAL if the mutex is not robust, or its state is not inconsistent.
    pub fn consistent(self) -> Result<(), Errno> {
        // SAFETY: the pointer leads to an initialized mutex.
        check(unsafe { libc::pthread_mutex_consistent(self.0.as_ptr()) })
    }

    /// Destroys the mutex.
    ///
    /// # Errors
    /// EBUSY from glibc if a thread owns the mutex. POSIX leaves that case undefined.
    ///
    /// # Safety
    /// If the call succeeds, no process may use the mutex again.
    pub unsafe fn destroy(self) -> Result<(), Errno> {
        // SAFETY: the mutex is initialized, and the caller guarantees that it is not used again.
        check(unsafe { libc::pthread_mutex_destroy(self.0.as_ptr()) })
    }
}

/// Converts the result of a pthread function, which returns its error number and does not set errno.
fn check(result: libc::c_int) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    }
}
