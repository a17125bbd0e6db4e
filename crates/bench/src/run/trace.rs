//! Counts a child's system calls between its two marks, with ptrace. Tracing one's own child needs no privilege.

use std::collections::BTreeMap;
use std::env;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use course::process::Group;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, alarm};

use crate::child::meter::{Measure, START_MARK, STOP_MARK};
use crate::child::{self, Job};

/// The number of calls, by the name of the system call.
pub type Calls = BTreeMap<&'static str, u64>;

/// Runs the job in a child and counts the calls of its main thread. Workloads with more threads are not traced.
///
/// # Errors
/// Returns an error if the child fails or cannot be traced.
pub fn count(job: &Job) -> Result<(Measure, Calls)> {
    ensure!(
        env::var_os("JUDGE_NO_PTRACE").is_none(),
        "ptrace is refused"
    );
    let mut command = job.command(&[])?;
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let trace_me = || {
        // An alarm outlives execve, and `watch` has no time limit.
        alarm::set(child::LIMITS.time.as_secs() as u32);
        Ok(ptrace::traceme()?)
    };
    // SAFETY: between fork and exec the closure makes two system calls and does not allocate.
    unsafe { command.pre_exec(trace_me) };
    let mut group = Group::spawn(&mut command).context("no traced child can be started")?;
    let calls = watch()?;
    let status = group.wait()?;
    ensure!(status.success(), "the traced child ended with {status}");
    let mut stdout = String::new();
    let mut pipe = group.take_stdout().context("the child has no pipe")?;
    pipe.read_to_string(&mut stdout)?;
    Ok((child::parse(&stdout)?, calls))
}

/// Follows the traced child until it has ended, and counts its calls. The child stays a zombie, to be reaped by its
/// group.
fn watch() -> Result<Calls> {
    let child = stopped_by_exec()?;
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(child, options).context("ptrace is refused")?;
    let mut counter = Counter::default();
    let mut signal = None;
    loop {
        match ptrace::syscall(child, signal) {
            // ESRCH: the child was killed. The wait below reports it.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("ptrace cannot continue the child"),
        }
        signal = match next_stop(Id::Pid(child))? {
            WaitStatus::PtraceSyscall(_) => {
                counter.count_call(child)?;
                None
            }
            WaitStatus::PtraceEvent(_, signal, _) => Some(signal),
            _ => return Ok(counter.calls),
        };
    }
}

/// Returns the child once it has executed its program. This process has no other child meanwhile.
fn stopped_by_exec() -> Result<Pid> {
    match next_stop(Id::All)? {
        WaitStatus::PtraceEvent(child, Signal::SIGTRAP, _) => Ok(child),
        other => bail!("the traced child did not stop at execve: {other:?}"),
    }
}

/// Waits for the next stop, or for the end, without consuming it: a stop lasts until the child is continued.
fn next_stop(id: Id) -> nix::Result<WaitStatus> {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(id, flags)
}

#[derive(Default)]
struct Counter {
    calls: Calls,
    /// Whether the child is between its two marks.
    counting: bool,
}

impl Counter {
    /// Counts the call that a stopped child is entering.
    fn count_call(&mut self, child: Pid) -> Result<()> {
        let info = ptrace::syscall_info(child)?;
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(());
        }
        // SAFETY: `op` says that the kernel has filled in `entry`.
        let entry = unsafe { info.u.entry };
        let number = entry.nr as i64;
        match (number, entry.args[0] as i32) {
            // A child makes two pairs of marks. The first pair is a warm-up, so its counts are dropped.
            (libc::SYS_getpgid, START_MARK) => {
                *self = Counter {
                    calls: Calls::new(),
                    counting: true,
                }
            }
            (libc::SYS_getpgid, STOP_MARK) => self.counting = false,
            _ if self.counting => *self.calls.entry(name(number)).or_default() += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Returns the name of a system call that allocators make, or `other`.
fn name(number: i64) -> &'static str {
    match number {
        libc::SYS_mmap => "mmap",
        libc::SYS_munmap => "munmap",
        libc::SYS_mremap => "mremap",
        libc::SYS_mprotect => "mprotect",
        libc::SYS_madvise => "madvise",
        libc::SYS_brk => "brk",
        libc::SYS_futex => "futex",
        libc::SYS_sched_yield => "sched_yield",
        _ => "other",
    }
}
