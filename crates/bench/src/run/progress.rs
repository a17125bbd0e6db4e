//! A line on the terminal that shows what is being measured.

use std::io::{IsTerminal, Write, stderr};

pub struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            is_terminal: stderr().is_terminal(),
        }
    }

    /// Replaces the line. Prints nothing if standard error is not a terminal.
    pub fn show(&self, text: &str) {
        if self.is_terminal {
            // If the progress cannot be printed, the measurements continue.
            let _ = write!(stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show("");
    }
}
