//! A package whose answer is replaced again and again.
//!
//! Cargo builds the first answer. For every other one, the two commands that cargo has run are repeated: rustc compiles
//! the answer and the grader as changes of the first answer, which takes about 0.4 s. Cargo would compile each answer as
//! a change of the one before it, which differs more, and slots would wait for each other's lock.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use course::cargo;
use course::exercise::Exercise;
use course::process::{self, End, Limits};

use crate::grade::candidates::{Candidate, Workspace};
use crate::grade::grader::Grader;

/// Cargo calls it in place of rustc. The kernel has the command's arguments and environment, each ended by a zero byte.
/// Nobody reads the warnings, and an answer may have so many that they would hide its errors.
const RECORDER: &str = r#"#!/bin/sh
[ -n "$CARGO_CRATE_NAME" ] || exec "$@"
cat /proc/$$/cmdline > "$RECORDED/$CARGO_CRATE_NAME.arguments"
cat /proc/$$/environ > "$RECORDED/$CARGO_CRATE_NAME.environment"
pwd > "$RECORDED/$CARGO_CRATE_NAME.folder"
exec "$@" -C incremental="$RECORDED/first" -A warnings
"#;

/// The time limit for compiling one crate.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(5 * 60),
    output: 16 << 20,
};

pub struct Slot {
    workspace: Workspace,
    grader: Grader,
    /// The commands that compile the answer and the grader.
    commands: [Rustc; 2],
    /// Rustc's incremental data for the first answer. Rustc replaces these files and never changes them.
    first: PathBuf,
    /// The same for the current answer.
    current: PathBuf,
}

impl Slot {
    /// Builds the first answer.
    ///
    /// # Errors
    /// Returns an error if the answer does not build, or if a file cannot be written.
    pub fn new(root: &Path, name: &str, first: &Candidate) -> Result<Slot> {
        let workspace = Workspace::write(root, name, first)?;
        let recorded = workspace.folder().join("recorded");
        let grader = record(&workspace, first, &recorded)?;
        Ok(Slot {
            commands: recorded_commands(&recorded, first.exercise)?,
            grader,
            first: recorded.join("first"),
            current: recorded.join("current"),
            workspace,
        })
    }

    /// Compiles the answer, and returns its grader or the compiler's errors. The next call replaces the grader.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or if the compiler cannot be run.
    pub fn compile(&self, answer: &str) -> Result<Result<Grader, String>> {
        self.workspace.replace(answer)?;
        if self.current.exists() {
            fs::remove_dir_all(&self.current)?;
        }
        link_all(&self.first, &self.current)?;
        for rustc in &self.commands {
            if let Err(errors) = rustc.run(&self.current)? {
                return Ok(Err(errors));
            }
        }
        Ok(Ok(self.grader.clone()))
    }
}

/// Builds the first answer and its grader, and records in the folder `recorded` how, with the incremental data in `first`.
///
/// # Errors
/// Returns an error if the answer does not build, or if a file cannot be written.
pub fn record(workspace: &Workspace, first: &Candidate, recorded: &Path) -> Result<Grader> {
    fs::create_dir_all(recorded)?;
    let recorder = recorded.join("recorder");
    fs::write(&recorder, RECORDER)?;
    fs::set_permissions(&recorder, fs::Permissions::from_mode(0o755))?;
    // Cargo calls no compiler for what it has built before.
    workspace.replace("")?;
    workspace.replace(&first.source)?;
    workspace.build(|cargo| {
        cargo
            .env("RUSTC_WORKSPACE_WRAPPER", &recorder)
            .env("RECORDED", recorded);
    })
}

/// The commands that compile an answer and its grader.
///
/// # Errors
/// Returns an error if `record` has not recorded them in that folder.
pub fn recorded_commands(recorded: &Path, exercise: &Exercise) -> Result<[Rustc; 2]> {
    let command = |name: &str| Rustc::recorded(&recorded.join(name));
    Ok([command(&exercise.library())?, command("grader")?])
}

/// A call of the compiler.
pub struct Rustc {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
}

impl Rustc {
    fn recorded(name: &Path) -> Result<Rustc> {
        let read = |what: &str| {
            let path = name.with_extension(what);
            fs::read(&path).with_context(|| path.display().to_string())
        };
        // The shell and the recorder come first. A zero byte ends the last argument.
        let mut arguments = parts(&read("arguments")?).split_off(2);
        arguments.pop();
        let environment = parts(&read("environment")?).into_iter();
        let environment = environment.filter_map(|variable| {
            let variable = variable.into_string().ok()?;
            let (name, value) = variable.split_once('=')?;
            Some((name.into(), value.into()))
        });
        let folder = String::from_utf8(read("folder")?)?;
        Ok(Rustc {
            arguments,
            environment: environment.collect(),
            folder: folder.trim_end().into(),
        })
    }

    /// The command, with its incremental data in `incremental`.
    ///
    /// # Errors
    /// Returns an error if nothing was recorded.
    pub fn command(&self, incremental: &Path) -> Result<Command> {
        let (rustc, arguments) = self.arguments.split_first().context("no command")?;
        let mut option = OsString::from("incremental=");
        option.push(incremental);
        let mut command = Command::new(rustc);
        command
            .args(arguments)
            // In this order, as in `RECORDER`: with other options, the incremental data would be useless.
            .arg("-C")
            .arg(option)
            .args(["-A", "warnings"])
            .env_clear()
            .envs(self.environment.iter().cloned())
            // Cargo's pipe for its compilers is closed.
            .env_remove("CARGO_MAKEFLAGS")
            .current_dir(&self.folder);
        Ok(command)
    }

    /// Runs the compiler with its incremental data in `incremental`. Returns the compiler's errors if there are some.
    fn run(&self, incremental: &Path) -> Result<Result<(), String>> {
        let ran = process::run(&mut self.command(incremental)?, LIMITS);
        let ran = ran.context("rustc cannot be run")?;
        ensure!(ran.end != End::TimeLimit, "rustc did not end");
        if ran.success() {
            return Ok(Ok(()));
        }
        let errors = cargo::rendered_errors(&ran.stderr);
        match errors.is_empty() {
            true => Err(anyhow!("rustc {}: {}", ran.describe(), ran.stderr)),
            false => Ok(Err(errors)),
        }
    }
}

/// Splits a list that the kernel has written.
fn parts(list: &[u8]) -> Vec<OsString> {
    let parts = list.split(|&byte| byte == 0);
    parts
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

/// Makes hard links to all files of a folder, or copies them if the file system has none. The compiler's locks are not
/// shared.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        let is_lock = copy
            .extension()
            .is_some_and(|extension| extension == "lock");
        if entry.file_type()?.is_dir() {
            link_all(&entry.path(), &copy)?;
        } else if is_lock || fs::hard_link(entry.path(), &copy).is_err() {
            fs::copy(entry.path(), &copy)?;
        }
    }
    Ok(())
}
