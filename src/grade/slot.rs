//! A package whose answer is replaced again and again.
//!
//! Cargo compiles the first answer. For every other one, the two commands that cargo would run are run directly: rustc
//! compiles the answer as a change of the first answer, and then its grader. Cargo would compile each answer as a change of
//! the one before it, which differs more, and slots would wait for each other's lock.
//!
//! A whole grader takes several seconds, most of them in LLVM, which has to compile every case. So an answer that only one
//! case grades gets a grader with that case only, compiled without incremental data: reading and writing the data would
//! take longer than they save.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use course::cargo;
use course::exercise::Exercise;
use course::process::{self, End, Limits};

use crate::grade::candidates::{Candidate, Workspace};
use crate::grade::grader::Grader;
use crate::grade::one_case;

/// Cargo calls it in place of rustc. The kernel has the command's arguments and environment, each ended by a zero byte.
/// Nobody reads the warnings, and an answer may have so many that they would hide its errors.
const RECORDER: &str = r#"#!/bin/sh
[ -n "$CARGO_CRATE_NAME" ] || exec "$@"
cat /proc/$$/cmdline > "$RECORDED/$CARGO_CRATE_NAME.arguments"
cat /proc/$$/environ > "$RECORDED/$CARGO_CRATE_NAME.environment"
pwd > "$RECORDED/$CARGO_CRATE_NAME.folder"
[ "$CARGO_CRATE_NAME" != "$NOT_COMPILED" ] || exit 0
exec "$@" -C incremental="$RECORDED/first" -A warnings
"#;

/// The time limit for compiling one crate.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(5 * 60),
    output: 16 << 20,
};

pub struct Slot {
    exercise: Exercise,
    workspace: Workspace,
    grader: Grader,
    /// The first answer.
    source: String,
    /// The commands that compile the answer and the grader.
    commands: [Rustc; 2],
    /// Rustc's incremental data for the first answer. Rustc replaces these files and never changes them.
    first: PathBuf,
    /// The same for the current answer.
    current: PathBuf,
    /// The source of the grader with one case.
    one_case: PathBuf,
    has_first_grader: AtomicBool,
}

impl Slot {
    /// Compiles the first answer, but no grader.
    ///
    /// # Errors
    /// Returns an error if the answer does not build, or if a file cannot be written.
    pub fn new(root: &Path, name: &str, first: &Candidate) -> Result<Slot> {
        let workspace = Workspace::write(root, name, first)?;
        let recorded = workspace.folder().join("recorded").join(first.package());
        let grader = record(&workspace, first, &recorded, false)?;
        Ok(Slot {
            exercise: first.exercise.clone(),
            commands: recorded_commands(&recorded, first.exercise)?,
            grader,
            source: first.source.clone(),
            first: recorded.join("first"),
            current: recorded.join("current"),
            one_case: recorded.join("one_case"),
            workspace,
            has_first_grader: AtomicBool::new(false),
        })
    }

    /// Compiles the answer with its whole grader, and returns the grader or the compiler's errors. The next call replaces
    /// the grader.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or if the compiler cannot be run.
    pub fn compile(&self, answer: &str) -> Result<Result<Grader, String>> {
        if let Err(errors) = self.compile_answer(answer)? {
            return Ok(Err(errors));
        }
        self.compile_grader(&self.current)
    }

    /// Like `compile`, for answers that differ little from the first one: their graders are compiled as changes of the
    /// first answer's grader, which the first call compiles.
    ///
    /// # Errors
    /// As for `compile`, and if the first answer does not build.
    pub fn compile_change(&self, answer: &str) -> Result<Result<Grader, String>> {
        if !self.has_first_grader.load(Ordering::Relaxed) {
            let built = match self.compile_answer(&self.source)? {
                Ok(()) => self.compile_grader(&self.first)?,
                Err(errors) => Err(errors),
            };
            built.map_err(anyhow::Error::msg)?;
            self.has_first_grader.store(true, Ordering::Relaxed);
        }
        self.compile(answer)
    }

    /// Like `compile`, with a grader that has only this case.
    ///
    /// # Errors
    /// As for `compile`.
    pub fn compile_case(&self, answer: &str, case: &str) -> Result<Result<Grader, String>> {
        if let Err(errors) = self.compile_answer(answer)? {
            return Ok(Err(errors));
        }
        let root = one_case::write(&self.exercise, case, &self.one_case)?;
        let mut command = self.commands[1].command_for(&root)?;
        let mut prefix = self.one_case.clone().into_os_string();
        prefix.push("=");
        prefix.push(self.exercise.grader());
        command
            // Snapshots are beside the original files.
            .arg("--remap-path-prefix")
            .arg(prefix)
            // The most code units, as with incremental data: no code of the answer is optimised together with the case.
            .args(["-C", "codegen-units=256"])
            // Functions that only other cases call are unused.
            .args(["--cap-lints", "allow"]);
        Ok(run(command)?.map(|()| self.grader.clone()))
    }

    /// Compiles the answer as a change of the first one.
    fn compile_answer(&self, answer: &str) -> Result<Result<(), String>> {
        self.workspace.replace(answer)?;
        if self.current.exists() {
            fs::remove_dir_all(&self.current)?;
        }
        link_all(&self.first, &self.current)?;
        run(self.commands[0].command(&self.current)?)
    }

    fn compile_grader(&self, incremental: &Path) -> Result<Result<Grader, String>> {
        let compiled = run(self.commands[1].command(incremental)?)?;
        Ok(compiled.map(|()| self.grader.clone()))
    }
}

/// Compiles the first answer, and its grader if `with_grader`. Records the commands for both in the folder `recorded`, with
/// the incremental data in `first`.
///
/// # Errors
/// Returns an error if the answer does not build, or if a file cannot be written.
pub fn record(
    workspace: &Workspace,
    first: &Candidate,
    recorded: &Path,
    with_grader: bool,
) -> Result<Grader> {
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
            .env("RECORDED", recorded)
            .env("NOT_COMPILED", if with_grader { "" } else { "grader" });
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
        // Cargo's incremental data is not used.
        let is_incremental = |argument: &OsString| argument.as_bytes().starts_with(b"incremental=");
        if let Some(value) = arguments.iter().position(is_incremental) {
            arguments.drain(value.saturating_sub(1)..=value);
        }
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

    /// Whether the command has this argument.
    pub fn has(&self, argument: &str) -> bool {
        self.arguments.iter().any(|one| one == argument)
    }

    /// The command, with its incremental data in `incremental`.
    ///
    /// # Errors
    /// Returns an error if nothing was recorded.
    pub fn command(&self, incremental: &Path) -> Result<Command> {
        let mut option = OsString::from("incremental=");
        option.push(incremental);
        let mut command = self.command_of(&self.arguments)?;
        command
            // In this order, as in `RECORDER`: with other options, the incremental data would be useless.
            .arg("-C")
            .arg(option)
            .args(["-A", "warnings"]);
        Ok(command)
    }

    /// The command without incremental data, for another root of the crate.
    fn command_for(&self, root: &Path) -> Result<Command> {
        let mut arguments = self.arguments.clone();
        let mut sources = arguments.iter_mut();
        let source = sources.find(|argument| argument.as_bytes().ends_with(b".rs"));
        *source.context("the command names no source file")? = root.into();
        self.command_of(&arguments)
    }

    fn command_of(&self, arguments: &[OsString]) -> Result<Command> {
        let (rustc, arguments) = arguments.split_first().context("no command")?;
        let mut command = Command::new(rustc);
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            // Cargo's pipe for its compilers is closed.
            .env_remove("CARGO_MAKEFLAGS")
            .current_dir(&self.folder);
        Ok(command)
    }
}

/// Runs a compiler. Returns its errors if there are some.
fn run(mut rustc: Command) -> Result<Result<(), String>> {
    let ran = process::run(&mut rustc, LIMITS).context("rustc cannot be run")?;
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
