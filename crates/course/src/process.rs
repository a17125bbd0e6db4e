//! Runs other programs with limits, and kills what they leave running.
//!
//! Each program starts as the leader of a process group and gets SIGKILL when its parent dies. A group is killed
//! *before* its leader is reaped: until then the kernel cannot give the leader's process id to another process.
//!
//! Because `PR_SET_PDEATHSIG` follows the *thread* that forked, a thread that starts a program must not end before it.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, process};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpid, getppid};

/// What a program may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    /// In bytes, for each stream.
    pub output: usize,
}

impl Limits {
    /// Limits the time, and the output to 1 MiB.
    pub const fn time(time: Duration) -> Limits {
        Limits {
            time,
            output: 1 << 20,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(ExitStatus),
    /// It was killed at the time limit.
    TimeLimit,
    /// It was killed because it printed too much.
    OutputLimit,
}

/// The result of a program that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    pub end: End,
    /// What it printed, up to the limit. Invalid UTF-8 is replaced.
    pub stdout: String,
    /// Empty if both streams were merged.
    pub stderr: String,
    pub limits: Limits,
}

impl Ran {
    pub fn success(&self) -> bool {
        matches!(self.end, End::Exited(status) if status.success())
    }

    /// The exit status; `None` if a signal or a limit ended the program.
    pub fn code(&self) -> Option<i32> {
        match self.end {
            End::Exited(status) => status.code(),
            End::TimeLimit | End::OutputLimit => None,
        }
    }

    /// Describes the end: "exited with status 1", "was killed by SIGSEGV", "did not end within 10 seconds".
    pub fn describe(&self) -> String {
        match self.end {
            End::Exited(status) => match status.signal() {
                Some(signal) => {
                    let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                    format!("was killed by {name}")
                }
                None => format!("exited with status {}", status.code().unwrap_or(0)),
            },
            End::TimeLimit => format!("did not end within {} seconds", self.limits.time.as_secs()),
            End::OutputLimit => format!("printed more than {} bytes", self.limits.output),
        }
    }
}

/// Runs the program, with an empty standard input, to its end or to a limit, and keeps its output. Then kills every
/// process that it has started, even one that has left the process group.
///
/// # Errors
/// Returns an error if the program cannot be started.
pub fn run(command: &mut Command, limits: Limits) -> io::Result<Ran> {
    run_with(command, limits, |_| {})
}

/// Like [`run`], and calls `started` with a handle with which another thread can end the program early.
///
/// # Errors
/// Returns an error if the program cannot be started.
pub fn run_with(
    command: &mut Command,
    limits: Limits,
    started: impl FnOnce(Killer),
) -> io::Result<Ran> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let marker = mark(command);
    let mut group = Group::spawn(command)?;
    started(group.killer());
    let streams = [
        group.take_stdout().map(|pipe| Box::new(pipe) as Source),
        group.take_stderr().map(|pipe| Box::new(pipe) as Source),
    ];
    finish(group, streams, limits, &marker)
}

/// Like [`run`], with both streams in one, in the order in which they were written.
///
/// # Errors
/// Returns an error if the program cannot be started.
pub fn run_merged(command: &mut Command, limits: Limits) -> io::Result<Ran> {
    run_merged_with(command, limits, |_| {})
}

/// Like [`run_with`], with both streams in one.
///
/// # Errors
/// Returns an error if the program cannot be started.
pub fn run_merged_with(
    command: &mut Command,
    limits: Limits,
    started: impl FnOnce(Killer),
) -> io::Result<Ran> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null());
    command.stdout(writer.try_clone()?).stderr(writer);
    let marker = mark(command);
    let group = Group::spawn(command);
    // The command holds this process's ends of the pipe; they must close for the pipe to reach its end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let group = group?;
    started(group.killer());
    let merged: [Option<Source>; 2] = [Some(Box::new(reader) as Source), None];
    finish(group, merged, limits, &marker)
}

type Source = Box<dyn Read + Send>;

fn finish(
    mut group: Group,
    sources: [Option<Source>; 2],
    limits: Limits,
    marker: &str,
) -> io::Result<Ran> {
    let (sender, news) = mpsc::channel();
    let [stdout, stderr] = sources.map(|source| {
        let collected = Arc::new(Mutex::new(Vec::new()));
        if let Some(source) = source {
            let (bytes, sender) = (Arc::clone(&collected), sender.clone());
            thread::spawn(move || collect(source, limits.output, &bytes, &sender));
        }
        collected
    });
    drop(sender);
    let deadline = Instant::now() + limits.time;
    let end = loop {
        match news.recv_timeout(POLL) {
            Ok(Stream::Full) => break End::OutputLimit,
            // All streams are closed: only the exit is left to wait for.
            Err(mpsc::RecvTimeoutError::Disconnected) => thread::sleep(POLL),
            Ok(Stream::Closed) | Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) = group.try_wait()? {
            break End::Exited(status);
        }
        if Instant::now() >= deadline {
            break End::TimeLimit;
        }
    };
    drop(group);
    kill_marked(marker);
    let end = match drain(&news) {
        true if matches!(end, End::Exited(_)) => End::OutputLimit,
        _ => end,
    };
    Ok(Ran {
        end,
        stdout: text(&stdout),
        stderr: text(&stderr),
        limits,
    })
}

/// The interval at which the end of a program is polled.
const POLL: Duration = Duration::from_millis(2);

/// How long to wait for the rest of the output after every writer was killed. On a busy machine, the thread that reads may
/// have to wait for a processor.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// How long to wait for killed processes to disappear.
const KILL_TIME: Duration = Duration::from_secs(2);

enum Stream {
    Closed,
    Full,
}

fn collect(mut source: Source, limit: usize, bytes: &Mutex<Vec<u8>>, news: &Sender<Stream>) {
    let mut buffer = [0; 8192];
    loop {
        let count = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = limit - bytes.len();
        bytes.extend_from_slice(&buffer[..count.min(room)]);
        if count > room {
            let _ = news.send(Stream::Full);
            return;
        }
    }
    let _ = news.send(Stream::Closed);
}

/// Waits for the streams to close, and returns whether one of them is full.
fn drain(news: &Receiver<Stream>) -> bool {
    let deadline = Instant::now() + DRAIN_TIME;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        match news.recv_timeout(left) {
            Ok(Stream::Full) => return true,
            Ok(Stream::Closed) => {}
            Err(_) => return false,
        }
    }
    false
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Gives the program an environment variable that every process it starts inherits.
fn mark(command: &mut Command) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let marker = format!("WORKBOOK_RUN_{}_{}", process::id(), now.as_nanos());
    command.env(&marker, "1");
    marker
}

/// Kills every process that was started with the marker in its environment. `setsid` moves a process out of its group,
/// but does not change its environment.
fn kill_marked(marker: &str) {
    // A process in an uninterruptible wait dies only later.
    let deadline = Instant::now() + KILL_TIME;
    // A process that is being forked meanwhile is found by the next pass.
    while processes().any(|pid| has_marker(pid, marker) && kill(pid, Signal::SIGKILL).is_ok())
        && Instant::now() < deadline
    {
        thread::sleep(POLL);
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.map(Pid::from_raw).filter(|pid| *pid != getpid())
}

fn has_marker(pid: Pid, marker: &str) -> bool {
    // A zombie has no environment any more, so this ends.
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|variable| {
        variable
            .strip_prefix(marker.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"="))
    })
}

/// A running program and the group that it leads. Dropping it kills the group.
#[derive(Debug)]
pub struct Group {
    child: Child,
    leader: Killer,
}

/// Kills a group, from any thread. After the group's end it does nothing.
#[derive(Debug, Clone)]
pub struct Killer(Arc<Mutex<Option<Pid>>>);

impl Killer {
    /// Sends SIGKILL to every process of the group.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Sends SIGTERM to every process of the group, and SIGKILL if the leader has not ended, and been waited for by its
    /// owner, after `grace`.
    pub fn terminate(&self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + grace;
        while self.lock().is_some() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        self.kill();
    }

    /// The process id of the leader, until it has been waited for.
    pub fn leader(&self) -> Option<Pid> {
        *self.lock()
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = *self.lock() {
            let _ = killpg(leader, signal);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Starts the program.
    ///
    /// # Errors
    /// Returns an error if the program cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Group> {
        let parent = getpid();
        let end_with_parent = move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the call above; then the signal is never sent.
            match getppid() == parent {
                true => Ok(()),
                false => Err(Errno::ESRCH.into()),
            }
        };
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes two system calls and does not allocate.
        unsafe { command.pre_exec(end_with_parent) };
        let child = command.spawn()?;
        let leader = Pid::from_raw(child.id().cast_signed());
        Ok(Group {
            child,
            leader: Killer(Arc::new(Mutex::new(Some(leader)))),
        })
    }

    pub fn killer(&self) -> Killer {
        self.leader.clone()
    }

    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits until the program ends, kills what it has left in its group, and returns its status.
    ///
    /// # Errors
    /// Returns an error if the program cannot be waited for.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.wait_for_exit(WaitPidFlag::empty())?;
        self.reap()
    }

    /// Like [`Group::wait`], but returns `None` if the program still runs.
    ///
    /// # Errors
    /// Returns an error if the program cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self.wait_for_exit(WaitPidFlag::WNOHANG)? {
            true => self.reap().map(Some),
            false => Ok(None),
        }
    }

    /// Returns whether the program has ended. It stays a zombie, so its process id stays taken.
    fn wait_for_exit(&self, flags: WaitPidFlag) -> io::Result<bool> {
        let Some(leader) = *self.leader.lock() else {
            return Ok(true);
        };
        let flags = flags | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(leader), flags) {
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::StillAlive) => return Ok(false),
                other => return Ok(other.map(|_| true)?),
            }
        }
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let mut leader = self.leader.lock();
        if let Some(pid) = leader.take() {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.reap();
    }
}
