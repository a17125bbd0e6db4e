//! The current time, and the learner's day, which begins at 04:00 local time.

use std::cell::Cell;
use std::env;

use anyhow::{Context, Result};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

/// The environment variable that stops the clock, for tests: `2026-11-25T10:00:00Z`.
pub const VARIABLE: &str = "WORKBOOK_NOW";

const DAY_BEGINS: i8 = 4;

#[derive(Debug)]
pub struct Clock {
    /// The time of a stopped clock.
    fixed: Option<Cell<Timestamp>>,
    zone: TimeZone,
}

impl Clock {
    /// Returns the system's clock, or a stopped clock if [`VARIABLE`] is set.
    ///
    /// # Errors
    /// Returns an error if the variable is not a time.
    pub fn from_environment() -> Result<Clock> {
        let zone = TimeZone::system();
        let fixed = match env::var(VARIABLE) {
            Err(_) => None,
            Ok(time) => {
                let time = time.parse();
                let time = time.with_context(|| {
                    format!("{VARIABLE} must be a time such as 2026-11-25T10:00:00Z")
                });
                Some(Cell::new(time?))
            }
        };
        Ok(Clock { fixed, zone })
    }

    /// Returns a stopped clock.
    pub fn fixed(now: Timestamp, zone: TimeZone) -> Clock {
        let fixed = Some(Cell::new(now));
        Clock { fixed, zone }
    }

    /// Sets a stopped clock forward.
    pub fn advance(&self, by: SignedDuration) {
        if let Some(now) = &self.fixed {
            now.set(now.get().saturating_add(by).unwrap_or(now.get()));
        }
    }

    pub fn now(&self) -> Timestamp {
        self.fixed.as_ref().map_or_else(Timestamp::now, Cell::get)
    }

    /// Returns the learner's day at that time. Before 04:00 it is still the day before.
    pub fn day(&self, time: Timestamp) -> Date {
        let local = self.zone.to_datetime(time);
        let back = Span::new().hours(DAY_BEGINS);
        local.checked_sub(back).unwrap_or(local).date()
    }

    pub fn today(&self) -> Date {
        self.day(self.now())
    }

    pub fn tomorrow(&self) -> Date {
        days_after(self.today(), 1)
    }

    /// Returns when that day begins.
    pub fn start_of(&self, day: Date) -> Timestamp {
        let local = day.at(DAY_BEGINS, 0, 0, 0);
        self.zone.to_timestamp(local).unwrap_or(Timestamp::MAX)
    }

    /// Formats a time in the local time zone.
    pub fn local(&self, time: Timestamp) -> String {
        self.zone
            .to_datetime(time)
            .strftime("%Y-%m-%d %H:%M")
            .to_string()
    }
}

/// Returns the number of days from `from` to `to`; negative if `to` is earlier.
pub fn days_between(from: Date, to: Date) -> i64 {
    from.duration_until(to).as_hours() / 24
}

pub fn days_after(day: Date, days: i64) -> Date {
    day.checked_add(SignedDuration::from_hours(days.saturating_mul(24)))
        .unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_four_in_local_time() {
        let zone = TimeZone::posix("IST-5:30").expect("a zone");
        let clock = Clock::fixed("2026-11-24T22:29:59Z".parse().expect("a time"), zone);
        assert_eq!(clock.today().to_string(), "2026-11-24");
        clock.advance(SignedDuration::from_secs(1));
        assert_eq!(clock.today().to_string(), "2026-11-25");
        assert_eq!(clock.start_of(clock.today()), clock.now());
        assert_eq!(clock.local(clock.now()), "2026-11-25 04:00");
    }

    #[test]
    fn days_are_counted_across_a_change_to_winter_time() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        let clock = Clock::fixed("2026-10-24T10:00:00Z".parse().expect("a time"), zone);
        let later = days_after(clock.today(), 2);
        assert_eq!(later.to_string(), "2026-10-26");
        assert_eq!(clock.day(clock.start_of(later)), later);
        assert_eq!(days_between(clock.today(), later), 2);
        assert_eq!(days_between(later, clock.today()), -2);
    }
}
