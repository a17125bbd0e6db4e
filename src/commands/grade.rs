//! `workbook grade` and `workbook report`: every verdict by stage, and what to do next.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use course::exercise::Exercise;
use course::log::Count;

use crate::grade::grader::{CargoOutput, Stop};
use crate::grade::report::{self, Format};
use crate::grade::verdicts::Outcome;
use crate::grade::{self, Show};
use crate::terminal::Prompt;
use crate::{say, warn};

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Prints a report instead of text for people.
    pub report: Option<Format>,
    /// Counts a skipped case as failed.
    pub strict: bool,
}

/// Grades all exercises, or the one with that name, or one stage of it.
///
/// The exit status is 0 if every case passed, where a bonus stage may be not started; 1 if not; 2 if an answer could
/// not be graded; 3 if everything that could be checked passed and something was skipped.
///
/// # Errors
/// Returns an error if there is no such exercise or stage.
pub fn run(
    root: &Path,
    name: Option<&str>,
    stage: Option<&str>,
    options: &Options,
) -> Result<ExitCode> {
    let exercises = match name {
        Some(name) => vec![Exercise::find(root, name)?],
        None => Exercise::all(root)?,
    };
    if let (Some(stage), [exercise]) = (stage, exercises.as_slice()) {
        exercise.stage(stage)?;
    }
    for exercise in &exercises {
        grade::warn_of_changed_stub(root, exercise);
    }
    let outcomes: Vec<_> = exercises
        .iter()
        .map(|exercise| grade_one(root, exercise, stage, options))
        .collect();
    let (mut core, mut bonus) = (Count::default(), Count::default());
    for outcome in &outcomes {
        if let Outcome::Graded(verdicts) = outcome {
            core += verdicts.core;
            bonus += verdicts.bonus;
        }
    }
    if let Some(format) = options.report {
        say!("{}", report::text(format, &outcomes, core, bonus)?);
    }
    let could_not = |outcome: &Outcome| match outcome {
        Outcome::Graded(verdicts) => verdicts.has_fault_of_judge(),
        Outcome::CouldNot { .. } => true,
    };
    let skipped = core.skipped + bonus.skipped;
    Ok(ExitCode::from(match () {
        () if outcomes.iter().any(could_not) => 2,
        () if core.failed + core.not_started + bonus.failed > 0 => 1,
        () if skipped > 0 && options.strict => 1,
        () if skipped > 0 => 3,
        () => 0,
    }))
}

fn grade_one(root: &Path, exercise: &Exercise, stage: Option<&str>, options: &Options) -> Outcome {
    let is_for_people = options.report.is_none();
    let show = match is_for_people {
        true => Show {
            cargo: CargoOutput::Progress,
            verdicts: Some(Prompt::Shell),
        },
        false => Show {
            cargo: CargoOutput::Nothing,
            verdicts: None,
        },
    };
    let graded = match stage.map(|name| exercise.stage(name)).transpose() {
        Ok(stage) => grade::grade(exercise, stage, show, &Stop::default()),
        Err(error) => Err(error),
    };
    match graded {
        Ok(verdicts) => {
            // A record replaces the last one of all stages, so a record of one stage would hide the others.
            if stage.is_none() {
                grade::record(root, &verdicts);
            }
            Outcome::Graded(verdicts)
        }
        Err(error) => {
            if is_for_people {
                warn!(
                    "{} cannot be graded: {}",
                    exercise.name,
                    grade::sentence(&error)
                );
            }
            Outcome::CouldNot {
                name: exercise.name.clone(),
                error: format!("{error:#}"),
            }
        }
    }
}
