//! What a case's child tells its judge: one JSON line per event, on a pipe that only the two of them know.

use std::io;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

/// Set for a child: the nonce that must open each of its lines, a space, and the case's name.
pub const CHILD: &str = "JUDGE_CHILD";
/// Set for a child that its judge traces.
pub const TRACED: &str = "JUDGE_TRACED";
/// The pipe's descriptor in the child: far above what a learner's code opens and counts.
pub const EVENTS_FD: i32 = 900;
/// A `prctl` option that no kernel has. The call fails, and the tracer sees it.
pub const MARK: u64 = 0x6a75_6467;
/// How the child ends when the pipe is gone.
pub const EXIT_PIPE_GONE: i32 = 97;
/// The longest panic message kept, in bytes: a line below PIPE_BUF (4096) is written whole or not at all.
const LONGEST_MESSAGE: usize = 1500;

/// One line on the pipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A panic has begun; it may yet be caught, or abort the process.
    Panicked(Panic),
    /// The case's body is over.
    Ended(Ended),
}

/// What a panic said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panic {
    pub what: Panicked,
    pub message: String,
    /// `file:line`.
    pub at: String,
    /// In a forked child, not in the case's first process.
    pub in_child: bool,
    /// Foreseen by the grader, which called `expect_panics`.
    pub expected: bool,
}

/// Who panicked, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Panicked {
    /// A check of the grader: the message is its sentence.
    Check,
    /// A probe that this machine cannot answer: the message is the reason.
    Skip,
    /// A `todo!()`.
    NotStarted,
    /// `in_child` passes on that its child failed, which has told why itself.
    InChild,
    /// Any other panic, the learner's own included.
    Other,
}

/// How the body ended, as the process that ended it saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ended {
    /// In the case's first process.
    Here {
        panicked: bool,
        /// Children that had ended and were not waited for.
        zombies: u32,
        /// Whether a child was still running.
        running: bool,
    },
    /// In a forked child, which came back out of the learner's function.
    InChild,
}

/// Sends `event`; `Err` if the pipe is gone. Allocates.
pub fn send(nonce: &str, event: &Event) -> io::Result<()> {
    let json = serde_json::to_string(event).map_err(io::Error::other)?;
    let line = format!("{nonce}{json}\n");
    loop {
        // SAFETY: the pointer and the length describe `line`, which outlives the call.
        let written = unsafe { libc::write(EVENTS_FD, line.as_ptr().cast(), line.len()) };
        match written {
            // The pipe does not block. A full one means thousands of panics: the first are the ones that tell.
            -1 if Errno::last() == Errno::EAGAIN => return Ok(()),
            -1 if Errno::last() == Errno::EINTR => continue,
            -1 => return Err(io::Error::last_os_error()),
            _ => return Ok(()),
        }
    }
}

/// The events among `text`'s lines: those that open with `nonce`. Anything else on the pipe is not the judge's.
pub fn parse(nonce: &str, text: &str) -> Vec<Event> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix(nonce)?).ok())
        .collect()
}

/// `message`, cut so that its line fits the pipe.
pub fn shortened(message: &str) -> String {
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
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
    fn a_long_message_is_cut_between_characters() {
        let long = "é".repeat(LONGEST_MESSAGE);
        assert_eq!(shortened(&long).len(), LONGEST_MESSAGE);
        assert_eq!(shortened(&format!("x{long}")).len(), LONGEST_MESSAGE - 1);
    }
}
