//! `workbook handout`: a copy of the clone for students, without solutions, answers and exam.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use course::exercise::Exercise;

use crate::say;

/// Paths that students do not get: what would show them a solution, and what is about the repository itself.
const LEFT_OUT: [&str; 12] = [
    ".ci",
    ".github",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "TEACHING.md",
    "deny.toml",
    "solutions/src",
    "teaching",
    "tests",
    "typos.toml",
];

/// The handout's first page.
const README: &str = include_str!("handout.md");

/// Writes the handout into the folder `to`, which must be empty or not exist. The teacher's own answers are not part
/// of it: each exercise is the stub.
///
/// # Errors
/// Returns an error if the clone is not a git repository, or if a file cannot be copied. What is written by then stays.
pub fn run(root: &Path, to: &Path) -> Result<()> {
    let to = std::path::absolute(to)?;
    if fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is not empty: name a new folder for the handout",
            to.display()
        );
    }
    // Answers that the teacher has written are not handed out.
    let exercises = Exercise::all(root)?;
    let is_answer = |path: &Path| {
        let path = root.join(path);
        let in_answer = |exercise: &Exercise| path.starts_with(exercise.folder().join("src"));
        exercises.iter().any(in_answer)
    };
    let files = files(root)?;
    let handed_out = files
        .iter()
        .filter(|path| !LEFT_OUT.iter().any(|part| path.starts_with(part)) && !is_answer(path));
    for path in handed_out {
        copy(&root.join(path), &to.join(path))?;
    }
    for exercise in &exercises {
        let relative = |path: PathBuf| path.strip_prefix(root).map(|path| to.join(path));
        for copied in [exercise.answer(), exercise.solution()] {
            copy(&exercise.stub(), &relative(copied)?)?;
        }
    }
    copy(
        &root.join("solutions/src/lib.rs"),
        &to.join("solutions/src/lib.rs"),
    )?;
    let manifest = to.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    write(&manifest, &without_tests(&text))?;
    write(&to.join("README.md"), README)?;
    say!(
        "The handout is in {}. It has no solutions, and no answer of yours. But crates/preload/src/shim.rs shows how \
         stage 10 of threshold-alloc can be solved: `cargo run -- programs` needs it for answers without that stage.",
        to.display()
    );
    Ok(())
}

/// The files of the clone that git tracks, relative to its root. Others may be the teacher's notes.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("git cannot be started; the handout has the files that git tracks")?;
    ensure!(
        listed.status.success(),
        "git cannot list the files of {}: {}",
        root.display(),
        String::from_utf8_lossy(&listed.stderr).trim()
    );
    let listed = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    let paths = listed.split_terminator('\0').map(PathBuf::from);
    // Git also lists a file that was deleted and is not committed as such.
    Ok(paths.filter(|path| root.join(path).exists()).collect())
}

/// Copies a file, and makes the folders above the copy.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder)
        .with_context(|| format!("{} cannot be created", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

/// The root's manifest without its `[[test]]` tables, whose files are left out. Blank lines separate tables.
fn without_tests(manifest: &str) -> String {
    let is_test = |part: &&str| part.lines().any(|line| line == "[[test]]");
    let kept: Vec<&str> = manifest
        .trim_end()
        .split("\n\n")
        .filter(|part| !is_test(part))
        .collect();
    kept.join("\n\n") + "\n"
}
