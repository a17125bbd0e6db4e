//! Decides on the calls of a case that reach beyond it: signals to other processes, how these are scheduled, and objects that
//! would outlive it.
//!
//! The kernel stops such a call and reports it (seccomp_unotify(2)). A call that is let through is executed by the case.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, SysconfVar, geteuid, getpid, sysconf};

use super::family;
use super::objects::Objects;
use super::shared::Shared;
use super::window::Window;
use crate::limits::{LIBTEST, Stop};
use crate::{format, procfs};

/// The longest path that is read.
const PATH: usize = libc::PATH_MAX as usize;

/// A case whose calls are reported.
pub struct Notified<'a> {
    pub root: Pid,
    /// The thread that traces it, if it is traced.
    pub judge: Pid,
    pub shared: &'a Shared,
    pub objects: &'a Objects,
    pub window: &'a Window,
    /// The number of tasks that it may have.
    pub tasks: usize,
}

/// What becomes of a call.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The case executes it.
    Execute,
    Fail(Errno),
    Return(i64),
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    Task(i32),
    Group(i32),
    /// Every process that the user may signal.
    All,
    /// The caller's own group: the session of a case is its own.
    OwnGroup,
}

impl Notified<'_> {
    /// Answers the calls reported on `calls` until something is sent to `done`, the case is stopped, or no process of it
    /// is left. A call that is not answered blocks until its process is killed, so nothing forks any more.
    pub fn answer(&self, calls: &OwnedFd, done: BorrowedFd) {
        loop {
            let mut ready = [
                PollFd::new(calls.as_fd(), PollFlags::POLLIN),
                PollFd::new(done, PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            let events = |index: usize| ready[index].revents().unwrap_or(PollFlags::empty());
            if !events(1).is_empty() {
                return;
            }
            if !events(0).contains(PollFlags::POLLIN) {
                return; // no process has the filter any more
            }
            if let Ok(call) = receive(calls.as_raw_fd()) {
                let answer = self.decide(&call);
                if self.shared.stopped().is_some() {
                    return;
                }
                reply(calls.as_raw_fd(), call.id, &answer);
            }
        }
    }

    fn decide(&self, call: &libc::seccomp_notif) -> Answer {
        let number = call.data.nr as libc::c_long;
        let [a, b, c, d, ..] = call.data.args;
        let caller = call.pid as i32;
        match self.injected(caller, number) {
            // The kernel decides what follows: with O_EXCL the call fails.
            Some(Errno::EEXIST) => self.forestall(caller, number, [a, b]),
            Some(errno) => {
                self.window.has_injected();
                return Answer::Fail(errno);
            }
            None => {}
        }
        match number {
            libc::SYS_kill => {
                let target = match a as i32 {
                    -1 => Target::All,
                    0 => Target::OwnGroup,
                    group if group < 0 => Target::Group(group.wrapping_neg()),
                    process => Target::Task(process),
                };
                self.signal("kill", a as i32, target, b as i32)
            }
            libc::SYS_tkill => self.signal("tkill", a as i32, Target::Task(a as i32), b as i32),
            libc::SYS_tgkill => self.signal("tgkill", a as i32, Target::Task(b as i32), c as i32),
            libc::SYS_rt_sigqueueinfo => {
                self.signal("sigqueue", a as i32, Target::Task(a as i32), b as i32)
            }
            libc::SYS_rt_tgsigqueueinfo => self.signal(
                "rt_tgsigqueueinfo",
                a as i32,
                Target::Task(b as i32),
                c as i32,
            ),
            libc::SYS_pidfd_send_signal => match process_behind(caller, a as i32) {
                Some(pid) => self.signal("pidfd_send_signal", pid, Target::Task(pid), b as i32),
                None => Answer::Execute,
            },
            libc::SYS_sched_setaffinity
            | libc::SYS_sched_setscheduler
            | libc::SYS_sched_setparam
            | libc::SYS_sched_setattr => match self.is_own(a as i32) {
                true => Answer::Execute,
                false => Answer::Fail(Errno::EPERM),
            },
            libc::SYS_shmget | libc::SYS_semget | libc::SYS_msgget => {
                if procfs::user_of(caller) != Some(geteuid().as_raw()) {
                    return Answer::Execute; // the object must belong to the caller's user
                }
                match self.objects.get(number, [a, b, c], self.is_first(caller)) {
                    Ok(id) => Answer::Return(id.into()),
                    Err(error) => Answer::Fail(error),
                }
            }
            libc::SYS_clone => self.starts_task(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_fork | libc::SYS_vfork => self.starts_task(),
            libc::SYS_mq_open => {
                if let Some(name) = read_text(caller, a) {
                    let by_first = self.is_first(caller);
                    self.objects.may_create_queue(&name, by_first);
                }
                Answer::Execute
            }
            libc::SYS_openat | libc::SYS_openat2 | libc::SYS_mknodat | libc::SYS_mkdirat => {
                self.creates(caller, a as i32, b)
            }
            libc::SYS_symlinkat => self.creates(caller, b as i32, c),
            libc::SYS_linkat | libc::SYS_renameat | libc::SYS_renameat2 => {
                self.creates(caller, c as i32, d)
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open | libc::SYS_creat | libc::SYS_mknod | libc::SYS_mkdir => {
                self.creates(caller, libc::AT_FDCWD, a)
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link | libc::SYS_rename | libc::SYS_symlink => {
                self.creates(caller, libc::AT_FDCWD, b)
            }
            _ => Answer::Execute,
        }
    }

    /// The error with which the plan of this run makes the call fail.
    fn injected(&self, caller: i32, number: libc::c_long) -> Option<Errno> {
        if !self.window.contains(caller) {
            return None;
        }
        self.window.count(name(number)?)
    }

    /// Creates the file that the case is about to open with O_CREAT, or the memory that it is about to create with shmget.
    fn forestall(&self, caller: i32, number: libc::c_long, [a, b]: [u64; 2]) {
        if number == libc::SYS_shmget {
            if self.objects.forestall_memory(a as i32, b) {
                self.window.has_injected();
            }
            return;
        }
        let (folder, address) = match number {
            libc::SYS_openat | libc::SYS_openat2 => (a as i32, b),
            _ => (libc::AT_FDCWD, a),
        };
        let path = path_in(caller, folder, address);
        if path.is_some_and(|path| self.objects.forestall(&path)) {
            self.window.has_injected();
        }
    }

    /// Whether `caller` is a thread of the case's first process.
    fn is_first(&self, caller: i32) -> bool {
        procfs::process_of(caller) == Some(self.root.as_raw())
    }

    /// Handles a call that creates a process or a thread, which is reported only without a tracer.
    fn starts_task(&self) -> Answer {
        if family(self.root.as_raw()).len() > self.tasks {
            self.shared.stop(Stop::Tasks(self.tasks - LIBTEST));
        }
        Answer::Execute
    }

    fn signal(&self, call: &str, pid: i32, target: Target, signal: i32) -> Answer {
        if self.reaches(target) {
            return Answer::Execute;
        }
        let call = format!("{call}({pid}, {})", format::signal(signal));
        let parent = procfs::parent_of(self.root.as_raw());
        let is_judge = pid == getpid().as_raw() || parent == Some(pid);
        let sentence = explain(&call, pid, target, is_judge);
        self.shared.stop(Stop::Signal(sentence));
        Answer::Fail(Errno::EPERM)
    }

    /// Whether `target` is part of the case. A process that does not exist or has ended is: the call then fails, or has
    /// no effect.
    fn reaches(&self, target: Target) -> bool {
        match target {
            Target::OwnGroup => true,
            Target::All => false,
            Target::Task(tid) => self.is_own(tid),
            Target::Group(group) => {
                let mut members = procfs::processes().into_iter();
                members.all(|pid| procfs::group_of(pid) != Some(group) || self.is_own(pid))
            }
        }
    }

    fn is_own(&self, tid: i32) -> bool {
        let descends = |pid| procfs::descends_from(pid, self.root.as_raw());
        self.shared.live().contains_key(&tid)
            || procfs::has_ended(tid)
            || procfs::process_of(tid).is_some_and(descends)
            || procfs::traced_by(tid) == Some(self.judge.as_raw())
    }

    /// Handles a call that may create a file with the path at `address`, relative to `folder`.
    fn creates(&self, caller: i32, folder: RawFd, address: u64) -> Answer {
        if let Some(path) = path_in(caller, folder, address) {
            self.objects.may_create(&path, self.is_first(caller));
        }
        Answer::Execute
    }
}

/// The path at `address`, relative to `folder`.
fn path_in(caller: i32, folder: RawFd, address: u64) -> Option<PathBuf> {
    let base = match folder {
        libc::AT_FDCWD => format!("/proc/{caller}/cwd"),
        fd => format!("/proc/{caller}/fd/{fd}"),
    };
    let path = read_text(caller, address)?;
    // An absolute path replaces the base.
    let base = fs::read_link(base).unwrap_or_default();
    Some(base.join(OsStr::from_bytes(&path)))
}

/// `is_judge`: `pid` is this process or the one that has forked the case.
fn explain(call: &str, pid: i32, target: Target, is_judge: bool) -> String {
    match target {
        Target::All => format!(
            "Your code called {call}, which signals every process of your user. The judge refused the call. If the -1 came from fork, check its result before you use it."
        ),
        Target::Group(group) => format!(
            "Your code called {call}, but process group {group} has processes that your code did not start. The judge refused the call."
        ),
        _ => {
            let whose = match is_judge {
                true => format!("process {pid} is the judge"),
                false => format!("your code did not start process {pid}"),
            };
            format!(
                "Your code called {call}, but {whose}. The judge refused the call. Signal only processes that fork returned."
            )
        }
    }
}

/// The manual page of a call that may be made to fail.
fn name(number: libc::c_long) -> Option<&'static str> {
    Some(match number {
        libc::SYS_openat | libc::SYS_openat2 => "open",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open | libc::SYS_creat => "open",
        libc::SYS_kill => "kill",
        libc::SYS_shmget => "shmget",
        libc::SYS_semget => "semget",
        libc::SYS_msgget => "msgget",
        libc::SYS_mq_open => "mq_open",
        _ => return None,
    })
}

/// The process of a pidfd, or of a descriptor of its folder in /proc.
fn process_behind(caller: i32, fd: RawFd) -> Option<i32> {
    let about = fs::read_to_string(format!("/proc/{caller}/fdinfo/{fd}")).ok()?;
    let pid = about.lines().find_map(|line| line.strip_prefix("Pid:"));
    if let Some(pid) = pid {
        return pid.trim().parse().ok();
    }
    let path = fs::read_link(format!("/proc/{caller}/fd/{fd}")).ok()?;
    path.strip_prefix("/proc").ok()?.to_str()?.parse().ok()
}

/// The C string at `address` in the memory of `caller`, such as a path.
fn read_text(caller: i32, address: u64) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{caller}/mem")).ok()?;
    let mut bytes = vec![0; PATH];
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()? as usize;
    // The page after the path may not be mapped.
    let first = PATH.min(page - address as usize % page);
    let mut read = memory.read_at(&mut bytes[..first], address).ok()?;
    if !bytes[..read].contains(&0) {
        let rest = memory.read_at(&mut bytes[read..], address + read as u64);
        read += rest.unwrap_or(0);
    }
    let end = bytes[..read].iter().position(|byte| *byte == 0)?;
    bytes.truncate(end);
    Some(bytes)
}

fn receive(calls: RawFd) -> io::Result<libc::seccomp_notif> {
    // SAFETY: the structure consists of numbers. The kernel wants it zeroed.
    let mut call: libc::seccomp_notif = unsafe { zeroed() };
    // SAFETY: the request fills in one such structure.
    let result = unsafe { libc::ioctl(calls, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    Errno::result(result)?;
    Ok(call)
}

/// Answers the call. It may have been interrupted, or its process killed; then there is nothing to do.
fn reply(calls: RawFd, id: u64, answer: &Answer) {
    let (val, error, flags) = match answer {
        Answer::Execute => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Fail(errno) => (0, -(*errno as i32), 0),
        Answer::Return(value) => (*value, 0, 0),
    };
    let response = libc::seccomp_notif_resp {
        id,
        val,
        error,
        flags,
    };
    // SAFETY: the request reads one such structure.
    unsafe { libc::ioctl(calls, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
}
