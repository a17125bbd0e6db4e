//! Calls cargo and parses its JSON messages.
//!
//! The crate `cargo_metadata` does the same, but brings seven crates, and every learner would wait for them before the
//! first verdict.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::root;

/// The error if cargo cannot be started.
pub const NO_CARGO: &str = "cargo cannot be started; install Rust from https://rustup.rs";

/// The fields of a `--message-format=json` message that are used here.
#[derive(Deserialize)]
#[serde(tag = "reason")]
pub enum Message {
    #[serde(rename = "compiler-artifact")]
    Artifact {
        manifest_path: PathBuf,
        target: Target,
        filenames: Vec<PathBuf>,
        /// `None` for a library.
        executable: Option<PathBuf>,
    },
    #[serde(rename = "compiler-message")]
    Diagnostic {
        manifest_path: PathBuf,
        target: Target,
        message: Diagnostic,
    },
    #[serde(other)]
    Other,
}

/// The part of a package that cargo compiled.
#[derive(Deserialize)]
pub struct Target {
    pub kind: Vec<String>,
    /// The name of the crate.
    pub name: String,
    pub edition: String,
}

impl Target {
    pub fn is_test(&self) -> bool {
        self.kind.iter().any(|kind| kind == "test")
    }
}

/// An error or a warning of the compiler, or a note in one.
#[derive(Debug, Clone, Deserialize)]
pub struct Diagnostic {
    /// `error`, `warning`, …
    pub level: String,
    pub message: String,
    pub spans: Vec<Span>,
    pub children: Vec<Diagnostic>,
    /// The text for a terminal.
    pub rendered: Option<String>,
}

/// The errors in what rustc prints with `--error-format=json`, as a person reads them.
pub fn rendered_errors(stderr: &str) -> String {
    let diagnostics = stderr.lines().map(serde_json::from_str::<Diagnostic>);
    let errors = diagnostics
        .flatten()
        // Or "error: internal compiler error".
        .filter(|diagnostic| diagnostic.level.starts_with("error"));
    errors.filter_map(|error| error.rendered).collect()
}

/// A place in the source to which a diagnostic points.
#[derive(Debug, Clone, Deserialize)]
pub struct Span {
    pub file_name: String,
    pub is_primary: bool,
    pub label: Option<String>,
    pub text: Vec<Line>,
}

/// A line of the source.
#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    pub text: String,
}

/// The cargo that started this program, or else the one on the path.
pub fn command() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Parses cargo's standard output. Lines that are not messages are skipped.
pub fn messages(stdout: impl Read) -> impl Iterator<Item = Message> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str(&line).ok())
}

/// Returns the target directory of the workspace in `root`.
///
/// # Errors
/// Returns an error if `cargo metadata` fails.
pub fn target(root: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let output = command()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context(NO_CARGO)?;
    ensure!(
        output.status.success(),
        "cargo metadata fails in {}",
        root.display()
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    Ok(metadata.target_directory)
}

/// Returns the target directory that `program` was built in, without a call of cargo, which would take 0.1 s at
/// every save.
///
/// # Errors
/// Returns an error if `program` is in no target directory and `cargo metadata` fails.
pub fn target_of(root: &Path, program: &Path) -> Result<PathBuf> {
    let is_target = |folder: &&Path| folder.join(".rustc_info.json").is_file();
    match program.ancestors().skip(1).find(is_target) {
        Some(folder) => Ok(folder.to_owned()),
        None => target(root),
    }
}

/// The target directory of the second workspace and of the book's programs. In the learner's own target directory, a grading
/// would wait for cargo's lock until they are built.
pub fn separate_target(root: &Path) -> PathBuf {
    root::home(root).join("target")
}

/// The manifest of the second workspace, which holds what a grading does not need.
pub fn second_workspace(root: &Path) -> PathBuf {
    root.join("crates/Cargo.toml")
}

/// A build that takes longer is announced. Without changes, cargo takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Builds the program of a package in the second workspace, and returns its path. Returns `None` if it does not build; cargo
/// then prints why. `announce` is called if the build takes more than a moment.
///
/// # Errors
/// Returns an error if cargo cannot be started.
pub fn build_program(
    root: &Path,
    target: &Path,
    package: &str,
    announce: impl FnOnce() + Send + 'static,
) -> Result<Option<PathBuf>> {
    build_program_with(root, target, package, &[], announce)
}

/// Like [`build_program`], with more arguments for cargo.
///
/// # Errors
/// Returns an error if cargo cannot be started.
pub fn build_program_with(
    root: &Path,
    target: &Path,
    package: &str,
    arguments: &[&str],
    announce: impl FnOnce() + Send + 'static,
) -> Result<Option<PathBuf>> {
    let mut command = command();
    command.arg("build");
    let profile = match arguments.contains(&"--release") {
        true => "release",
        false => "debug",
    };
    // The first build takes so long that cargo should show its progress.
    if target.join(profile).join(package).is_file() {
        command.arg("--quiet");
    }
    let mut child = command
        .args(["--package", package, "--bin", package])
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(second_workspace(root))
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(NO_CARGO)?;
    let stdout = child.stdout.take().expect("a pipe was requested");
    let (end, ended) = mpsc::channel::<()>();
    let announcer = thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            announce();
        }
    });
    let programs = messages(stdout).filter_map(|message| match message {
        Message::Artifact { executable, .. } => executable,
        _ => None,
    });
    let program = programs.last();
    let status = child.wait()?;
    drop(end);
    // Without it, the announcement could come after the program's first line.
    let _ = announcer.join();
    Ok(program.filter(|_| status.success()))
}

/// Downloads the crates that the lock file names and that are missing, for this kind of machine. Needs no network if
/// none is missing.
///
/// # Errors
/// Returns an error if a crate is missing and cannot be downloaded.
pub fn fetch(root: &Path) -> Result<()> {
    let output = command()
        .args(["fetch", "--quiet", "--locked", "--target", "host-tuple"])
        .current_dir(root)
        .output()
        .context(NO_CARGO)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo fetch: {}", errors.trim());
    Ok(())
}
