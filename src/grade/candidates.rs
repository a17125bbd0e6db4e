//! Builds the grader of another answer than the learner's: the answer becomes the package of a generated workspace.
//!
//! The workspaces are below `.workbook/candidates/` in the clone. They have the clone's lock file, dependencies, lints and
//! profiles, and build into the clone's target directory, where the dependencies are built already. They cannot be in the
//! target directory: trybuild would print absolute paths there, and no expected error would match.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use course::cargo::{self, Message, NO_CARGO};
use course::exercise::Exercise;
use course::process::Group;
use toml::{Table, Value};

use crate::grade::compile_fail::Library;
use crate::grade::grader::Grader;

/// An answer to an exercise: the text of a whole `src/lib.rs`.
///
/// A line `// needs: rustix = { version = "1.1" }` adds a dependency, whose version the clone's lock file pins.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    pub exercise: &'a Exercise,
    /// Unique within the exercise, such as `worker-1`.
    pub name: String,
    pub source: String,
}

impl Candidate<'_> {
    /// The name of the package, and of its folder in the generated workspace.
    pub fn package(&self) -> String {
        format!("{}-{}", self.exercise.name, self.name)
    }
}

/// A generated workspace.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    folder: PathBuf,
    target: PathBuf,
    package: String,
}

impl Workspace {
    /// Writes the workspace with that name, with a package for the candidate.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or a dependency is missing and cannot be downloaded.
    pub fn write(root: &Path, name: &str, candidate: &Candidate) -> Result<Workspace> {
        let folder = root.join(".workbook/candidates").join(name);
        Workspace::write_to(root, folder, cargo::target(root)?, candidate)
    }

    /// Writes the workspace to that folder. It builds into `target`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or a dependency is missing and cannot be downloaded.
    pub fn write_to(
        root: &Path,
        folder: PathBuf,
        target: PathBuf,
        candidate: &Candidate,
    ) -> Result<Workspace> {
        write_workspace(root, &folder, candidate)?;
        // Builds are offline: otherwise cargo would look for newer versions than those in the lock file.
        cargo::fetch(root)?;
        Ok(Workspace {
            root: root.to_owned(),
            folder,
            target,
            package: candidate.package(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts another answer into the package.
    pub(super) fn replace(&self, source: &str) -> Result<()> {
        write(&self.folder.join(&self.package).join("src/lib.rs"), source)
    }

    /// Builds the grader. `change` may change cargo's command.
    ///
    /// # Errors
    /// Returns an error with the compiler's errors if it does not build, and an error if cargo cannot be run.
    pub fn build(&self, change: impl FnOnce(&mut Command)) -> Result<Grader> {
        let mut command = cargo::command();
        command.args(["build", "--quiet", "--offline", "--tests"]);
        command
            .arg("--message-format=json")
            .arg("--target-dir")
            .arg(&self.target)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut cargo = Group::spawn(&mut command).context(NO_CARGO)?;
        let stdout = cargo.take_stdout().expect("a pipe was requested");
        let stderr = cargo.take_stderr().expect("a pipe was requested");
        // Read in parallel, because cargo would stop at a full pipe.
        let other_errors =
            std::thread::spawn(move || io::read_to_string(stderr).unwrap_or_default());

        let package = self.folder.join(&self.package);
        let manifest = package.join("Cargo.toml");
        let (mut binary, mut library, mut errors) = (None, None, String::new());
        for message in cargo::messages(stdout) {
            match message {
                Message::Artifact {
                    manifest_path,
                    target,
                    filenames,
                    executable,
                } if manifest_path == manifest => {
                    library = library.or(Library::of(&target, &filenames));
                    binary = binary.or(executable);
                }
                Message::Diagnostic { message, .. } if message.level == "error" => {
                    errors += &message.rendered.unwrap_or_default();
                }
                _ => {}
            }
        }
        cargo.wait()?;
        let other_errors = other_errors.join().unwrap_or_default();
        Ok(Grader {
            binary: binary.with_context(|| format!("it does not build: {errors}{other_errors}"))?,
            library,
            package,
            root: self.root.clone(),
            target: self.target.clone(),
            confined: None,
        })
    }
}

fn write_workspace(root: &Path, workspace: &Path, candidate: &Candidate) -> Result<()> {
    let clone = manifest(&root.join("Cargo.toml"))?;
    let folder = workspace.join(candidate.package());
    fs::create_dir_all(folder.join("src"))?;
    write(&folder.join("src/lib.rs"), &candidate.source)?;
    let manifest = package_manifest(candidate)
        .with_context(|| format!("exercises/{}/Cargo.toml", candidate.exercise.name))?;
    write(&folder.join("Cargo.toml"), &toml::to_string(&manifest)?)?;
    // trybuild looks for the compile-fail cases in the package.
    link(
        &candidate.exercise.folder().join("tests"),
        &folder.join("tests"),
    )?;
    let manifest = workspace_manifest(root, clone, candidate)?;
    write(&workspace.join("Cargo.toml"), &toml::to_string(&manifest)?)?;
    // Copied each time, because cargo adds the candidate to it.
    fs::copy(root.join("Cargo.lock"), workspace.join("Cargo.lock"))?;
    Ok(())
}

/// The clone's manifest with the candidate as its member, and with absolute paths.
fn workspace_manifest(root: &Path, mut clone: Table, candidate: &Candidate) -> Result<Table> {
    let members = vec![candidate.package().into()];
    let workspace = table(&mut clone, "workspace")?;
    workspace.insert("members".to_owned(), Value::Array(members));
    workspace.remove("default-members");
    for (_, dependency) in table(workspace, "dependencies")?.iter_mut() {
        if let Some(path) = dependency.get_mut("path") {
            *path = absolute(&root.join(path.as_str().unwrap_or_default()));
        }
    }
    clone.retain(|key, _| ["workspace", "profile"].contains(&key));
    let dev = table(table(&mut clone, "profile")?, "dev")?;
    compile_like_the_exercise(table(dev, "package")?, candidate);
    Ok(clone)
}

/// Gives the candidate the profile of its exercise, without debug information. `profiles` are the profiles of single packages.
fn compile_like_the_exercise(profiles: &mut Table, candidate: &Candidate) {
    let of_exercises = std::mem::take(profiles);
    if let Some(Value::Table(profile)) = of_exercises.get(&candidate.exercise.name) {
        let mut profile = profile.clone();
        // Nobody debugs a candidate. Without line numbers, its grader takes two thirds of the space.
        profile.insert("debug".to_owned(), false.into());
        // Without symbols, an answer does not find the data of its judge by name.
        profile.insert("strip".to_owned(), "symbols".into());
        profiles.insert(candidate.package(), profile.into());
    }
}

/// The exercise's manifest with the candidate's name.
fn package_manifest(candidate: &Candidate) -> Result<Table> {
    let exercise = candidate.exercise;
    let mut manifest = manifest(&exercise.folder().join("Cargo.toml"))?;
    let package = table(&mut manifest, "package")?;
    package.insert("name".to_owned(), candidate.package().into());
    package.remove("metadata");
    // A candidate is always built from its current source.
    package.remove("build");
    let library = manifest.entry("lib").or_insert_with(|| Table::new().into());
    let library = library.as_table_mut().context("lib is not a table")?;
    library.insert("name".to_owned(), exercise.library().into());
    // The path of the source file, not of the link: snapshots are beside it.
    let grader = Table::from_iter([
        ("name".to_owned(), Value::from("grader")),
        (
            "path".to_owned(),
            absolute(&exercise.grader().join("main.rs")),
        ),
    ]);
    manifest.insert("test".to_owned(), Value::Array(vec![grader.into()]));
    let needs = candidate.source.lines();
    let needs = needs.filter_map(|line| line.strip_prefix("// needs: "));
    for need in needs {
        let need: Table = need.parse().with_context(|| format!("// needs: {need}"))?;
        table(&mut manifest, "dependencies")?.extend(need);
    }
    Ok(manifest)
}

fn absolute(path: &Path) -> Value {
    Value::from(path.to_string_lossy().into_owned())
}

fn manifest(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.parse().with_context(|| path.display().to_string())
}

fn table<'a>(parent: &'a mut Table, key: &str) -> Result<&'a mut Table> {
    let child = parent.get_mut(key).and_then(Value::as_table_mut);
    child.with_context(|| format!("the manifest has no table {key}"))
}

/// Writes only what has changed: cargo decides by modification times.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

fn link(original: &Path, link: &Path) -> Result<()> {
    match symlink(original, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| link.display().to_string())
        }
        _ => Ok(()),
    }
}
