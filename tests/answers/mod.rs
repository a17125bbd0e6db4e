//! The answers whose verdicts are known: the stub, the solution, and the right and wrong answers beside this file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use course::exercise::Exercise;
use workbook::grade::grader::{Case, Grader, Stop};
use workbook::grade::slot::Slot;

pub struct Answer {
    /// The name of the candidate, such as `wrong-shared`.
    pub name: String,
    /// The text of `src/lib.rs`.
    pub source: String,
    pub expected: Expected,
}

/// The verdicts that an answer must get.
pub enum Expected {
    /// Every case reaches a `todo!()`, or fails because of code of the stub that its stage is about.
    NotStarted,
    /// Every case passes.
    Solution,
    /// Every case passes; bonus stages may be not started.
    Right,
    /// At least one case fails.
    Wrong {
        /// A description of the mistake.
        wrong: String,
        /// The case that must catch it.
        caught_by: String,
        /// The sentence of that case.
        sentence: String,
    },
}

impl Answer {
    /// Compiles the answer with all cases, or a wrong answer with the case that must catch it.
    ///
    /// # Errors
    /// Returns an error if the answer does not build.
    pub fn compile(&self, slot: &Slot) -> Result<Grader> {
        let compiled = match &self.expected {
            Expected::Wrong { caught_by, .. } => slot.compile_case(&self.source, caught_by),
            _ => slot.compile(&self.source),
        };
        let grader = compiled.with_context(|| self.name.clone())?;
        grader.map_err(|errors| anyhow!("{}: {errors}", self.name))
    }

    /// Runs all cases, or for a wrong answer the case that must catch it. Which other cases notice the mistake often
    /// depends on chance, for example if memory is overwritten.
    ///
    /// # Errors
    /// Returns an error if the grader cannot be run.
    pub fn grade(&self, grader: &Grader, each: impl FnMut(Case)) -> Result<()> {
        let Expected::Wrong { caught_by, .. } = &self.expected else {
            return grader.run(each);
        };
        let (stage, _) = caught_by
            .split_once("::")
            .context("the case is not STAGE::CASE")?;
        let case = BTreeSet::from([caught_by.clone()]);
        grader.run_stage(stage, case, &Stop::default(), each)
    }
}

/// Returns all answers to `exercise`.
///
/// # Errors
/// Returns an error if an answer cannot be read or a patch does not apply to the solution.
pub fn answers(exercise: &Exercise) -> Result<Vec<Answer>> {
    let folder = exercise.answers();
    let solution = fs::read_to_string(exercise.solution())?;
    let mut answers = vec![
        Answer {
            name: "stub".to_owned(),
            source: fs::read_to_string(exercise.stub())?,
            expected: Expected::NotStarted,
        },
        Answer {
            name: "solution".to_owned(),
            source: solution.clone(),
            expected: Expected::Solution,
        },
    ];
    for (name, source) in files(&folder.join("right"))? {
        answers.push(Answer {
            name: format!("right-{name}"),
            source,
            expected: Expected::Right,
        });
    }
    for (name, text) in files(&folder.join("wrong"))? {
        let answer = wrong(&name, &text, &solution);
        answers.push(answer.with_context(|| format!("{name}.patch"))?);
    }
    Ok(answers)
}

/// Parses the header of a wrong answer and applies its patch.
fn wrong(name: &str, text: &str, solution: &str) -> Result<Answer> {
    let (header, patch) = text
        .split_once("\n\n")
        .context("there is no empty line after the header")?;
    let line = |key: &str| -> Result<String> {
        let line = header.lines().find_map(|line| line.strip_prefix(key));
        Ok(line
            .with_context(|| format!("the header has no line {key:?}"))?
            .to_owned())
    };
    let patch = diffy::Patch::from_str(patch)?;
    let source =
        diffy::apply(solution, &patch).context("the patch does not apply to the solution")?;
    ensure!(source != solution, "the patch changes nothing");
    Ok(Answer {
        name: format!("wrong-{name}"),
        source,
        expected: Expected::Wrong {
            wrong: line("wrong: ")?,
            caught_by: line("caught by: ")?,
            sentence: line("told: ")?,
        },
    })
}

/// Returns the name and text of each file of a folder, sorted by name.
fn files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        files.insert(name.into_owned(), fs::read_to_string(&path)?);
    }
    Ok(files)
}
