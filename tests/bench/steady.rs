//! Grades the solution and five wrong answers again and again while the machine is busy: every verdict must stay.
//!
//! `cargo test --test steady` grades 204 times; `cargo test --test steady -- 5` makes five rounds of six.

// Of a wrong answer only its text is graded here.
#[allow(dead_code)]
#[path = "../answers/mod.rs"]
mod answers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use answers::{Answer, Expected};
use anyhow::{Context, Result, ensure};
use workbook::candidates::{self, Candidate};
use workbook::exercise::Exercise;
use workbook::grader::Grader;

const ROUNDS: usize = 34;
const WRONG: usize = 5;

/// What a grading came to: each case's verdict and sentence.
type Told = BTreeMap<String, Option<String>>;

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(rounds) => rounds.parse().context("the number of rounds")?,
        None => ROUNDS,
    };
    let root = workbook::root::find()?;
    for exercise in Exercise::all(&root)? {
        let answers: Vec<_> = chosen(answers::answers(&exercise)?);
        let candidates: Vec<_> = answers
            .iter()
            .map(|answer| Candidate {
                exercise: &exercise,
                name: answer.name.clone(),
                source: answer.source.clone(),
            })
            .collect();
        let graders = candidates::build(&root, &candidates)?;
        while_busy(|| hold(&exercise, rounds, &graders))?;
    }
    Ok(())
}

/// The solution, and wrong answers from all over the list.
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

fn hold(
    exercise: &Exercise,
    rounds: usize,
    graders: &BTreeMap<String, Result<Grader, String>>,
) -> Result<()> {
    let mut first: BTreeMap<&str, Told> = BTreeMap::new();
    for round in 1..=rounds {
        for (name, grader) in graders {
            let grader = grader
                .as_ref()
                .map_err(|words| anyhow::anyhow!("{words}"))?;
            let mut told = Told::new();
            grader.run(|case| {
                told.insert(case.name, case.sentence);
            })?;
            let expected = first.entry(name).or_insert_with(|| told.clone());
            ensure!(
                told == *expected,
                "round {round}, {name}: {:#?}",
                told.iter()
                    .filter(|(case, said)| expected.get(*case) != Some(said))
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

/// Runs `f` beside two loops that never rest.
fn while_busy<R>(f: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = f();
        over.store(true, Ordering::Relaxed);
        result
    })
}
