//! Follows the progress log while other processes add to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use course::log::{self, Graded, Record};

/// A position in a growing log.
#[derive(Debug)]
pub struct Tail {
    log: PathBuf,
    /// How many bytes have been read.
    read: u64,
    /// The beginning of a line whose end has not been written yet.
    rest: Vec<u8>,
}

impl Tail {
    pub fn new(log: PathBuf) -> Tail {
        Tail {
            log,
            read: 0,
            rest: Vec::new(),
        }
    }

    /// Returns the gradings that were logged since the last call. Other records and torn lines are skipped.
    pub fn new_gradings(&mut self) -> Vec<Graded> {
        // While there is no log, there is nothing new.
        let _ = self.read_on();
        let end = self.rest.iter().rposition(|byte| *byte == b'\n');
        let complete: Vec<u8> = self.rest.drain(..end.map_or(0, |end| end + 1)).collect();
        let records = log::parse(&complete).records.into_iter();
        let gradings = records.filter_map(|record| match record {
            Record::Exercise(graded) => Some(graded),
            _ => None,
        });
        gradings.collect()
    }

    fn read_on(&mut self) -> io::Result<()> {
        let mut log = File::open(&self.log)?;
        if log.metadata()?.len() == self.read {
            return Ok(());
        }
        // A writer that fails removes what it has written before it releases the lock.
        log.lock_shared()?;
        if log.metadata()?.len() < self.read {
            // The log was replaced by a new one.
            self.read = 0;
            self.rest.clear();
        }
        log.seek(SeekFrom::Start(self.read))?;
        self.read += log.read_to_end(&mut self.rest)? as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use course::log::{Count, Log, StageCount};

    use super::*;

    fn graded(failed: usize) -> Graded {
        Graded {
            at: 1_764_064_800,
            exercise: "private-alloc".to_owned(),
            solved: false,
            stages: vec![StageCount {
                name: "by_hand".to_owned(),
                bonus: false,
                count: Count {
                    passed: 3,
                    failed,
                    skipped: 0,
                    not_started: 0,
                    possible: 3 + failed,
                },
                failure: None,
            }],
        }
    }

    fn line(record: &Record) -> io::Result<String> {
        Ok(serde_json::to_string(record)? + "\n")
    }

    #[test]
    fn a_grading_is_returned_once_and_complete() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log.jsonl");
        let mut tail = Tail::new(path.clone());
        assert!(tail.new_gradings().is_empty(), "there is no log yet");

        let line = line(&Record::Exercise(graded(1)))?;
        let (head, rest) = line.split_at(40);
        let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
        write!(log, "{head}")?;
        assert!(tail.new_gradings().is_empty(), "the line is incomplete");
        write!(log, "{rest}")?;
        assert_eq!(tail.new_gradings(), [graded(1)]);
        assert!(tail.new_gradings().is_empty(), "it was returned already");
        Ok(())
    }

    #[test]
    fn other_records_and_torn_lines_are_skipped() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log.jsonl");
        let hint = line(&Record::Hint {
            at: 0,
            exercise: "private-alloc".to_owned(),
            stage: "by_hand".to_owned(),
            rung: 1,
        })?;
        let [first, second] = [1, 2].map(|failed| Record::Exercise(graded(failed)));
        let (first, second) = (line(&first)?, line(&second)?);
        let torn = &first[..60];
        fs::write(
            &path,
            format!("{hint}\n{first}{torn}\nnonsense\n{second}{torn}"),
        )?;
        let mut tail = Tail::new(path.clone());
        assert_eq!(tail.new_gradings(), [graded(1), graded(2)]);
        fs::write(&path, &second)?;
        assert_eq!(tail.new_gradings(), [graded(2)], "the log is a new one");
        Ok(())
    }

    #[test]
    fn what_the_log_writes_is_read() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let log = Log::in_folder(folder.path());
        let mut tail = Tail::new(log.path().to_owned());
        for failed in [2, 1, 0] {
            log.append(&Record::Exercise(graded(failed)))?;
            assert_eq!(tail.new_gradings(), [graded(failed)]);
        }
        Ok(())
    }
}
