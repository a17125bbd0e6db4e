//! What the reader has done: a log of one JSON line for each event, in `.workbook/log.jsonl`; the state is its replay.
//!
//! A line is acknowledged once it is on the disk. Lines are appended under a lock, so two commands at once do not mix
//! theirs. A line that was torn, by a full disk or a killed process, is passed over.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::verdicts::{Count, Verdicts};

/// Something that the reader did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs)] // The fields' names say it.
pub enum Record {
    /// An exercise was graded.
    Graded {
        /// Seconds since 1970.
        at: u64,
        exercise: String,
        stages: Vec<Stage>,
        /// Whether every case of its core passed.
        solved: bool,
    },
    /// A hint was shown.
    Hinted {
        at: u64,
        exercise: String,
        stage: String,
        /// From 1.
        rung: usize,
    },
    /// The solution was shown.
    Looked { at: u64, exercise: String },
    /// Written by another version, or another command.
    #[serde(other)]
    Other,
}

/// What became of one stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)] // As in `verdicts::Stage`.
pub struct Stage {
    pub name: String,
    pub bonus: bool,
    #[serde(flatten)]
    pub count: Count,
}

impl Record {
    /// The exercise was graded now.
    pub fn graded(verdicts: &Verdicts) -> Record {
        let stages = verdicts.stages.iter().map(|stage| Stage {
            name: stage.name.clone(),
            bonus: stage.bonus,
            count: Count::of(&stage.cases),
        });
        Record::Graded {
            at: now(),
            exercise: verdicts.name.clone(),
            stages: stages.collect(),
            solved: verdicts.core.failed + verdicts.core.not_started == 0,
        }
    }

    /// A hint is shown now.
    pub fn hinted(exercise: &str, stage: &str, rung: usize) -> Record {
        Record::Hinted {
            at: now(),
            exercise: exercise.to_owned(),
            stage: stage.to_owned(),
            rung,
        }
    }

    /// The solution is shown now.
    pub fn looked(exercise: &str) -> Record {
        Record::Looked {
            at: now(),
            exercise: exercise.to_owned(),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Where the state lies: `WORKBOOK_HOME`, or `.workbook` in the clone.
pub fn home(root: &Path) -> PathBuf {
    std::env::var_os("WORKBOOK_HOME").map_or_else(|| root.join(".workbook"), PathBuf::from)
}

/// The log's file.
pub fn log(root: &Path) -> PathBuf {
    home(root).join("log.jsonl")
}

/// Appends a record; it is on the disk when this returns.
///
/// # Errors
/// If it cannot be written: the log then holds what it held.
pub fn append(root: &Path, record: &impl Serialize) -> Result<()> {
    let path = log(root);
    append_to(&path, &serde_json::to_string(record)?)
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn append_to(path: &Path, record: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    file.lock()?;
    let before = file.metadata()?.len();
    let mut line = String::new();
    if before > 0 && !ends_a_line(&mut file)? {
        // The last one was torn: it must not take this one with it.
        line.push('\n');
    }
    line.push_str(record);
    line.push('\n');
    let written = file
        .write_all(line.as_bytes())
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // Half a record is none.
        let _ = file.set_len(before);
    }
    written
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// All records, in their order.
///
/// # Errors
/// If there is a log, and it cannot be read.
pub fn read(root: &Path) -> Result<Vec<Record>> {
    let path = log(root);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.with_context(|| path.display().to_string())?,
    };
    let lines = bytes.split(|byte| *byte == b'\n');
    let records = lines.filter_map(|line| serde_json::from_slice(line).ok());
    Ok(records.collect())
}

/// Whether the exercise's core passed when it was graded last.
///
/// # Errors
/// If the log cannot be read.
pub fn is_solved(root: &Path, name: &str) -> Result<bool> {
    let records = read(root)?;
    let last = records.iter().rev().find_map(|record| match record {
        Record::Graded {
            exercise, solved, ..
        } if exercise == name => Some(*solved),
        _ => None,
    });
    Ok(last.unwrap_or(false))
}

/// How many hints of that stage have been shown: the highest rung.
///
/// # Errors
/// If the log cannot be read.
pub fn hints_shown(root: &Path, name: &str, of: &str) -> Result<usize> {
    let records = read(root)?;
    let rungs = records.iter().filter_map(|record| match record {
        Record::Hinted {
            exercise,
            stage,
            rung,
            ..
        } if exercise == name && stage == of => Some(*rung),
        _ => None,
    });
    Ok(rungs.max().unwrap_or(0))
}

/// The first stage of the exercise that did not pass when it was graded last.
///
/// # Errors
/// If the log cannot be read.
pub fn first_unsolved_stage(root: &Path, name: &str) -> Result<Option<String>> {
    let records = read(root)?;
    let stages = records.iter().rev().find_map(|record| match record {
        Record::Graded {
            exercise, stages, ..
        } if exercise == name => Some(stages),
        _ => None,
    });
    let unsolved = |stage: &&Stage| stage.count.failed + stage.count.not_started > 0;
    Ok(stages.and_then(|stages| stages.iter().find(unsolved).map(|stage| stage.name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        append_to(
            &path,
            &serde_json::to_string(&Record::looked("one")).unwrap(),
        )
        .unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"kind\":\"loo").unwrap();
        append_to(
            &path,
            &serde_json::to_string(&Record::looked("two")).unwrap(),
        )
        .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let names: Vec<_> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .map(|record| match record {
                Record::Looked { exercise, .. } => exercise,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn a_record_of_another_version_is_read_as_other() {
        let record = serde_json::from_str(r#"{"kind":"drilled","card":"x"}"#).unwrap();
        assert!(matches!(record, Record::Other), "{record:?}");
    }
}
