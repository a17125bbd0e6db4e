//! Grades `mutex-counter`. Each stage is a module, and each test is a case.
//!
//! No case judges mutual exclusion by a sum alone: increments without a lock can add up by chance. Pipes make one
//! process wait for the lock while another holds it.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use judge::{case, check, in_child, watch, watched};
use mutex_counter::{Counter, Entry};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

mod death;
mod exclusion;
mod lock;
mod paths;

/// Returns a new counter, or fails the case.
fn new_counter() -> Counter {
    match Counter::new() {
        Ok(counter) => counter,
        Err(error) => judge::fail(format!(
            "Counter::new() must map a counter, and gave an error: {error}."
        )),
    }
}

/// Returns the result of `f`, or fails the case if `with_lock` returned an error.
fn with_lock<R>(counter: &Counter, f: impl FnOnce(&mut u64, Entry) -> R) -> R {
    match counter.with_lock(f) {
        Ok(result) => result,
        Err(error) => judge::fail(format!(
            "with_lock must lock a lock that nobody has, and gave an error: {error}."
        )),
    }
}

/// Returns the counter's value, or fails the case if `get` returned an error.
fn get(counter: &Counter) -> u64 {
    match counter.get() {
        Ok(number) => number,
        Err(error) => judge::fail(format!(
            "get() must read a counter that nobody has locked, and gave an error: {error}."
        )),
    }
}

/// Forks a child that runs `f` and exits.
fn fork_child(f: impl FnOnce()) -> Pid {
    // SAFETY: the only other thread is libtest's main thread, which holds no lock while it waits for the case.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let result = panic::catch_unwind(AssertUnwindSafe(f));
            // SAFETY: ends the child, which is this process, without running exit handlers.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
    }
}

/// Waits until the child has exited. Kills it first unless it has `finished` its work.
fn reap(pid: Pid, finished: bool) {
    if !finished {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let _ = waitpid(pid, None);
}

/// A forked child that sends a text to its parent before it exits.
struct ReportingChild {
    pid: Pid,
    pipe: PipeReader,
}

impl ReportingChild {
    /// Forks a child that sends the result of `f`.
    fn fork(f: impl FnOnce() -> String) -> ReportingChild {
        let (pipe, mut writer) = io::pipe().expect("a pipe");
        let pid = fork_child(|| {
            let report = f();
            writer
                .write_all(report.as_bytes())
                .expect("the parent keeps the pipe open");
        });
        ReportingChild { pid, pipe }
    }

    /// Forks a child that sends the error of `f`, or nothing. `f` is expected to wait for the lock.
    fn fork_fallible(f: impl FnOnce() -> io::Result<()>) -> ReportingChild {
        ReportingChild::fork(|| {
            f().err()
                .map_or_else(String::new, |error| error.to_string())
        })
    }

    /// Returns what the child sent. The text is empty if the child was killed.
    fn report(mut self) -> String {
        let mut report = String::new();
        self.pipe
            .read_to_string(&mut report)
            .expect("a report is UTF-8");
        report
    }
}

/// Fails the case if `call`, made by the child, returned an error instead of waiting for the lock.
fn expect_no_error(child: ReportingChild, call: &str) {
    let error = child.report();
    check!(
        error.is_empty(),
        "{call} must wait until another process gives the lock back, and gave an error: {error}."
    );
}

/// An event that one process sends and another waits for.
struct Event {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Event {
    fn new() -> Event {
        let (reader, writer) = io::pipe().expect("a pipe");
        Event { reader, writer }
    }

    fn send(&self) {
        (&self.writer)
            .write_all(b"!")
            .expect("this process keeps the reader open");
    }

    fn wait(&self) {
        (&self.reader)
            .read_exact(&mut [0])
            .expect("this process keeps the writer open");
    }

    fn arrives_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).expect("a short time");
        poll(&mut fds, timeout) == Ok(1)
    }
}

/// Enough time, even on a busy machine, for a process that nothing blocks.
const SOON: Duration = Duration::from_secs(3);
/// Enough time for a process to take a lock that does not exclude it.
const A_WHILE: Duration = Duration::from_millis(100);

/// What `with_lock` returned in a child, with the error as text.
type LockResult = Result<Entry, String>;

/// Adds 1 under the lock in a child. Fails the case with `timeout_sentence` if that takes too long.
fn lock_in_a_child(counter: &Counter, timeout_sentence: &str) -> LockResult {
    let returned = Event::new();
    let child = ReportingChild::fork(|| {
        let entry = counter.with_lock(|number, entry| {
            *number += 1;
            entry
        });
        returned.send();
        match entry {
            Ok(Entry::Clean) => CLEAN.to_owned(),
            Ok(Entry::OwnerDied) => OWNER_DIED.to_owned(),
            Err(error) => error.to_string(),
        }
    });
    let in_time = returned.arrives_within(SOON);
    reap(child.pid, in_time);
    check!(in_time, "{timeout_sentence}");
    match child.report() {
        report if report == CLEAN => Ok(Entry::Clean),
        report if report == OWNER_DIED => Ok(Entry::OwnerDied),
        error => Err(error),
    }
}

/// How a child reports `Entry::Clean`.
const CLEAN: &str = "clean";
/// How a child reports `Entry::OwnerDied`.
const OWNER_DIED: &str = "owner died";

/// Describes the result as the predicate of a sentence.
fn describe(result: &LockResult) -> String {
    match result {
        Ok(entry) => format!("said {entry:?}"),
        Err(error) => format!("gave an error: {error}"),
    }
}

judge::answer!();

judge::compile_fail! {
    exclusion: returned, kept_outside
}
