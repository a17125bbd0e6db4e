//! Follows the log of verdicts: a line of JSON each. Other records, and a line that was torn, are passed over.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is left to read of a log that grows.
#[derive(Debug)]
pub struct Tail {
    log: PathBuf,
    /// How far it has been read.
    read: u64,
    /// A line that is not complete yet.
    rest: Vec<u8>,
}

/// A record of the log, as far as the pages show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub exercise: String,
    pub stages: Vec<Stage>,
    pub solved: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    pub name: String,
    #[serde(default)]
    pub bonus: bool,
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
    pub not_started: u32,
    /// What the first case that failed says.
    #[serde(default)]
    pub failure: Option<String>,
}

impl Tail {
    pub fn of(log: PathBuf) -> Tail {
        Tail {
            log,
            read: 0,
            rest: Vec::new(),
        }
    }

    /// The verdicts that have been added since the last call.
    pub fn new_verdicts(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        // While there is no log, there is nothing new.
        let _ = self.read_on();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            verdicts.extend(serde_json::from_slice::<Verdict>(&line).ok());
        }
        verdicts
    }

    fn read_on(&mut self) -> std::io::Result<()> {
        let mut log = File::open(&self.log)?;
        if log.metadata()?.len() < self.read {
            // Begun anew.
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
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::Tail;

    const LINE: &str = r#"{"at":"2026-11-25T10:00:00Z","exercise":"private-alloc","stages":[{"name":"by_hand","bonus":false,"passed":3,"failed":1,"skipped":0,"not_started":0}],"solved":false}"#;

    #[test]
    fn a_verdict_is_read_once_and_whole() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log.jsonl");
        let mut tail = Tail::of(path.clone());
        assert!(tail.new_verdicts().is_empty(), "there is no log yet");
        let mut log = OpenOptions::new().create(true).append(true).open(&path)?;

        let (head, rest) = LINE.split_at(40);
        write!(log, "{head}")?;
        assert!(tail.new_verdicts().is_empty(), "a line is torn");
        writeln!(log, "{rest}")?;
        let verdicts = tail.new_verdicts();
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].stages[0].failed, 1);
        assert!(tail.new_verdicts().is_empty(), "it is not told twice");
        Ok(())
    }

    #[test]
    fn other_records_and_a_torn_line_are_passed_over() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log.jsonl");
        let torn = &LINE[..60];
        let drill = r#"{"at":"2026-11-25T10:00:00Z","card":"a-card","grade":3}"#;
        std::fs::write(
            &path,
            format!("{drill}\n\n{LINE}\n{torn}\nnonsense\n{LINE}\n"),
        )?;
        let mut tail = Tail::of(path.clone());
        assert_eq!(tail.new_verdicts().len(), 2);
        std::fs::write(&path, format!("{LINE}\n"))?;
        assert_eq!(tail.new_verdicts().len(), 1, "a log that began anew");
        Ok(())
    }
}
