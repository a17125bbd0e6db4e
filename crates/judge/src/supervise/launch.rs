//! Starts a case's child: the same test binary, for one test alone, limited before its first instruction.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{env, mem};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::ptrace;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Pid, Uid, setpgid};

use crate::limits::Limits;
use crate::procfs;
use crate::protocol::{self, Channel};

/// The descriptor of the events pipe in the child: far above those that the learner's code opens and counts.
const EVENTS_FD: RawFd = 900;

/// A child that has been started.
pub struct Launched {
    pub pid: Pid,
    /// What makes it the child of this judge: the value of `protocol::CHILD` in its environment.
    pub tag: String,
    pub nonce: String,
    /// Where its events arrive. Does not block.
    pub events: PipeReader,
    /// Its standard output and error: a file in memory, because a pipe would stay open in the processes that it leaves.
    pub output: File,
}

/// Starts the test `test` of this binary as the child for `case`.
pub fn launch(test: &str, case: &str, limits: &Limits, traced: bool) -> io::Result<Launched> {
    let channel = Channel {
        nonce: nonce()?,
        fd: EVENTS_FD,
    };
    let output = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
    let (events, events_of_child) = io::pipe()?;
    fcntl(&events, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&events_of_child, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;

    let tag = channel.to_variable(case);
    let mut command = command(test, &tag, traced);
    command
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    let pipe = OwnedFd::from(events_of_child);
    let limits = *limits;
    let processes = processes_allowed(&limits, traced);
    // SAFETY: between fork and exec `prepare` only makes system calls: it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || prepare(pipe.as_raw_fd(), &limits, processes, traced));
    }
    let child = command.spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    mem::forget(child); // waited for by its process id, with all that it starts
    Ok(Launched {
        pid,
        tag,
        nonce: channel.nonce,
        events,
        output,
    })
}

fn command(test: &str, tag: &str, traced: bool) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .arg("--include-ignored")
        .env(protocol::CHILD, tag)
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null());
    for variable in ["LD_PRELOAD", "RUST_BACKTRACE", "RUST_TEST_TIME_UNIT"] {
        command.env_remove(variable);
    }
    if traced {
        command.env(protocol::TRACED, "1");
    }
    command
}

/// Runs in the child before exec, and makes only system calls.
fn prepare(pipe: i32, limits: &Limits, processes: Option<u64>, traced: bool) -> io::Result<()> {
    // SAFETY: `pipe` is open, and nothing else of this process, which is about to exec, uses the descriptor EVENTS_FD.
    if unsafe { libc::dup2(pipe, EVENTS_FD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    // Huge pages would make residency depend on a setting of the machine. The flag is inherited.
    prctl(libc::PR_SET_THP_DISABLE, 1)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_FSIZE, limits.file, limits.file)?;
    setrlimit(Resource::RLIMIT_DATA, limits.memory, limits.memory)?;
    setrlimit(Resource::RLIMIT_NOFILE, 1024, 1024)?;
    if let Some(processes) = processes {
        setrlimit(Resource::RLIMIT_NPROC, processes, processes)?;
    }
    if traced {
        ptrace::traceme()?;
    }
    Ok(())
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<(), Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take a number and touch no memory of this process.
    let result = unsafe { libc::prctl(option, value, zero, zero, zero) };
    Errno::result(result).map(drop)
}

/// The value for RLIMIT_NPROC, a second net under the tracer's count of tasks. The kernel counts all tasks of the user,
/// and exempts root.
fn processes_allowed(limits: &Limits, traced: bool) -> Option<u64> {
    if Uid::effective().is_root() {
        return None;
    }
    let spare = if traced { 4 } else { 1 };
    let own = procfs::tasks_of_user(Uid::effective().as_raw());
    Some(own + spare * limits.tasks as u64)
}

fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Whether the environment rules out tracing.
pub fn tracing_forbidden() -> bool {
    env::var_os("JUDGE_NO_PTRACE").is_some()
}
