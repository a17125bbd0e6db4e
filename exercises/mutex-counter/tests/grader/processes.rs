//! Forked processes that report to the case, and events between them.
//!
//! A wait for an event ends early if the event cannot happen any more: /proc tells when every other task of the case has
//! ended or waits, without a time limit, for another one.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{self, AssertUnwindSafe};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, SysconfVar, fork, getpid, gettid, sysconf};

/// How long a case waits for something that may still happen. Tasks that are ready to run get as much CPU time.
const SOON: Duration = Duration::from_secs(3);
/// The interval between two polls of all tasks of the case.
const LOOK: Duration = Duration::from_millis(20);
/// The number of polls in a row that find the same tasks in the same waits. After that, no event is expected any more.
const LOOKS: usize = 5;
/// How long a process may sleep or run to pass a lock that does not exclude it. One that is blocked never passes.
pub const TRIAL: Duration = Duration::from_millis(100);
/// As `TRIAL`, where a process is stopped at each place.
pub const SHORT_TRIAL: Duration = Duration::from_millis(10);
/// As `TRIAL`, for a lock that gives up after a while.
pub const LONG_TRIAL: Duration = Duration::from_millis(1500);

/// A forked process that runs one closure and reports its result.
pub struct Process {
    pub pid: Pid,
    report: PipeReader,
}

/// How a forked process ended.
pub enum End {
    Reported(String),
    /// It ended otherwise. The text is the predicate of a sentence.
    Died(String),
    /// It was killed by the case, because it could not end by itself.
    Stuck,
}

impl Process {
    /// Forks a process that reports what `f` returns, and exits.
    pub fn fork(f: impl FnOnce() -> String) -> Process {
        let (report, mut writer) = io::pipe().expect("a pipe");
        // SAFETY: the only other thread is libtest's main thread, which holds no lock while it waits for the case.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Process { pid: child, report },
            ForkResult::Child => {
                let text = match panic::catch_unwind(AssertUnwindSafe(f)) {
                    Ok(text) => format!("{RETURNED}{text}"),
                    Err(payload) => match judge::failed_check(&*payload) {
                        Some(sentence) => format!("{FAILED}{sentence}"),
                        None => {
                            let message = payload
                                .downcast_ref::<String>()
                                .map(String::as_str)
                                .or_else(|| payload.downcast_ref::<&str>().copied());
                            let first_line = message.and_then(|message| message.lines().next());
                            format!("panicked: {}", first_line.unwrap_or("(no message)"))
                        }
                    },
                };
                let _ = writer.write_all(text.as_bytes());
                exit_now()
            }
        }
    }

    /// Waits until the process has ended, or kills it if it cannot end by itself. A check that has failed in it fails the
    /// case.
    pub fn end(self) -> End {
        self.end_within(SOON)
    }

    /// As `end`, for a process that may take longer.
    pub fn end_within(mut self, limit: Duration) -> End {
        if !arrives(&self.report, limit) {
            self.kill();
            return End::Stuck;
        }
        let mut text = String::new();
        self.report
            .read_to_string(&mut text)
            .expect("a report is UTF-8");
        let status = reap(self.pid);
        if let Some(sentence) = text.strip_prefix(FAILED) {
            judge::fail(sentence.to_owned());
        }
        match (status, text.strip_prefix(RETURNED)) {
            (_, Some(report)) => End::Reported(report.to_owned()),
            (WaitStatus::Signaled(_, signal, _), None) => {
                End::Died(format!("was killed by {signal}"))
            }
            (WaitStatus::Exited(_, status), None) if text.is_empty() => {
                End::Died(format!("exited with status {status}"))
            }
            _ => End::Died(text),
        }
    }

    /// Kills the process and waits for it.
    pub fn kill(self) {
        self.make_a_zombie();
        reap(self.pid);
    }

    /// Kills the process, and does not wait for it. It has ended when this returns.
    pub fn make_a_zombie(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(self.pid), ended) == Err(Errno::EINTR) {}
    }
}

/// Begins a report of a closure that has returned.
const RETURNED: &str = "returned ";
/// Begins a report of a check that has failed, with which the case fails.
const FAILED: &str = "failed ";

/// From here on nothing that this process prints can be written, as on a full disk. Rust's `println!` and `eprintln!`
/// then panic.
pub fn without_output() {
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    for output in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: nothing owns the standard descriptors.
        unsafe { libc::dup2(full.as_raw_fd(), output) };
    }
}

/// Ends this process without running exit handlers.
pub fn exit_now() -> ! {
    exit_with(0)
}

/// As `exit_now`, with this exit status.
pub fn exit_with(status: i32) -> ! {
    // SAFETY: `_exit` takes any status.
    unsafe { libc::_exit(status) }
}

/// The number of descriptors that this process has open. `None` if it cannot open one more.
pub fn open_descriptors() -> Option<usize> {
    fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

/// Waits for a child. Its exit status is 0 if it has been waited for by other code.
pub fn reap(pid: Pid) -> WaitStatus {
    loop {
        match waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            Err(_) => return WaitStatus::Exited(pid, 0),
            Ok(status) => return status,
        }
    }
}

/// An event that one process sends and another waits for. Each `send` can be waited for once.
pub struct Event {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Event {
    pub fn new() -> Event {
        let (reader, writer) = io::pipe().expect("a pipe");
        Event { reader, writer }
    }

    pub fn send(&self) {
        (&self.writer)
            .write_all(b"!")
            .expect("this process keeps the reader open");
    }

    /// Sends the event from a signal handler.
    pub fn send_from_handler(writer: i32) {
        // SAFETY: `write` is async-signal-safe, and the byte outlives the call.
        unsafe { libc::write(writer, c"!".as_ptr().cast(), 1) };
    }

    /// The descriptor for `send_from_handler`.
    pub fn descriptor(&self) -> i32 {
        self.writer.as_raw_fd()
    }

    pub fn wait(&self) {
        (&self.reader)
            .read_exact(&mut [0])
            .expect("this process keeps the writer open");
    }

    /// Waits for the event. Returns false if it cannot happen any more.
    pub fn arrives(&self) -> bool {
        let arrived = arrives(&self.reader, SOON);
        if arrived {
            self.wait();
        }
        arrived
    }

    /// Whether the event has been sent.
    pub fn has_arrived(&self) -> bool {
        readable(&self.reader, Duration::ZERO)
    }

    /// Whether the event has been sent. It counts as waited for.
    pub fn take(&self) -> bool {
        let arrived = self.has_arrived();
        if arrived {
            self.wait();
        }
        arrived
    }

    /// Waits for the event until `process`, which would send it, is blocked, or has slept or run for `trial`.
    pub fn arrives_unless_blocked(&self, process: Pid, trial: Duration) -> bool {
        let begun = Instant::now();
        let used = run_time(process);
        let mut slept = Duration::ZERO;
        let mut blocked = 0;
        let step = Duration::from_millis(1);
        while !readable(&self.reader, step) {
            match state(process) {
                State::Blocked => blocked += 1,
                State::Sleeps => (slept, blocked) = (slept + step, 0),
                State::Runs => blocked = 0,
                State::Ended => break,
            }
            let ran = run_time(process).saturating_sub(used);
            if blocked == 2 || slept >= trial || ran >= trial || begun.elapsed() > SOON {
                break;
            }
        }
        let arrived = self.has_arrived();
        if arrived {
            self.wait();
        }
        arrived
    }
}

fn readable(pipe: &PipeReader, within: Duration) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(within).expect("a short time");
    poll(&mut fds, timeout) == Ok(1)
}

/// Waits until the pipe can be read or is closed. Returns false if that cannot happen any more, or not within `limit`.
fn arrives(pipe: &PipeReader, limit: Duration) -> bool {
    let begun = Instant::now();
    let used = run_time_of_tasks();
    let mut last = None;
    let mut unchanged = 0;
    let may_go_on = || {
        let runs = |tid: &i32| state_of_task(*tid).0 == State::Runs;
        let is_starved = || run_time_of_tasks().saturating_sub(used) < limit;
        begun.elapsed() < limit || tasks().iter().flatten().any(runs) && is_starved()
    };
    while unchanged < LOOKS && may_go_on() {
        if readable(pipe, LOOK) {
            return true;
        }
        let waits = waits();
        unchanged = match &waits {
            Some(_) if waits == last => unchanged + 1,
            _ => 0,
        };
        last = waits;
    }
    readable(pipe, Duration::ZERO)
}

/// The other tasks of this process and those of its descendants. `None` if /proc does not tell.
fn tasks() -> Option<Vec<i32>> {
    let mut tasks = Vec::new();
    let mut processes = vec![getpid().as_raw()];
    while let Some(process) = processes.pop() {
        for tid in threads(process) {
            let children = format!("/proc/{process}/task/{tid}/children");
            let children = fs::read_to_string(children).ok()?;
            processes.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
            // libtest's main thread sleeps until the case has ended.
            if tid != gettid().as_raw() && tid != getpid().as_raw() {
                tasks.push(tid);
            }
        }
    }
    Some(tasks)
}

/// What each of these tasks waits for. `None` if one of them may go on by itself, or if /proc does not tell.
fn waits() -> Option<Vec<String>> {
    let mut waits = Vec::new();
    for tid in tasks()? {
        match state_of_task(tid) {
            (State::Blocked, call) => waits.push(format!("{tid} {call}")),
            (State::Ended, _) => {}
            (State::Sleeps | State::Runs, _) => return None,
        }
    }
    Some(waits)
}

fn run_time_of_tasks() -> Duration {
    let tasks = tasks().unwrap_or_default();
    tasks
        .into_iter()
        .map(|tid| run_time(Pid::from_raw(tid)))
        .sum()
}

/// What a task or a process does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ended,
    /// Waits without a time limit for a lock, a pipe or a child.
    Blocked,
    /// Sleeps, and may wake up by itself.
    Sleeps,
    Runs,
}

/// The state of a process: `Blocked` only if all its threads are.
fn state(process: Pid) -> State {
    let states: Vec<_> = threads(process.as_raw())
        .into_iter()
        .map(|tid| state_of_task(tid).0)
        .collect();
    let order = [State::Runs, State::Sleeps, State::Blocked];
    let first = order.into_iter().find(|state| states.contains(state));
    first.unwrap_or(State::Ended)
}

/// The state of a task, with the call in which it waits.
fn state_of_task(tid: i32) -> (State, String) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{tid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    let letter = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    match letter {
        None | Some('Z' | 'X') => (State::Ended, String::new()),
        Some('S') => match read("syscall") {
            call if waits_without_limit(&call) => (State::Blocked, call),
            call => (State::Sleeps, call),
        },
        Some(_) => (State::Runs, String::new()),
    }
}

/// Whether a line of /proc/PID/syscall is a wait that only another task can end.
fn waits_without_limit(line: &str) -> bool {
    let mut fields = line.split_whitespace();
    let Some(Ok(call)) = fields.next().map(str::parse::<i64>) else {
        return false;
    };
    let arguments: Vec<u64> = fields
        .filter_map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16).ok())
        .collect();
    let argument = |index: usize| arguments.get(index).copied().unwrap_or_default();
    match call {
        libc::SYS_futex => {
            const FUTEX_LOCK_PI2: i32 = 13;
            let waits = [
                libc::FUTEX_WAIT,
                libc::FUTEX_WAIT_BITSET,
                libc::FUTEX_LOCK_PI,
                FUTEX_LOCK_PI2,
            ];
            waits.contains(&(argument(1) as i32 & libc::FUTEX_CMD_MASK)) && argument(3) == 0
        }
        libc::SYS_fcntl => [libc::F_SETLKW, libc::F_OFD_SETLKW].contains(&(argument(1) as i32)),
        libc::SYS_semtimedop => argument(3) == 0,
        libc::SYS_wait4 => argument(2) as i32 & libc::WNOHANG == 0,
        libc::SYS_waitid => argument(3) as i32 & libc::WNOHANG == 0,
        libc::SYS_flock | libc::SYS_semop | libc::SYS_read => true,
        _ => false,
    }
}

/// Waits until a process that is executed step by step waits for something. One that is stopped, or polls without a
/// pause, does not, so this returns after a while in any case.
pub fn until_it_waits(process: Pid) {
    let begun = Instant::now();
    let mut waits = 0;
    while waits < 2 && begun.elapsed() < TRIAL {
        sleep(Duration::from_millis(1));
        waits = match state(process) {
            State::Blocked | State::Sleeps => waits + 1,
            State::Runs | State::Ended => 0,
        };
    }
}

/// How long the task has run on a processor.
fn run_time(task: Pid) -> Duration {
    let read = |file: &str| fs::read_to_string(format!("/proc/{task}/{file}")).unwrap_or_default();
    let text = read("schedstat");
    let ran = text
        .split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok());
    if let Some(ran @ 1..) = ran {
        return Duration::from_nanos(ran);
    }
    // A kernel without CONFIG_SCHED_INFO counts ticks only. `utime` and `stime` are the fields 14 and 15; the second one may
    // contain spaces.
    let stat = read(&format!("task/{task}/stat"));
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_millis(ticks * 1000 / a_second as u64)
}

fn threads(process: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{process}/task"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
