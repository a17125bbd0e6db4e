//! `workbook grade`: every verdict by stage, what the first failure says, and what to do next.

use std::path::Path;
use std::process::ExitCode;

use anstream::{eprintln, println};
use anyhow::Result;
use serde::Serialize;

use crate::exercise::Exercise;
use crate::grader;
use crate::show::{self, Progress};
use crate::verdicts::{Count, Verdicts};

/// How to grade.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// One JSON document instead of words.
    pub json: bool,
    /// A skipped case counts as a failed one.
    pub strict: bool,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    exercises: &'a [Graded],
    #[serde(flatten)]
    count: Count,
}

/// What became of one exercise.
#[derive(Serialize)]
#[serde(untagged)]
enum Graded {
    Graded(Verdicts),
    CouldNot { name: String, error: String },
}

/// Grades the exercise of that name, or all.
///
/// The status is 0 if every case passed; 1 if not; 2 if an answer could not be graded; 3 if all that could be checked
/// passed, and something was skipped.
///
/// # Errors
/// If there is no such exercise.
pub fn run(root: &Path, name: Option<&str>, options: Options) -> Result<ExitCode> {
    let exercises = match name {
        Some(name) => vec![Exercise::find(root, name)?],
        None => Exercise::all(root)?,
    };
    let mut graded = Vec::new();
    for exercise in &exercises {
        let result = match grade(exercise) {
            Ok(verdicts) => Graded::Graded(verdicts),
            Err(error) => Graded::CouldNot {
                name: exercise.name.clone(),
                error: format!("{error:#}"),
            },
        };
        match &result {
            _ if options.json => {}
            Graded::Graded(verdicts) => show::verdicts(exercise, verdicts),
            Graded::CouldNot { name, error } => eprintln!("Could not grade {name}: {error}."),
        }
        graded.push(result);
    }
    let mut count = Count::default();
    for result in &graded {
        if let Graded::Graded(verdicts) = result {
            count += verdicts.count;
        }
    }
    if options.json {
        let document = Document {
            exercises: &graded,
            count,
        };
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    let could_not = |result: &Graded| matches!(result, Graded::CouldNot { .. });
    Ok(ExitCode::from(
        match (graded.iter().any(could_not), count) {
            (true, _) => 2,
            (_, count) if count.failed + count.not_started > 0 => 1,
            (_, count) if count.skipped > 0 && options.strict => 1,
            (_, count) if count.skipped > 0 => 3,
            _ => 0,
        },
    ))
}

fn grade(exercise: &Exercise) -> Result<Verdicts> {
    let grader = grader::build(&exercise.root, &exercise.folder(), &exercise.name)?;
    let mut progress = Progress::of(grader.cases()?.len());
    let mut cases = Vec::new();
    let ran = grader.run(|case| {
        cases.push(case);
        progress.show(cases.len());
    });
    progress.clear();
    ran?;
    Ok(Verdicts::sort(exercise, cases))
}
