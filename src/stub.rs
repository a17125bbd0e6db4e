//! Notices that an exercise's stub has changed, as after a `git pull`: the reader's file is never touched, so he is told.

use std::fs;
use std::path::Path;

use anyhow::Result;
use similar::TextDiff;

use crate::exercise::Exercise;
use crate::state;

/// How the stub differs from the one that this was asked of last; `None` where it does not, or was never asked of.
///
/// # Errors
/// If the stub cannot be read, or remembered.
pub fn news(root: &Path, exercise: &Exercise) -> Result<Option<String>> {
    let now = fs::read_to_string(exercise.tests().join("answers/stub.rs"))?;
    let remembered = state::home(root).join(format!("stubs/{}.rs", exercise.name));
    let before = fs::read_to_string(&remembered).ok();
    if before.as_ref() == Some(&now) {
        return Ok(None);
    }
    if let Some(folder) = remembered.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&remembered, &now)?;
    Ok(before.map(|before| {
        let diff = TextDiff::from_lines(&before, &now);
        diff.unified_diff().context_radius(2).to_string()
    }))
}
