//! The sessions with grades: due and new questions, and cramming.

use anyhow::Result;

use super::drill::Drill;
use super::run::Session;
use crate::bank::question::Question;
use crate::progress::plan::{self, Interview, Plan, Scope};
use crate::progress::schedule::Limits;
use crate::terminal::{Terminal, counted};

const HELP: &str = "Stop at any time with :q, Ctrl-D or Ctrl-C; every grade is kept. :u undoes the last grade. Press Enter \
                    alone to skip a typed answer.";

impl Drill<'_> {
    /// Asks the questions that are due, and new ones.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read or written, or if the terminal fails.
    pub fn ask(&self, scope: &Scope, terminal: &mut Terminal) -> Result<()> {
        let state = self.begin(terminal)?;
        let plan = Plan::new(self.bank, &state, self.clock, scope);
        self.print_plan(&plan, terminal)?;
        if plan.count() == 0 {
            return Ok(());
        }
        Session::new(self, terminal).run(|session, again| {
            let state = self.state()?;
            let plan = Plan::new(self.bank, &state, self.clock, scope);
            let again = again.and_then(|id| self.bank.get(id));
            let Some(question) = again.or(plan.first()) else {
                session.say_when(plan.next_due)?;
                return Ok(None);
            };
            let limits = Limits {
                interview: scope.interview,
                today: false,
            };
            let left = plan.count().max(1);
            session.ask(question, &state, left, Some(limits)).map(Some)
        })
    }

    /// Asks `count` questions, the weakest and most asked first, and leaves the schedule unchanged.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read or written, or if the terminal fails.
    pub fn cram(&self, scope: &Scope, count: usize, terminal: &mut Terminal) -> Result<()> {
        let state = self.begin(terminal)?;
        let mut waiting = plan::cram(self.bank, &state, self.clock, scope, count);
        terminal.text(&format!(
            "{} to cram, the weakest and most asked first. Cramming does not change the schedule: a grade here only \
             decides what the next cram asks first.",
            counted(waiting.len(), "question")
        ))?;
        terminal.faint(HELP)?;
        // The last one is asked next.
        waiting.reverse();
        let mut asked: Option<&Question> = None;
        Session::new(self, terminal).run(|session, again| {
            if let Some(again) = again {
                waiting.extend(asked.filter(|asked| asked.id != again));
                waiting.extend(self.bank.get(again));
            }
            let Some(question) = waiting.pop() else {
                return Ok(None);
            };
            asked = Some(question);
            let (state, left) = (self.state()?, waiting.len() + 1);
            session.ask(question, &state, left, None).map(Some)
        })?;
        terminal
            .text("The schedule has not changed: every question is due when it was due before.")?;
        Ok(())
    }

    fn print_plan(&self, plan: &Plan, terminal: &mut Terminal) -> Result<()> {
        let is_empty = plan.count() == 0;
        let mut text = if is_empty {
            let mut text = match plan.next_due {
                Some(next) => format!("Nothing is due before {}.", self.clock.local(next)),
                None => "Nothing is due.".to_owned(),
            };
            if let Some(more) = plan.more {
                text += &format!(" `--new {more}` adds new questions today.");
            }
            text
        } else {
            let due = plan.due.len() + plan.soon.len();
            let (new, minutes) = (plan.new.len(), plan.minutes);
            format!("{due} due, {new} new, about {minutes} min.")
        };
        if let Some(interview) = &plan.interview {
            text += " ";
            text += &describe_interview(interview);
        }
        terminal.text(&text)?;
        if plan.interview.as_ref().is_some_and(|one| one.days < 2) && !is_empty {
            terminal.text(
                "If that is too much, `drill cram` asks the weakest and most asked questions first.",
            )?;
        }
        for (exercise, count) in &plan.forward {
            let questions = counted(*count, "question");
            let come = if *count == 1 { "comes" } else { "come" };
            terminal.text(&format!(
                "{questions} {come} first because {exercise} failed."
            ))?;
        }
        for (exercise, count) in &plan.locked {
            let questions = counted(*count, "question");
            let wait = if *count == 1 { "waits" } else { "wait" };
            terminal.text(&format!(
                "{questions} {wait} until you have solved {exercise}."
            ))?;
        }
        if !is_empty {
            terminal.faint(HELP)?;
        }
        Ok(())
    }
}

fn describe_interview(interview: &Interview) -> String {
    let when = match interview.days {
        0 => "today".to_owned(),
        1 => "tomorrow".to_owned(),
        days => format!("in {days} days"),
    };
    match interview.recall {
        Some(recall) => format!(
            "Interview {when}: predicted recall {:.0} % of {} seen, {} not seen yet.",
            recall * 100.0,
            counted(interview.seen, "question"),
            interview.questions - interview.seen
        ),
        None => format!(
            "Interview {when}: {}, none seen yet.",
            counted(interview.questions, "question")
        ),
    }
}
