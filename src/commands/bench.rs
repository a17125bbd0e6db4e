//! `workbook bench`: chooses whose allocator is measured, and starts the benchmark, which is a separate package.

use std::env;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use course::cargo;
use course::exercise::Exercise;
use course::log::Count;
use course::root::home;

use crate::grade::grader::{CargoOutput, Stop};
use crate::grade::verdicts::Verdicts;
use crate::grade::{self, Show};
use crate::warn;

/// Whose allocator is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Learner,
    Solution,
    /// The learner's if it passes, otherwise the solution's.
    Either,
}

/// Options that are passed on to the benchmark.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub json: bool,
    /// Whether to finish within a minute.
    pub quick: bool,
    /// The number of rounds in which the allocators take turns.
    pub rounds: Option<u16>,
    /// The file for a chart.
    pub svg: Option<PathBuf>,
}

/// The answer that is measured.
enum Subject {
    Learner {
        /// The names of the bonus stages that do not pass.
        lacks: Vec<String>,
    },
    Solution,
}

/// Runs the benchmark and returns its status.
///
/// # Errors
/// Returns an error if the learner's allocator is wanted and does not pass, or if cargo cannot be started.
pub fn run(root: &Path, wanted: Wanted, options: &Options) -> Result<ExitCode> {
    let subject = choose(root, wanted)?;
    let arguments: &[&str] = match subject {
        Subject::Learner { .. } => &["--release", "--features", "learner"],
        Subject::Solution => &["--release"],
    };
    let built = cargo::build_program_with(root, &target(root), "bench", arguments, || {
        warn!("Building the benchmark. The first time, this takes a minute or two.");
    });
    let Some(program) = built? else {
        return Ok(ExitCode::from(2));
    };
    let mut command = Command::new(program);
    command.arg("--history").arg(home(root).join("bench.jsonl"));
    if let Subject::Learner { lacks } = &subject
        && !lacks.is_empty()
    {
        command.arg("--lacks").arg(lacks.join(","));
    }
    if options.json {
        command.arg("--json");
    }
    if options.quick {
        command.arg("--quick");
    }
    if let Some(rounds) = options.rounds {
        command.arg("--rounds").arg(rounds.to_string());
    }
    if let Some(svg) = &options.svg {
        command.arg("--svg").arg(absolute(svg)?);
    }
    let status = command
        .status()
        .context("the benchmark cannot be started")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(2)))
}

/// Returns the target directory. The configure script of jemalloc refuses a path with a space.
fn target(root: &Path) -> PathBuf {
    let target = cargo::separate_target(root);
    match target.to_string_lossy().contains(char::is_whitespace) {
        true => env::temp_dir().join("workbook-bench"),
        false => target,
    }
}

/// A wrong allocator is not measured.
fn choose(root: &Path, wanted: Wanted) -> Result<Subject> {
    let exercise = Exercise::find(root, "threshold-alloc")?;
    if wanted == Wanted::Solution {
        exercise.ensure_solution()?;
        return Ok(Subject::Solution);
    }
    let show = Show {
        cargo: CargoOutput::Progress,
        verdicts: None,
    };
    warn!("Grading your allocator first: a wrong one is not measured.");
    let reason = match grade::grade(&exercise, None, show, &Stop::default()) {
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
        Wanted::Learner => bail!("your allocator is not measured yet: {reason}"),
        _ => exercise
            .ensure_solution()
            .with_context(|| format!("your allocator is not measured yet: {reason}"))?,
    }
    warn!("Measuring the solution, not your answer: {reason}.");
    Ok(Subject::Solution)
}

fn first_that_does_not_pass(verdicts: &Verdicts) -> Option<&str> {
    let mut stages = verdicts.stages.iter();
    let wrong = stages.find(|stage| !stage.bonus && !passes(stage.count()));
    wrong.map(|stage| stage.name.as_str())
}

fn unsolved_bonus(verdicts: &Verdicts) -> Vec<String> {
    let bonus = verdicts.stages.iter().filter(|stage| stage.bonus);
    bonus
        .filter(|stage| !passes(stage.count()))
        .map(|stage| stage.name.clone())
        .collect()
}

/// A skipped case does not count against the answer.
fn passes(count: Count) -> bool {
    count.failed + count.not_started == 0
}
