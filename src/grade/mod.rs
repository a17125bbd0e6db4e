//! Grading: builds an exercise's grader, runs it, and shows or reports the verdicts.

pub mod build_error;
pub mod candidates;
pub mod compile_fail;
mod filter;
pub mod grader;
pub mod interface;
mod lines;
mod one_case;
pub mod order;
pub mod report;
pub mod sandbox;
pub mod score;
mod screen;
pub mod slot;
mod sources;
pub mod stub;
pub mod verdicts;
#[path = "../../crates/judge/src/visible.rs"]
pub mod visible;

use std::path::Path;

use anyhow::Result;
use course::exercise::{Exercise, Stage};
use course::log::{Log, Record};

use crate::terminal::Prompt;
use crate::warn;
use build_error::BuildError;
use grader::{CargoOutput, Stale, Stop};
use screen::Screen;
use verdicts::Verdicts;

/// What is shown while an exercise is graded.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    pub cargo: CargoOutput,
    /// `None` shows no verdicts, only their number while they come in.
    pub verdicts: Option<Prompt>,
}

/// Grades an exercise, or one stage of it.
///
/// # Errors
/// Returns an error if the answer does not build, if the grader cannot be run, or if the grading was stopped.
pub fn grade(
    exercise: &Exercise,
    stage: Option<&Stage>,
    show: Show,
    stop: &Stop,
) -> Result<Verdicts> {
    let mut grader = grader::build(exercise, show.cargo, stop)?;
    let mut cases = match grader.cases() {
        Err(error) if error.is::<Stale>() => {
            grader::touch(exercise)?;
            grader = grader::build(exercise, show.cargo, stop)?;
            grader.cases()?
        }
        cases => cases?,
    };
    if let Some(stage) = stage {
        cases.retain(|case| verdicts::is_of(case, &stage.name));
    }
    let mut screen = Screen::begin(exercise, cases.clone(), show.verdicts);
    let ran = match stage {
        None => grader.run_all(cases, stop, |case| screen.add(case)),
        Some(stage) => grader.run_stage(&stage.name, cases, stop, |case| screen.add(case)),
    };
    let verdicts = screen.end(ran.is_ok());
    ran.map(|()| verdicts)
}

/// An error as a sentence.
pub fn sentence(error: &anyhow::Error) -> String {
    // A build error has whole sentences, and the compiler's text below.
    let end = if error.is::<BuildError>() { "" } else { "." };
    format!("{error:#}{end}")
}

/// Records the verdicts on a whole exercise in the log, or warns that they could not be recorded.
///
/// Verdicts with a fault of the judge are not recorded: a right answer may have failed.
pub fn record(root: &Path, verdicts: &Verdicts) {
    if verdicts.has_fault_of_judge() {
        warn!(
            "{} could not be graded completely, because the grader itself failed; nothing was recorded.",
            verdicts.name
        );
        return;
    }
    if let Err(error) = Log::of(root).append(&Record::Exercise(verdicts.record())) {
        warn!("These verdicts could not be recorded: {error:#}.");
    }
}

/// Warns if the exercise's stub has changed since the last grading.
pub fn warn_of_changed_stub(root: &Path, exercise: &Exercise) {
    if let Ok(Some(diff)) = stub::changes(root, exercise) {
        warn!(
            "The stub of {} has changed since the last grading. Your file is not modified. The change:\n{diff}",
            exercise.name
        );
    }
}
