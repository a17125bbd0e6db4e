//! How far the reader is, from the log: what was graded last, and which hints were shown.

use std::path::Path;

use anyhow::Result;

use crate::state::{Graded, Log, Record};

/// What this command has recorded.
#[derive(Debug)]
pub struct Progress(Vec<Record>);

impl Progress {
    /// From the log of that clone.
    ///
    /// # Errors
    /// If there is a log, and it cannot be read.
    pub fn read(root: &Path) -> Result<Progress> {
        Ok(Progress(Log::of(root).read()?.records))
    }

    /// The exercise's last grading.
    pub fn last_graded(&self, name: &str) -> Option<&Graded> {
        self.0.iter().rev().find_map(|record| match record {
            Record::Exercise(graded) if graded.exercise == name => Some(graded),
            _ => None,
        })
    }

    /// Whether the exercise's core passed when it was graded last.
    pub fn is_solved(&self, name: &str) -> bool {
        self.last_graded(name).is_some_and(|graded| graded.solved)
    }

    /// The first stage of the exercise that failed when it was graded last; or else the first that was not begun.
    pub fn first_unsolved_stage(&self, name: &str) -> Option<&str> {
        let stages = &self.last_graded(name)?.stages;
        let failed = stages.iter().find(|stage| stage.count.failed > 0);
        let unsolved = failed.or_else(|| stages.iter().find(|stage| stage.count.not_started > 0));
        unsolved.map(|stage| stage.name.as_str())
    }

    /// How far up the stage's ladder of hints the reader has come: the highest rung.
    pub fn hints_shown(&self, name: &str, of: &str) -> usize {
        let rungs = self.0.iter().filter_map(|record| match record {
            Record::Hint {
                exercise,
                stage,
                rung,
                ..
            } if exercise == name && stage == of => Some(*rung),
            _ => None,
        });
        rungs.max().unwrap_or(0)
    }
}
