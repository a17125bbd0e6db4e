//! The answers whose verdicts are known: the stub, the solution, right ones and wrong ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use workbook::exercise::Exercise;

/// An answer whose verdict is known.
pub struct Answer {
    /// The candidate's name: `wrong-shared`.
    pub name: String,
    /// The text of its `src/lib.rs`.
    pub source: String,
    /// What it must come to.
    pub expected: Expected,
}

/// What an answer must come to.
pub enum Expected {
    /// Every case reaches a `todo!()`.
    NotStarted,
    /// Every case passes.
    Solution,
    /// Every case passes, but a bonus stage may not have been started.
    Right,
    /// One case at least fails.
    Wrong {
        /// What is wrong with it.
        wrong: String,
        /// The case that must catch it.
        caught_by: String,
        /// What the learner must be told there.
        told: String,
        /// Whether luck decides which other cases it fails, as where memory is written over.
        others_vary: bool,
    },
}

/// All answers to `exercise`.
///
/// # Errors
/// If one cannot be read, or a patch no longer applies.
pub fn answers(exercise: &Exercise) -> Result<Vec<Answer>> {
    let folder = exercise.tests().join("answers");
    let solution = fs::read_to_string(exercise.solution())?;
    let mut answers = vec![
        Answer {
            name: "stub".to_owned(),
            source: fs::read_to_string(folder.join("stub.rs"))?,
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

/// From the preamble and the patch.
fn wrong(name: &str, text: &str, solution: &str) -> Result<Answer> {
    let (preamble, patch) = text
        .split_once("\n\n")
        .context("no empty line after the preamble")?;
    let line = |key: &str| -> Result<String> {
        let line = preamble.lines().find_map(|line| line.strip_prefix(key));
        Ok(line.with_context(|| format!("no line {key}"))?.to_owned())
    };
    let patch = diffy::Patch::from_str(patch)?;
    let source =
        diffy::apply(solution, &patch).context("the patch no longer applies to the solution")?;
    ensure!(source != solution, "the patch changes nothing");
    Ok(Answer {
        name: format!("wrong-{name}"),
        source,
        expected: Expected::Wrong {
            wrong: line("wrong: ")?,
            caught_by: line("caught by: ")?,
            told: line("told: ")?,
            others_vary: line("others: ").is_ok_and(|others| others == "vary"),
        },
    })
}

/// Name and text of each file of a folder, by name.
fn files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        files.insert(name.into_owned(), fs::read_to_string(&path)?);
    }
    Ok(files)
}
