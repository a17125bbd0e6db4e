//! How the command says things: colours (dropped where standard output is no terminal, or NO_COLOR is set), plurals.

use anstyle::{AnsiColor, Style};

use crate::grader::Verdict;

pub const STRONG: Style = Style::new().bold();
pub const FAINT: Style = Style::new().dimmed();
pub const ADDED: Style = AnsiColor::Green.on_default();
pub const REMOVED: Style = AnsiColor::Red.on_default();

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

pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
