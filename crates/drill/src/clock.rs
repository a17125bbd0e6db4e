//! The time, and the learner's day, which begins at 04:00 where they are.

use std::cell::Cell;
use std::env;

use anyhow::{Context, Result};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

/// The variable that fixes the time, for tests: `2026-11-25T10:00:00Z`.
pub const VARIABLE: &str = "WORKBOOK_NOW";

const DAY_BEGINS: i8 = 4;

/// Tells the time.
#[derive(Debug)]
pub struct Clock {
    fixed: Option<Cell<Timestamp>>,
    zone: TimeZone,
}

impl Clock {
    /// The system's clock, or the time in the variable.
    ///
    /// # Errors
    /// If the variable holds no time.
    pub fn from_environment() -> Result<Clock> {
        let zone = TimeZone::system();
        let fixed = match env::var(VARIABLE) {
            Err(_) => None,
            Ok(time) => {
                let time = time.parse();
                let time = time
                    .with_context(|| format!("{VARIABLE} is a time such as 2026-11-25T10:00:00Z"));
                Some(Cell::new(time?))
            }
        };
        Ok(Clock { fixed, zone })
    }

    /// A clock that stands still.
    pub fn fixed(now: Timestamp, zone: TimeZone) -> Clock {
        let fixed = Some(Cell::new(now));
        Clock { fixed, zone }
    }

    /// Sets a clock forward that stands still.
    pub fn advance(&self, by: SignedDuration) {
        if let Some(now) = &self.fixed {
            now.set(now.get().saturating_add(by).unwrap_or(now.get()));
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.fixed.as_ref().map_or_else(Timestamp::now, Cell::get)
    }

    /// The learner's day at that time: before 04:00 it is still yesterday.
    pub fn day(&self, time: Timestamp) -> Date {
        let local = self.zone.to_datetime(time);
        let back = Span::new().hours(DAY_BEGINS);
        local.checked_sub(back).unwrap_or(local).date()
    }

    /// Today.
    pub fn today(&self) -> Date {
        self.day(self.now())
    }

    /// The day after today.
    pub fn tomorrow(&self) -> Date {
        days_after(self.today(), 1)
    }

    /// When that day begins.
    pub fn start_of(&self, day: Date) -> Timestamp {
        let local = day.at(DAY_BEGINS, 0, 0, 0);
        self.zone.to_timestamp(local).unwrap_or(Timestamp::MAX)
    }

    /// The time of day, for people.
    pub fn local(&self, time: Timestamp) -> String {
        self.zone
            .to_datetime(time)
            .strftime("%Y-%m-%d %H:%M")
            .to_string()
    }
}

/// The days from one to another: negative where the other is earlier.
pub fn days_between(from: Date, to: Date) -> i64 {
    from.duration_until(to).as_hours() / 24
}

/// That many days later.
pub fn days_after(day: Date, days: i64) -> Date {
    day.checked_add(SignedDuration::from_hours(days.saturating_mul(24)))
        .unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_four_where_the_learner_is() {
        let zone = TimeZone::posix("IST-5:30").expect("a zone");
        let clock = Clock::fixed("2026-11-24T22:29:59Z".parse().expect("a time"), zone);
        assert_eq!(clock.today().to_string(), "2026-11-24");
        clock.advance(SignedDuration::from_secs(1));
        assert_eq!(clock.today().to_string(), "2026-11-25");
        assert_eq!(clock.start_of(clock.today()), clock.now());
        assert_eq!(clock.local(clock.now()), "2026-11-25 04:00");
    }

    #[test]
    fn days_are_counted_over_a_change_of_the_clocks() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let clock = Clock::fixed("2026-10-24T10:00:00Z".parse().expect("a time"), zone);
        let later = days_after(clock.today(), 2);
        assert_eq!(later.to_string(), "2026-10-26");
        assert_eq!(clock.day(clock.start_of(later)), later);
        assert_eq!(days_between(clock.today(), later), 2);
        assert_eq!(days_between(later, clock.today()), -2);
    }
}
