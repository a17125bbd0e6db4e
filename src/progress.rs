//! The learner's progress, as the log shows it: the last verdicts, and the hints that were shown.

use std::path::Path;

use anyhow::Result;
use course::log::{Graded, Log, Record};

#[derive(Debug)]
pub struct Progress(Vec<Record>);

impl Progress {
    /// # Errors
    /// Returns an error if the log exists and cannot be read.
    pub fn read(root: &Path) -> Result<Progress> {
        Ok(Progress(Log::of(root).read()?.records))
    }

    pub fn last_graded(&self, name: &str) -> Option<&Graded> {
        self.0.iter().rev().find_map(|record| match record {
            Record::Exercise(graded) if graded.exercise == name => Some(graded),
            _ => None,
        })
    }

    /// Returns whether all stages but the bonus stages passed when the exercise was last graded.
    pub fn is_solved(&self, name: &str) -> bool {
        self.last_graded(name).is_some_and(|graded| graded.solved)
    }

    /// Returns whether the exercise was solved at any time.
    pub fn was_solved(&self, name: &str) -> bool {
        self.0.iter().any(|record| {
            matches!(record, Record::Exercise(graded) if graded.exercise == name && graded.solved)
        })
    }

    /// Returns the first stage that failed when the exercise was last graded, or else the first that was not started.
    pub fn first_unsolved_stage(&self, name: &str) -> Option<&str> {
        let stages = &self.last_graded(name)?.stages;
        let failed = stages.iter().find(|stage| stage.count.failed > 0);
        let unsolved = failed.or_else(|| stages.iter().find(|stage| stage.count.not_started > 0));
        unsolved.map(|stage| stage.name.as_str())
    }

    /// Returns the number of the last hint that was shown for the stage; 0 if none was.
    pub fn hints_shown(&self, name: &str, stage_name: &str) -> usize {
        let rungs = self.0.iter().filter_map(|record| match record {
            Record::Hint {
                exercise,
                stage,
                rung,
                ..
            } if exercise == name && stage == stage_name => Some(*rung),
            _ => None,
        });
        rungs.max().unwrap_or(0)
    }
}
