//! `workbook solution`: how the reader's answer differs from the reference solution.

use std::fs;
use std::path::Path;

use anstream::{eprintln, println};
use anyhow::{Context, Result, bail};
use similar::{ChangeTag, TextDiff};

use crate::exercise::Exercise;
use crate::progress::Progress;
use crate::state::{self, Log, Record};
use crate::words::{ADDED, Prompt, REMOVED, styled};

/// Lines around each difference.
const AROUND: usize = 3;

/// Shows the difference. Before the exercise is solved that takes `spoil`.
///
/// # Errors
/// If there is no such exercise, a file cannot be read, or the exercise is not solved and `spoil` is not set.
pub fn run(root: &Path, name: &str, spoil: bool, prompt: Prompt) -> Result<()> {
    let exercise = Exercise::find(root, name)?;
    if !spoil && !Progress::read(root)?.is_solved(name) {
        bail!(
            "{name} is not solved yet. To see the solution all the same: {}",
            prompt.spoil(name)
        );
    }
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let yours = read(&exercise.answer())?;
    let solution = read(&exercise.solution())?;
    let record = Record::Solution {
        at: state::now(),
        exercise: name.to_owned(),
    };
    if let Err(error) = Log::of(root).append(&record) {
        eprintln!("That you looked could not be recorded: {error:#}.");
    }
    println!("--- yours");
    println!("+++ solutions/src/{}.rs", exercise.library());
    let diff = TextDiff::from_lines(&yours, &solution);
    for hunk in diff.unified_diff().context_radius(AROUND).iter_hunks() {
        println!("{}", hunk.header());
        for change in hunk.iter_changes() {
            let line = change.value().trim_end_matches('\n');
            match change.tag() {
                ChangeTag::Delete => println!("{}", styled(REMOVED, &format!("-{line}"))),
                ChangeTag::Insert => println!("{}", styled(ADDED, &format!("+{line}"))),
                ChangeTag::Equal => println!(" {line}"),
            }
        }
    }
    Ok(())
}
