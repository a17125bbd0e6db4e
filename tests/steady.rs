//! Grades the solution and six wrong answers repeatedly while the machine is busy. The verdicts must not change.
//!
//! `cargo test --test steady` grades each answer 100 times; `cargo test --test steady -- 5 private-alloc` grades one
//! exercise five times.

#[allow(dead_code, reason = "the expected verdicts are not used here")]
mod answers;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use answers::{Answer, Expected};
use anyhow::{Context, Result, ensure};
use course::exercise::Exercise;
use workbook::grade::candidates::Candidate;
use workbook::grade::grader::Grader;
use workbook::grade::slot::Slot;

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
        let answers = chosen(answers::answers(&exercise)?);
        let solution = Candidate {
            exercise: &exercise,
            name: "steady".to_owned(),
            source: fs::read_to_string(exercise.solution())?,
        };
        let slot = Slot::new(&root, "steady", &solution)?;
        for answer in &answers {
            let grader = answer.compile(&slot)?;
            while_busy(|| check_rounds(rounds, answer, &grader))?;
        }
        println!(
            "{}: {} gradings, each verdict always the same",
            exercise.name,
            rounds * answers.len()
        );
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

fn check_rounds(rounds: usize, answer: &Answer, grader: &Grader) -> Result<()> {
    let mut first: Option<Sentences> = None;
    for round in 1..=rounds {
        let mut sentences = Sentences::new();
        answer.grade(grader, |case| {
            sentences.insert(case.name, case.sentence);
        })?;
        let expected = first.get_or_insert_with(|| sentences.clone());
        ensure!(
            sentences == *expected,
            "round {round}, {}: {:#?}",
            answer.name,
            sentences
                .iter()
                .filter(|(case, sentence)| expected.get(*case) != Some(sentence))
                .collect::<Vec<_>>()
        );
    }
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
