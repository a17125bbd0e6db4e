//! When a question comes back: FSRS-6 with its default parameters, in whole days that begin at 04:00.

use fsrs::{FSRS, FSRS6_DEFAULT_DECAY, ItemState, MemoryState, NextStates, current_retrievability};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use crate::clock::{Clock, days_after, days_between};

/// The part of the questions that is to be remembered when it comes back.
const RETENTION: f32 = 0.9;

/// When a question comes back that was not known.
const SOON: SignedDuration = SignedDuration::from_mins(10);

/// What is known of a question that has been asked.
#[derive(Debug, Clone)]
pub struct Card {
    /// How well it is remembered.
    pub memory: MemoryState,
    /// When it was asked first.
    pub first: Timestamp,
    /// When it was asked last.
    pub last: Timestamp,
    /// When it comes back.
    pub due: Timestamp,
    /// The id of its last grade.
    pub last_grade: String,
}

/// Works out memory and intervals.
#[derive(Debug)]
pub struct Scheduler {
    fsrs: FSRS,
}

/// What else decides when a question comes back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// It was certain and wrong: whatever the grade, it comes back today.
    pub today: bool,
    /// The day of the interview: it comes back before that.
    pub interview: Option<Date>,
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        Scheduler::new()
    }
}

impl Scheduler {
    /// With the default parameters.
    pub fn new() -> Scheduler {
        Scheduler {
            fsrs: FSRS::default(),
        }
    }

    /// How well a question is remembered after that grade.
    pub fn memory(
        &self,
        card: Option<&Card>,
        now: Timestamp,
        grade: u8,
        clock: &Clock,
    ) -> MemoryState {
        of_grade(self.next(card, now, clock), grade).memory
    }

    /// When it comes back after each grade, from again to easy.
    pub fn due(
        &self,
        card: Option<&Card>,
        now: Timestamp,
        limits: Limits,
        clock: &Clock,
    ) -> [Timestamp; 4] {
        let today = clock.day(now);
        let soon = now.saturating_add(SOON).unwrap_or(Timestamp::MAX);
        // The day before the interview is the last that helps.
        let most = limits
            .interview
            .map(|day| (days_between(today, day) - 1).max(1));
        let next = self.next(card, now, clock);
        let mut days = 0;
        [1, 2, 3, 4].map(|grade| {
            if grade == 1 || limits.today {
                return soon;
            }
            let wanted = of_grade(next.clone(), grade).interval.round() as i64;
            days = wanted.max(days + 1);
            let days = most.map_or(days, |most| days.min(most));
            clock.start_of(days_after(today, days))
        })
    }

    fn next(&self, card: Option<&Card>, now: Timestamp, clock: &Clock) -> NextStates {
        let days = card.map_or(0, |card| elapsed(card, clock.day(now), clock));
        let memory = card.map(|card| card.memory);
        let next = self.fsrs.next_states(memory, RETENTION, days as u32);
        next.expect("FSRS takes every state that it has made")
    }
}

fn of_grade(next: NextStates, grade: u8) -> ItemState {
    match grade {
        1 => next.again,
        2 => next.hard,
        3 => next.good,
        _ => next.easy,
    }
}

fn elapsed(card: &Card, day: Date, clock: &Clock) -> i64 {
    days_between(clock.day(card.last), day).max(0)
}

/// How likely it is that the learner will know it on that day, from 0 to 1.
pub fn recall(card: &Card, day: Date, clock: &Clock) -> f32 {
    let days = elapsed(card, day, clock) as f32;
    current_retrievability(card.memory, days, FSRS6_DEFAULT_DECAY)
}
