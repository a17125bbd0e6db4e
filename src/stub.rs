//! Notices that an exercise's stub has changed, as after a `git pull`: the reader's file is never touched, so he is told.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use similar::TextDiff;

use crate::exercise::Exercise;
use crate::root;

/// How the stub differs from the one that this was asked of last; `None` where it does not, or was never asked of.
///
/// # Errors
/// If the stub cannot be read, or remembered.
pub fn news(root: &Path, exercise: &Exercise) -> Result<Option<String>> {
    let now = fs::read_to_string(exercise.tests().join("answers/stub.rs"))?;
    let remembered = root::home(root).join(format!("stubs/{}.rs", exercise.name));
    let before = fs::read_to_string(&remembered).ok();
    if before.as_ref() == Some(&now) {
        return Ok(None);
    }
    remember(&remembered, &now)?;
    Ok(before.map(|before| {
        let diff = TextDiff::from_lines(&before, &now);
        diff.unified_diff().context_radius(2).to_string()
    }))
}

/// Whole or not at all: on a full disk half of it would differ from the stub for ever.
fn remember(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
