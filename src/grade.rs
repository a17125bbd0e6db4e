//! `workbook grade`: every verdict by stage, what the first failure says, and what to do next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{eprintln, println};
use anyhow::Result;

use crate::exercise::Exercise;
use crate::grader::{self, Grader};
use crate::report;
pub use crate::report::Format;
use crate::show::Screen;
use crate::state;
use crate::stub;
use crate::verdicts::{Count, Outcome, Stage, Verdicts};
use crate::words::Prompt;

/// How to grade.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A report for machines instead of words.
    pub report: Option<Format>,
    /// A skipped case counts as a failed one.
    pub strict: bool,
    /// A file for the first failure's name and sentence, empty if there is none: `watch` asks for it.
    pub failure: Option<PathBuf>,
    /// Of cargo only what is wrong.
    pub quiet: bool,
}

/// Grades the exercise of that name, or all.
///
/// The status is 0 if every case passed, where a bonus stage may be left out; 1 if not; 2 if an answer could not be
/// graded; 3 if all that could be checked passed, and something was skipped.
///
/// # Errors
/// If there is no such exercise.
pub fn run(root: &Path, name: Option<&str>, options: &Options) -> Result<ExitCode> {
    let exercises = match name {
        Some(name) => vec![Exercise::find(root, name)?],
        None => Exercise::all(root)?,
    };
    for exercise in &exercises {
        if let Ok(Some(news)) = stub::news(root, exercise) {
            eprintln!(
                "The stub of {} has changed since you were graded last. Your file is as you left it; what changed:\n{news}",
                exercise.name
            );
        }
    }
    let prompt = match (options.report, &options.failure) {
        (Some(_), _) => None,
        (None, Some(_)) => Some(Prompt::Watch),
        (None, None) => Some(Prompt::Shell),
    };
    let mut graded = Vec::new();
    for exercise in &exercises {
        let grader = grader::build(exercise, options.quiet);
        let result = match grader.and_then(|grader| run_one(exercise, &grader, prompt)) {
            Ok(verdicts) => Outcome::Graded(verdicts),
            Err(error) => Outcome::CouldNot {
                name: exercise.name.clone(),
                error: format!("{error:#}"),
            },
        };
        match &result {
            Outcome::Graded(verdicts) => {
                if let Err(error) = state::Graded::of(exercise, verdicts).record(root) {
                    eprintln!("These verdicts could not be recorded: {error:#}.");
                }
            }
            Outcome::CouldNot { name, error } if prompt.is_some() => {
                eprintln!("{name} cannot be graded: {error}.");
            }
            Outcome::CouldNot { .. } => {}
        }
        graded.push(result);
    }
    if let Some(file) = &options.failure {
        // Where it cannot be written, only the offer of a hint is lost, and no verdict.
        let _ = fs::write(file, first_failure(&graded));
    }
    let (mut core, mut bonus) = (Count::default(), Count::default());
    for result in &graded {
        if let Outcome::Graded(verdicts) = result {
            core += verdicts.core;
            bonus += verdicts.bonus;
        }
    }
    if let Some(format) = options.report {
        println!("{}", report::text(format, &graded, core, bonus)?);
    }
    let could_not = |result: &Outcome| matches!(result, Outcome::CouldNot { .. });
    let skipped = core.skipped + bonus.skipped;
    Ok(ExitCode::from(match () {
        () if graded.iter().any(could_not) => 2,
        () if core.failed + core.not_started + bonus.failed > 0 => 1,
        () if skipped > 0 && options.strict => 1,
        () if skipped > 0 => 3,
        () => 0,
    }))
}

/// Name and sentence of the first case that failed.
fn first_failure(graded: &[Outcome]) -> String {
    let stages = graded.iter().flat_map(|result| match result {
        Outcome::Graded(verdicts) => verdicts.stages.as_slice(),
        Outcome::CouldNot { .. } => &[],
    });
    let failed = stages.into_iter().find_map(Stage::first_failure);
    failed.map_or(String::new(), |case| {
        format!(
            "{}: {}",
            case.name,
            case.sentence.as_deref().unwrap_or_default()
        )
    })
}

/// Grades one exercise, and counts on a terminal meanwhile.
///
/// # Errors
/// If its answer does not build, or the grader cannot be run.
pub fn grade(exercise: &Exercise) -> Result<Verdicts> {
    let grader = grader::build(exercise, false)?;
    run_one(exercise, &grader, None)
}

/// Without a prompt nothing is shown but the count.
fn run_one(exercise: &Exercise, grader: &Grader, prompt: Option<Prompt>) -> Result<Verdicts> {
    let cases = grader.cases()?;
    let mut screen = Screen::begin(exercise, cases.clone(), prompt);
    let ran = grader.run_all(cases, |case| screen.add(case));
    let verdicts = screen.end(ran.is_ok());
    ran.map(|()| verdicts)
}
