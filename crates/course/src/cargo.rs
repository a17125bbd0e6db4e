//! Starts cargo and reads what it says to programs.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::root;

/// Said where cargo cannot be started.
pub const NO_CARGO: &str = "cargo cannot be started: is Rust installed? https://rustup.rs";

/// What cargo says on its standard output that matters here.
#[derive(Deserialize)]
#[serde(tag = "reason")]
pub enum Message {
    /// Something was built.
    #[serde(rename = "compiler-artifact")]
    Built {
        /// Of its package.
        manifest_path: PathBuf,
        /// A program, if it is one.
        executable: Option<PathBuf>,
    },
    /// The compiler said something.
    #[serde(rename = "compiler-message")]
    Said {
        /// Of the package that it is about.
        manifest_path: PathBuf,
        /// What it said.
        message: Diagnostic,
    },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// What the compiler said.
#[derive(Deserialize)]
pub struct Diagnostic {
    /// `error`, `warning`, …
    pub level: String,
    /// As a person reads it.
    pub rendered: Option<String>,
}

/// cargo, as this command was started by, or as the shell finds it.
pub fn command() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The messages of a run of cargo; a line that is none is passed over.
pub fn messages(stdout: impl Read) -> impl Iterator<Item = Message> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str(&line).ok())
}

/// Where cargo builds, in the workspace of `root`.
///
/// # Errors
/// If cargo cannot tell.
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
    ensure!(output.status.success(), "cargo does not read the workspace");
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    Ok(metadata.target_directory)
}

/// Where cargo has built that program: the folder above it that cargo has made its own. Asking cargo takes a tenth of a
/// second, at every save.
///
/// # Errors
/// If there is no such folder, and cargo cannot tell.
pub fn target_of(root: &Path, program: &Path) -> Result<PathBuf> {
    let is_cargos = |folder: &&Path| folder.join(".rustc_info.json").is_file();
    match program.ancestors().skip(1).find(is_cargos) {
        Some(folder) => Ok(folder.to_owned()),
        None => target(root),
    }
}

/// Where the book's server, the drill and the benchmark are built: in cargo's usual directory a save would wait for its
/// lock until they are.
pub fn target_apart(root: &Path) -> PathBuf {
    root::home(root).join("target")
}

/// Downloads what the lock file names and is not here yet, for this kind of machine. Where all is here it needs no
/// network.
///
/// # Errors
/// If something is missing and cannot be downloaded.
pub fn fetch(root: &Path) -> Result<()> {
    let output = command()
        .args(["fetch", "--quiet", "--locked", "--target", "host-tuple"])
        .current_dir(root)
        .output()
        .context(NO_CARGO)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo fetch: {}", said.trim());
    Ok(())
}
