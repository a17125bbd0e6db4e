//! Asks questions one after the other, and records their grades.

use std::io;

use anyhow::Result;
use course::log::{Grade, Record};
use jiff::Timestamp;

use super::answer::Verdict;
use super::ask::{self, Asked};
use super::draft::Draft;
use super::drill::Drill;
use super::grade::{Choice, Turn};
use super::lesson;
use super::tally::Tally;
use crate::bank::question::{Kind, Question};
use crate::input::was_interrupted;
use crate::matching::Names;
use crate::progress::schedule::{Card, Limits, Scheduler};
use crate::progress::state::{State, new_id};
use crate::proof::{Proof, Prover, machine};
use crate::terminal::Terminal;

/// How the learner left a question.
pub(super) enum Outcome {
    Graded,
    /// Not graded. Next comes the question whose grade was undone, or the same question if there was no grade to
    /// undo.
    Undone(String),
    Stopped,
}

pub(super) struct Session<'a, 't, 'io> {
    drill: &'a Drill<'a>,
    terminal: &'t mut Terminal<'io>,
    names: Names,
    prover: Prover,
    scheduler: Scheduler,
    tally: Tally,
}

impl<'a, 't, 'io> Session<'a, 't, 'io> {
    pub(super) fn new(drill: &'a Drill, terminal: &'t mut Terminal<'io>) -> Session<'a, 't, 'io> {
        let texts = drill.bank.questions.iter().flat_map(|question| {
            let why = question.why.as_deref();
            [question.prompt.as_str()].into_iter().chain(why)
        });
        Session {
            drill,
            terminal,
            names: Names::of(texts),
            prover: Prover::new(&drill.bank.book.root),
            scheduler: Scheduler::default(),
            tally: Tally::default(),
        }
    }

    /// Asks until `ask_next` returns no outcome, or until the learner stops. `ask_next` gets the id of the question
    /// to ask again after an undo.
    pub(super) fn run(
        mut self,
        mut ask_next: impl FnMut(&mut Self, Option<&str>) -> Result<Option<Outcome>>,
    ) -> Result<()> {
        let mut again: Option<String> = None;
        loop {
            match ask_next(&mut self, again.take().as_deref()) {
                Ok(Some(Outcome::Graded)) => {}
                Ok(Some(Outcome::Undone(question))) => again = Some(question),
                Ok(Some(Outcome::Stopped) | None) => break,
                Err(error) => {
                    // The grades before the error are in the log, so the learner should see them.
                    self.tally.print(self.drill.bank, self.terminal)?;
                    return Err(error);
                }
            }
        }
        self.tally.print(self.drill.bank, self.terminal)?;
        Ok(())
    }

    /// Says when the next question is due, after the last one.
    pub(super) fn say_when(&mut self, due: Option<Timestamp>) -> io::Result<()> {
        let Some(due) = due else {
            return Ok(());
        };
        let due = self.drill.clock.local(due);
        self.terminal.line("")?;
        self.terminal
            .line(&format!("Nothing else is due before {due}."))
    }

    /// Asks one question and grades it. `left` counts the questions that are left, with this one. Without limits the
    /// schedule is unchanged.
    pub(super) fn ask(
        &mut self,
        question: &Question,
        state: &State,
        left: usize,
        limits: Option<Limits>,
    ) -> Result<Outcome> {
        let before = self.tally.count();
        self.terminal.line("")?;
        self.terminal.strong(&format!(
            "[{}/{}] {} · {} · level {}",
            before + 1,
            before + left,
            question.topic,
            question.type_name(),
            question.level
        ))?;
        let begin = self.drill.clock.now();
        let turn = state.times_asked(&question.id);
        let scheduled = limits.is_some();
        let asked = ask::ask(
            self.drill,
            question,
            turn,
            scheduled,
            &self.names,
            self.terminal,
        );
        let answer = match asked? {
            Asked::Answered(answer) => answer,
            Asked::Undo => return self.undo(question),
            Asked::Stop => return Ok(Outcome::Stopped),
        };
        self.tally.add_proof(answer.proved);
        let now = self.drill.clock.now();
        let turn = Turn {
            question,
            card: state.cards.get(&question.id),
            answer,
            now,
            seconds: now.as_second() - begin.as_second(),
            limits,
        };
        self.grade(turn)
    }

    fn grade(&mut self, mut turn: Turn) -> Result<Outcome> {
        let clock = self.drill.clock;
        loop {
            let today = turn.was_certain_and_wrong();
            let limits = turn.limits.map(|limits| Limits { today, ..limits });
            let due = limits.map(|limits| self.scheduler.due(turn.card, turn.now, limits, clock));
            match turn.read_choice(due, clock, self.terminal)? {
                Choice::Grade(grade) => return self.record(&turn, grade, due),
                Choice::Undo => return self.undo(turn.question),
                Choice::Stop => {
                    self.terminal.line("This question was not graded.")?;
                    return Ok(Outcome::Stopped);
                }
                Choice::CountAsRight => {
                    self.terminal.line("Counted as right.")?;
                    turn.answer.verdict = Some(Verdict::Right);
                }
                Choice::Prove => self.prove(&mut turn)?,
                Choice::Explain => lesson::print_explanation(turn.question, self.terminal)?,
                Choice::Lesson => {
                    lesson::print_section(turn.question, self.drill.bank, self.terminal)?;
                }
            }
        }
    }

    /// Writes the grade to the log, unless another session has graded the question since it was asked here.
    fn record(&mut self, turn: &Turn, grade: u8, due: Option<[Timestamp; 4]>) -> Result<Outcome> {
        let grade = Grade {
            id: new_id(turn.now),
            at: turn.now.as_second(),
            question: turn.question.id.clone(),
            grade,
            sure: turn.answer.sure,
            // If only the learner can decide, the grade says whether the answer was right.
            right: match turn.answer.verdict {
                Some(verdict) => verdict == Verdict::Right,
                None => grade > 1,
            },
            partly: turn.answer.verdict == Some(Verdict::Partly),
            seconds: turn.seconds,
            due: due.map_or(0, |due| due[usize::from(grade) - 1].as_second()),
            cram: due.is_none(),
        };
        let last_grade = |card: Option<&Card>| card.map(|card| card.last_grade.clone());
        let recorded = self.drill.log.append_if(|lines| {
            let state = State::replay(lines, self.drill.clock);
            let is_first = last_grade(state.cards.get(&grade.question)) == last_grade(turn.card);
            (grade.cram || is_first).then(|| Record::Grade(grade.clone()))
        })?;
        if let Kind::Write { language, .. } = turn.question.kind {
            Draft::of(self.drill, turn.question, language).remove();
        }
        match recorded {
            true => self.tally.add_grade(grade),
            false => self
                .terminal
                .line("Another session graded this question in the meantime. Its grade counts.")?,
        }
        Ok(Outcome::Graded)
    }

    /// Takes back the last grade of this session. `current` is asked again if there is none.
    fn undo(&mut self, current: &Question) -> Result<Outcome> {
        let Some(grade) = self.tally.last_grade() else {
            let line = "There is no grade in this session to undo.";
            self.terminal.line(line)?;
            return Ok(Outcome::Undone(current.id.clone()));
        };
        let question = grade.question.clone();
        self.drill.log.append(&Record::Undo {
            at: self.drill.clock.now().as_second(),
            of: grade.id.clone(),
        })?;
        self.tally.remove_last_grade();
        self.terminal
            .line(&format!("Undone: {question}. It is asked again."))?;
        Ok(Outcome::Undone(question))
    }

    /// Runs the proof, prints its output and records the result.
    fn prove(&mut self, turn: &mut Turn) -> Result<()> {
        let question = turn.question;
        if !question.has_proof() {
            let line = "This question has no proof. Type l for the section of its page.";
            return Ok(self.terminal.line(line)?);
        }
        if let Some(name) = &question.prove
            && !self.prover.has_run(name)
        {
            self.terminal
                .faint(&format!("  cargo run -q -p lab --example {name}"))?;
        }
        let proof = self.prover.prove(question);
        // The answer must not be lost because cargo is missing or /tmp is full.
        let proof = proof.unwrap_or_else(|error| Proof::Skipped(format!("{error:#}")));
        if was_interrupted() {
            // Ctrl-C has ended cargo as well, which says nothing about the answer.
            return Ok(());
        }
        print_proof(&proof, self.terminal)?;
        self.drill.log.append(&Record::Proof {
            at: self.drill.clock.now().as_second(),
            question: question.id.clone(),
            result: proof.word().to_owned(),
            machine: machine::describe(),
        })?;
        // A proof that is run twice counts once.
        self.tally
            .add_proof(proof.is_proved() && !turn.answer.proved);
        turn.answer.proved |= proof.is_proved();
        Ok(())
    }
}

fn print_proof(proof: &Proof, terminal: &mut Terminal) -> io::Result<()> {
    let machine = machine::describe();
    match proof {
        Proof::Proved { shown, lines } => {
            // The whole output, because a row of a table needs its head. The lines that prove the answer are marked.
            for line in lines {
                let mark = if shown.contains(line) { '*' } else { '|' };
                terminal.line(&format!("  {mark} {line}"))?;
            }
            terminal.strong(&format!("  PROVED on this machine ({machine})"))
        }
        Proof::Differs { why, lines } => {
            for line in lines {
                terminal.line(&format!("  | {line}"))?;
            }
            terminal.strong(&format!("  DIFFERS HERE ({machine}): {why}"))
        }
        Proof::Skipped(why) => terminal.strong(&format!("  SKIPPED: {why}")),
    }
}
