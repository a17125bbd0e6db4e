//! How it stands: by topic, by how sure the learner was, proofs and mock interviews.

use std::io;

use serde::Serialize;

use crate::bank::Bank;
use crate::bank::question::TOPICS;
use crate::clock::Clock;
use crate::progress::plan::{Plan, Scope};
use crate::progress::schedule::recall;
use crate::progress::state::State;
use crate::terminal::{Terminal, counted};

/// All of it.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// In the bank, or in that part of it that was asked for, without those of mock interviews.
    pub questions: usize,
    /// Seen before.
    pub seen: usize,
    /// Due now.
    pub due: usize,
    /// Waiting for an exercise.
    pub locked: usize,
    /// In the book's order; those without a question are left out.
    pub topics: Vec<Topic>,
    /// Guess, think, certain.
    pub sure: Vec<Sure>,
    /// The questions that were last answered wrong by somebody certain.
    pub certain_but_wrong: Vec<String>,
    /// Proofs whose last result was: proved, differs here, skipped.
    pub proofs: [usize; 3],
    /// Points of mock interviews: made, and possible.
    pub mock: [usize; 2],
}

/// A topic.
#[derive(Debug, Serialize)]
pub struct Topic {
    /// Its name.
    pub topic: String,
    /// In the bank.
    pub questions: usize,
    /// Seen before.
    pub seen: usize,
    /// Answers.
    pub answers: usize,
    /// Of them right.
    pub right: usize,
    /// How much of what was seen will be known tomorrow, from 0 to 1: on the day itself nothing is forgotten yet.
    pub recall: Option<f32>,
}

/// How often somebody was right who was that sure.
#[derive(Debug, Serialize)]
pub struct Sure {
    /// In a word.
    pub sure: &'static str,
    /// Answers.
    pub answers: usize,
    /// Of them right.
    pub right: usize,
}

impl Stats {
    /// Counts it.
    pub fn count(bank: &Bank, state: &State, clock: &Clock) -> Stats {
        let plan = Plan::make(bank, state, clock, &Scope::default());
        let tomorrow = clock.tomorrow();
        let scheduled = || bank.questions.iter().filter(|question| !question.is_mock());
        let mut topics = Vec::new();
        for topic in TOPICS {
            let mine: Vec<_> = scheduled()
                .filter(|question| question.topic == topic)
                .collect();
            if mine.is_empty() {
                continue;
            }
            let has = |id: &str| mine.iter().any(|question| question.id == id);
            let cards: Vec<_> = mine
                .iter()
                .filter_map(|question| state.cards.get(&question.id))
                .collect();
            let answers: Vec<_> = state
                .grades
                .iter()
                .filter(|grade| has(&grade.question))
                .collect();
            let sum: f32 = cards.iter().map(|card| recall(card, tomorrow, clock)).sum();
            topics.push(Topic {
                topic: topic.to_owned(),
                questions: mine.len(),
                seen: cards.len(),
                answers: answers.len(),
                right: answers.iter().filter(|grade| grade.right).count(),
                recall: (!cards.is_empty()).then(|| sum / cards.len() as f32),
            });
        }
        let known = |id: &str| bank.get(id).is_some();
        let sure = (1..)
            .zip(["guess", "think", "certain"])
            .map(|(number, sure)| {
                let answers = || {
                    let grades = state.grades.iter();
                    grades.filter(|grade| grade.sure == number && known(&grade.question))
                };
                Sure {
                    sure,
                    answers: answers().count(),
                    right: answers().filter(|grade| grade.right).count(),
                }
            });
        let certain_but_wrong = scheduled().filter(|question| {
            let mut answers = state.grades.iter().rev();
            let last = answers.find(|grade| grade.question == question.id);
            last.is_some_and(|grade| !grade.right && grade.sure == 3)
        });
        let mocks = || state.mocks.iter().filter(|mock| known(&mock.question));
        let proofs = ["proved", "differs here", "skipped"];
        Stats {
            questions: scheduled().count(),
            seen: topics.iter().map(|topic| topic.seen).sum(),
            due: plan.due.len() + plan.soon.len(),
            locked: plan.locked.values().sum(),
            certain_but_wrong: certain_but_wrong
                .map(|question| question.id.clone())
                .collect(),
            topics,
            sure: sure.collect(),
            proofs: proofs.map(|word| {
                let proofs = state.proofs.iter();
                proofs
                    .filter(|(id, result)| *result == word && known(id))
                    .count()
            }),
            mock: [
                mocks().map(|mock| mock.made.len()).sum(),
                mocks().map(|mock| mock.points).sum(),
            ],
        }
    }

    /// Tells a person.
    ///
    /// # Errors
    /// If nobody reads it.
    pub fn show(&self, terminal: &mut Terminal) -> io::Result<()> {
        terminal.strong(&format!(
            "{}: {} seen, {} due, {} waiting for an exercise.",
            counted(self.questions, "question"),
            self.seen,
            self.due,
            self.locked
        ))?;
        terminal.line("")?;
        terminal.line(&format!(
            "{:<16} {:>9} {:>5} {:>12} {:>15}",
            "topic", "questions", "seen", "right", "known tomorrow"
        ))?;
        for topic in &self.topics {
            let recall = topic
                .recall
                .map_or("-".to_owned(), |recall| format!("{:.0} %", recall * 100.0));
            let right = format!("{} of {}", topic.right, topic.answers);
            terminal.line(&format!(
                "{:<16} {:>9} {:>5} {right:>12} {recall:>15}",
                topic.topic, topic.questions, topic.seen
            ))?;
        }
        terminal.line("")?;
        for sure in &self.sure {
            terminal.line(&format!(
                "When you said {:<8} you were right {} times of {}.",
                sure.sure, sure.right, sure.answers
            ))?;
        }
        if !self.certain_but_wrong.is_empty() {
            terminal.text(&format!(
                "Certain but wrong, the last time: {}.",
                self.certain_but_wrong.join(", ")
            ))?;
        }
        let [proved, differ, skipped] = self.proofs;
        terminal.line(&format!(
            "Proofs: {proved} proved, {differ} differ here, {skipped} skipped."
        ))?;
        let [made, points] = self.mock;
        terminal.line(&format!("Mock interviews: {made} of {points} points."))
    }
}
