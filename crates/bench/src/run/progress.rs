//! Shows on standard error what is being measured: on a terminal as one line that is replaced, otherwise as a line for
//! each phase.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

pub struct Progress {
    is_terminal: bool,
    phase: String,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            is_terminal: stderr().is_terminal(),
            phase: String::new(),
        }
    }

    /// Begins a phase.
    pub fn phase(&mut self, text: String) {
        // If the progress cannot be printed, the measurements continue.
        if !self.is_terminal {
            let _ = writeln!(stderr(), "{text}");
        }
        self.phase = text;
        self.detail("");
    }

    /// Shows a step of the phase. Prints nothing if standard error is not a terminal.
    pub fn detail(&self, text: &str) {
        if !self.is_terminal {
            return;
        }
        let separator = if text.is_empty() { "" } else { ": " };
        let _ = write!(stderr(), "\r\x1b[K{}{separator}{text}", self.phase);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.phase.clear();
        self.detail("");
    }
}

/// Formats a duration for an estimate, such as `40 s` or `3 min`.
pub fn roughly(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..100 => format!("{} s", seconds.next_multiple_of(10).max(10)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_round() {
        let shown = [0, 11, 99, 100, 301].map(|seconds| roughly(Duration::from_secs(seconds)));
        assert_eq!(shown, ["10 s", "20 s", "100 s", "2 min", "6 min"]);
    }
}
