//! `workbook programs`: builds the package that runs real programs on the allocator of threshold-alloc, and becomes it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Error, Result};
use course::cargo;

use crate::warn;

/// What is passed on.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub programs: Vec<String>,
    pub solution: bool,
    pub json: bool,
    /// The number of rounds in which the two allocators take turns.
    pub rounds: Option<u16>,
    /// Seconds after which a program is stopped.
    pub seconds: Option<u16>,
}

/// Returns status 2 if the package does not build.
///
/// # Errors
/// Returns an error if cargo or the program cannot be started.
pub fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    let target = cargo::separate_target(root);
    let built = cargo::build_program(root, &target, "programs", || {
        warn!("Building the comparison. The first time, this takes about half a minute.");
    });
    let Some(program) = built? else {
        return Ok(ExitCode::from(2));
    };
    let mut command = Command::new(program);
    command.env("WORKBOOK_ROOT", root);
    for (flag, on) in [("--solution", options.solution), ("--json", options.json)] {
        if on {
            command.arg(flag);
        }
    }
    for (name, number) in [("--rounds", options.rounds), ("--seconds", options.seconds)] {
        if let Some(number) = number {
            command.arg(name).arg(number.to_string());
        }
    }
    command.arg("--").args(&options.programs);
    Err(Error::new(command.exec()).context("the comparison cannot be started"))
}
