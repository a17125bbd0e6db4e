//! What the programs about processes need: children that are never left behind, numbers in memory, and a mutex in it.

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
    /// A fresh mapping of that many pages, all zero, to read and write. It is never unmapped.
    pub fn map(self, pages: usize) -> NonNull<u8> {
        match self {
            Memory::Private => crate::map_private(pages),
            Memory::Shared => crate::map_shared(pages),
        }
    }

    /// `N` zeros in a fresh mapping.
    pub fn numbers<const N: usize>(self) -> &'static [AtomicU32; N] {
        let len = size_of::<[AtomicU32; N]>().max(1);
        let start = self.map(len.div_ceil(crate::page_size()));
        // SAFETY: the mapping is large enough, aligned to a page and never unmapped; its zeros are numbers, and only
        // these references lead to it.
        unsafe { start.cast().as_ref() }
    }
}

/// A forked process. Dropping it kills the process if it still runs, so no program leaves one behind.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// Forks a process that calls `run` and ends at once with the status that `run` gives, by _exit(2). It is killed
    /// if this process ends first, and leaves no core file where it is meant to crash.
    ///
    /// # Panics
    /// If the kernel refuses to fork, or if this process has a second thread, which might hold a lock that the child
    /// needs.
    pub fn start(run: impl FnOnce() -> i32) -> Child {
        let threads = fs::read_dir("/proc/self/task").expect("/proc/self/task");
        assert_eq!(threads.count(), 1, "only a lone thread may fork");
        let parent = getpid();
        // SAFETY: this is the process's only thread, so the child finds every lock as this thread left it.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child: pid } => Child { pid, reaped: false },
            ForkResult::Child => {
                let run = || {
                    prctl::set_pdeathsig(Signal::SIGKILL).expect("PR_SET_PDEATHSIG");
                    assert_eq!(getppid(), parent, "the parent is there");
                    setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("RLIMIT_CORE");
                    run()
                };
                let status = panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or(101);
                // SAFETY: ends the process at once, and runs nothing of the parent's.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until it has ended, and says how.
    ///
    /// # Panics
    /// If waitpid fails.
    pub fn end(mut self) -> WaitStatus {
        self.reaped = true;
        waitpid(self.pid, None).expect("waitpid")
    }

    /// Waits until it has ended, and gives its exit status.
    ///
    /// # Panics
    /// If a signal ended it.
    pub fn status(self) -> i32 {
        match self.end() {
            WaitStatus::Exited(_, status) => status,
            other => panic!("the child ended otherwise: {other:?}"),
        }
    }

    /// Waits for something that the child brings about.
    ///
    /// # Panics
    /// If the child ends before that.
    pub fn wait_until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            assert!(self.runs() || condition(), "the child ended too soon");
            thread::yield_now();
        }
    }

    /// Whether it has not ended yet.
    ///
    /// # Panics
    /// If waitid fails.
    pub fn runs(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.pid), look).expect("waitid") == WaitStatus::StillAlive
    }

    /// Whether it sleeps in the kernel until somebody wakes it: state `S` in /proc/PID/stat. Whoever wakes a process
    /// ends that state before the waking call returns.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn sleeps(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("/proc/PID/stat");
        // The name before the state is in parentheses, and may hold any character.
        let (_, state) = stat.rsplit_once(") ").expect("a name in parentheses");
        state.starts_with('S')
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // Both can fail only where there is no such process any more, which is what they are for.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// A pthread mutex in memory that is never unmapped: as many processes have it as have the memory.
///
/// Invariant: the mutex was set up when the memory was fresh.
#[derive(Debug, Clone, Copy)]
pub struct Lock(NonNull<libc::pthread_mutex_t>);

impl Lock {
    // ANCHOR: new
    /// Sets up a mutex in fresh memory.
    ///
    /// # Panics
    /// If a call fails.
    pub fn new(memory: Memory, shared: libc::c_int, robust: libc::c_int) -> Lock {
        let mutex = memory.map(1).cast();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: there is room for the attributes.
        check(unsafe { libc::pthread_mutexattr_init(attributes) }).expect("init");
        // SAFETY: they are set up now, here and below.
        check(unsafe { libc::pthread_mutexattr_setpshared(attributes, shared) }).expect("pshared");
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutexattr_setrobust(attributes, robust) }).expect("robust");
        // SAFETY: a page has room for a mutex, and nothing else uses it.
        check(unsafe { libc::pthread_mutex_init(mutex.as_ptr(), attributes) }).expect("mutex");
        // SAFETY: as above; the mutex does not need its attributes any more.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) }).expect("destroy");
        Lock(mutex)
    }
    // ANCHOR_END: new

    /// Waits until no other has the mutex, and takes it.
    ///
    /// # Errors
    /// pthread_mutex_lock(3). With EOWNERDEAD the caller has the mutex.
    pub fn lock(self) -> Result<(), Errno> {
        // SAFETY: the invariant.
        check(unsafe { libc::pthread_mutex_lock(self.0.as_ptr()) })
    }

    /// Takes the mutex if nobody has it.
    ///
    /// # Errors
    /// EBUSY if somebody has it.
    pub fn try_lock(self) -> Result<(), Errno> {
        // SAFETY: the invariant.
        check(unsafe { libc::pthread_mutex_trylock(self.0.as_ptr()) })
    }

    /// Gives the mutex back.
    ///
    /// # Panics
    /// If the call fails.
    ///
    /// # Safety
    /// This thread has the mutex.
    pub unsafe fn unlock(self) {
        // SAFETY: the invariant, and the caller's contract.
        check(unsafe { libc::pthread_mutex_unlock(self.0.as_ptr()) }).expect("unlock");
    }

    /// Says that what the mutex guards is in order again, after EOWNERDEAD.
    ///
    /// # Errors
    /// EINVAL if there was no EOWNERDEAD.
    pub fn consistent(self) -> Result<(), Errno> {
        // SAFETY: the invariant.
        check(unsafe { libc::pthread_mutex_consistent(self.0.as_ptr()) })
    }

    /// Ends the mutex's life.
    ///
    /// # Errors
    /// EBUSY from glibc if somebody has it; POSIX leaves that case undefined.
    ///
    /// # Safety
    /// After success nobody uses the mutex again.
    pub unsafe fn destroy(self) -> Result<(), Errno> {
        // SAFETY: the invariant, and the caller's contract.
        check(unsafe { libc::pthread_mutex_destroy(self.0.as_ptr()) })
    }
}

/// The pthread functions return their error, and leave errno alone.
fn check(result: libc::c_int) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    }
}
