//! Kills the processes of a case, and no others: a process id may belong to another process once it has been waited
//! for.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Kills the process of the task `tid`, which the caller traces and has not waited for, so its id cannot have been
/// reused.
pub fn traced(tid: i32) {
    // kill(2) takes 0 and negative ids for groups.
    if tid > 0 {
        let _ = signal::kill(Pid::from_raw(tid), Signal::SIGKILL);
    }
}

/// Sends `signal` to `pid` if it `belongs` to the case; returns whether it did.
///
/// The answer may wait for `pid` at any moment, and the id may be reused. So a pidfd is opened before the check that
/// counts: if the id is reused in between, the signal goes to the process that has ended, and has no effect. The first
/// check saves the pidfd for the many processes of the machine that belong to no case.
pub fn untraced(pid: i32, signal: Signal, belongs: impl Fn(i32) -> bool) -> bool {
    if pid <= 0 || !belongs(pid) {
        return false;
    }
    let pidfd = pidfd_open(pid);
    if !belongs(pid) {
        return false;
    }
    match pidfd {
        Ok(process) => pidfd_send(&process, signal),
        // The process has ended, or `pid` is the id of a thread, not of a process.
        Err(Errno::ESRCH | Errno::EINVAL) => {}
        // A sandbox may refuse pidfd_open. The id was checked just before, so a reuse is very unlikely.
        Err(_) => {
            let _ = signal::kill(Pid::from_raw(pid), signal);
        }
    }
    true
}

// nix has no wrappers for these two calls. rustix has them in its feature `process`, which would then also be enabled
// for an answer that uses rustix.

fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)? as i32;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pidfd_send(process: &OwnedFd, signal: Signal) {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open, and no `siginfo_t` is passed.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as libc::c_int,
            info,
            0,
        )
    };
}
