//! The result of a proof.

use course::process::Ran;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// This machine does what the answer says.
    Proved {
        /// The lines that show it.
        shown: Vec<String>,
        /// The whole output.
        lines: Vec<String>,
    },
    Differs {
        why: String,
        /// The whole output.
        lines: Vec<String>,
    },
    /// The proof could not run; the text says why.
    Skipped(String),
}

impl Proof {
    pub fn is_proved(&self) -> bool {
        matches!(self, Proof::Proved { .. })
    }

    /// The result as the log and the tables state it.
    pub fn word(&self) -> &'static str {
        match self {
            Proof::Proved { .. } => "proved",
            Proof::Differs { .. } => "differs here",
            Proof::Skipped(_) => "skipped",
        }
    }
}

/// Describes how a program ended: the message of a panic, or else the last line on standard error, or else the
/// status.
pub(super) fn describe_end(ran: &Ran) -> String {
    let end = || format!("the program {}", ran.describe());
    if ran.code().is_none() {
        return end();
    }
    let mut lines = ran.stderr.lines();
    // The message is on the line after "panicked at".
    let panic = lines
        .find(|line| line.contains("panicked at"))
        .and(lines.next());
    let last = ran.stderr.lines().rfind(|line| !line.trim().is_empty());
    panic.or(last).map_or_else(end, str::to_owned)
}
