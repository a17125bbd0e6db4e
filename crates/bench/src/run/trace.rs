//! Counts a child's system calls between its marks, by ptrace: that needs no privilege, where the child is one's own.

use std::collections::BTreeMap;
use std::env;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::child::meter::{MARKS, Measure};
use crate::child::{Job, read};

/// System calls by their names.
pub type Calls = BTreeMap<String, u64>;

/// Runs the job in a child and watches all of its threads.
///
/// # Errors
/// If the child does not end well, or may not be traced.
pub fn count(job: &Job) -> Result<(Measure, Calls)> {
    ensure!(
        env::var_os("JUDGE_NO_PTRACE").is_none(),
        "ptrace is refused"
    );
    let job = Job {
        waits: true,
        ..job.clone()
    };
    let mut child = job
        .command(&[])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    let counted = watch(pid, &mut child);
    if counted.is_err() {
        // It may be waiting for its byte still, or be stopped.
        let _ = child.kill();
        let _ = child.wait();
    }
    let calls = counted?;
    let mut said = Vec::new();
    let mut stdout = child.stdout.take().context("a pipe was asked for")?;
    stdout.read_to_end(&mut said)?;
    Ok((read(&said)?, calls))
}

fn watch(pid: Pid, child: &mut Child) -> Result<Calls> {
    let options =
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).context("ptrace is refused")?;
    ptrace::interrupt(pid)?;
    let mut stdin = child.stdin.take().context("a pipe was asked for")?;
    stdin.write_all(&[0])?;
    let mut calls = Calls::new();
    let mut counting = false;
    loop {
        // This program has no other child meanwhile.
        let (stopped, signal) = match waitpid(None, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(task) => {
                if let Some((number, first)) = entered(task)? {
                    let mark = (number == libc::SYS_getpgid).then_some(first);
                    if mark == Some(MARKS.1) {
                        counting = false;
                    }
                    if counting {
                        *calls.entry(name(number)).or_default() += 1;
                    }
                    if mark == Some(MARKS.0) {
                        // The first pair of marks only warms up.
                        calls.clear();
                        counting = true;
                    }
                }
                (task, None)
            }
            // What ptrace itself stops for is no signal.
            WaitStatus::PtraceEvent(task, _, _) => (task, None),
            WaitStatus::Stopped(task, signal) => {
                (task, (signal != Signal::SIGTRAP).then_some(signal))
            }
            WaitStatus::Exited(task, status) if task == pid => {
                ensure!(status == 0, "exit status: {status}");
                return Ok(calls);
            }
            WaitStatus::Signaled(task, signal, _) if task == pid => bail!("signal: {signal}"),
            _ => continue,
        };
        match ptrace::syscall(stopped, signal) {
            // It was killed meanwhile; that is told next.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => bail!("ptrace: {error}"),
        }
    }
}

/// The call that a stopped task is about to make, and its first argument.
fn entered(task: Pid) -> Result<Option<(i64, i32)>> {
    let info = ptrace::syscall_info(task)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: `op` says that the kernel has filled in `entry`.
    let entry = unsafe { info.u.entry };
    Ok(Some((entry.nr as i64, entry.args[0] as i32)))
}

/// The calls that allocators make.
fn name(number: i64) -> String {
    let name = match number {
        libc::SYS_mmap => "mmap",
        libc::SYS_munmap => "munmap",
        libc::SYS_mremap => "mremap",
        libc::SYS_mprotect => "mprotect",
        libc::SYS_madvise => "madvise",
        libc::SYS_brk => "brk",
        libc::SYS_futex => "futex",
        libc::SYS_sched_yield => "sched_yield",
        _ => "other",
    };
    name.to_owned()
}
