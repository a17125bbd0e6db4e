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
        if !state.torn.is_empty() {
            let numbers: Vec<_> = state.torn.iter().map(usize::to_string).collect();
            terminal.text(&format!(
                "Skipped in {}: incomplete {} {}. No acknowledged grade is lost.",
                self.log.path().display(),
                if numbers.len() == 1 { "line" } else { "lines" },
                numbers.join(", ")
            ))?;
        }
        Ok(state)
    }
}
