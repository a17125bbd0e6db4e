//! The earlier runs, in a file with one line of JSON for each.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use course::log::{Lines, Log, now};
use serde::{Deserialize, Serialize};

use crate::report::Report;

/// The summary of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// When it ended, in seconds since 1970.
    pub at: i64,
    /// `solution`, or `yours` for the learner's answer.
    pub subject: String,
    pub quick: bool,
    pub points: f64,
    pub of: f64,
    /// The values of the score's items, by their keys. Those that say nothing are missing.
    pub values: BTreeMap<String, f64>,
}

impl Run {
    pub fn of(report: &Report, quick: bool) -> Run {
        let items = report.score.parts.iter().flat_map(|part| &part.items);
        let values = items.filter_map(|item| Some((item.key.to_owned(), item.value?)));
        Run {
            at: now(),
            subject: report.subject.to_owned(),
            quick,
            points: report.score.points,
            of: report.score.of,
            values: values.collect(),
        }
    }
}

/// The number of runs that are shown.
const SHOWN: usize = 5;

pub struct History(Log<Run>);

impl History {
    pub fn at(path: &Path) -> History {
        History(Log::at(path))
    }

    /// Adds a run. Returns the last ones of the same answer: the new one is the last. Lines that are not runs are
    /// skipped.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or written.
    pub fn add(&self, run: Run) -> Result<Vec<Run>> {
        let mut shown = Vec::new();
        self.0.append_if(|Lines { records, .. }| {
            let of_subject = |earlier: &Run| earlier.subject == run.subject;
            shown = records.into_iter().filter(of_subject).collect();
            shown.push(run.clone());
            shown.drain(..shown.len().saturating_sub(SHOWN));
            Some(run)
        })?;
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(at: i64, subject: &str) -> Run {
        Run {
            at,
            subject: subject.to_owned(),
            quick: false,
            points: 0.5,
            of: 100.0,
            values: BTreeMap::from([("small".to_owned(), 0.25)]),
        }
    }

    #[test]
    fn the_last_runs_of_the_same_answer_are_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::at(&folder.path().join("new/bench.jsonl"));
        for at in 1..=7 {
            history.add(run(at, "yours")).expect("a run is added");
            history
                .add(run(10 * at, "solution"))
                .expect("a run is added");
        }
        let shown = history.add(run(8, "yours")).expect("a run is added");
        let expected: Vec<Run> = (4..=8).map(|at| run(at, "yours")).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_torn_line_is_skipped() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bench.jsonl");
        let history = History::at(&file);
        history.add(run(1, "yours")).expect("a run is added");
        let line = std::fs::read(&file).expect("the history");
        std::fs::write(&file, [&line, &line[..20]].concat()).expect("a torn line");
        let shown = history.add(run(2, "yours")).expect("a run is added");
        assert_eq!(shown, [run(1, "yours"), run(2, "yours")]);
    }
}
