//! What the learner has done: a replay of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use course::log::{Grade, Graded, Lines, Log, Mock, Record};
use jiff::Timestamp;

use super::schedule::{Card, Scheduler};
use crate::clock::Clock;

#[derive(Debug, Default)]
pub struct State {
    /// The questions that were asked before, by id.
    pub cards: BTreeMap<String, Card>,
    /// Every grade that was not undone, in order.
    pub grades: Vec<Grade>,
    pub mocks: Vec<Mock>,
    /// The exercises that were solved at least once.
    pub solved: BTreeSet<String>,
    /// The exercises that failed when they were last graded, and when that was.
    pub failed: BTreeMap<String, Timestamp>,
    /// The last result of each question's proof.
    pub proofs: BTreeMap<String, String>,
    /// The numbers of the log's lines that end too early.
    pub torn: Vec<usize>,
    /// The numbers of the log's other lines that are not records.
    pub damaged: Vec<usize>,
}

impl State {
    /// Reads the log and replays it.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn read(log: &Log, clock: &Clock) -> Result<State> {
        Ok(State::replay(log.read()?, clock))
    }

    pub fn replay(lines: Lines, clock: &Clock) -> State {
        let undone = lines.records.iter().filter_map(|record| match record {
            Record::Undo { of, .. } => Some(of.clone()),
            _ => None,
        });
        let undone: BTreeSet<_> = undone.collect();
        let scheduler = Scheduler::default();
        let mut state = State {
            torn: lines.torn,
            damaged: lines.damaged,
            ..State::default()
        };
        for record in lines.records {
            match record {
                Record::Grade(grade) if undone.contains(&grade.id) => {}
                Record::Grade(grade) => state.add_grade(grade, &scheduler, clock),
                Record::Exercise(graded) => state.add_exercise(&graded),
                Record::Mock(mock) => state.mocks.push(mock),
                Record::Proof {
                    question, result, ..
                } => {
                    state.proofs.insert(question, result);
                }
                Record::Undo { .. }
                | Record::Hint { .. }
                | Record::Solution { .. }
                | Record::Other => {}
            }
        }
        state
    }

    fn add_grade(&mut self, grade: Grade, scheduler: &Scheduler, clock: &Clock) {
        if !grade.cram {
            let at = timestamp(grade.at);
            let before = self.cards.get(&grade.question);
            let card = Card {
                memory: scheduler.memory_after(before, at, grade.grade, clock),
                first: before.map_or(at, |card| card.first),
                last: at,
                due: timestamp(grade.due),
                last_grade: grade.id.clone(),
            };
            self.cards.insert(grade.question.clone(), card);
        }
        self.grades.push(grade);
    }

    fn add_exercise(&mut self, graded: &Graded) {
        if graded.solved {
            self.solved.insert(graded.exercise.clone());
        }
        if graded.failed() {
            let at = timestamp(graded.at);
            self.failed.insert(graded.exercise.clone(), at);
        } else {
            self.failed.remove(&graded.exercise);
        }
    }

    /// Returns how many times a question was asked.
    pub fn times_asked(&self, id: &str) -> usize {
        let grades = self.grades.iter();
        grades.filter(|grade| grade.question == id).count()
    }

    /// Returns the average seconds for an answer, or `None` if there are only a few answers.
    pub fn seconds_per_answer(&self) -> Option<i64> {
        const FEW: usize = 5;
        // A learner who took an hour was probably away.
        let seconds = self.grades.iter().map(|grade| grade.seconds.clamp(5, 600));
        let count = self.grades.len();
        (count >= FEW).then(|| seconds.sum::<i64>() / count as i64)
    }
}

/// Converts a time of the log.
pub fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN)
}

/// Returns an id that no other grade has.
pub fn new_id(now: Timestamp) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{:x}-{:x}-{next:x}",
        now.as_nanosecond(),
        std::process::id()
    )
}
