//! The learner's log: `.workbook/log.jsonl` in the clone, where lines are only ever added. State is a replay of it.
//!
//! A line is acknowledged when it is on the disk: it is written at the end under a lock (`O_APPEND`, flock, fsync). What
//! a killed writer left of a line is passed over, and said; the next line begins after it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exercise::Exercise;
use crate::root;
use crate::verdicts::{Count, Verdicts};

/// The log.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

/// What a log holds.
#[derive(Debug)]
pub struct Lines<T> {
    /// In the order in which they were written.
    pub records: Vec<T>,
    /// The numbers of the lines, from 1, that are no record: a writer was killed, or the disk was full.
    pub torn: Vec<usize>,
}

/// A record of an exercise that was graded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graded {
    /// When, in seconds since 1970.
    pub at: i64,
    /// Which.
    pub exercise: String,
    /// Whether all but the bonus stages passed.
    pub solved: bool,
    /// By stage.
    pub stages: Vec<StageCount>,
}

/// How many cases of a stage came to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCount {
    /// As in the manifest.
    pub name: String,
    /// Whether the exercise is solved without it.
    #[serde(default)]
    pub bonus: bool,
    /// Of its cases.
    #[serde(flatten)]
    pub count: Count,
    /// What the learner was told of the first case that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A record of this command's; another's are `Other`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Record {
    /// An exercise was graded.
    Exercise(Graded),
    /// A hint was shown.
    Hint {
        /// When, in seconds since 1970.
        at: i64,
        /// Of which exercise.
        exercise: String,
        /// Of which stage.
        stage: String,
        /// From 1.
        rung: usize,
    },
    /// The solution was shown.
    Solution {
        /// When, in seconds since 1970.
        at: i64,
        /// Of which exercise.
        exercise: String,
    },
    /// What another command recorded.
    #[serde(other)]
    Other,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

impl Graded {
    /// What is recorded of these verdicts.
    pub fn of(exercise: &Exercise, verdicts: &Verdicts) -> Graded {
        let stages = verdicts.stages.iter().map(|stage| StageCount {
            name: stage.name.clone(),
            bonus: stage.bonus,
            count: Count::of(&stage.cases),
            failure: stage.first_failure().and_then(|case| case.sentence.clone()),
        });
        let core = verdicts.core;
        Graded {
            at: now(),
            exercise: exercise.name.clone(),
            solved: core.possible > 0 && core.failed + core.not_started == 0,
            stages: stages.collect(),
        }
    }

    /// Whether a case failed: one that was not started does not count.
    pub fn failed(&self) -> bool {
        self.stages.iter().any(|stage| stage.count.failed > 0)
    }

    /// Adds it to the log of that clone.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn record(&self, root: &Path) -> Result<()> {
        Log::of(root).append(&Record::Exercise(self.clone()))
    }
}

impl Log {
    /// The log of that clone.
    pub fn of(root: &Path) -> Log {
        Log::in_folder(&root::home(root))
    }

    /// The log in that folder.
    pub fn in_folder(folder: &Path) -> Log {
        Log {
            path: folder.join("log.jsonl"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record. When this returns, it is on the disk.
    ///
    /// # Errors
    /// If it could not be written: then nothing was acknowledged, and the log is as it was.
    pub fn append(&self, record: &impl Serialize) -> Result<()> {
        let append = || write_line(&mut self.open_locked()?, record);
        append().with_context(|| self.not_written())
    }

    /// Looks at the log and adds what `decide` returns, with no other writer in between. Tells whether it added
    /// anything.
    ///
    /// # Errors
    /// If it could not be read or written.
    pub fn append_if<T: DeserializeOwned, R: Serialize>(
        &self,
        decide: impl FnOnce(Lines<T>) -> Option<R>,
    ) -> Result<bool> {
        let append = || {
            let mut file = self.open_locked()?;
            let lines = parse(&read(&mut file)?);
            decide(lines).map_or(Ok(false), |record| {
                write_line(&mut file, &record).and(Ok(true))
            })
        };
        append().with_context(|| self.not_written())
    }

    fn not_written(&self) -> String {
        format!(
            "{} cannot be written, and nothing was recorded (WORKBOOK_HOME can name another folder)",
            self.path.display()
        )
    }

    /// Closing the file unlocks it; so does the kernel where the writer is killed.
    fn open_locked(&self) -> Result<File> {
        let file = self.open()?;
        file.lock()?;
        Ok(file)
    }

    fn open(&self) -> Result<File> {
        if let Ok(file) = File::options().read(true).append(true).open(&self.path) {
            return Ok(file);
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut options = File::options();
        let file = options
            .read(true)
            .append(true)
            .create(true)
            .open(&self.path)?;
        // The file's name is to survive a crash, too.
        File::open(folder)?.sync_all()?;
        Ok(file)
    }

    /// Reads the log; where there is none yet, it is empty. A record of another kind than `T` knows should be one of
    /// its own: what does not parse counts as torn.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Lines<T>> {
        let read = || {
            let mut file = match File::open(&self.path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                opened => opened?,
            };
            // Without a lock the half of a line that is just being written would look torn.
            file.lock_shared()?;
            read(&mut file)
        };
        let text = read().with_context(|| format!("{} cannot be read", self.path.display()))?;
        Ok(parse(&text))
    }
}

fn read(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Adds a line to the log, which is locked.
fn write_line(file: &mut File, record: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    let before = file.metadata()?.len();
    if before > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(before - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
    }
    let written = file.write_all(&line).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of the line may be there. Where it cannot be taken away, it is passed over as a torn one.
        let _ = file.set_len(before);
    }
    Ok(written?)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Lines<T> {
    let mut lines = Lines {
        records: Vec::new(),
        torn: Vec::new(),
    };
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // A record without its end was not acknowledged, even where it parses.
        let record = line.strip_suffix(b"\n").map(serde_json::from_slice);
        match record {
            Some(Ok(record)) => lines.records.push(record),
            Some(Err(_)) if line.trim_ascii().is_empty() => {}
            _ => lines.torn.push(index + 1),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::in_folder(&folder.path().join("new"));
        (folder, log)
    }

    #[test]
    fn a_log_that_is_not_there_is_empty() {
        let (_folder, log) = log();
        let lines = log.read::<Value>().expect("no log");
        assert!(lines.records.is_empty() && lines.torn.is_empty());
    }

    #[test]
    fn a_torn_line_is_passed_over_and_the_next_begins_after_it() {
        let (_folder, log) = log();
        log.append(&json!({"n": 1})).expect("a line");
        let torn = [
            fs::read(log.path()).expect("the log"),
            b"{\"n\": 2".to_vec(),
        ]
        .concat();
        fs::write(log.path(), torn).expect("a torn line");
        assert_eq!(log.read::<Value>().expect("lines").torn, [2]);
        log.append(&json!({"n": 3})).expect("a line");
        let lines = log.read::<Value>().expect("lines");
        assert_eq!(lines.records, [json!({"n": 1}), json!({"n": 3})]);
        assert_eq!(lines.torn, [2]);
    }

    /// Its writer was killed before it could say that the line was there.
    #[test]
    fn a_whole_record_without_its_end_was_not_acknowledged() {
        let (_folder, log) = log();
        log.append(&json!({"n": 1})).expect("a line");
        let text = fs::read(log.path()).expect("the log");
        fs::write(log.path(), &text[..text.len() - 1]).expect("a torn line");
        assert_eq!(log.read::<Value>().expect("lines").torn, [1]);
    }

    #[test]
    fn nothing_is_added_where_nothing_is_decided() {
        let (_folder, log) = log();
        let added = log.append_if(|_: Lines<Value>| None::<Value>);
        assert!(!added.expect("no line"));
        assert_eq!(fs::read(log.path()).expect("the log"), b"");
    }
}
