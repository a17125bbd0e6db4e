//! Builds the shared object, and finds out which stages of the answer it can use.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anstream::eprintln;
use anyhow::{Context, Result, bail, ensure};
use course::cargo::{self, Message, NO_CARGO};
use course::exercise::Exercise;
use course::process::{self, Limits};
use course::root;
use nix::libc;
use serde::Serialize;
use tempfile::TempDir;

use crate::progress::Progress;

#[derive(Debug, Serialize)]
pub struct Object {
    pub subject: Subject,
    /// The bonus stages that the answer has not begun. The object does without them.
    pub lacks: Vec<&'static str>,
    /// A copy that the next build does not replace.
    #[serde(skip)]
    pub path: PathBuf,
    /// The distance of the counters of blocks from the start of the object.
    #[serde(skip)]
    pub counters: u64,
    #[serde(skip)]
    _folder: TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Learner,
    Solution,
}

/// The bonus stages that the object uses, which are its features.
const BONUS: [&str; 5] = ["resize", "global", "moving", "cache", "c_interface"];

/// The exit status of `started` for a stage that is not begun.
const NOT_STARTED: i32 = 3;

/// Returns `None` if the answer does not compile; cargo then prints why.
///
/// # Errors
/// Returns an error if the core of the answer is not begun, if this copy has no solutions, or if cargo cannot be started.
pub fn build(solution: bool, progress: &Progress) -> Result<Option<Object>> {
    let root = root::find()?;
    let subject = match solution {
        true => Subject::Solution,
        false => Subject::Learner,
    };
    if subject == Subject::Solution {
        Exercise::find(&root, "threshold-alloc")?.ensure_solution()?;
    }
    progress.show("building the shared object");
    if !cargo::separate_target(&root)
        .join("release/libpreload.so")
        .is_file()
    {
        eprintln!("Building the shared object. The first time, this takes about half a minute.");
    }
    let mut lacks = Vec::new();
    if subject == Subject::Learner {
        let Some(started) = compile(&root, subject, &["--bin", "started"], &BONUS)? else {
            return Ok(None);
        };
        for stage in ["large", "bump"] {
            ensure!(
                is_started(&started, stage)?,
                "`alloc` of your ThresholdAlloc is still `todo!()`: first solve the stages 1 to 4 of threshold-alloc \
                 (`cargo run -- grade threshold-alloc`), or use `--solution`"
            );
        }
        for stage in BONUS {
            if !is_started(&started, stage)? {
                lacks.push(stage);
            }
        }
    }
    let begun: Vec<&str> = BONUS
        .into_iter()
        .filter(|stage| !lacks.contains(stage))
        .collect();
    let Some(built) = compile(&root, subject, &["--lib"], &begun)? else {
        return Ok(None);
    };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("libthreshold_alloc.so");
    ensure!(
        !path.to_string_lossy().contains([' ', ':']),
        "LD_PRELOAD cannot name {}, because it ends at a space or a colon: set TMPDIR to another folder",
        path.display()
    );
    fs::copy(&built, &path).with_context(|| format!("{} cannot be copied", built.display()))?;
    Ok(Some(Object {
        subject,
        lacks,
        counters: counters_of(&path)?,
        path,
        _folder: folder,
    }))
}

/// Builds a part of the package `preload`, and returns its path. `None` if it does not compile.
fn compile(
    root: &Path,
    subject: Subject,
    part: &[&str],
    stages: &[&str],
) -> Result<Option<PathBuf>> {
    let mut features = stages.to_vec();
    if subject == Subject::Learner {
        features.push("learner");
    }
    let mut child = cargo::command()
        .args(["build", "--release", "--quiet", "--package", "preload"])
        .args(part)
        .arg("--features")
        .arg(features.join(","))
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(cargo::second_workspace(root))
        .arg("--target-dir")
        .arg(cargo::separate_target(root))
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(NO_CARGO)?;
    let stdout = child.stdout.take().context("cargo has no pipe")?;
    let files = cargo::messages(stdout).filter_map(|message| match message {
        Message::Artifact { filenames, .. } => filenames.into_iter().next(),
        _ => None,
    });
    let built = files.last();
    Ok(child.wait()?.success().then_some(built).flatten())
}

/// Returns whether a function of the stage is anything but `todo!()`.
fn is_started(program: &Path, stage: &str) -> Result<bool> {
    let mut command = Command::new(program);
    let ran = process::run(command.arg(stage), Limits::time(Duration::from_secs(10)))?;
    Ok(ran.code() != Some(NOT_STARTED))
}

/// Returns the distance of the counters from the start of the object in memory. The object is loaded here to find it, and
/// does not replace this program's malloc.
fn counters_of(path: &Path) -> Result<u64> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the name is a C string, and the object's constructor only stores settings.
    let object = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if object.is_null() {
        // SAFETY: no other thread calls dlopen.
        let error = unsafe { libc::dlerror() };
        // SAFETY: after a failure, dlerror returns a C string.
        let error = unsafe { CStr::from_ptr(error) };
        bail!(
            "the object cannot be loaded: {}; if its file system is mounted with noexec, set TMPDIR to another folder",
            error.to_string_lossy()
        );
    }
    // SAFETY: the object is loaded, and the name is a C string.
    let counters = unsafe { libc::dlsym(object, c"workbook_blocks".as_ptr()) };
    ensure!(!counters.is_null(), "{} has no counters", path.display());
    let mut about = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: `about` is valid for writes.
    let found = unsafe { libc::dladdr(counters, &raw mut about) };
    ensure!(found != 0, "{} cannot be found in memory", path.display());
    Ok((counters.addr() - about.dli_fbase.addr()) as u64)
}
