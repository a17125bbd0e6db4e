//! `workbook reset`: puts an exercise's stub back, and keeps the reader's file aside.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anstream::println;
use anyhow::{Context, Result};

use crate::exercise::Exercise;
use crate::root;

/// Puts the stub back.
///
/// # Errors
/// If there is no such exercise, or the reader's file cannot be kept: then nothing is changed.
pub fn run(root: &Path, name: &str) -> Result<()> {
    let exercise = Exercise::find(root, name)?;
    let file = exercise.answer();
    let stub = fs::read_to_string(exercise.tests().join("answers/stub.rs"))?;
    let write = || fs::write(&file, &stub).with_context(|| file.display().to_string());
    let yours = match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.with_context(|| file.display().to_string())?),
    };
    if yours.as_deref() == Some(stub.as_bytes()) {
        println!("{name} is as it was given.");
        return Ok(());
    }
    if yours.is_none() {
        write()?;
        println!("{name} is as it was given; there was no file of yours.");
        return Ok(());
    }
    let kept = keep_aside(root, name, &file).context(
        "your file cannot be kept aside, and nothing is changed (WORKBOOK_HOME can name another folder for it)",
    )?;
    write()?;
    println!(
        "{name} is as it was given. Your file is {}.",
        kept.display()
    );
    Ok(())
}

/// Copies the file to the first number that is free.
fn keep_aside(root: &Path, name: &str, file: &Path) -> Result<PathBuf> {
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
    unreachable!("there is always a next number")
}
