//! Waits for the tasks of a case and resumes them. nix's `waitpid` and `ptrace` do not know the real-time signals.

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::record::process::Status;

/// What a wait reports of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    Ended(Status),
    /// Stopped before this signal is delivered.
    Signal(i32),
    /// Stopped at the exit of a system call.
    Syscall,
    /// Stopped by a `PTRACE_EVENT_…`.
    Event(i32),
    /// Stopped by job control (SIGSTOP, SIGTSTP, …) until a SIGCONT arrives.
    Halted,
}

/// The event of a new task's first stop, and of a SIGCONT. The libc crate does not have it for every target.
pub const EVENT_STOP: i32 = 128;

/// Waits for a change of any child or tracee of this thread. Each test thread waits only for its own case.
pub fn wait_any() -> Result<(Pid, Change), Errno> {
    wait(-1, libc::__WALL | libc::__WNOTHREAD)
}

/// Waits for a change of `pid`.
pub fn wait_for(pid: Pid) -> Result<Change, Errno> {
    wait(pid.as_raw(), libc::__WALL).map(|(_, change)| change)
}

/// Waits until the child `pid` has ended and leaves it a zombie, so that its id is not reused.
pub fn wait_for_end(pid: Pid) -> Result<(), Errno> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(pid), flags) {
            Err(Errno::EINTR) => {}
            // The child has ended by a real-time signal, which nix does not know.
            Err(Errno::EINVAL) => return Ok(()),
            result => return result.map(drop),
        }
    }
}

fn wait(pid: i32, flags: i32) -> Result<(Pid, Change), Errno> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a C int that outlives the call.
        let pid = unsafe { libc::waitpid(pid, &raw mut status, flags) };
        match Errno::result(pid) {
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error),
            Ok(pid) => return Ok((Pid::from_raw(pid), change(status))),
        }
    }
}

fn change(status: i32) -> Change {
    if libc::WIFEXITED(status) {
        return Change::Ended(Status::Exited(libc::WEXITSTATUS(status)));
    }
    if libc::WIFSIGNALED(status) {
        return Change::Ended(Status::Signaled(libc::WTERMSIG(status)));
    }
    let signal = libc::WSTOPSIG(status);
    match (signal, status >> 16) {
        (libc::SIGTRAP, event @ 1..) => Change::Event(event),
        (_, EVENT_STOP) => Change::Halted,
        _ if signal == libc::SIGTRAP | 0x80 => Change::Syscall,
        _ => Change::Signal(signal),
    }
}

/// Leaves a halted task as it is. It reports `EVENT_STOP` when a SIGCONT arrives.
pub fn listen(pid: Pid) {
    let nothing: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: the request takes no address and no data; it touches no memory of this process.
    unsafe { libc::ptrace(libc::PTRACE_LISTEN, pid.as_raw(), nothing, nothing) };
}

/// When a task that is resumed stops again.
pub enum Until {
    /// At a signal or an event.
    Event,
    /// Also at the exit of its current call.
    Exit,
    /// After one instruction, with SIGTRAP.
    NextInstruction,
}

/// Resumes a stopped task and delivers `signal` (0 for none). Does nothing if the task has been killed meanwhile.
pub fn resume(pid: Pid, until: Until, signal: i32) {
    let request = match until {
        Until::Event => libc::PTRACE_CONT,
        Until::Exit => libc::PTRACE_SYSCALL,
        Until::NextInstruction => libc::PTRACE_SINGLESTEP,
    };
    let nothing: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: the requests take no address and a signal number; they touch no memory of this process.
    unsafe { libc::ptrace(request, pid.as_raw(), nothing, signal as libc::c_long) };
}
