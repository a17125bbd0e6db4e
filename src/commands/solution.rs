//! `workbook solution`: how the learner's answer differs from the reference solution.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write as _, stdout};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use course::exercise::Exercise;
use course::log::{self, Log, Record};
use similar::{ChangeTag, TextDiff};

use crate::progress::Progress;
use crate::terminal::{ADDED, FAINT, Prompt, REMOVED, styled};
use crate::{say, warn};

/// The number of unchanged lines around each difference.
const CONTEXT: usize = 3;

/// Above this line, a solution can be read without its bonus stages.
const BONUS: &str = "// ---- Bonus stages ----";

#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Shows the solution before the exercise is solved.
    pub spoil: bool,
    /// Shows the bonus stages as well.
    pub bonus: bool,
}

/// Shows the differences, in a pager if the output is a terminal.
///
/// # Errors
/// Returns an error if there is no such exercise, if a file cannot be read, or if the exercise is not solved and
/// `spoil` is not set.
pub fn run(root: &Path, name: &str, options: Options, prompt: Prompt) -> Result<()> {
    let exercise = Exercise::find(root, name)?;
    exercise.ensure_solution()?;
    if !options.spoil && !Progress::read(root)?.was_solved(name) {
        let bonus = if options.bonus { " --bonus" } else { "" };
        bail!(
            "{name} is not solved yet; to see the solution anyway: {}{bonus}",
            prompt.spoil(name)
        );
    }
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let answer = read(&exercise.answer())?;
    let full = read(&exercise.solution())?;
    let core = full.split_once(BONUS).map(|(core, _)| core);
    let solution = core.filter(|_| !options.bonus);
    let record = Record::Solution {
        at: log::now(),
        exercise: name.to_owned(),
    };
    if let Err(error) = Log::of(root).append(&record) {
        warn!("The log could not record that you saw the solution: {error:#}.");
    }
    let mut text = format!("--- yours\n+++ solutions/src/{}.rs\n", exercise.library());
    text += &difference(&answer, solution.unwrap_or(&full));
    if solution.is_some() {
        let command = match prompt {
            Prompt::Shell => format!("cargo run -- solution {name}"),
            Prompt::Watch => "s".to_owned(),
        };
        let spoil = if options.spoil { " --spoil" } else { "" };
        let note = format!("\nThis is the core. With the bonus stages: {command}{spoil} --bonus");
        text += &styled(FAINT, &note);
    }
    show(text.trim_end(), prompt);
    Ok(())
}

fn difference(answer: &str, solution: &str) -> String {
    let mut text = String::new();
    let diff = TextDiff::from_lines(answer, solution);
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        let _ = writeln!(text, "{}", hunk.header());
        for change in hunk.iter_changes() {
            let line = change.value().trim_end_matches('\n');
            let line = match change.tag() {
                ChangeTag::Delete => styled(REMOVED, &format!("-{line}")),
                ChangeTag::Insert => styled(ADDED, &format!("+{line}")),
                ChangeTag::Equal => format!(" {line}"),
            };
            text += &line;
            text.push('\n');
        }
    }
    text
}

/// Shows the text in `PAGER`, by default `less`, if standard output is a terminal; otherwise prints it. `watch` reads the
/// keyboard itself, so a pager there would get only some of the keys.
fn show(text: &str, prompt: Prompt) {
    let wants_pager = prompt == Prompt::Shell && stdout().is_terminal();
    if !wants_pager || !page(text) {
        say!("{text}");
    }
}

/// Returns whether the text was shown in a pager.
fn page(text: &str) -> bool {
    let pager = env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    let options = env::var("LESS").unwrap_or_else(|_| "FRX".to_owned());
    let child = Command::new("sh")
        .args(["-c", &pager])
        // F: a text that fits the screen needs no pager. R: keep colours. X: do not clear the screen afterwards.
        .env("LESS", options)
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        return false;
    };
    if let Some(mut stdin) = child.stdin.take() {
        let choice = anstream::AutoStream::choice(&stdout());
        let mut coloured = anstream::AutoStream::new(Vec::new(), choice);
        let _ = writeln!(coloured, "{text}");
        // Fails if the learner leaves the pager before the end.
        let _ = stdin.write_all(&coloured.into_inner());
    }
    // The shell's exit status if the program is not installed.
    const NOT_FOUND: i32 = 127;
    child
        .wait()
        .is_ok_and(|status| status.code() != Some(NOT_FOUND))
}
