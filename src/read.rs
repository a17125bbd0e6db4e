//! `workbook read`: starts the book's server, which cargo builds into a target directory of its own.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use anstream::eprintln;
use anyhow::{Context, Result};

use crate::cargo::{self, NO_CARGO};
use crate::state::Log;

/// Serves the book until it is interrupted.
///
/// # Errors
/// If cargo cannot be started.
pub fn run(root: &Path, port: u16, open: bool) -> Result<ExitCode> {
    // In cargo's usual one, a save would wait to be graded until the server is built.
    let target = root.join(".workbook/target");
    let mut command = cargo::command();
    command.args(["run", "--package", "reader", "--target-dir"]);
    command.arg(&target);
    if target.join("debug/reader").exists() {
        command.arg("--quiet");
    } else {
        eprintln!("The book's server is built first; it takes a few minutes, once.");
    }
    command.args(["--", "serve", "--port", &port.to_string()]);
    if open {
        command.arg("--open");
    }
    let status = command
        .arg("--events")
        .arg(Log::of(root).path())
        // For this command cargo is told where to build; the lab's programs are built there too.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(root)
        .stdin(Stdio::null())
        .status()
        .context(NO_CARGO)?;
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    })
}
