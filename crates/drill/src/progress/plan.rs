//! Which questions to ask, and in which order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::interleave::interleave;
use super::schedule::{Card, recall};
use super::state::{State, timestamp};
use crate::bank::Bank;
use crate::bank::question::{Kind, Question, TOPICS};
use crate::clock::{Clock, days_between};

/// The number of new questions a day without `--new` and `--interview`.
pub const NEW_A_DAY: usize = 8;

/// If nothing else is left, questions that are due within this time are asked now.
const SOON: SignedDuration = SignedDuration::from_mins(20);

/// An estimate of the time for an answer, until the learner's own average is known.
const SECONDS_PER_ANSWER: i64 = 45;

/// Which questions the learner wants to be asked.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Empty for all topics.
    pub topics: Vec<String>,
    pub level: Option<u8>,
    /// The number of new questions a day.
    pub new: Option<usize>,
    /// Spreads the new questions over the days until then, and asks those that need an exercise, too.
    pub interview: Option<Date>,
}

/// What would be asked now.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// Asked before, and due.
    pub due: Vec<&'a Question>,
    /// Never asked before; as many as are left for today.
    pub new: Vec<&'a Question>,
    /// Due in a few minutes.
    pub soon: Vec<&'a Question>,
    /// How many questions need each exercise that is not solved yet.
    pub locked: BTreeMap<&'a str, usize>,
    /// How many questions come first because an exercise failed.
    pub forward: BTreeMap<&'a str, usize>,
    /// When the next question is due that is not in the plan.
    pub next_due: Option<Timestamp>,
    /// The estimated time for all questions.
    pub minutes: i64,
    /// The value of `--new` that would add questions today; `None` if there are no more.
    pub more: Option<usize>,
    pub interview: Option<Interview>,
}

/// How well the learner is prepared for the interview.
#[derive(Debug, Clone, Serialize)]
pub struct Interview {
    pub date: Date,
    /// The days until then.
    pub days: i64,
    /// The predicted fraction of the seen questions that the learner will know on that day.
    pub recall: Option<f32>,
    pub seen: usize,
    /// All questions in the scope.
    pub questions: usize,
    pub new_a_day: usize,
}

impl Scope {
    pub fn contains(&self, question: &Question) -> bool {
        let topic = self.topics.is_empty() || self.topics.contains(&question.topic);
        topic && self.level.is_none_or(|level| level == question.level)
    }

    /// The questions in the scope, except those of mock interviews.
    fn scheduled<'a>(&self, bank: &'a Bank) -> impl Iterator<Item = &'a Question> {
        let questions = bank.questions.iter();
        questions.filter(|question| !question.is_mock() && self.contains(question))
    }

    /// # Errors
    /// Returns an error if a topic does not exist, or if the interview is in the past.
    pub fn check(&self, clock: &Clock) -> Result<()> {
        for topic in &self.topics {
            ensure!(
                TOPICS.contains(&&**topic),
                "there is no topic {topic}; the topics are {}",
                TOPICS.join(", ")
            );
        }
        if let Some(date) = self.interview {
            let today = clock.today();
            ensure!(
                date >= today,
                "the interview on {date} is in the past: today is {today}"
            );
        }
        Ok(())
    }
}

impl<'a> Plan<'a> {
    pub fn new(bank: &'a Bank, state: &State, clock: &Clock, scope: &Scope) -> Plan<'a> {
        let mut plan = Plan::default();
        let mut seen = Vec::new();
        let mut unseen = Vec::new();
        for question in scope.scheduled(bank) {
            let needs = question.needs.as_deref();
            let lock = needs.filter(|exercise| !state.solved.contains(*exercise));
            match (state.cards.get(&question.id), lock) {
                (Some(card), _) => seen.push((question, card)),
                (None, Some(exercise)) if scope.interview.is_none() => {
                    *plan.locked.entry(exercise).or_default() += 1;
                }
                (None, _) => unseen.push(question),
            }
        }
        let begun_today = seen
            .iter()
            .filter(|(_, card)| clock.day(card.first) == clock.today())
            .count();
        plan.interview = scope
            .interview
            .map(|date| Interview::new(date, &seen, unseen.len(), begun_today, clock));
        plan.add_seen(&seen, state, clock);
        plan.add_new(unseen, begun_today, bank, state, clock, scope);
        plan.mix_topics(bank, state, clock);
        plan.drop_repetition(state);
        plan.count_forward(state, clock);
        let seconds = state.seconds_per_answer().unwrap_or(SECONDS_PER_ANSWER);
        plan.minutes = (plan.count() as i64 * seconds + 59) / 60;
        plan
    }

    fn add_seen(&mut self, seen: &[(&'a Question, &Card)], state: &State, clock: &Clock) {
        let now = clock.now();
        let soon = now.saturating_add(SOON).unwrap_or(now);
        for (question, card) in seen {
            if card.due <= now || comes_forward(question, state, clock) {
                self.due.push(question);
            } else if card.due <= soon {
                self.soon.push(question);
            } else {
                let next = self.next_due.unwrap_or(card.due);
                self.next_due = Some(next.min(card.due));
            }
        }
        // The weakest first.
        self.due.sort_by_cached_key(|question| {
            let recall = recall(&state.cards[&question.id], clock.today(), clock);
            let forward = comes_forward(question, state, clock);
            (!forward, (recall * 1000.0) as u32, question.id.clone())
        });
        // Of those that are due at the same time, the one that was asked longest ago comes first.
        let asked = |question: &&Question| {
            let mut grades = state.grades.iter();
            grades.rposition(|grade| grade.question == question.id)
        };
        self.soon
            .sort_by_cached_key(|question| (state.cards[&question.id].due, asked(question)));
    }

    /// Adds as many new questions as are left for today.
    fn add_new(
        &mut self,
        mut unseen: Vec<&'a Question>,
        begun_today: usize,
        bank: &Bank,
        state: &State,
        clock: &Clock,
        scope: &Scope,
    ) {
        let turns = turns_of_topics(bank);
        let interview = self.interview.as_ref();
        let a_day = interview.map_or(NEW_A_DAY, |interview| interview.new_a_day);
        let left = scope.new.unwrap_or(a_day).saturating_sub(begun_today);
        unseen.sort_by_cached_key(|question| {
            // Before an interview, what interviewers ask most comes first.
            let asked = interview.map(|_| Reverse(question.asked));
            (
                !comes_forward(question, state, clock),
                asked,
                question.level,
                turns[&*question.id],
                question.topic_index(),
            )
        });
        self.more = (unseen.len() > left).then_some(begun_today + left + NEW_A_DAY);
        unseen.truncate(left);
        self.new = unseen;
    }

    /// Changes the order so that topics alternate, also with the last question that was asked. What comes first because
    /// an exercise failed stays first.
    fn mix_topics(&mut self, bank: &'a Bank, state: &State, clock: &Clock) {
        let last = state.grades.last();
        let last = last.and_then(|grade| bank.get(&grade.question));
        let mut last = last.map(|question| &*question.topic);
        for questions in [&mut self.due, &mut self.new] {
            let (forward, others): (Vec<&Question>, Vec<_>) = std::mem::take(questions)
                .into_iter()
                .partition(|question| comes_forward(question, state, clock));
            for part in [forward, others] {
                questions.extend(interleave(part, last));
                last = questions.last().map(|question| &*question.topic).or(last);
            }
        }
    }

    /// Postpones the last question that is left if it has just been asked: its answer is still on the screen.
    fn drop_repetition(&mut self, state: &State) {
        let (&[question], Some(last)) = (&*self.soon, state.grades.last()) else {
            return;
        };
        if self.count() == 1 && last.question == question.id {
            self.soon.clear();
            let due = state.cards[&question.id].due;
            self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
        }
    }

    fn count_forward(&mut self, state: &State, clock: &Clock) {
        for question in self.due.iter().chain(&self.new) {
            if let Some(exercise) = question.exercise.as_deref()
                && comes_forward(question, state, clock)
            {
                *self.forward.entry(exercise).or_default() += 1;
            }
        }
    }

    /// Returns the number of questions to ask.
    pub fn count(&self) -> usize {
        self.due.len() + self.new.len() + self.soon.len()
    }

    pub fn first(&self) -> Option<&'a Question> {
        let mut all = self.due.iter().chain(&self.new).chain(&self.soon);
        all.next().copied()
    }
}

/// Returns which questions of their topic and level come first, second and so on, by their ids. It counts all questions,
/// so that a question keeps its turn when others have been asked.
fn turns_of_topics(bank: &Bank) -> BTreeMap<&str, usize> {
    let mut questions: Vec<_> = bank.questions.iter().collect();
    questions.sort_by_key(|question| (Reverse(question.asked), &question.id));
    let mut next: BTreeMap<_, usize> = BTreeMap::new();
    let turns = questions.into_iter().map(|question| {
        let turn = next.entry((&question.topic, question.level)).or_default();
        *turn += 1;
        (&*question.id, *turn)
    });
    turns.collect()
}

/// Returns all questions in the order in which a learner without an interview meets them.
pub fn in_order_of_introduction(bank: &Bank) -> Vec<&Question> {
    let turns = turns_of_topics(bank);
    let mut questions: Vec<_> = bank.questions.iter().collect();
    questions.sort_by_key(|question| {
        let turn = turns[&*question.id];
        (question.level, turn, question.topic_index())
    });
    interleave(questions, None)
}

/// Returns whether a question comes first because its exercise failed. It does so once a day.
fn comes_forward(question: &Question, state: &State, clock: &Clock) -> bool {
    let exercise = question.exercise.as_ref();
    let exercise = exercise.filter(|_| question.follows_exercise);
    let failed = exercise.and_then(|exercise| state.failed.get(exercise));
    failed.is_some_and(|failed| {
        let day = clock.start_of(clock.day(*failed));
        let card = state.cards.get(&question.id);
        card.is_none_or(|card| card.last < day)
    })
}

impl Interview {
    fn new(
        date: Date,
        seen: &[(&Question, &Card)],
        unseen: usize,
        begun_today: usize,
        clock: &Clock,
    ) -> Interview {
        let days = days_between(clock.today(), date);
        // No new questions are left for the day of the interview, unless it is today.
        let spread = days.max(1) as usize;
        let recalls = seen.iter().map(|(_, card)| recall(card, date, clock));
        let sum: f32 = recalls.sum();
        Interview {
            date,
            days,
            recall: (!seen.is_empty()).then(|| sum / seen.len() as f32),
            seen: seen.len(),
            questions: seen.len() + unseen,
            new_a_day: (unseen + begun_today).div_ceil(spread),
        }
    }
}

/// Returns `count` questions for the night before an interview: the weakest and most asked, about in this order. Locked
/// questions are included.
pub fn cram<'a>(
    bank: &'a Bank,
    state: &State,
    clock: &Clock,
    scope: &Scope,
    count: usize,
) -> Vec<&'a Question> {
    let mut last = BTreeMap::new();
    for grade in &state.grades {
        last.insert(&*grade.question, grade);
    }
    // A right answer of today comes last. A wrong answer counts like a question that was never asked.
    let forgotten = |question: &Question| match last.get(&*question.id) {
        Some(grade) if !grade.right => 1.0,
        Some(grade) if clock.day(timestamp(grade.at)) == clock.today() => 0.0,
        _ => {
            let card = state.cards.get(&question.id);
            1.0 - card.map_or(0.0, |card| recall(card, clock.tomorrow(), clock))
        }
    };
    let turns = turns_of_topics(bank);
    let mut questions: Vec<_> = scope.scheduled(bank).collect();
    questions.sort_by_cached_key(|question| {
        let weight = f32::from(question.asked) * forgotten(question) * 1000.0;
        (
            Reverse(weight as u32),
            question.level,
            turns[&*question.id],
            question.topic_index(),
        )
    });
    questions.truncate(count);
    interleave(questions, None)
}

/// Returns `count` questions for a mock interview: those asked least often in one, then what interviewers ask most. Recall
/// questions make up for missing mock questions.
pub fn mock<'a>(bank: &'a Bank, state: &State, scope: &Scope, count: usize) -> Vec<&'a Question> {
    let is_spoken = |question: &&Question| {
        matches!(question.kind, Kind::Mock { .. } | Kind::Recall { .. }) && scope.contains(question)
    };
    let mut questions: Vec<_> = bank.questions.iter().filter(is_spoken).collect();
    questions.sort_by_cached_key(|question| {
        let mocks = state.mocks.iter();
        let before = mocks.filter(|mock| mock.question == question.id).count();
        (
            !question.is_mock(),
            before,
            Reverse(question.asked),
            question.level,
            question.id.clone(),
        )
    });
    questions.truncate(count);
    interleave(questions, None)
}
