//! What is asked, and in which order: what is due, what is new, what waits for an exercise.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::bank::Bank;
use crate::bank::question::{Question, TOPICS};
use crate::clock::{Clock, days_between};
use crate::progress::schedule::{Card, recall};
use crate::progress::state::{State, time};

/// New questions a day where nobody says how many.
pub const NEW_A_DAY: usize = 8;

/// Where nothing else is left, what is due within this time is asked now.
const SOON: SignedDuration = SignedDuration::from_mins(20);

/// An answer's seconds, where nothing is known of the learner.
const SECONDS: i64 = 45;

/// What is to be asked of all.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// These topics; none means all.
    pub topics: Vec<String>,
    /// This level.
    pub level: Option<u8>,
    /// New questions a day.
    pub new: Option<usize>,
    /// Locks do not count, and what is new is spread over the days that are left.
    pub interview: Option<Date>,
}

/// What would be asked now, in its order.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Seen before, and due.
    pub due: Vec<&'a Question>,
    /// Never seen; as many as today takes.
    pub new: Vec<&'a Question>,
    /// Due in a few minutes.
    pub soon: Vec<&'a Question>,
    /// How many wait for each exercise.
    pub locked: BTreeMap<&'a str, usize>,
    /// How many come today because an exercise failed.
    pub forward: BTreeMap<&'a str, usize>,
    /// The next time that something is due, where nothing is now.
    pub next_due: Option<Timestamp>,
    /// How long it will take.
    pub minutes: i64,
    /// The `--new` that would begin more today, where there are more.
    pub more: Option<usize>,
    /// The interview.
    pub interview: Option<Interview>,
}

/// How it stands for the interview.
#[derive(Debug, Clone, Serialize)]
pub struct Interview {
    /// When.
    pub date: Date,
    /// How many days there are left.
    pub days: i64,
    /// How much of what has been seen will be remembered, from 0 to 1.
    pub recall: Option<f32>,
    /// How many have been seen.
    pub seen: usize,
    /// Of how many.
    pub questions: usize,
    /// How many new ones a day that makes.
    pub new_a_day: usize,
}

impl Scope {
    /// Whether a question belongs to it.
    pub fn has(&self, question: &Question) -> bool {
        let topic = self.topics.is_empty() || self.topics.contains(&question.topic);
        topic && self.level.is_none_or(|level| level == question.level)
    }

    /// Complains of a topic that there is not, and of an interview that is over.
    ///
    /// # Errors
    /// If there is one.
    pub fn check(&self, clock: &Clock) -> Result<()> {
        for topic in &self.topics {
            ensure!(
                TOPICS.contains(&&**topic),
                "there is no topic {topic}: there is {}",
                TOPICS.join(", ")
            );
        }
        if let Some(date) = self.interview {
            let today = clock.today();
            ensure!(
                date >= today,
                "the interview on {date} is over: today is {today}"
            );
        }
        Ok(())
    }
}

impl<'a> Plan<'a> {
    /// What would be asked now.
    pub fn make(bank: &'a Bank, state: &State, clock: &Clock, scope: &Scope) -> Plan<'a> {
        let now = clock.now();
        let today = clock.today();
        let mut plan = Plan {
            due: Vec::new(),
            new: Vec::new(),
            soon: Vec::new(),
            locked: BTreeMap::new(),
            forward: BTreeMap::new(),
            next_due: None,
            minutes: 0,
            more: None,
            interview: None,
        };
        let questions = bank.questions.iter();
        let questions = questions.filter(|question| !question.is_mock() && scope.has(question));
        let mut seen = Vec::new();
        let mut unseen = Vec::new();
        for question in questions {
            let lock = question
                .needs
                .as_deref()
                .filter(|needs| !state.passed.contains(*needs));
            match (state.cards.get(&question.id), lock) {
                (Some(card), _) => seen.push((question, card)),
                (None, Some(lock)) if scope.interview.is_none() => {
                    *plan.locked.entry(lock).or_default() += 1;
                }
                (None, _) => unseen.push(question),
            }
        }

        let forward =
            |question: &Question, card: Option<&Card>| pulled_forward(question, card, state, clock);
        for (question, card) in &seen {
            if card.due <= now || forward(question, Some(card)) {
                plan.due.push(question);
            } else if card.due <= now.saturating_add(SOON).unwrap_or(now) {
                plan.soon.push(question);
            } else {
                plan.next_due = Some(plan.next_due.map_or(card.due, |next| next.min(card.due)));
            }
        }
        let weakness = |question: &&Question| {
            let card = state.cards.get(&question.id);
            let known = card.map_or(0, |card| (recall(card, today, clock) * 1000.0) as u32);
            (!forward(question, card), known, question.id.clone())
        };
        plan.due.sort_by_cached_key(weakness);
        plan.soon
            .sort_by_key(|question| state.cards[&question.id].due);

        let began = |card: &Card| clock.day(card.first) == today;
        let begun = seen.iter().filter(|(_, card)| began(card)).count();
        let interview = scope
            .interview
            .map(|date| interview(date, &seen, unseen.len(), begun, clock));
        let paced = interview
            .as_ref()
            .map_or(NEW_A_DAY, |interview| interview.new_a_day);
        let most = scope.new.unwrap_or(paced).saturating_sub(begun);
        unseen.sort_by_cached_key(|question| {
            // Before an interview first what interviewers ask.
            let asked = scope.interview.map(|_| Reverse(question.asked));
            let forward = forward(question, None);
            (
                !forward,
                asked,
                question.level,
                question.topic_index(),
                Reverse(question.asked),
                question.id.clone(),
            )
        });
        plan.more = (unseen.len() > most).then_some(begun + most + NEW_A_DAY);
        unseen.truncate(most);
        plan.new = unseen;
        for question in plan.due.iter().chain(&plan.new) {
            if let Some(exercise) = question.exercise.as_deref()
                && forward(question, state.cards.get(&question.id))
            {
                *plan.forward.entry(exercise).or_default() += 1;
            }
        }
        plan.interview = interview;
        let seconds = plan.count() as i64 * state.pace().unwrap_or(SECONDS);
        plan.minutes = (seconds + 59) / 60;
        plan
    }

    /// How many there are to ask.
    pub fn count(&self) -> usize {
        self.due.len() + self.new.len() + self.soon.len()
    }

    /// The first.
    pub fn first(&self) -> Option<&'a Question> {
        let mut all = self.due.iter().chain(&self.new).chain(&self.soon);
        all.next().copied()
    }
}

/// An exercise that fails asks for its questions, once a day.
fn pulled_forward(question: &Question, card: Option<&Card>, state: &State, clock: &Clock) -> bool {
    let failed = question
        .exercise
        .as_ref()
        .and_then(|exercise| state.failed.get(exercise));
    let failed = failed.filter(|_| question.follows_exercise);
    failed.is_some_and(|failed| {
        let day = clock.start_of(clock.day(*failed));
        card.is_none_or(|card| card.last < day)
    })
}

fn interview(
    date: Date,
    seen: &[(&Question, &Card)],
    unseen: usize,
    begun: usize,
    clock: &Clock,
) -> Interview {
    let days = days_between(clock.today(), date);
    // On the day itself nothing new is begun any more, unless it is today.
    let spread = days.max(1) as usize;
    let recalls = seen.iter().map(|(_, card)| recall(card, date, clock));
    let sum: f32 = recalls.sum();
    Interview {
        date,
        days,
        recall: (!seen.is_empty()).then(|| sum / seen.len() as f32),
        seen: seen.len(),
        questions: seen.len() + unseen,
        new_a_day: (unseen + begun).div_ceil(spread),
    }
}

/// For the night before: the weakest and most asked first, locked or not, mock questions left out.
pub fn cram<'a>(bank: &'a Bank, state: &State, clock: &Clock, scope: &Scope) -> Vec<&'a Question> {
    let mut last = BTreeMap::new();
    for grade in &state.grades {
        last.insert(&*grade.question, grade);
    }
    // What was right tonight is not asked again before the rest; what was wrong is as good as never seen.
    let forgotten = |question: &Question| match last.get(&*question.id) {
        Some(grade) if !grade.right => 1.0,
        Some(grade) if clock.day(time(grade.at)) == clock.today() => 0.0,
        _ => {
            let card = state.cards.get(&question.id);
            1.0 - card.map_or(0.0, |card| recall(card, clock.tomorrow(), clock))
        }
    };
    let questions = bank.questions.iter();
    let mut questions: Vec<_> = questions
        .filter(|question| !question.is_mock() && scope.has(question))
        .collect();
    questions.sort_by_cached_key(|question| {
        let weight = f32::from(question.asked) * forgotten(question) * 1000.0;
        (
            Reverse(weight as u32),
            question.level,
            question.topic_index(),
            question.id.clone(),
        )
    });
    questions
}
