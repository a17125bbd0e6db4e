//! Grades the solution and six wrong answers repeatedly while the machine is busy. The verdicts must not change.
//!
//! `cargo test --test steady` grades each answer 100 times; `cargo test --test steady -- 5 private-alloc` grades one
//! exercise five times.

#[allow(dead_code, reason = "the expected verdicts are not used here")]
mod answers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use answers::{Answer, Expected};
use anyhow::{Context, Result, ensure};
use course::exercise::Exercise;
use workbook::grade::candidates::{Candidate, Workspace};
use workbook::grade::grader::Grader;

const ROUNDS: usize = 100;
const WRONG: usize = 6;

/// The result of a grading: the sentence of each case.
type Sentences = BTreeMap<String, Option<String>>;

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(rounds) => rounds.parse().context("the number of rounds")?,
        None => ROUNDS,
    };
    let root = course::root::find()?;
    let exercises = match std::env::args().nth(2) {
        Some(name) => vec![Exercise::find(&root, &name)?],
        None => Exercise::all(&root)?,
    };
    for exercise in exercises {
        let answers: Vec<_> = chosen(answers::answers(&exercise)?);
        let candidates: Vec<_> = answers
            .iter()
            .map(|answer| Candidate {
                exercise: &exercise,
                name: answer.name.clone(),
                source: answer.source.clone(),
            })
            .collect();
        let mut graders = Workspace::write(&root, "steady", &candidates)?.build()?;
        let mut built = Vec::new();
        for (answer, candidate) in answers.iter().zip(&candidates) {
            let grader = graders.remove(&candidate.package()).context("not built")?;
            built.push((answer, grader.map_err(anyhow::Error::msg)?));
        }
        while_busy(|| check_rounds(&exercise, rounds, &built))?;
    }
    Ok(())
}

/// The solution, and wrong answers spread over the list.
fn chosen(answers: Vec<Answer>) -> Vec<Answer> {
    let (wrong, others): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|answer| matches!(answer.expected, Expected::Wrong { .. }));
    let step = (wrong.len() / WRONG).max(1);
    let solution = others
        .into_iter()
        .filter(|answer| answer.name == "solution");
    solution
        .chain(wrong.into_iter().step_by(step).take(WRONG))
        .collect()
}

fn check_rounds(exercise: &Exercise, rounds: usize, graders: &[(&Answer, Grader)]) -> Result<()> {
    let mut first: BTreeMap<&str, Sentences> = BTreeMap::new();
    for round in 1..=rounds {
        for (answer, grader) in graders {
            let name = answer.name.as_str();
            let mut sentences = Sentences::new();
            answer.grade(grader, |case| {
                sentences.insert(case.name, case.sentence);
            })?;
            let expected = first.entry(name).or_insert_with(|| sentences.clone());
            ensure!(
                sentences == *expected,
                "round {round}, {name}: {:#?}",
                sentences
                    .iter()
                    .filter(|(case, sentence)| expected.get(*case) != Some(sentence))
                    .collect::<Vec<_>>()
            );
        }
    }
    let gradings = rounds * graders.len();
    println!(
        "{}: {gradings} gradings, each verdict always the same",
        exercise.name
    );
    Ok(())
}

/// Runs `f` while two other threads keep the processors busy.
fn while_busy<R>(f: impl FnOnce() -> R) -> R {
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !finished.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = f();
        finished.store(true, Ordering::Relaxed);
        result
    })
}
