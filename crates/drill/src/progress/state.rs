//! What the learner did: the records of the log, and the state that a replay of them makes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use course::log::{Grade, Graded, Lines, Log, Mock, Record};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::progress::schedule::{Card, Scheduler};

/// All that the log says.
#[derive(Debug, Default)]
pub struct State {
    /// By question.
    pub cards: BTreeMap<String, Card>,
    /// All that count, in their order.
    pub grades: Vec<Grade>,
    /// All mock answers.
    pub mocks: Vec<Mock>,
    /// The exercises whose core was passed once.
    pub passed: BTreeSet<String>,
    /// The exercises that failed when they were last graded, and when.
    pub failed: BTreeMap<String, Timestamp>,
    /// The last result of each question's proof.
    pub proofs: BTreeMap<String, String>,
    /// The lines of the log that are no record.
    pub torn: Vec<usize>,
}

impl State {
    /// Reads the log and replays it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(log: &Log, clock: &Clock) -> Result<State> {
        Ok(State::replay(log.read()?, clock))
    }

    /// The state after these records.
    pub fn replay(lines: Lines, clock: &Clock) -> State {
        let undone = lines.records.iter().filter_map(|record| match record {
            Record::Undo { of, .. } => Some(of.clone()),
            _ => None,
        });
        let undone = undone.collect::<BTreeSet<_>>();
        let scheduler = Scheduler::new();
        let mut state = State {
            torn: lines.torn,
            ..State::default()
        };
        for record in lines.records {
            match record {
                Record::Grade(grade) if !undone.contains(&grade.id) => {
                    state.grade(grade, &scheduler, clock);
                }
                Record::Exercise(graded) => state.exercise(&graded),
                Record::Mock(mock) => state.mocks.push(mock),
                Record::Proof {
                    question, result, ..
                } => {
                    state.proofs.insert(question, result);
                }
                Record::Grade(_)
                | Record::Undo { .. }
                | Record::Hint { .. }
                | Record::Solution { .. }
                | Record::Other => {}
            }
        }
        state
    }

    fn grade(&mut self, grade: Grade, scheduler: &Scheduler, clock: &Clock) {
        if !grade.cram {
            let at = time(grade.at);
            let before = self.cards.get(&grade.question);
            let card = Card {
                memory: scheduler.memory(before, at, grade.grade, clock),
                first: before.map_or(at, |card| card.first),
                last: at,
                due: time(grade.due),
                last_grade: grade.id.clone(),
            };
            self.cards.insert(grade.question.clone(), card);
        }
        self.grades.push(grade);
    }

    fn exercise(&mut self, graded: &Graded) {
        if graded.solved {
            self.passed.insert(graded.exercise.clone());
        }
        if graded.failed() {
            self.failed.insert(graded.exercise.clone(), time(graded.at));
        } else {
            self.failed.remove(&graded.exercise);
        }
    }

    /// How long an answer takes on average, in seconds; none before there are a few.
    pub fn pace(&self) -> Option<i64> {
        const FEW: usize = 5;
        // Whoever leaves a question open has not thought about it for an hour.
        let seconds: Vec<_> = self
            .grades
            .iter()
            .map(|grade| grade.seconds.clamp(5, 600))
            .collect();
        let count = seconds.len();
        (count >= FEW).then(|| seconds.iter().sum::<i64>() / count as i64)
    }
}

/// A time of the log.
pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN)
}

/// An id that no other grade has.
pub fn new_id(now: Timestamp) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{:x}-{:x}-{next:x}",
        now.as_nanosecond(),
        std::process::id()
    )
}
