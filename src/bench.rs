//! `workbook bench`: chooses whose allocator is measured, and starts the benchmark, a package of its own.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;

use anstream::eprintln;
use anyhow::{Context, Result, bail};

use crate::cargo::{self, NO_CARGO};
use crate::exercise::Exercise;
use crate::grade;
use crate::verdicts::{Count, Verdicts};

/// Whose allocator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The learner's.
    Learner,
    /// The solution's.
    Solution,
    /// The learner's, if it is right.
    Either,
}

/// What is passed on.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// One JSON document instead of tables.
    pub json: bool,
    /// Rounds in which the allocators take turns.
    pub rounds: Option<u16>,
    /// Where a chart is to be written.
    pub svg: Option<PathBuf>,
}

/// An answer to measure.
enum Subject {
    Learner {
        /// The bonus stages that it does not solve.
        lacks: Vec<String>,
    },
    Solution,
}

/// Measures. The status is the benchmark's.
///
/// # Errors
/// If the learner's answer is wanted and does not pass, or cargo cannot be started.
pub fn run(root: &Path, wanted: Wanted, options: &Options) -> Result<ExitCode> {
    let subject = choose(root, wanted)?;
    let mut command = cargo::command();
    command
        .args(["run", "--release", "--quiet", "--package", "allocators"])
        .arg("--target-dir")
        .arg(cargo::target_apart(root))
        .current_dir(root);
    if let Subject::Learner { .. } = subject {
        command.args(["--features", "learner"]);
    }
    command.arg("--");
    if let Subject::Learner { lacks } = &subject
        && !lacks.is_empty()
    {
        command.arg("--lacks").arg(lacks.join(","));
    }
    if options.json {
        command.arg("--json");
    }
    if let Some(rounds) = options.rounds {
        command.arg("--rounds").arg(rounds.to_string());
    }
    if let Some(svg) = &options.svg {
        command.arg("--svg").arg(absolute(svg)?);
    }
    if stderr().is_terminal() {
        eprintln!("The first time the other allocators are built: a minute or two.");
    }
    let status = command.status().context(NO_CARGO)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(2)))
}

/// Behaviour comes first: a wrong allocator is not measured.
fn choose(root: &Path, wanted: Wanted) -> Result<Subject> {
    if wanted == Wanted::Solution {
        return Ok(Subject::Solution);
    }
    let exercise = Exercise::find(root, "threshold-alloc")?;
    let why = match grade::grade(&exercise) {
        Ok(verdicts) => match first_that_does_not_pass(&verdicts) {
            None => {
                let lacks = unsolved_bonus(&verdicts);
                return Ok(Subject::Learner { lacks });
            }
            Some(stage) => format!("its stage {stage} does not pass"),
        },
        Err(error) => format!("{error:#}"),
    };
    match wanted {
        Wanted::Learner => bail!("your allocator is not measured yet: {why}"),
        _ => eprintln!("The solution is measured, and not your answer: {why}."),
    }
    Ok(Subject::Solution)
}

/// Of the stages that make the exercise.
fn first_that_does_not_pass(verdicts: &Verdicts) -> Option<&str> {
    let mut stages = verdicts.stages.iter();
    let wrong = stages.find(|stage| !stage.bonus && !passes(Count::of(&stage.cases)));
    wrong.map(|stage| stage.name.as_str())
}

fn unsolved_bonus(verdicts: &Verdicts) -> Vec<String> {
    let bonus = verdicts.stages.iter().filter(|stage| stage.bonus);
    bonus
        .filter(|stage| !passes(Count::of(&stage.cases)))
        .map(|stage| stage.name.clone())
        .collect()
}

/// A case that could not be checked is held against nobody.
fn passes(count: Count) -> bool {
    count.failed + count.not_started == 0
}
