//! The progress log: `log.jsonl` in the folder of the learner's own data. It is append-only; readers replay it.
//! Other files of records, such as the history of the benchmark, are written in the same way.
//!
//! A record is acknowledged once it is on the disk: it is appended under a lock (`O_APPEND`, flock, fsync). A partial
//! line that a killed writer has left is skipped and reported; the next record starts on a new line.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::root;

/// A file with one record of the type `R` in each line.
#[derive(Debug, Clone)]
pub struct Log<R = Record> {
    path: PathBuf,
    record: PhantomData<R>,
}

/// The contents of a log.
#[derive(Debug)]
pub struct Lines<R = Record> {
    /// In the order in which they were written.
    pub records: Vec<R>,
    /// The numbers, from 1, of the lines that end too early, because their writer was killed or the disk was full.
    pub torn: Vec<usize>,
    /// The numbers, from 1, of the other lines that are not records: something else has changed the file.
    pub damaged: Vec<usize>,
}

impl<R> Default for Lines<R> {
    fn default() -> Lines<R> {
        Lines {
            records: Vec::new(),
            torn: Vec::new(),
            damaged: Vec::new(),
        }
    }
}

/// One line. All times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Record {
    /// An exercise was graded.
    Exercise(Graded),
    /// A hint was shown.
    Hint {
        at: i64,
        exercise: String,
        stage: String,
        /// From 1.
        rung: usize,
    },
    /// A solution was shown.
    Solution { at: i64, exercise: String },
    /// A question of the drill was answered and graded.
    Grade(Grade),
    /// A grade no longer counts.
    Undo {
        at: i64,
        /// The grade's id.
        of: String,
    },
    /// A question's answer was proved on a machine.
    Proof {
        at: i64,
        question: String,
        result: String,
        machine: String,
    },
    /// A question of a mock interview was answered.
    Mock(Mock),
    /// A kind of record that a later version writes.
    #[serde(other)]
    Other,
}

/// An exercise that was graded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graded {
    pub at: i64,
    pub exercise: String,
    /// Whether every stage passed, bonus stages aside.
    pub solved: bool,
    pub stages: Vec<StageCount>,
}

impl Graded {
    /// Returns whether a case failed. A case that was not started does not count.
    pub fn failed(&self) -> bool {
        self.stages.iter().any(|stage| stage.count.failed > 0)
    }
}

/// The verdicts on one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCount {
    pub name: String,
    #[serde(default)]
    pub bonus: bool,
    #[serde(flatten)]
    pub count: Count,
    /// The sentence of the first case that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How many cases got each verdict.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub not_started: usize,
    /// All cases.
    pub possible: usize,
}

/// The verdict on a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Passed,
    Failed,
    /// This machine cannot check it.
    Skipped,
    /// The case reached a `todo!()`.
    #[serde(rename = "not started")]
    NotStarted,
}

impl Count {
    /// Counts one more case.
    pub fn add(&mut self, verdict: Verdict) {
        self.possible += 1;
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
            Verdict::NotStarted => self.not_started += 1,
        }
    }

    /// The verdict on all of the cases together.
    pub fn verdict(self) -> Verdict {
        match self {
            Count { failed: 1.., .. } => Verdict::Failed,
            Count {
                not_started: 1.., ..
            } => Verdict::NotStarted,
            Count { skipped: 1.., .. } => Verdict::Skipped,
            _ => Verdict::Passed,
        }
    }
}

impl FromIterator<Verdict> for Count {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Count {
        let mut count = Count::default();
        verdicts.into_iter().for_each(|verdict| count.add(verdict));
        count
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.not_started += other.not_started;
        self.possible += other.possible;
    }
}

/// A question that was answered and graded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grade {
    /// Identifies the grade, for undo.
    pub id: String,
    pub at: i64,
    pub question: String,
    /// From 1 (again) to 4 (easy).
    pub grade: u8,
    /// How sure the learner was, from 1 (guess) to 3 (certain).
    pub sure: u8,
    pub right: bool,
    /// Whether a part of an answer that is not right was right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly: bool,
    /// How long the answer took.
    pub seconds: i64,
    /// When the question is due again, as shown to the learner.
    pub due: i64,
    /// Whether it was crammed, which leaves the schedule unchanged.
    #[serde(default)]
    pub cram: bool,
}

/// A question of a mock interview that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mock {
    pub at: i64,
    pub question: String,
    /// The points that the learner made, from 1.
    pub made: Vec<usize>,
    /// The number of points in the rubric.
    pub points: usize,
    /// How long the answer took.
    pub seconds: i64,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

impl Log {
    /// The log of a clone.
    pub fn of(root: &Path) -> Log {
        Log::in_folder(&root::home(root))
    }

    /// The log in a folder.
    pub fn in_folder(folder: &Path) -> Log {
        Log::at(&folder.join("log.jsonl"))
    }
}

impl<R: Serialize + DeserializeOwned> Log<R> {
    /// The log in a file.
    pub fn at(path: &Path) -> Log<R> {
        Log {
            path: path.to_owned(),
            record: PhantomData,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record. Once this returns, the record is on the disk.
    ///
    /// # Errors
    /// Returns an error if the record cannot be written. The log is then unchanged.
    pub fn append(&self, record: &R) -> Result<()> {
        let append = || write_line(&mut self.open_locked()?, record);
        append().map_err(|error| self.not_written(&error))
    }

    /// Reads the log and adds what `decide` returns, with no other writer in between. Returns whether a record was
    /// added.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read or written.
    pub fn append_if(&self, decide: impl FnOnce(Lines<R>) -> Option<R>) -> Result<bool> {
        let append = || {
            let mut file = self.open_locked()?;
            let lines = parse_as(&read(&mut file)?);
            decide(lines).map_or(Ok(false), |record| {
                write_line(&mut file, &record).and(Ok(true))
            })
        };
        append().map_err(|error| self.not_written(&error))
    }

    fn not_written(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!(
            "{} cannot be written ({error:#}); WORKBOOK_HOME=FOLDER puts the log elsewhere",
            self.path.display()
        )
    }

    /// Closing the file releases the lock, and so does the death of the process.
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
        // The directory entry must survive a crash, too.
        File::open(folder)?.sync_all()?;
        Ok(file)
    }

    /// Reads the log. A log that does not exist yet is empty.
    ///
    /// # Errors
    /// Returns an error if the log exists and cannot be read.
    pub fn read(&self) -> Result<Lines<R>> {
        let read = || {
            let mut file = match File::open(&self.path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                opened => opened?,
            };
            // Without the lock, a line that is being written would look torn.
            file.lock_shared()?;
            read(&mut file)
        };
        let text = read().with_context(|| format!("{} cannot be read", self.path.display()))?;
        Ok(parse_as(&text))
    }
}

fn read(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Adds a line to the log, which must be locked.
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
        // Part of the line may have been written. If it cannot be removed, it is skipped later as a torn line.
        let _ = file.set_len(before);
    }
    Ok(written?)
}

/// Parses the lines of a progress log.
pub fn parse(text: &[u8]) -> Lines {
    parse_as(text)
}

fn parse_as<R: DeserializeOwned>(text: &[u8]) -> Lines<R> {
    let mut lines = Lines::default();
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // Some editors begin a file with a byte-order mark. It is inside if two such files were joined.
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let complete = line.strip_suffix(b"\n");
        // An editor may have removed the last newline. Otherwise the writer was killed before it could report success,
        // but the next writer completes the line, so the record counts already.
        match serde_json::from_slice(complete.unwrap_or(line)) {
            Ok(record) => lines.records.push(record),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(error) if error.is_eof() || complete.is_none() => lines.torn.push(index + 1),
            Err(_) => lines.damaged.push(index + 1),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::in_folder(&folder.path().join("new"));
        (folder, log)
    }

    fn record(at: i64) -> Record {
        Record::Solution {
            at,
            exercise: "private-alloc".to_owned(),
        }
    }

    #[test]
    fn a_missing_log_is_empty() {
        let (_folder, log) = log();
        let lines = log.read().expect("no log");
        assert!(lines.records.is_empty() && lines.torn.is_empty());
    }

    #[test]
    fn a_torn_line_is_skipped_and_the_next_record_starts_after_it() {
        let (_folder, log) = log();
        log.append(&record(1)).expect("a line");
        let line = fs::read(log.path()).expect("the log");
        fs::write(log.path(), [&line, &line[..20]].concat()).expect("a torn line");
        assert_eq!(log.read().expect("lines").torn, [2]);
        log.append(&record(3)).expect("a line");
        let lines = log.read().expect("lines");
        assert_eq!(lines.records, [record(1), record(3)]);
        assert_eq!(lines.torn, [2]);
    }

    /// An editor may have removed it.
    #[test]
    fn a_record_without_its_newline_counts_before_and_after_the_next_record() {
        let (_folder, log) = log();
        log.append(&record(1)).expect("a line");
        let text = fs::read(log.path()).expect("the log");
        fs::write(log.path(), &text[..text.len() - 1]).expect("a line without its newline");
        let lines = log.read().expect("lines");
        assert_eq!((lines.records, lines.torn), (vec![record(1)], vec![]));
        log.append(&record(2)).expect("a line");
        let lines = log.read().expect("lines");
        assert_eq!(lines.records, [record(1), record(2)]);
    }

    #[test]
    fn append_if_adds_nothing_for_none() {
        let (_folder, log) = log();
        assert!(!log.append_if(|_| None).expect("no line"));
        assert_eq!(fs::read(log.path()).expect("the log"), b"");
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_record() {
        let line = serde_json::to_string(&record(1)).expect("JSON");
        let file = format!("\u{feff}{line}\n");
        let lines = parse(format!("{file}{file}\u{feff}\n").as_bytes());
        assert_eq!(lines.records, [record(1), record(1)]);
        assert!(lines.torn.is_empty() && lines.damaged.is_empty());
    }

    #[test]
    fn a_damaged_line_is_not_called_torn() {
        let line = serde_json::to_string(&record(1)).expect("JSON");
        let text = format!("{line}\n{0}\nnonsense\n\"text\"\n{0}", &line[..20]);
        let lines = parse(text.as_bytes());
        assert_eq!(lines.records, [record(1)]);
        assert_eq!((lines.torn, lines.damaged), (vec![2, 5], vec![3, 4]));
    }

    #[test]
    fn an_unknown_kind_of_record_is_not_torn() {
        let lines = parse(b"{\"what\":\"later\",\"n\":1}\n");
        assert_eq!((lines.records, lines.torn), (vec![Record::Other], vec![]));
    }
}
