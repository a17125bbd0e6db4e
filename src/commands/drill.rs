//! `workbook drill`: builds the drill and runs it in this terminal.
//!
//! It has a separate target directory, so that its build does not wait for the lock of a grading's build.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Error, Result};
use course::cargo;

use crate::warn;

/// Becomes the drill with these arguments. The drill handles Ctrl-C, so no other process of the command may be left that
/// Ctrl-C would end. Returns status 2 if the drill does not build.
///
/// # Errors
/// Returns an error if cargo or the drill cannot be started.
pub fn run(root: &Path, arguments: &[OsString]) -> Result<ExitCode> {
    let target = cargo::separate_target(root);
    let built = cargo::build_program(root, &target, "drill", || {
        warn!("Building the drill. The first time, this takes about half a minute.");
    });
    let Some(program) = built? else {
        return Ok(ExitCode::from(2));
    };
    // The current directory stays the learner's, because `export --anki FILE` is relative to it.
    let mut drill = Command::new(program);
    drill.args(arguments).env("WORKBOOK_ROOT", root);
    Err(Error::new(drill.exec()).context("the drill cannot be started"))
}
