//! Builds the book and serves it, with live verdicts and programs that run on the reader's own kernel.

pub mod book;
pub mod preprocess;
pub mod serve;

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line to standard error. Unlike `eprintln!`, it does not panic if standard error is closed or full.
pub fn report(message: impl Display) {
    let _ = writeln!(io::stderr(), "{message}");
}
