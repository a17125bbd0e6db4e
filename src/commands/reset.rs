//! `workbook reset`: restores an exercise's stub, and keeps a copy of the learner's file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use course::exercise::Exercise;
use course::root;

use crate::say;

/// Restores the stub of the exercise with that name.
///
/// # Errors
/// Returns an error if there is no such exercise, or if the learner's file cannot be copied; then nothing is changed.
pub fn run(root: &Path, name: &str) -> Result<()> {
    reset(root, &Exercise::find(root, name)?)
}

/// Restores the stubs of all exercises.
///
/// # Errors
/// Returns an error at the first exercise that cannot be reset.
pub fn run_all(root: &Path) -> Result<()> {
    let exercises = Exercise::all(root)?;
    exercises
        .iter()
        .try_for_each(|exercise| reset(root, exercise))
}

fn reset(root: &Path, exercise: &Exercise) -> Result<()> {
    let name = &exercise.name;
    let file = exercise.answer();
    let stub = fs::read_to_string(exercise.stub())?;
    let write = || fs::write(&file, &stub).with_context(|| file.display().to_string());
    let answer = match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.with_context(|| file.display().to_string())?),
    };
    if answer.as_deref() == Some(stub.as_bytes()) {
        say!("{name} is already the stub.");
        return Ok(());
    }
    if answer.is_none() {
        write()?;
        say!("{name} is the stub again. You had no file there.");
        return Ok(());
    }
    let kept = keep(root, name, &file).context(
        "your file cannot be copied, so nothing was changed; WORKBOOK_HOME=FOLDER puts the copy elsewhere",
    )?;
    write()?;
    say!(
        "{name} is the stub again. A copy of your file is {}.",
        kept.display()
    );
    Ok(())
}

/// Copies the file under the first free number.
fn keep(root: &Path, name: &str, file: &Path) -> Result<PathBuf> {
    let folder = root::home(root).join("kept");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for number in 1.. {
        let kept = folder.join(format!("{name}-{number}.rs"));
        match fs::File::create_new(&kept) {
            Ok(mut copy) => {
                let mut original = fs::File::open(file)?;
                let copied = std::io::copy(&mut original, &mut copy).and_then(|_| copy.sync_all());
                if copied.is_err() {
                    let _ = fs::remove_file(&kept);
                }
                copied.with_context(|| kept.display().to_string())?;
                return Ok(kept);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| kept.display().to_string()),
        }
    }
    unreachable!("the numbers do not end")
}
