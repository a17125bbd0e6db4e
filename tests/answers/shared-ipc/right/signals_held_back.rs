//! `run_child` blocks all signals during the fork. The value is left out of core dumps.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

use nix::libc::{self, c_int, sigset_t};
use zerocopy::FromBytes;

/// Stage 1.
///
/// # Errors
/// The error of a call, or any error if the child has not answered.
///
/// # Safety
/// `answer` must not need a lock that another thread may have held at the fork.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<u64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_SHARED,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut slot = Slot(start);
    // SAFETY: the child ends in this block.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => child_main(|| *slot.number() = answer()),
        // SAFETY: `status` is valid for writes.
        child => match wait_for(child, |status| unsafe { libc::waitpid(child, status, 0) })? {
            0 => Ok(*slot.number()),
            _ => Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "the child ended before it answered",
            )),
        },
    }
}

/// A mapped u64, unmapped at the end.
struct Slot(*mut libc::c_void);

impl Slot {
    fn number(&mut self) -> &mut u64 {
        // SAFETY: mapped, aligned, zero at first. The parent calls this only when the child has ended.
        unsafe { &mut *self.0.cast() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours.
        unsafe { libc::munmap(self.0, size_of::<u64>()) };
    }
}

/// What the child does, and its end.
fn child_main(work: impl FnOnce()) -> ! {
    let ended = catch_unwind(AssertUnwindSafe(work));
    // SAFETY: _exit does not return.
    unsafe {
        libc::_exit(if ended.is_ok() {
            libc::EXIT_SUCCESS
        } else {
            101
        })
    }
}

/// The wait status of a child that has ended.
fn wait_for(
    child: libc::pid_t,
    mut call: impl FnMut(&mut c_int) -> libc::pid_t,
) -> io::Result<c_int> {
    loop {
        let mut status = 0;
        let waited = call(&mut status);
        if waited == child && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
            return Ok(status);
        }
        if waited == -1 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return Err(io::Error::last_os_error());
        }
    }
}

/// Blocks all signals of this thread until it is dropped.
struct Blocked(Option<sigset_t>);

impl Blocked {
    fn all() -> Blocked {
        let (mut all, mut old) = (
            MaybeUninit::<sigset_t>::zeroed(),
            MaybeUninit::<sigset_t>::zeroed(),
        );
        // SAFETY: both sets are ours.
        let failed = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr())
        };
        // Without it, everything works, too: then a handler may run in the child early.
        // SAFETY: filled in, and all zeros is the empty set.
        Blocked((failed == 0).then(|| unsafe { old.assume_init() }))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let Some(old) = self.0.take() else { return };
        // Once more if it fails: the mask must not stay.
        for _ in 0..3 {
            // SAFETY: the mask that this thread had.
            if unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, ptr::null_mut()) }
                == 0
            {
                return;
            }
        }
    }
}

/// A `T` in shared anonymous memory.
pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
}

impl<T: FromBytes + Sync> Shared<T> {
    /// Stage 2.
    ///
    /// # Errors
    /// `InvalidInput` if the alignment of `T` is more than a page, or the error of mmap(2).
    pub fn new() -> io::Result<Shared<T>> {
        // SAFETY: sysconf only reads.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        if page < 0 || align_of::<T>() > page.unsigned_abs() as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "alignment"));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let mut start =
            unsafe { libc::mmap(ptr::null_mut(), Self::len(), protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            // SAFETY: as above.
            start = unsafe { libc::mmap(ptr::null_mut(), Self::len(), protection, flags, -1, 0) };
        }
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Nobody needs the value in a core file. It is no mistake if this fails.
        // SAFETY: our mapping.
        unsafe { libc::madvise(start, Self::len(), libc::MADV_DONTDUMP) };
        NonNull::new(start.cast())
            .map(|value| Shared { value })
            .ok_or_else(|| io::Error::other("null"))
    }

    fn len() -> usize {
        usize::max(size_of::<T>(), 1)
    }

    /// Stage 3.
    ///
    /// # Errors
    /// Returns an error if fork or waitpid fails, or if the child fails.
    ///
    /// # Safety
    /// `f` must not need a lock that another thread may have held at the fork.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        let blocked = Blocked::all();
        // SAFETY: the caller's promise; the child ends below.
        let child = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => child_main(|| {
                // SAFETY: if this thread of the parent is killed, the child is not left alone.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                // SAFETY: a C string of less than 16 bytes.
                unsafe { libc::prctl(libc::PR_SET_NAME, c"shared-child".as_ptr()) };
                drop(blocked);
                f(self);
            }),
            child => child,
        };
        drop(blocked);
        let mut usage = MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: valid places for the results.
        let status = wait_for(child, |status| unsafe {
            libc::wait4(child, status, libc::__WALL, usage.as_mut_ptr())
        })?;
        if libc::WIFSIGNALED(status) {
            let dumped = if libc::WCOREDUMP(status) {
                ", core dumped"
            } else {
                ""
            };
            return Err(io::Error::other(format!(
                "killed by signal {}{dumped}",
                libc::WTERMSIG(status)
            )));
        }
        match libc::WEXITSTATUS(status) {
            0 => Ok(()),
            101 => Err(io::Error::other("child panicked")),
            code => Err(io::Error::other(format!("child: exit status {code}"))),
        }
    }
}

impl<T: FromBytes + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping lives as long as `self`, and any bytes are a `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours.
        unsafe { libc::munmap(self.value.as_ptr().cast(), Self::len()) };
    }
}
