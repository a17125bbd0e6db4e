//! Statistics: by topic and by certainty, proofs and mock interviews.

use std::io;

use course::log::Grade;
use serde::Serialize;

use super::plan::{Plan, Scope};
use super::schedule::recall;
use super::state::State;
use crate::bank::Bank;
use crate::bank::question::{Question, TOPICS};
use crate::clock::Clock;
use crate::terminal::{Terminal, counted};

/// Questions of mock interviews are not counted.
#[derive(Debug, Serialize)]
pub struct Stats {
    pub questions: usize,
    pub seen: usize,
    pub due: usize,
    /// The questions that need an exercise that is not solved yet.
    pub locked: usize,
    /// The topics that have questions, in the book's order.
    pub topics: Vec<Topic>,
    /// By certainty: guess, think, certain.
    pub sure: Vec<Sure>,
    /// The questions whose last answer was certain and wrong.
    pub certain_but_wrong: Vec<String>,
    /// How many proofs last ended as proved, as different here, and as skipped.
    pub proofs: [usize; 3],
    /// The points that were made in mock interviews, and those that were possible.
    pub mock: [usize; 2],
}

#[derive(Debug, Serialize)]
pub struct Topic {
    pub topic: String,
    pub questions: usize,
    pub seen: usize,
    pub answers: usize,
    pub right: usize,
    /// The predicted fraction of the seen questions that the learner will know tomorrow. Today nothing is forgotten
    /// yet.
    pub recall: Option<f32>,
}

/// How often answers of one degree of certainty were right.
#[derive(Debug, Serialize)]
pub struct Sure {
    pub sure: &'static str,
    pub answers: usize,
    pub right: usize,
}

impl Stats {
    pub fn new(bank: &Bank, state: &State, clock: &Clock) -> Stats {
        let plan = Plan::new(bank, state, clock, &Scope::default());
        let questions: Vec<_> = bank.questions.iter().filter(|one| !one.is_mock()).collect();
        let topics = TOPICS.iter().filter_map(|topic| {
            let on_topic = questions.iter().copied();
            let on_topic: Vec<_> = on_topic.filter(|one| one.topic == *topic).collect();
            (!on_topic.is_empty()).then(|| Topic::new(topic, &on_topic, state, clock))
        });
        let topics: Vec<_> = topics.collect();
        let in_bank = |id: &str| bank.get(id).is_some();
        let grades = state.grades.iter();
        let grades: Vec<_> = grades.filter(|grade| in_bank(&grade.question)).collect();
        let sure = (1..).zip(["guess", "think", "certain"]);
        let certain_but_wrong = questions.iter().filter(|question| {
            let mut grades = state.grades.iter().rev();
            let last = grades.find(|grade| grade.question == question.id);
            last.is_some_and(|grade| !grade.right && !grade.partly && grade.sure == 3)
        });
        let mocks = state.mocks.iter();
        let mocks: Vec<_> = mocks.filter(|mock| in_bank(&mock.question)).collect();
        let proofs = ["proved", "differs here", "skipped"].map(|word| {
            let proofs = state.proofs.iter();
            let proofs = proofs.filter(|(id, result)| *result == word && in_bank(id));
            proofs.count()
        });
        Stats {
            questions: questions.len(),
            seen: topics.iter().map(|topic| topic.seen).sum(),
            due: plan.due.len() + plan.soon.len(),
            locked: plan.locked.values().sum(),
            topics,
            sure: sure
                .map(|(number, word)| Sure::new(word, number, &grades))
                .collect(),
            certain_but_wrong: certain_but_wrong
                .map(|question| question.id.clone())
                .collect(),
            proofs,
            mock: [
                mocks.iter().map(|mock| mock.made.len()).sum(),
                // A log that was edited may have any number.
                mocks
                    .iter()
                    .fold(0, |sum: usize, mock| sum.saturating_add(mock.points)),
            ],
        }
    }

    /// # Errors
    /// Returns an error if the output cannot be written.
    pub fn print(&self, terminal: &mut Terminal) -> io::Result<()> {
        terminal.strong(&format!(
            "{}: {} seen, {} due, {} locked until an exercise is solved.",
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
                "When you said {:<8} you were right {} out of {} times.",
                sure.sure, sure.right, sure.answers
            ))?;
        }
        if !self.certain_but_wrong.is_empty() {
            terminal.text(&format!(
                "Certain but wrong at the last answer: {}.",
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

impl Topic {
    fn new(topic: &str, questions: &[&Question], state: &State, clock: &Clock) -> Topic {
        let cards = questions.iter().filter_map(|one| state.cards.get(&one.id));
        let recalls: Vec<_> = cards
            .map(|card| recall(card, clock.tomorrow(), clock))
            .collect();
        let in_topic = |id: &str| questions.iter().any(|one| one.id == id);
        let grades = state.grades.iter();
        let grades: Vec<_> = grades.filter(|grade| in_topic(&grade.question)).collect();
        let sum: f32 = recalls.iter().sum();
        Topic {
            topic: topic.to_owned(),
            questions: questions.len(),
            seen: recalls.len(),
            answers: grades.len(),
            right: grades.iter().filter(|grade| grade.right).count(),
            recall: (!recalls.is_empty()).then(|| sum / recalls.len() as f32),
        }
    }
}

impl Sure {
    fn new(word: &'static str, number: u8, grades: &[&Grade]) -> Sure {
        let answers = grades.iter().filter(|grade| grade.sure == number);
        Sure {
            sure: word,
            answers: answers.clone().count(),
            right: answers.filter(|grade| grade.right).count(),
        }
    }
}
