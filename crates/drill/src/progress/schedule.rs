//! When a question comes back: FSRS-6 with its default parameters, in whole days that begin at 04:00.

use fsrs::{FSRS, FSRS6_DEFAULT_DECAY, ItemState, MemoryState, NextStates, current_retrievability};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use crate::clock::{Clock, days_after, days_between};

/// The fraction of questions that the learner should still know when they come back.
const RETENTION: f32 = 0.9;

/// When a question comes back that the learner did not know.
const SOON: SignedDuration = SignedDuration::from_mins(10);

/// A question that was asked before.
#[derive(Debug, Clone)]
pub struct Card {
    pub memory: MemoryState,
    /// When it was asked for the first time.
    pub first: Timestamp,
    /// When it was asked for the last time.
    pub last: Timestamp,
    pub due: Timestamp,
    /// The id of its last grade.
    pub last_grade: String,
}

#[derive(Debug, Default)]
pub struct Scheduler {
    fsrs: FSRS,
}

/// Limits on the interval until a question comes back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// The question comes back today whatever the grade, because the learner was certain and wrong.
    pub today: bool,
    /// The question comes back before the day of the interview.
    pub interview: Option<Date>,
}

impl Scheduler {
    /// Returns how well a question is remembered after a grade.
    pub fn memory_after(
        &self,
        card: Option<&Card>,
        now: Timestamp,
        grade: u8,
        clock: &Clock,
    ) -> MemoryState {
        state_after(self.next_states(card, now, clock), grade).memory
    }

    /// Returns when the question comes back for each grade, from 1 (again) to 4 (easy). A better grade never has a
    /// shorter interval.
    pub fn due(
        &self,
        card: Option<&Card>,
        now: Timestamp,
        limits: Limits,
        clock: &Clock,
    ) -> [Timestamp; 4] {
        let today = clock.day(now);
        let soon = now.saturating_add(SOON).unwrap_or(Timestamp::MAX);
        // A question that comes back on the day of the interview comes too late.
        let most = limits
            .interview
            .map(|day| (days_between(today, day) - 1).max(1));
        let next = self.next_states(card, now, clock);
        let mut days = 0;
        [1, 2, 3, 4].map(|grade| {
            if grade == 1 || limits.today {
                return soon;
            }
            let interval = state_after(next.clone(), grade).interval.round() as i64;
            days = interval.max(days + 1);
            let days = most.map_or(days, |most| days.min(most));
            clock.start_of(days_after(today, days))
        })
    }

    fn next_states(&self, card: Option<&Card>, now: Timestamp, clock: &Clock) -> NextStates {
        let days = card.map_or(0, |card| days_since(card, clock.day(now), clock));
        let memory = card.map(|card| card.memory);
        let next = self.fsrs.next_states(memory, RETENTION, days as u32);
        next.expect("FSRS accepts every state that it has returned")
    }
}

fn state_after(next: NextStates, grade: u8) -> ItemState {
    match grade {
        1 => next.again,
        2 => next.hard,
        3 => next.good,
        _ => next.easy,
    }
}

fn days_since(card: &Card, day: Date, clock: &Clock) -> i64 {
    days_between(clock.day(card.last), day).max(0)
}

/// Returns the probability, from 0 to 1, that the learner will know the answer on that day.
pub fn recall(card: &Card, day: Date, clock: &Clock) -> f32 {
    let days = days_since(card, day, clock) as f32;
    current_retrievability(card.memory, days, FSRS6_DEFAULT_DECAY)
}
