//! `workbook drill`: builds the drill in a target directory of its own, and hands the terminal to it.
//!
//! In the learner's own target directory it would wait for cargo's lock at every save.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cargo::{self, NO_CARGO};

/// Runs it with these arguments; its status is the result.
///
/// # Errors
/// If cargo cannot be started. That the drill does not build, cargo says itself.
pub fn run(root: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let target = cargo::target_apart(root);
    let mut command = cargo::command();
    command.arg("run");
    // The first build takes half a minute, and a person wants to see it; later ones have nothing to show.
    if target.join("debug/drill").is_file() || !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    let status = command
        .args(["--package", "drill", "--manifest-path"])
        // The drill stays in the folder that the learner is in: `export --anki FILE` is a path from there.
        .arg(root.join("Cargo.toml"))
        .arg("--")
        .args(arguments)
        .env("WORKBOOK_ROOT", root)
        .env("CARGO_TARGET_DIR", target)
        .status()
        .context(NO_CARGO)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::from(2), ExitCode::from))
}
