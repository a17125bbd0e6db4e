//! Detects that an exercise's stub has changed, for example after `git pull`. The learner's file is never modified.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use course::exercise::Exercise;
use course::root;
use similar::TextDiff;

/// Returns how the stub differs from the one that the last call saw, or `None` if it does not, or at the first call.
///
/// # Errors
/// Returns an error if the stub cannot be read or its copy cannot be written.
pub fn changes(root: &Path, exercise: &Exercise) -> Result<Option<String>> {
    let now = fs::read_to_string(exercise.stub())?;
    let copy = root::home(root).join(format!("stubs/{}.rs", exercise.name));
    let before = fs::read_to_string(&copy).ok();
    if before.as_ref() == Some(&now) {
        return Ok(None);
    }
    replace(&copy, &now)?;
    Ok(before.map(|before| {
        let diff = TextDiff::from_lines(&before, &now);
        diff.unified_diff().context_radius(2).to_string()
    }))
}

/// Replaces the file atomically: a copy that a full disk truncated would be reported as a changed stub.
fn replace(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file has a parent folder")?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
