//! Reads the learner's grade for an answer.

use std::io;

use jiff::Timestamp;

use super::answer::Verdict;
use super::ask::Answered;
use crate::bank::question::Question;
use crate::clock::{Clock, days_between};
use crate::progress::schedule::{Card, Limits};
use crate::terminal::Terminal;

/// What the learner chose after an answer.
pub(super) enum Choice {
    /// From 1 (again) to 4 (easy).
    Grade(u8),
    CountAsRight,
    Prove,
    Explain,
    Lesson,
    Undo,
    Stop,
}

/// A question that was answered and is not graded yet.
pub(super) struct Turn<'q> {
    pub(super) question: &'q Question,
    /// `None` if the question was never asked before.
    pub(super) card: Option<&'q Card>,
    pub(super) answer: Answered,
    pub(super) now: Timestamp,
    /// How long the answer took.
    pub(super) seconds: i64,
    /// `None` if the schedule is unchanged.
    pub(super) limits: Option<Limits>,
}

impl Turn<'_> {
    pub(super) fn was_certain_and_wrong(&self) -> bool {
        self.answer.verdict == Some(Verdict::Wrong) && self.answer.sure == 3
    }

    /// Returns the grade for an empty line; `None` if only the learner can decide.
    fn suggestion(&self) -> Option<u8> {
        match (self.answer.verdict?, self.answer.sure) {
            (Verdict::Wrong | Verdict::Partly, _) => Some(1),
            (Verdict::Right, _) if self.answer.retried => Some(2),
            (Verdict::Right, 1) => Some(2),
            (Verdict::Right, _) => Some(3),
        }
    }

    /// Returns whether the drill takes the answer for wrong, at least in part. The learner may know better.
    fn can_be_counted_as_right(&self) -> bool {
        matches!(self.answer.verdict, Some(Verdict::Partly | Verdict::Wrong))
    }

    /// Asks for a grade. `due` has the time when the question comes back for each grade.
    pub(super) fn read_choice(
        &self,
        due: Option<[Timestamp; 4]>,
        clock: &Clock,
        terminal: &mut Terminal,
    ) -> io::Result<Choice> {
        loop {
            terminal.faint(&self.menu())?;
            let typed = terminal.ask(&self.prompt(due, clock))?;
            let choice = match (typed.as_deref().map(str::trim), self.suggestion()) {
                (None | Some("q" | ":q"), _) => Choice::Stop,
                (Some("u" | ":u"), _) => Choice::Undo,
                (Some("1"), _) => Choice::Grade(1),
                (Some("2"), _) => Choice::Grade(2),
                (Some("3"), _) => Choice::Grade(3),
                (Some("4"), _) => Choice::Grade(4),
                (Some(""), Some(grade)) => Choice::Grade(grade),
                (Some("c"), _) if self.can_be_counted_as_right() => Choice::CountAsRight,
                (Some("p"), _) => Choice::Prove,
                (Some("w"), _) => Choice::Explain,
                (Some("l"), _) => Choice::Lesson,
                _ => {
                    terminal.line("Type 1, 2, 3, 4 or one of the letters.")?;
                    continue;
                }
            };
            return Ok(choice);
        }
    }

    /// Returns the letters that the learner may type instead of a grade.
    fn menu(&self) -> String {
        let mut menu = Vec::new();
        if self.question.has_proof() {
            menu.push("p prove");
        }
        if self.question.has_explanation() {
            menu.push("w why");
        }
        menu.push("l lesson");
        if self.can_be_counted_as_right() {
            menu.push("c count as right");
        }
        format!("  {}", menu.join("  "))
    }

    fn prompt(&self, due: Option<[Timestamp; 4]>, clock: &Clock) -> String {
        let mut prompt = "Grade: ".to_owned();
        for (index, name) in ["again", "hard", "good", "easy"].iter().enumerate() {
            prompt += &format!("{} {name}", index + 1);
            if let Some(due) = due {
                prompt += &format!(" {}", interval(self.now, due[index], clock));
            }
            prompt += "  ";
        }
        prompt += "u undo ";
        if let Some(grade) = self.suggestion() {
            prompt += &format!("[{grade}] ");
        }
        prompt
    }
}

/// Formats an interval: `<10m`, `2d`.
fn interval(now: Timestamp, due: Timestamp, clock: &Clock) -> String {
    match days_between(clock.day(now), clock.day(due)) {
        0 => format!("<{}m", (due.as_second() - now.as_second() + 59) / 60),
        days => format!("{days}d"),
    }
}
