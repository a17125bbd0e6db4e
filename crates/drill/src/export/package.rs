//! Writes the questions as an Anki package. A program of its own does that, because it needs SQLite, which takes as long to
//! compile as the whole drill.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use course::cargo;
use jiff::Timestamp;

use super::anki;
use crate::bank::{self, Bank};

/// The folders from which the contents of the cards come.
const SOURCES: [&str; 2] = [bank::FOLDER, "book/lab/examples"];

/// Builds the program and writes the package to a file.
///
/// # Errors
/// Returns an error if the program does not build, or if the file cannot be written.
pub fn write(bank: &Bank, root: &Path, file: &Path) -> Result<()> {
    let deck = serde_json::to_vec(&anki::deck(bank, modified(root)))?;
    let target = cargo::separate_target(root);
    let target = env::var_os("CARGO_TARGET_DIR").map_or(target, PathBuf::from);
    let program = cargo::build_program(root, &target, "apkg", || {
        eprintln!(
            "Building the program that writes packages. The first time, this takes half a minute."
        );
    });
    let program = program?.context("the program that writes packages does not build")?;
    let mut child = Command::new(program)
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .context("the program that writes packages cannot be started")?;
    let written = child.stdin.take().map(|mut stdin| {
        // Dropping it ends the input.
        io::Write::write_all(&mut stdin, &deck)
    });
    let status = child.wait()?;
    ensure!(
        status.success() && matches!(written, Some(Ok(()))),
        "{} was not written",
        file.display()
    );
    Ok(())
}

/// Returns when the questions last changed. Anki updates a card only if the deck is newer than the imported one. In clones
/// of the same commit the time is the same, and so are the bytes of the package.
fn modified(root: &Path) -> SystemTime {
    // https://reproducible-builds.org/specs/source-date-epoch/
    let set = env::var("SOURCE_DATE_EPOCH").ok();
    if let Some(time) = set.as_deref().and_then(time) {
        return time;
    }
    let committed = git(root, &["log", "-1", "--format=%ct"]);
    let committed = committed.as_deref().and_then(time);
    let changes = git(
        root,
        &["status", "--porcelain", "--", SOURCES[0], SOURCES[1]],
    );
    match (committed, changes.as_deref()) {
        (Some(time), Some("")) => time,
        (time, _) => {
            let files = SOURCES
                .iter()
                .filter_map(|folder| newest(&root.join(folder)));
            let newest = files.max().unwrap_or(SystemTime::UNIX_EPOCH);
            time.map_or(newest, |time| newest.max(time))
        }
    }
}

/// Parses a time in seconds since 1970. Returns `None` for a time after the year 9999, with which the package cannot
/// calculate.
fn time(seconds: &str) -> Option<SystemTime> {
    let seconds: u64 = seconds.trim().parse().ok()?;
    Timestamp::from_second(seconds.try_into().ok()?).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns the output of a git command; `None` if it fails, as it does outside of a repository.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(arguments);
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = || String::from_utf8(output.stdout).ok();
    output.status.success().then(text).flatten()
}

/// Returns the newest modification time of the files in a folder and its subfolders.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        match metadata.is_dir() {
            true => newest(&entry.path()),
            false => metadata.modified().ok(),
        }
    });
    times.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_after_the_year_9999_is_ignored() {
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(86400);
        assert_eq!(time("86400\n"), Some(day));
        let (most, seconds) = (u64::MAX.to_string(), i64::MAX.to_string());
        for seconds in [&most, &seconds, "-1", "garbage", ""] {
            assert_eq!(time(seconds), None, "{seconds}");
        }
    }
}
