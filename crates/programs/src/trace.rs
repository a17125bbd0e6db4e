//! Runs a program under ptrace, with all processes that it starts, and counts their system calls. At the end of each
//! process it reads the memory that it has used, and from the object how many blocks it has allocated.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use course::patience::{self, Patience};
use course::process::{Group, Limits};
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::Serialize;

use crate::interrupt;
use crate::object::Object;

/// What the processes of one run have done.
#[derive(Debug, Default)]
pub struct Trace {
    /// The number of system calls of all processes, by name.
    pub calls: BTreeMap<&'static str, u64>,
    /// In the order in which they ended.
    pub processes: Vec<Process>,
    /// How the first process ended; `None` if it was stopped at the limit.
    pub end: Option<ExitStatus>,
}

/// A process, as it was when it ended.
#[derive(Debug, Clone, Serialize)]
pub struct Process {
    pub name: String,
    /// The signal that killed it.
    pub signal: Option<String>,
    /// The highest number of resident bytes.
    pub peak: u64,
    /// Resident bytes of anonymous memory at the end.
    pub last: u64,
    /// What it has allocated from the object; `None` if the object is not in its memory.
    pub blocks: Option<Blocks>,
}

/// A number of blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Blocks {
    pub all: u64,
    /// Those that are not aligned as C requires.
    pub misaligned: u64,
}

/// # Errors
/// Returns an error if the program cannot be traced.
pub fn trace(mut command: Command, object: &Object, limits: Limits) -> Result<Trace> {
    ensure!(
        env::var_os("JUDGE_NO_PTRACE").is_none(),
        "ptrace is not permitted"
    );
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let trace_me = || Ok(ptrace::traceme()?);
    // SAFETY: between fork and exec the closure makes one system call and does not allocate.
    unsafe { command.pre_exec(trace_me) };
    let mut group = Group::spawn(&mut command).context("ptrace is not permitted")?;
    let leader = group
        .killer()
        .leader()
        .context("the program has no process")?;
    interrupt::started(group.killer());
    let limits = patience::Limits {
        processor: limits.time,
        time: limits.time * 4,
    };
    let patience = Patience::begin(group.killer(), limits);
    let mut tracer = Tracer {
        leader,
        object,
        seen: BTreeSet::new(),
        trace: Trace::default(),
    };
    tracer.follow()?;
    let status = group.wait()?;
    interrupt::check()?;
    tracer.trace.end = (!patience.is_exceeded()).then_some(status);
    Ok(tracer.trace)
}

struct Tracer<'a> {
    leader: Pid,
    object: &'a Object,
    /// The threads that have stopped once.
    seen: BTreeSet<Pid>,
    trace: Trace,
}

impl Tracer<'_> {
    /// Follows all processes until the first one has ended. That stays a zombie, to be reaped by its group.
    fn follow(&mut self) -> Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEEXIT;
        loop {
            let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::__WALL;
            let status = waitid(Id::All, flags | WaitPidFlag::WNOWAIT)?;
            let Some(thread) = status.pid() else { continue };
            let signal = match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    if thread == self.leader {
                        return Ok(());
                    }
                    // Only now is it reaped, and its number may be used again.
                    waitid(Id::Pid(thread), flags)?;
                    self.seen.remove(&thread);
                    continue;
                }
                // The first stop of the leader is that of execve, the first of another thread a SIGSTOP.
                _ if self.seen.insert(thread) => {
                    if thread == self.leader {
                        ptrace::setoptions(thread, options).context("ptrace is not permitted")?;
                    }
                    None
                }
                WaitStatus::PtraceSyscall(_) => {
                    self.count_call(thread);
                    None
                }
                WaitStatus::PtraceEvent(_, _, event) if event != 0 => {
                    if event == Event::PTRACE_EVENT_EXIT as i32 {
                        self.end_of(thread);
                    }
                    None
                }
                WaitStatus::PtraceEvent(_, signal, _) | WaitStatus::Stopped(_, signal) => {
                    Some(signal)
                }
                _ => None,
            };
            // ESRCH: it was killed. The next wait reports that.
            let _ = ptrace::syscall(thread, signal);
        }
    }

    /// Counts the call that a stopped thread is entering.
    fn count_call(&mut self, thread: Pid) {
        let Ok(info) = ptrace::syscall_info(thread) else {
            return;
        };
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: `op` says that the kernel has filled in `entry`.
            let entry = unsafe { info.u.entry };
            *self.trace.calls.entry(name(entry.nr as i64)).or_default() += 1;
        }
    }

    /// Records a process whose first thread is about to end. Its memory is still there.
    fn end_of(&mut self, thread: Pid) {
        let folder = format!("/proc/{thread}");
        let read = |file: &str| fs::read_to_string(format!("{folder}/{file}")).unwrap_or_default();
        let status = read("status");
        if number_after(&status, "Tgid:") != Some(thread.as_raw() as u64) {
            return;
        }
        let wait_status = ptrace::getevent(thread).unwrap_or(0) as i32;
        let signal = libc::WIFSIGNALED(wait_status).then(|| libc::WTERMSIG(wait_status));
        self.trace.processes.push(Process {
            name: read("comm").trim_end().to_owned(),
            signal: signal.map(signal_name),
            peak: number_after(&status, "VmHWM:").unwrap_or(0) << 10,
            last: number_after(&read("smaps_rollup"), "Anonymous:").unwrap_or(0) << 10,
            blocks: self.blocks(&folder, &read("maps")),
        });
    }

    /// Reads the counters of the object in a process.
    fn blocks(&self, folder: &str, maps: &str) -> Option<Blocks> {
        let counters = start_of(maps, &self.object.path)? + self.object.counters;
        let memory = File::open(format!("{folder}/mem")).ok()?;
        let read = |address| {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, address).ok()?;
            Some(u64::from_ne_bytes(word))
        };
        Some(Blocks {
            all: read(counters)?,
            misaligned: read(counters + 8)?,
        })
    }
}

/// Returns the name of a signal, such as `SIGSEGV`.
pub fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or(format!("signal {signal}"), |signal| signal.to_string())
}

/// Returns the first address of a file in /proc/PID/maps.
fn start_of(maps: &str, path: &Path) -> Option<u64> {
    let path = path.to_string_lossy();
    let line = maps.lines().find(|line| line.ends_with(&*path))?;
    u64::from_str_radix(line.split_once('-')?.0, 16).ok()
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The name of the calls that are not shown one by one.
pub const OTHER: &str = "other";

/// Returns the name of a system call that malloc makes, or `other`.
fn name(number: i64) -> &'static str {
    match number {
        libc::SYS_brk => "brk",
        libc::SYS_mmap => "mmap",
        libc::SYS_munmap => "munmap",
        libc::SYS_mremap => "mremap",
        libc::SYS_mprotect => "mprotect",
        libc::SYS_madvise => "madvise",
        libc::SYS_futex => "futex",
        _ => OTHER,
    }
}
