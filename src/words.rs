//! How the command says things: colours, signs, lines that fit the terminal, and what the reader types next.
//!
//! Colours are dropped by anstream, where standard output is no terminal or NO_COLOR is set.

use std::env;
use std::io::{IsTerminal, stderr, stdout};

use anstream::eprint;
use anstyle::{AnsiColor, Style};

use crate::grader::Verdict;

/// A title, or what is not to be missed.
pub const STRONG: Style = Style::new().bold();
/// What may be passed over.
pub const FAINT: Style = Style::new().dimmed();
/// A line that the solution has.
pub const ADDED: Style = AnsiColor::Green.on_default();
/// A line that it has not.
pub const REMOVED: Style = AnsiColor::Red.on_default();

/// Where the reader types what he does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// In a shell.
    Shell,
    /// Below the verdicts, while saves are watched.
    Watch,
}

impl Prompt {
    /// What shows the next hint for that stage.
    pub fn hint(self, exercise: &str, stage: &str) -> String {
        match self {
            Prompt::Shell => format!("cargo run -- hint {exercise} {stage}"),
            Prompt::Watch => "h".to_owned(),
        }
    }

    /// What shows the solution of an exercise that is not solved.
    pub fn spoil(self, exercise: &str) -> String {
        match self {
            Prompt::Shell => format!("cargo run -- solution {exercise} --spoil"),
            Prompt::Watch => "s --spoil".to_owned(),
        }
    }
}

/// The sign of a verdict, in its colour.
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

/// The text in that style, and the terminal as it was.
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The text behind a margin; on a terminal its lines end between words. Elsewhere a sentence is one line, to be searched.
pub fn indented(margin: usize, text: &str) -> String {
    let margin = " ".repeat(margin);
    hanging(&margin, &margin, text)
}

/// The same, where the first line begins with something else.
pub fn hanging(first: &str, margin: &str, text: &str) -> String {
    if !stdout().is_terminal() {
        return format!("{first}{text}");
    }
    let options = textwrap::Options::with_termwidth()
        .initial_indent(first)
        .subsequent_indent(margin)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

/// Whether a line can be written over: a dumb terminal cannot, and a file keeps what was written over.
pub fn has_passing_lines() -> bool {
    stderr().is_terminal() && env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// Shows a line that is written over by a longer one of its kind, or cleared. Nothing where that cannot be.
pub fn passing_line(text: &str) {
    if has_passing_lines() {
        eprint!("\r{text}");
    }
}

/// Takes the passing line away.
pub fn clear_passing_line() {
    // Blanks, and no code of the terminal: those are dropped with the colours.
    passing_line(&format!("{:WIDTH$}\r", ""));
}

/// As wide as any passing line.
const WIDTH: usize = 48;
