//! The bank, log and clock that all sessions share.

use anyhow::Result;
use course::log::Log;

use crate::bank::Bank;
use crate::clock::Clock;
use crate::progress::state::State;
use crate::terminal::Terminal;

/// The bank, the learner's log and the clock.
pub struct Drill<'a> {
    pub bank: &'a Bank,
    pub log: Log,
    pub clock: &'a Clock,
}

impl Drill<'_> {
    /// Returns the current state of the log, which another session may have changed.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn state(&self) -> Result<State> {
        State::read(&self.log, self.clock)
    }

    /// Returns the state before the first question, and reports incomplete lines of the log. Returns an error if the
    /// log cannot be written, before the learner has answered anything.
    pub(super) fn begin(&self, terminal: &mut Terminal) -> Result<State> {
        self.log.append_if(|_| None)?;
        let state = self.state()?;
        let path = self.log.path().display();
        if !state.torn.is_empty() {
            let lines = name_lines(&state.torn);
            terminal.text(&format!(
                "Skipped in {path}: {lines} not written completely. No acknowledged grade is lost."
            ))?;
        }
        if !state.damaged.is_empty() {
            let lines = name_lines(&state.damaged);
            terminal.text(&format!(
                "Skipped in {path}: {lines} edited or damaged, and cannot be read."
            ))?;
        }
        Ok(state)
    }
}

/// Returns the subject of a sentence: `line 2 was`, `lines 2 and 5 were`.
fn name_lines(numbers: &[usize]) -> String {
    match numbers {
        [number] => format!("line {number} was"),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(usize::to_string).collect();
            format!("lines {} and {last} were", first.join(", "))
        }
        [] => String::new(),
    }
}
