//! Where the workbook's clone is.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, ensure};

/// The clone's root: `WORKBOOK_ROOT` where that is set, otherwise where the command was built.
///
/// # Errors
/// If there is no workbook there (any more).
pub fn find() -> Result<PathBuf> {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = env::var_os("WORKBOOK_ROOT").map_or_else(built, PathBuf::from);
    ensure!(
        root.join("exercises").is_dir(),
        "there is no workbook in {}: start it with `cargo run` in your clone",
        root.display()
    );
    Ok(root.canonicalize()?)
}
