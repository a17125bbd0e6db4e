//! The protocol between a case's child and its judge: one JSON line per event, on a socket between the two.
//!
//! A pipe could be opened again, for reading, as /proc/self/fd/N. What the case has reported would tell the answer how to
//! report.

use std::collections::BTreeMap;
use std::env;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The environment variable that makes a process the child of a judge. Its value is `Channel::to_variable`.
pub const CHILD: &str = "JUDGE_CHILD";
/// The environment variable that tells a child that its judge traces it.
pub const TRACED: &str = "JUDGE_TRACED";
/// A `prctl` option that no kernel has. The call fails, and the tracer sees it.
pub const MARK: u64 = 0x6a75_6467;

/// The second argument of that `prctl`. The third one is a value, the fourth the address of libc's function `syscall`, the
/// fifth the address of more values, the sixth the secret of the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A `watch` begins or ends. The value is the end of the heap.
    Watch = 1,
    Unwatch,
    /// The calling thread enters or leaves the window of injected calls.
    Open,
    Close,
    /// The thread calls the `pthread` function with this index. The tracer may return an error for it.
    Call,
    /// The answer's next call of `brk` is not malloc's.
    Brk,
    /// The socket to the judge is gone. The exit status alone could be that of the answer.
    SocketGone,
    /// Execute this thread step by step up to the place with this number, or to the end for `NO_PLACE`. The memory holds
    /// the start and the end of what is watched.
    Steps,
    StepsEnd,
    /// The thread begins (1) or ends (0) a part that is not executed step by step.
    Pass,
    /// How many places were found?
    Places,
    /// Has the thread stopped at its place? With the value `GIVE_UP`: it must not stop there any more.
    HasStopped,
    /// Let that thread go on.
    GoOn,
    /// The value is a note for the grader's check.
    Note,
    /// A length that the answer has passed to the thread's next call of a memory function, in place of which the kernel
    /// gets another one. With `mremap` there are two.
    Length,
}

/// The value of `Mark::Steps` that finds all places.
pub const NO_PLACE: usize = usize::MAX;
/// The value of `Mark::HasStopped` after which the thread goes on when it reaches its place.
pub const GIVE_UP: usize = 1;

impl Mark {
    const ALL: [Mark; 15] = [
        Mark::Watch,
        Mark::Unwatch,
        Mark::Open,
        Mark::Close,
        Mark::Call,
        Mark::Brk,
        Mark::SocketGone,
        Mark::Steps,
        Mark::StepsEnd,
        Mark::Pass,
        Mark::Places,
        Mark::HasStopped,
        Mark::GoOn,
        Mark::Note,
        Mark::Length,
    ];

    /// The mark with this number.
    pub fn from_number(number: u64) -> Option<Mark> {
        Mark::ALL.into_iter().find(|mark| *mark as u64 == number)
    }
}

/// The exit status of a child whose socket to the judge is closed.
pub const EXIT_SOCKET_GONE: i32 = 97;
/// The environment variable that makes a grader end with status `STALE` if it was built from another answer.
pub const CHECK_ANSWER: &str = "JUDGE_CHECK_ANSWER";
pub const STALE: i32 = 96;
/// The exit status of a grader in which code before `main` did not end, or called exit(3).
pub const BEFORE_MAIN: i32 = 98;
/// The environment variable with the key that each line of the report carries.
pub const REPORT_KEY: &str = "JUDGE_REPORT_KEY";
/// The longest panic message kept, in bytes: a line below PIPE_BUF (4096) is written whole or not at all.
const LONGEST_MESSAGE: usize = 1500;

/// Keeps the judge's environment variables from `command`: the report is nobody else's business.
pub fn hide_from(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"JUDGE_") {
            command.env_remove(name);
        }
    }
}

/// The child's end of the socket to its judge.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    pub fd: RawFd,
}

impl Channel {
    /// The value of `CHILD` for `case`. `tag` tells the child from those of other judges.
    pub fn to_variable(&self, tag: &str, case: &str) -> String {
        format!("{tag} {} {case}", self.fd)
    }

    /// The channel and the case in a value of `CHILD`.
    pub fn from_variable(value: &str) -> Option<(Channel, &str)> {
        let (_, rest) = value.split_once(' ')?;
        let (fd, case) = rest.split_once(' ')?;
        let channel = Channel {
            fd: fd.parse().ok()?,
        };
        Some((channel, case))
    }

    /// Sends `event`. Returns an error if the socket is closed, or full: it does not block. `panics` limits what is written,
    /// so that only the answer can fill it up.
    pub fn send(&self, event: &Event) -> io::Result<()> {
        let json = serde_json::to_string(event).map_err(io::Error::other)?;
        // The allocator may be the answer's, so no allocated memory has the nonce.
        let mut nonce = Secret::ours().nonce();
        let sent = self.write([&nonce, json.as_bytes(), b"\n"]);
        nonce.fill(0);
        black_box(nonce);
        sent
    }

    fn write(&self, parts: [&[u8]; 3]) -> io::Result<()> {
        let parts = parts.map(IoSlice::new);
        loop {
            // SAFETY: an `IoSlice` is an `iovec`, and the parts outlive the call.
            let written =
                unsafe { libc::writev(self.fd, parts.as_ptr().cast(), parts.len() as i32) };
            match Errno::result(written) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One line on the socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A panic has begun. It may still be caught, or abort the process.
    Panicked(Panic),
    /// The call that was to fail has failed. Sent only without a tracer, which knows it otherwise.
    Injected,
    /// How often each call was made in the window. Sent only without a tracer.
    Counted(BTreeMap<String, usize>),
    /// The body has returned, and left the state of its process changed. The text is the sentence about it.
    StateChanged(String),
    /// The case's body has ended.
    Ended(Ended),
}

/// A panic, as its hook saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panic {
    pub what: Panicked,
    pub message: String,
    /// `file:line`. Empty if the panic was not reported by the hook.
    pub at: String,
    /// Whether a forked child panicked, and not the case's first process.
    pub in_child: bool,
    /// Whether the grader had called `expect_panics`.
    pub expected: bool,
}

impl Panic {
    /// Whether this is core's panic about one that cannot unwind. It aborts the process.
    pub fn aborts(&self) -> bool {
        self.at.contains("core/src/panicking.rs:")
    }

    /// What was wrong, if a check for undefined behaviour has failed: one of the standard library or one that the compiler
    /// has added. Such a panic aborts the process.
    pub fn undefined_behaviour(&self) -> Option<&str> {
        const CHECKS: [&str; 3] = [
            "misaligned pointer dereference",
            "null pointer dereference occurred",
            "trying to construct an enum from an invalid value",
        ];
        let violated = self
            .message
            .strip_prefix("unsafe precondition(s) violated: ");
        let is_check = || CHECKS.iter().any(|check| self.message.starts_with(check));
        let what = violated.or_else(|| is_check().then_some(self.message.as_str()));
        what?.lines().next()
    }
}

/// Who panicked, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Panicked {
    /// A check of the grader failed. The message is its sentence.
    Check,
    /// A probe does not work on this machine. The message is the reason.
    Skip,
    /// The judge's own code has failed. The message is the reason.
    Judge,
    /// A `todo!()`.
    NotStarted,
    /// `in_child` passes on the failure of its child, which has reported the cause itself.
    InChild,
    /// Any other panic, the learner's own included.
    Other,
    /// A panic that began to unwind and was not reported: by `resume_unwind`, or because the case has replaced the
    /// hook. It has neither message nor place.
    Unreported,
}

/// A panic that reached the end of the body, as its payload describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thrown {
    pub what: Panicked,
    pub message: String,
}

/// How the body ended, as the process that ended it saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ended {
    /// In the case's first process.
    Here {
        panicked: Option<Thrown>,
        /// Children that had ended and were not waited for.
        zombies: u32,
        /// Whether a child was still running.
        running: bool,
    },
    /// In a forked child, which returned from the learner's function.
    InChild,
}

/// The events among the lines of `text`, which follow `nonce`. The answer may have written all else, also in front of it.
pub fn parse(nonce: &str, text: &str) -> Vec<Event> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line.rsplit_once(nonce)?.1).ok())
        .collect()
}

/// `message`, cut so that its line is shorter than PIPE_BUF.
pub fn shortened(message: &str) -> String {
    message[..message.floor_char_boundary(LONGEST_MESSAGE)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_the_nonce_count() {
        let event = Event::Ended(Ended::InChild);
        let json = serde_json::to_string(&event).unwrap();
        let text = format!("{json}\nwrong{json}\nright{json}\nright{{torn\n");
        assert_eq!(parse("right", &text), [event]);
    }

    #[test]
    fn a_channel_survives_the_environment() {
        let channel = Channel { fd: 511 };
        let variable = channel.to_variable("abc", "stage::case");
        assert_eq!(
            Channel::from_variable(&variable),
            Some((channel, "stage::case"))
        );
        assert_eq!(Channel::from_variable("abc stage::case"), None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "é".repeat(LONGEST_MESSAGE);
        assert_eq!(shortened(&long).len(), LONGEST_MESSAGE);
        assert_eq!(shortened(&format!("x{long}")).len(), LONGEST_MESSAGE - 1);
    }
}
