//! `workbook drill`: builds the drill and runs it in this terminal.
//!
//! It has a separate target directory, so that its build does not wait for the lock of a grading's build.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use course::cargo::{self, NO_CARGO};

use crate::warn;

/// Runs the drill with these arguments, and returns its status.
///
/// # Errors
/// Returns an error if cargo cannot be started. If the drill does not build, cargo reports that itself.
pub fn run(root: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let target = cargo::separate_target(root);
    let mut command = cargo::command();
    command.arg("run");
    if target.join("debug/drill").is_file() {
        command.arg("--quiet");
    } else {
        warn!("Building the drill. The first time, this takes about half a minute.");
    }
    let status = command
        .args(["--package", "drill", "--manifest-path"])
        // The current directory stays the learner's, because `export --anki FILE` is relative to it.
        .arg(cargo::second_workspace(root))
        .arg("--target-dir")
        .arg(target)
        .arg("--")
        .args(arguments)
        .env("WORKBOOK_ROOT", root)
        .status()
        .context(NO_CARGO)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::from(2), ExitCode::from))
}
