//! The time limit of a mock interview.

use std::io::{self, BufRead, Cursor, Read};
use std::path::Path;

use course::log::Log;
use drill::bank::Bank;
use drill::clock::Clock;
use drill::progress::plan::Scope;
use drill::session::Drill;
use drill::terminal::{Look, Terminal};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

/// An input whose every line takes a minute.
struct Slow<'a> {
    typed: Cursor<&'static str>,
    clock: &'a Clock,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.typed.read(buffer)
    }
}

impl BufRead for Slow<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.clock.advance(SignedDuration::from_mins(1));
        self.typed.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.typed.consume(amount);
    }
}

/// Holds an interview of `minutes`, and returns its output.
fn interview(minutes: i64) -> String {
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clone");
    let bank = Bank::read(&clone).expect("a bank");
    let now = "2026-11-25T10:00:00Z".parse().expect("a time");
    let clock = Clock::fixed(now, TimeZone::UTC);
    let folder = tempfile::tempdir().expect("a folder");
    let mut input = Slow {
        typed: Cursor::new("\n1 2\n\ny\n\n1\n\ny\n"),
        clock: &clock,
    };
    let mut output = Vec::new();
    let mut terminal = Terminal::new(&mut input, &mut output, Look::default());
    let drill = Drill {
        bank: &bank,
        log: Log::in_folder(folder.path()),
        clock: &clock,
    };
    drill
        .mock(&Scope::default(), 5, minutes, &mut terminal)
        .expect("an interview");
    String::from_utf8(output).expect("UTF-8")
}

#[test]
fn a_question_that_began_in_time_is_finished() {
    let output = interview(3);
    let end = "Time is up after 1 of 5 questions.\n\n\
               Scorecard: 3 of 3 points, 1 of 5 questions, 4:00 of 3:00: over time.";
    assert!(output.contains(end), "{output}");
}

#[test]
fn no_question_begins_after_the_time_is_up() {
    let output = interview(8);
    assert!(output.contains("[2/5] 4:00 of 8:00"), "{output}");
    assert!(
        output.contains("Time is up after 2 of 5 questions."),
        "{output}"
    );
    assert!(
        output.contains("Scorecard: 5 of 5 points, 2 of 5 questions, 8:00 of 8:00."),
        "{output}"
    );
}
