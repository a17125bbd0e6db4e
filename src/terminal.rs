//! Output to the terminal: colours, signs, wrapped lines, and a progress line that is overwritten.
//!
//! anstream drops colours if standard output is not a terminal or if `NO_COLOR` is set.

use std::env;
use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use anstyle::{AnsiColor, Style};
use course::log::Verdict;
use nix::libc;

/// Style for titles and important text.
pub const STRONG: Style = Style::new().bold();
/// Style for secondary text.
pub const FAINT: Style = Style::new().dimmed();
pub const ADDED: Style = AnsiColor::Green.on_default();
pub const REMOVED: Style = AnsiColor::Red.on_default();

/// Prints a line to standard output. See [`print_line`].
#[macro_export]
macro_rules! say {
    () => { $crate::terminal::print_line(format_args!("")) };
    ($($text:tt)+) => { $crate::terminal::print_line(format_args!($($text)+)) };
}

/// Prints a line to standard error. An error is ignored, because there is no other place to report it.
#[macro_export]
macro_rules! warn {
    ($($text:tt)+) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stderr(), $($text)+);
    }};
}

/// Prints a line to standard output. `println!` would panic if the disk is full or the pipe is closed.
///
/// If the reader of a pipe has gone, the process ends quietly; after any other error it ends with status 2.
pub fn print_line(line: fmt::Arguments) {
    let Err(error) = writeln!(anstream::stdout(), "{line}") else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        process::exit(0);
    }
    warn!("workbook: standard output cannot be written: {error}.");
    process::exit(2);
}

/// Where the learner types commands, which decides how a command is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    Shell,
    /// `watch`, while it waits for saves.
    Watch,
}

impl Prompt {
    /// The command for the next hint on that stage.
    pub fn hint(self, exercise: &str, stage: &str) -> String {
        match self {
            Prompt::Shell => format!("cargo run -- hint {exercise} {stage}"),
            Prompt::Watch => "h".to_owned(),
        }
    }

    /// The command for the solution of an exercise that is not solved.
    pub fn spoil(self, exercise: &str) -> String {
        match self {
            Prompt::Shell => format!("cargo run -- solution {exercise} --spoil"),
            Prompt::Watch => "s --spoil".to_owned(),
        }
    }
}

/// The sign for a verdict, in its colour.
pub fn sign(verdict: Verdict) -> String {
    let (sign, color) = match verdict {
        Verdict::Passed => ("✓", AnsiColor::Green),
        Verdict::Failed => ("✗", AnsiColor::Red),
        Verdict::Skipped => ("–", AnsiColor::Yellow),
        Verdict::NotStarted => ("·", AnsiColor::BrightBlack),
    };
    let style = color.on_default();
    format!("{style}{sign}{style:#}")
}

pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Indents `text`, and on a terminal wraps it between words. Elsewhere a sentence stays on one line, so that it can be
/// searched for.
pub fn indented(margin: usize, text: &str) -> String {
    let margin = " ".repeat(margin);
    hanging(&margin, &margin, text)
}

/// Like [`indented`], with a different beginning for the first line.
pub fn hanging(first: &str, margin: &str, text: &str) -> String {
    if !stdout().is_terminal() {
        return format!("{first}{text}");
    }
    let options = textwrap::Options::new(width())
        .initial_indent(first)
        .subsequent_indent(margin)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

/// The width of the terminal, in columns; 80 if it is not known.
fn width() -> usize {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a `winsize` to the address, and `size` is one.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match result {
        0 if size.ws_col > 0 => size.ws_col.into(),
        _ => 80,
    }
}

/// Returns whether a line can be overwritten: not on a dumb terminal, and not in a file.
pub fn has_progress_line() -> bool {
    stderr().is_terminal() && env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// The length of the last line that [`show_progress`] wrote.
static SHOWN: AtomicUsize = AtomicUsize::new(0);

/// Shows a line that the next one overwrites, if the terminal can do that. Only the last row of a longer line could be
/// overwritten, so the line is cut to the width of the terminal.
pub fn show_progress(text: &str) {
    if has_progress_line() {
        let text: String = text.chars().take(width().saturating_sub(1)).collect();
        let length = text.chars().count();
        let rest = SHOWN.swap(length, Ordering::Relaxed).saturating_sub(length);
        let _ = write!(stderr(), "\r{text}{:rest$}", "");
    }
}

/// Clears the progress line. It may be cargo's, which is as long as the terminal is wide.
pub fn clear_progress() {
    if has_progress_line() {
        // Spaces, because with NO_COLOR escape sequences would be dropped.
        let width = width().saturating_sub(1);
        SHOWN.store(0, Ordering::Relaxed);
        let _ = write!(stderr(), "\r{:width$}\r", "");
    }
}
