//! Grades `mutex-counter`: a module for each stage, a case for each test.
//!
//! Exclusion is never judged by a sum, which may come out right without a lock, too. The processes are made to meet,
//! over pipes.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
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

fn new() -> Counter {
    match Counter::new() {
        Ok(counter) => counter,
        Err(error) => judge::fail(format!(
            "Counter::new() must map a counter, and gave an error: {error}."
        )),
    }
}

fn locked<R>(counter: &Counter, f: impl FnOnce(&mut u64, Entry) -> R) -> R {
    match counter.with_lock(f) {
        Ok(result) => result,
        Err(error) => judge::fail(format!(
            "with_lock must lock a lock that nobody has, and gave an error: {error}."
        )),
    }
}

fn got(counter: &Counter) -> u64 {
    match counter.get() {
        Ok(number) => number,
        Err(error) => judge::fail(format!(
            "get() must read a counter that nobody has locked, and gave an error: {error}."
        )),
    }
}

/// Forks; the child runs `f` and ends.
fn child(f: impl FnOnce()) -> Pid {
    // SAFETY: a case has one thread of its own besides libtest's, which holds no lock while it waits for the case.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let ended = panic::catch_unwind(AssertUnwindSafe(f));
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
    }
}

/// A child that says something once it is done.
struct Speaker {
    pid: Pid,
    said: PipeReader,
}

impl Speaker {
    /// Forks; the child runs `f`, and says what that gives.
    fn new(f: impl FnOnce() -> String) -> Speaker {
        let (said, mut say) = io::pipe().expect("a pipe");
        let pid = child(|| say.write_all(f().as_bytes()).expect("the pipe is open"));
        Speaker { pid, said }
    }

    /// What it has said; nothing if it was killed.
    fn said(mut self) -> String {
        let mut said = String::new();
        self.said
            .read_to_string(&mut said)
            .expect("the child has ended");
        said
    }
}

/// A child that is to wait at a locked door: it says the error if `f` gives one.
fn waiter(f: impl FnOnce() -> io::Result<()>) -> Speaker {
    Speaker::new(|| {
        f().err()
            .map_or_else(String::new, |error| error.to_string())
    })
}

/// Fails the case if `call`, which the waiter made, has given an error.
fn expect_no_error(waiter: Speaker, call: &str) {
    let error = waiter.said();
    check!(
        error.is_empty(),
        "{call} must wait until another process gives the lock back, and gave an error: {error}."
    );
}

/// A message between processes.
struct Message {
    from: PipeReader,
    to: PipeWriter,
}

impl Message {
    fn new() -> Message {
        let (from, to) = io::pipe().expect("a pipe");
        Message { from, to }
    }

    fn send(&self) {
        (&self.to).write_all(b"!").expect("the pipe is open");
    }

    fn wait(&self) {
        (&self.from).read_exact(&mut [0]).expect("the pipe is open");
    }

    /// Whether it comes in time.
    fn comes_within(&self, time: Duration) -> bool {
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).expect("a short time");
        poll(&mut fds, timeout) == Ok(1)
    }
}

/// Long enough for a process that nothing holds back, on a machine with much else to do.
const SOON: Duration = Duration::from_secs(3);
/// Long enough for a process at the door to get in, where nothing keeps it out.
const A_WHILE: Duration = Duration::from_millis(100);

/// What `with_lock` told a child, or its error in words.
type Told = Result<Entry, String>;

/// Locks in a child, and fails with the sentence if that takes too long.
fn lock_in_a_child(counter: &Counter, otherwise: &str) -> Told {
    let locked = Message::new();
    let child = Speaker::new(|| {
        let entry = counter.with_lock(|number, entry| {
            *number += 1;
            entry
        });
        locked.send();
        match entry {
            Ok(Entry::Clean) => CLEAN.to_owned(),
            Ok(Entry::OwnerDied) => OWNER_DIED.to_owned(),
            Err(error) => error.to_string(),
        }
    });
    let in_time = locked.comes_within(SOON);
    if !in_time {
        let _ = kill(child.pid, Signal::SIGKILL);
    }
    let _ = waitpid(child.pid, None);
    check!(in_time, "{otherwise}");
    match child.said() {
        said if said == CLEAN => Ok(Entry::Clean),
        said if said == OWNER_DIED => Ok(Entry::OwnerDied),
        error => Err(error),
    }
}

/// As a child says it.
const CLEAN: &str = "clean";
const OWNER_DIED: &str = "owner died";

/// `said Clean`, `gave an error: ...`.
fn in_words(told: &Told) -> String {
    match told {
        Ok(entry) => format!("said {entry:?}"),
        Err(error) => format!("gave an error: {error}"),
    }
}

judge::compile_fail! {
    exclusion: returned, kept_outside
}
