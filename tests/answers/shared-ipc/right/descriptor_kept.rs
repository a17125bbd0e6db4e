//! Each value keeps the descriptor of its memfd, which a clone maps once more. A page behind the value counts the panics of
//! children. `run_child` looks with WNOWAIT before it reaps.

use nix::libc;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::FromBytes;

/// Turns the result of a C function into a `Result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Repeats `call` as long as a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Forks a child that calls `answer`, and returns what it answered.
///
/// # Errors
/// The error of mmap(2), fork(2) or waitpid(2), or another one if the child did not answer.
///
/// # Safety
/// In a process with several threads, `answer` needs no lock that another thread may have held.
pub unsafe fn ask_a_child(answer: fn() -> u64) -> io::Result<u64> {
    // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<u64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let slot: *mut u64 = page.cast();
    let result = (|| {
        // SAFETY: the child only calls `answer`, writes the slot and ends.
        let child = check(unsafe { libc::fork() })?;
        if child == 0 {
            let status = match panic::catch_unwind(answer) {
                Ok(value) => {
                    // SAFETY: the slot is mapped.
                    unsafe { slot.write_volatile(value) };
                    0
                }
                Err(payload) => {
                    mem::forget(payload);
                    101
                }
            };
            // SAFETY: _exit only ends the process.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid for a write.
        retry(|| check(unsafe { libc::waitpid(child, &mut status, 0) }))?;
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
            // SAFETY: the slot is mapped, and its writer has ended.
            Ok(unsafe { slot.read_volatile() })
        } else {
            Err(io::Error::other("the child did not answer"))
        }
    })();
    // SAFETY: nothing points to the page any more.
    unsafe { libc::munmap(page, size_of::<u64>()) };
    result
}

/// A `T` that this process shares with its later children.
pub struct Shared<T: FromBytes + Sync> {
    value: NonNull<T>,
    /// Kept for clones, which map it once more.
    file: OwnedFd,
}

impl<T: FromBytes + Sync> Shared<T> {
    fn map(file: OwnedFd) -> io::Result<Shared<T>> {
        // SAFETY: without an address and MAP_FIXED, mmap replaces no mapping.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::size(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let value = NonNull::new(start.cast()).expect("mmap does not return null");
        Ok(Shared { value, file })
    }

    /// Maps the same value once more.
    ///
    /// # Errors
    /// The error of a system call.
    pub fn try_clone(&self) -> io::Result<Shared<T>> {
        Shared::map(self.file.try_clone()?)
    }
}

impl<T: FromBytes + Sync> Clone for Shared<T> {
    /// # Panics
    /// If the system has no descriptor or address left, like the `clone` of a `Vec` without memory.
    fn clone(&self) -> Shared<T> {
        self.try_clone().expect("another mapping")
    }
}

impl<T: FromBytes + Sync> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf only reads a value.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

impl<T: FromBytes + Sync> Shared<T> {
    /// The pages of the value, and one page behind them, in which a child counts its panics.
    fn size() -> usize {
        Shared::<T>::value_size() + page_size()
    }

    fn value_size() -> usize {
        size_of::<T>().next_multiple_of(page_size())
    }

    /// The number of panics in children of `run_child`, for those who debug.
    fn panics(&self) -> &AtomicU64 {
        // SAFETY: the page is behind those of the value.
        let page = unsafe { self.value.byte_add(Self::value_size()) };
        // SAFETY: the page is mapped, and zero at first.
        unsafe { AtomicU64::from_ptr(page.as_ptr().cast()) }
    }

    /// Maps a `T` whose bytes are zero.
    ///
    /// # Errors
    /// `InvalidInput` if the alignment of `T` is more than a page, or the error of a system call.
    pub fn new() -> io::Result<Shared<T>> {
        if align_of::<T>() > page_size() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the alignment is more than a page",
            ));
        }
        let size = Shared::<T>::size();
        let length = libc::off_t::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the name ends with NUL.
        let fd = check(unsafe {
            libc::memfd_create(
                c"shared".as_ptr(),
                libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING,
            )
        })?;
        // SAFETY: the descriptor is new, and nothing else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the descriptor is open.
        retry(|| check(unsafe { libc::ftruncate(file.as_raw_fd(), length) }))?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the descriptor is open.
        check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Shared::map(file)
    }

    /// Runs `f` in a child and waits for its end.
    ///
    /// # Errors
    /// The error of a system call, or how the child ended.
    ///
    /// # Safety
    /// In a process with several threads, `f` needs no lock that another thread may have held.
    pub unsafe fn run_child(&self, f: impl FnOnce(&T)) -> io::Result<()> {
        // SAFETY: the child only runs `f` and ends.
        let child = check(unsafe { libc::fork() })?;
        if child == 0 {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| f(self)));
            let status = if outcome.is_ok() { 0 } else { 101 };
            if outcome.is_err() {
                self.panics().fetch_add(1, Ordering::Relaxed);
            }
            let _leaked = ManuallyDrop::new(outcome);
            // SAFETY: _exit only ends the process.
            unsafe { libc::_exit(status) };
        }
        // First only look, so that the ID cannot be used again before the child is reaped here.
        let info = wait(child, libc::WNOWAIT)?;
        wait(child, libc::WNOHANG)?;
        // SAFETY: waitid has filled the fields of a child.
        let status = unsafe { info.si_status() };
        match (info.si_code, status) {
            (libc::CLD_EXITED, 0) => Ok(()),
            (libc::CLD_EXITED, 101) => Err(io::Error::other(format!(
                "the child panicked, {} panics so far",
                self.panics().load(Ordering::Relaxed)
            ))),
            (libc::CLD_EXITED, _) => Err(io::Error::other(format!(
                "the child ended with status {status}"
            ))),
            _ => Err(io::Error::other(format!(
                "the child was killed by signal {status}"
            ))),
        }
    }
}

fn wait(child: libc::pid_t, flag: libc::c_int) -> io::Result<libc::siginfo_t> {
    // SAFETY: a siginfo_t may be all zeros.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let id = child as libc::id_t;
    // SAFETY: `info` is valid for a write.
    retry(|| check(unsafe { libc::waitid(libc::P_PID, id, &mut info, libc::WEXITED | flag) }))?;
    Ok(info)
}

impl<T: FromBytes + Sync> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value is mapped, aligned, and valid with any bytes.
        unsafe { self.value.as_ref() }
    }
}

impl<T: FromBytes + Sync> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no view outlives it.
        unsafe { libc::munmap(self.value.as_ptr().cast(), Shared::<T>::size()) };
    }
}

// SAFETY: sending a `Shared` sends a `&T`, because the destructor of `T` never runs. `T` is `Sync`.
unsafe impl<T: FromBytes + Sync> Send for Shared<T> {}

// SAFETY: `&Shared<T>` lends `&T`, and `T` is `Sync`.
unsafe impl<T: FromBytes + Sync> Sync for Shared<T> {}
