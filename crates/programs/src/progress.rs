//! A line on the terminal that shows what is being done.

use std::cell::Cell;
use std::env;
use std::io::{IsTerminal, Write, stderr};

pub struct Progress {
    /// Whether a line can be overwritten.
    is_shown: bool,
    /// The length of the last line.
    length: Cell<usize>,
}

impl Progress {
    pub fn new() -> Progress {
        let is_dumb = env::var_os("TERM").is_some_and(|kind| kind == "dumb");
        Progress {
            is_shown: stderr().is_terminal() && !is_dumb,
            length: Cell::new(0),
        }
    }

    /// Replaces the line. Prints nothing if standard error is not a terminal.
    pub fn show(&self, text: &str) {
        if self.is_shown {
            let rest = self.length.replace(text.len()).saturating_sub(text.len());
            let end = if text.is_empty() { "\r" } else { "" };
            // If the progress cannot be printed, the work continues.
            let _ = write!(stderr(), "\r{text}{:rest$}{end}", "");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show("");
    }
}
