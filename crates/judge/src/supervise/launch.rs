//! Starts a case's child: the test binary, for one test alone, limited before its first instruction.

use std::env;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{self, Pid, getpid, setsid};

use super::refuse::{self, Refusals, Reports};
use super::rlimits::Rlimits;
use super::strays;
use super::zygote::{self, Started};
use crate::child::zygote::Case;
use crate::injection::{INJECT, Run};
use crate::limits::Limits;
use crate::protocol::{self, Channel};
use crate::secret::{SECRET, Secret};

/// The descriptor of the events socket in the child: far above those that the learner's code opens and counts.
const EVENTS_FD: RawFd = 900;

/// A child that has been started.
pub struct Launched {
    pub pid: Pid,
    /// The value of `protocol::CHILD` in its environment, which marks it as a child of this judge.
    pub tag: String,
    pub secret: Secret,
    /// Where its events arrive. Does not block.
    pub events: UnixStream,
    /// Its standard output and error: a file in memory, because a pipe would stay open in the processes that it leaves.
    pub output: File,
    /// The calls on which the judge decides, if the kernel reports them.
    pub calls: Option<Calls>,
    /// Why a failure of the case may not be the answer's fault.
    pub shortage: Option<String>,
    /// The child, if it is traced and waits until it may begin.
    pub waiting: Option<Started>,
}

/// Where the kernel reports calls.
pub struct Calls {
    pub notifications: OwnedFd,
    /// Becomes readable when something is sent to `ending`.
    pub end: UnixDatagram,
    pub ending: UnixDatagram,
}

/// Why no child was started.
pub enum LaunchError {
    PtraceRefused,
    Other(String),
}

impl From<io::Error> for LaunchError {
    fn from(error: io::Error) -> Self {
        let error = not_started(&error);
        LaunchError::Other(format!("the case's process cannot be started: {error}"))
    }
}

/// The error, and what to do.
pub fn not_started(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EAGAIN) => "your user may not start more processes (ulimit -u), end some",
        Some(libc::ENOMEM) => "end other programs",
        Some(libc::EMFILE) => "raise the limit on open files (ulimit -n)",
        Some(libc::ETOOMANYREFS) => {
            "processes of your user have sent many descriptors that nobody has received, end them"
        }
        Some(libc::ENOENT) if !Path::new(THIS_PROGRAM).exists() => "/proc is not mounted here",
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}

/// This program, also if its file has been replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The grader whose cases run, if it is another program than this one: then no code of the answer runs in the judge.
const PROGRAM: &str = "JUDGE_PROGRAM";

impl From<Errno> for LaunchError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// The steps between fork and exec. `Command::spawn` returns only the error number of a step that failed, not the step.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Rlimits,
    Events,
    Session,
    ParentDeath,
    HugePages,
    Subreaper,
    Socket,
    Listener,
}

impl Step {
    const ALL: [Step; 8] = [
        Step::Rlimits,
        Step::Events,
        Step::Session,
        Step::ParentDeath,
        Step::HugePages,
        Step::Subreaper,
        Step::Socket,
        Step::Listener,
    ];

    fn call(self) -> &'static str {
        match self {
            Step::Rlimits => "setrlimit",
            Step::Events => "dup2",
            Step::Session => "setsid",
            Step::ParentDeath => "prctl(PR_SET_PDEATHSIG)",
            Step::HugePages => "prctl(PR_SET_THP_DISABLE)",
            Step::Subreaper => "prctl(PR_SET_CHILD_SUBREAPER)",
            Step::Socket => "fcntl",
            Step::Listener => "sendmsg",
        }
    }
}

/// Starts the test `test` of the grader as the child for `case`. A traced child waits until `Started::go`.
pub fn launch(
    test: &str,
    case: &str,
    limits: &Limits,
    run: Run,
    traced: bool,
) -> Result<Launched, LaunchError> {
    let rlimits = Rlimits::new(limits, traced)?;
    let shortage = rlimits.shortage.clone();
    if let Some(shortage) = shortage.as_ref().filter(|_| !rlimits.startable()) {
        return Err(LaunchError::Other(shortage.clone()));
    }
    let secret = Secret::new()?;
    let channel = Channel {
        fd: EVENTS_FD.min(rlimits.files as RawFd - 1),
    };
    let output = File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?);
    let (events, events_of_child) = UnixStream::pair()?;
    events.set_nonblocking(true)?;
    events_of_child.set_nonblocking(true)?;
    let (calls, calls_of_child) = UnixDatagram::pair()?;
    let (end, ending) = UnixDatagram::pair()?;

    let tag = channel.to_variable(&String::from_utf8_lossy(&Secret::new()?.nonce()), case);
    let ends = Ends {
        events: events_of_child.into(),
        output: output.try_clone()?,
        calls: calls_of_child.into(),
    };
    let injection = run.to_variable();
    let (pid, waiting) = match traced {
        true => {
            let case = Case {
                test,
                child: &tag,
                injection: &injection,
                events: channel.fd,
                secret,
            };
            let started = zygote::start(&case, &ends, &rlimits)?;
            (started.pid, Some(started))
        }
        false => {
            let mut command = command(test, &tag, &injection, traced);
            command.env(SECRET, secret.to_variable());
            (start_untraced(command, ends, channel.fd, rlimits)?, None)
        }
    };
    let calls = refuse::receive(&calls).map(|notifications| Calls {
        notifications,
        end,
        ending,
    });
    Ok(Launched {
        pid,
        tag,
        secret,
        events,
        output,
        calls,
        shortage,
        waiting,
    })
}

/// The child's ends of what connects it with the judge.
pub struct Ends {
    pub events: OwnedFd,
    pub output: File,
    /// Through which it sends the descriptor on which the judge is notified.
    pub calls: OwnedFd,
}

/// Starts `command`, an untraced case.
fn start_untraced(
    mut command: Command,
    ends: Ends,
    events: RawFd,
    rlimits: Rlimits,
) -> Result<Pid, LaunchError> {
    strays::adopt_orphans();
    let refusals = Refusals::new()?;
    let reports = Reports::new(getpid(), false)?;
    command
        .stdout(ends.output.try_clone()?)
        .stderr(ends.output.try_clone()?);
    let before_exec = move || {
        let at = |step| move |error| (step, error);
        refusals.install();
        // Before the limit on open files, which also limits what may be sent.
        let sent = reports.install(ends.calls.as_raw_fd());
        sent.map_err(at(Step::Listener))?;
        // Before dup2, which fails at or above the limit on open files.
        rlimits.apply(None).map_err(at(Step::Rlimits))?;
        isolate(rlimits.files)?;
        // SAFETY: the socket is open, and nothing else of this process, which is about to exec, uses the descriptor
        // `events`.
        let moved = unsafe { libc::dup2(ends.events.as_raw_fd(), events) };
        Errno::result(moved).map_err(at(Step::Events))?;
        // Orphans of the case then become children of its first process, where they are found.
        prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(at(Step::Subreaper))?;
        Ok(())
    };
    let mut roots = strays::roots();
    let child = spawn(command, before_exec)?;
    roots.insert(child.id() as i32);
    Ok(Pid::from_raw(child.id() as i32)) // waited for by its process id, with all that it starts
}

/// The command that runs the test `test` of the grader alone, with these values of `CHILD` and `INJECT`.
pub fn command(test: &str, child: &str, injection: &str, traced: bool) -> Command {
    let program = env::var_os(PROGRAM).unwrap_or_else(|| THIS_PROGRAM.into());
    let mut command = Command::new(program);
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .arg("--include-ignored")
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null());
    protocol::hide_from(&mut command);
    command.env(protocol::CHILD, child).env(INJECT, injection);
    // With TERM, libtest reads the description of the terminal.
    for variable in [
        "LD_PRELOAD",
        "RUST_BACKTRACE",
        "RUST_TEST_TIME_UNIT",
        "TERM",
    ] {
        command.env_remove(variable);
    }
    if traced {
        command.env(protocol::TRACED, "1");
    }
    command
}

/// Spawns `command`. `before_exec` runs in the child before exec, and makes only system calls.
pub fn spawn(
    mut command: Command,
    before_exec: impl Fn() -> Result<(), (Step, Errno)> + Send + Sync + 'static,
) -> Result<Child, LaunchError> {
    let (mut failed, failing) = io::pipe()?;
    let before_exec = move || {
        before_exec().map_err(|(step, error)| {
            let _ = unistd::write(&failing, &[step as u8]);
            io::Error::from(error)
        })
    };
    // SAFETY: between fork and exec the closure only makes system calls: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(before_exec) };
    // An ignored SIGCHLD is inherited, and then neither the judge nor the case can wait for its children.
    // SAFETY: the default action has no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let spawned = command.spawn();
    drop(command); // with this process's end of the pipe, so that the read below ends
    spawned.map_err(|error| launch_error(error, &mut failed))
}

/// Separates this process, which is about to exec, from the judge. Makes only system calls. `files` is the limit on open
/// files.
pub fn isolate(files: u64) -> Result<(), (Step, Errno)> {
    let at = |step| move |error| (step, error);
    close_on_exec(files);
    // In its own session the case can neither join the judge's process group nor use its terminal.
    setsid().map_err(at(Step::Session))?;
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong).map_err(at(Step::ParentDeath))?;
    // Huge pages would make residency depend on a setting of the machine. The flag is inherited.
    prctl(libc::PR_SET_THP_DISABLE, 1).map_err(at(Step::HugePages))?;
    for capability in CAPABILITIES {
        // Fails for users other than root, who do not have them.
        let _ = prctl(libc::PR_CAPBSET_DROP, capability);
    }
    Ok(())
}

/// What root's cases lose: with these they could read and write the judge's memory, and raise their limits.
const CAPABILITIES: [libc::c_ulong; 4] = [
    19, // CAP_SYS_PTRACE
    21, // CAP_SYS_ADMIN
    24, // CAP_SYS_RESOURCE
    38, // CAP_PERFMON
];

/// Keeps the descriptors of this process, among them the report, from the case. Makes only system calls.
fn close_on_exec(files: u64) {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes numbers, and closes nothing before exec.
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if closed == 0 {
        return;
    }
    // Before Linux 5.11.
    for fd in FIRST as RawFd..files as RawFd {
        // SAFETY: the call takes numbers. It fails for a descriptor that is not open.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Explains a failed spawn. The child has sent the step that failed, unless fork or exec failed.
fn launch_error(error: io::Error, failed: &mut PipeReader) -> LaunchError {
    let mut step = [0];
    let step = match failed.read(&mut step) {
        Ok(1) => Step::ALL.into_iter().find(|known| *known as u8 == step[0]),
        _ => None,
    };
    match step {
        None => error.into(),
        Some(step) => LaunchError::Other(format!(
            "the case's process cannot be started: {}: {error}",
            step.call()
        )),
    }
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<(), Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take a number and touch no memory of this process.
    let result = unsafe { libc::prctl(option, value, zero, zero, zero) };
    Errno::result(result).map(drop)
}

/// Whether the environment rules out tracing.
pub fn tracing_forbidden() -> bool {
    env::var_os("JUDGE_NO_PTRACE").is_some()
}
