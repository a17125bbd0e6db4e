//! A session: asks what is due and new, takes the learner's grade, and writes it down before it goes on.

pub mod ask;
mod lesson;
pub mod mock;

use std::collections::BTreeMap;
use std::io;

use anyhow::Result;
use course::log::{Grade, Lines, Log, Record};
use jiff::Timestamp;

use crate::bank::Bank;
use crate::bank::question::Question;
use crate::clock::{Clock, days_between};
use crate::matching::Names;
use crate::progress::plan::{self as pick, Plan, Scope};
use crate::progress::schedule::{Card, Limits, Scheduler};
use crate::progress::state::{State, new_id, time};
use crate::proof::machine;
use crate::proof::{Proof, Prover};
use crate::terminal::{Terminal, counted};
use ask::{Answered, Asked, HELP};

/// What a session works with.
pub struct Desk<'a> {
    /// The questions.
    pub bank: &'a Bank,
    /// The learner's log.
    pub log: Log,
    /// The time.
    pub clock: &'a Clock,
    /// Runs the proofs.
    pub prover: Prover,
    /// What no letter may be wrong in.
    pub names: Names,
    scheduler: Scheduler,
}

/// What was done.
#[derive(Debug, Default)]
struct Done {
    asked: usize,
    right: usize,
    proved: usize,
    certain_but_wrong: usize,
    /// Right and asked, by topic.
    topics: BTreeMap<String, (usize, usize)>,
    /// What was graded, in order, with what undo takes back.
    grades: Vec<Undoable>,
}

#[derive(Debug)]
struct Undoable {
    id: String,
    question: String,
    right: bool,
    certain_but_wrong: bool,
}

/// How a question ended.
enum Ended {
    Graded,
    /// Nothing was graded; the last grade was undone where there was one.
    Undone(Option<String>),
    Stopped,
}

impl<'a> Desk<'a> {
    /// For that bank, log and clock.
    pub fn new(bank: &'a Bank, log: Log, clock: &'a Clock) -> Desk<'a> {
        let texts = bank.questions.iter().flat_map(|question| {
            let why = question.why.as_deref();
            [question.prompt.as_str()].into_iter().chain(why)
        });
        Desk {
            prover: Prover::new(&bank.book.root),
            names: Names::of(texts),
            bank,
            log,
            clock,
            scheduler: Scheduler::new(),
        }
    }

    /// Whether a grade could be written: nobody answers first and is told then.
    ///
    /// # Errors
    /// If it could not.
    pub fn can_write(&self) -> Result<()> {
        self.log.append_if(|_: Lines| None).map(|_| ())
    }

    /// The state as it is now: another session may have changed it.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn state(&self) -> Result<State> {
        State::read(&self.log, self.clock)
    }

    /// Asks what is due and new.
    ///
    /// # Errors
    /// If the log cannot be read or written, or the terminal is gone.
    pub fn drill(&mut self, scope: &Scope, terminal: &mut Terminal) -> Result<()> {
        let bank = self.bank;
        self.can_write()?;
        let state = self.state()?;
        let plan = Plan::make(bank, &state, self.clock, scope);
        torn(&state, &self.log, terminal)?;
        opening(&plan, self.clock, terminal)?;
        if plan.count() == 0 {
            return Ok(());
        }
        let mut done = Done::default();
        let mut again = None;
        loop {
            let state = self.state()?;
            let plan = Plan::make(bank, &state, self.clock, scope);
            let left = plan.count();
            let question = again.take().and_then(|id: String| bank.get(&id));
            let Some(question) = question.or(plan.first()) else {
                break;
            };
            let of = done.asked + left.max(1);
            let limits = Limits {
                interview: scope.interview,
                today: false,
            };
            let number = (done.asked + 1, of);
            let ended = self.question(question, &state, number, Some(limits), &mut done, terminal);
            match self.or_closing(ended, &done, terminal)? {
                Ended::Graded => {}
                Ended::Undone(undone) => again = Some(undone.unwrap_or(question.id.clone())),
                Ended::Stopped => break,
            }
        }
        self.closing(&done, terminal)
    }

    /// Asks the weakest and the most asked, that many, and leaves the schedule as it is.
    ///
    /// # Errors
    /// If the log cannot be read or written, or the terminal is gone.
    pub fn cram(&mut self, scope: &Scope, count: usize, terminal: &mut Terminal) -> Result<()> {
        let bank = self.bank;
        self.can_write()?;
        let state = self.state()?;
        torn(&state, &self.log, terminal)?;
        let mut waiting = pick::cram(bank, &state, self.clock, scope);
        waiting.truncate(count);
        let of = waiting.len();
        terminal.text(&format!(
            "{of} to cram, the weakest and most asked first. The schedule stays as it is."
        ))?;
        terminal.faint(HELP)?;
        let mut done = Done::default();
        waiting.reverse();
        while let Some(question) = waiting.pop() {
            let state = self.state()?;
            let of = done.asked + waiting.len() + 1;
            let number = (done.asked + 1, of);
            let ended = self.question(question, &state, number, None, &mut done, terminal);
            match self.or_closing(ended, &done, terminal)? {
                Ended::Graded => {}
                Ended::Undone(undone) => {
                    waiting.push(question);
                    waiting.extend(undone.and_then(|id| bank.get(&id)));
                }
                Ended::Stopped => break,
            }
        }
        self.closing(&done, terminal)
    }

    /// Asks one question and grades it. Without limits the schedule stays as it is.
    fn question(
        &mut self,
        question: &Question,
        state: &State,
        (number, of): (usize, usize),
        limits: Option<Limits>,
        done: &mut Done,
        terminal: &mut Terminal,
    ) -> Result<Ended> {
        terminal.line("")?;
        let kind = question.type_name();
        terminal.strong(&format!(
            "[{number}/{of}] {} · {kind} · level {}",
            question.topic, question.level
        ))?;
        let turn = state
            .grades
            .iter()
            .filter(|grade| grade.question == question.id)
            .count();
        let begun = self.clock.now();
        let answered = match ask::ask(question, turn, &self.names, terminal)? {
            Asked::Answered(answered) => answered,
            Asked::Undo => return Ok(Ended::Undone(self.undo(done, terminal)?)),
            Asked::Stop => return Ok(Ended::Stopped),
        };
        let seconds = self.clock.now().as_second() - begun.as_second();
        let card = state.cards.get(&question.id);
        self.grade(question, card, answered, seconds, limits, done, terminal)
    }

    #[expect(clippy::too_many_arguments, reason = "what a grade is made of")]
    fn grade(
        &mut self,
        question: &Question,
        card: Option<&Card>,
        answered: Answered,
        seconds: i64,
        limits: Option<Limits>,
        done: &mut Done,
        terminal: &mut Terminal,
    ) -> Result<Ended> {
        let Answered {
            sure,
            mut right,
            mut proved,
        } = answered;
        done.proved += usize::from(proved);
        let now = self.clock.now();
        loop {
            let today = right == Some(false) && sure == 3;
            let limits = limits.map(|limits| Limits { today, ..limits });
            let due = limits.map(|limits| self.scheduler.due(card, now, limits, self.clock));
            let suggested = match right {
                Some(false) => Some(1),
                Some(true) if sure == 1 => Some(2),
                Some(true) => Some(3),
                None => None,
            };
            terminal.faint(&menu(question, right))?;
            let typed = terminal.ask(&grades(due, suggested, now, self.clock))?;
            let Some(typed) = typed else {
                terminal.line("This question was not graded.")?;
                return Ok(Ended::Stopped);
            };
            let grade = match (typed.trim(), suggested) {
                ("1" | "2" | "3" | "4", _) => typed.trim().parse()?,
                ("", Some(suggested)) => suggested,
                ("p", _) if question.has_proof() => {
                    // A second look does not count.
                    let holds = self.prove(question, terminal)?;
                    done.proved += usize::from(holds && !proved);
                    proved |= holds;
                    continue;
                }
                ("w", _) if question.why.is_some() || !question.follow_ups.is_empty() => {
                    why(question, terminal)?;
                    continue;
                }
                ("p", _) => {
                    terminal.line("No program proves this one; l shows what its page says.")?;
                    continue;
                }
                ("w", _) => {
                    terminal.line("There is no more to this one; l shows what its page says.")?;
                    continue;
                }
                ("l", _) => {
                    self.lesson(question, terminal)?;
                    continue;
                }
                ("c", _) if right == Some(false) => {
                    terminal.line("Counted as right.")?;
                    right = Some(true);
                    continue;
                }
                ("u" | ":u", _) => return Ok(Ended::Undone(self.undo(done, terminal)?)),
                ("q" | ":q", _) => {
                    terminal.line("This question was not graded.")?;
                    return Ok(Ended::Stopped);
                }
                _ => {
                    terminal.line("1, 2, 3 or 4, or one of the letters.")?;
                    continue;
                }
            };
            // Where only the learner can tell, their grade does.
            let right = right.unwrap_or(grade > 1);
            let certain_but_wrong = !right && sure == 3;
            let grade = Grade {
                id: new_id(now),
                at: now.as_second(),
                question: question.id.clone(),
                grade,
                sure,
                right,
                seconds,
                due: due.map_or(0, |due| due[usize::from(grade) - 1].as_second()),
                cram: due.is_none(),
            };
            return self.record(question, card, grade, certain_but_wrong, done, terminal);
        }
    }

    /// Writes a grade down, unless another session has graded the question since it was asked here.
    fn record(
        &self,
        question: &Question,
        card: Option<&Card>,
        grade: Grade,
        certain_but_wrong: bool,
        done: &mut Done,
        terminal: &mut Terminal,
    ) -> Result<Ended> {
        let seen = card.map(|card| card.last_grade.clone());
        let recorded = self.log.append_if(|lines: Lines| {
            let now = State::replay(lines, self.clock);
            let last = now
                .cards
                .get(&question.id)
                .map(|card| card.last_grade.clone());
            (grade.cram || last == seen).then(|| Record::Grade(grade.clone()))
        })?;
        if !recorded {
            terminal
                .line("Another session has graded this question meanwhile. That grade stands.")?;
            return Ok(Ended::Graded);
        }
        done.asked += 1;
        done.right += usize::from(grade.right);
        done.certain_but_wrong += usize::from(certain_but_wrong);
        let (right, asked) = done.topics.entry(question.topic.clone()).or_default();
        *right += usize::from(grade.right);
        *asked += 1;
        done.grades.push(Undoable {
            id: grade.id,
            question: grade.question,
            right: grade.right,
            certain_but_wrong,
        });
        Ok(Ended::Graded)
    }

    /// Takes back the last grade of this session. Returns its question.
    fn undo(&self, done: &mut Done, terminal: &mut Terminal) -> Result<Option<String>> {
        let Some(last) = done.grades.pop() else {
            terminal.line("There is no grade in this session to undo.")?;
            return Ok(None);
        };
        self.log.append(&Record::Undo {
            at: self.clock.now().as_second(),
            of: last.id,
        })?;
        done.asked -= 1;
        done.right -= usize::from(last.right);
        done.certain_but_wrong -= usize::from(last.certain_but_wrong);
        if let Some(topic) = self
            .bank
            .get(&last.question)
            .map(|question| &question.topic)
            && let Some((right, asked)) = done.topics.get_mut(topic)
        {
            *right -= usize::from(last.right);
            *asked -= 1;
        }
        terminal.line(&format!("Undone: {}. It is asked again.", last.question))?;
        Ok(Some(last.question))
    }

    /// Proves the answer before the learner's eyes, and tells whether it was proved.
    fn prove(&mut self, question: &Question, terminal: &mut Terminal) -> Result<bool> {
        if let Some(name) = question
            .prove
            .as_ref()
            .filter(|_| !self.prover.is_ready(question))
        {
            terminal.faint(&format!("  cargo run -q -p lab --example {name}"))?;
        }
        let proof = self.prover.prove(question)?;
        show_proof(&proof, terminal)?;
        self.log.append(&Record::Proof {
            at: self.clock.now().as_second(),
            question: question.id.clone(),
            result: proof.word().to_owned(),
            machine: machine::words(),
        })?;
        Ok(matches!(proof, Proof::Proved { .. }))
    }

    fn lesson(&self, question: &Question, terminal: &mut Terminal) -> io::Result<()> {
        let page = self.bank.book.pages.get(&question.page);
        let section = question
            .fragment
            .as_ref()
            .and_then(|fragment| page?.section(fragment));
        if let Some(section) = section {
            let folder = self.bank.book.root.join("book/src");
            terminal.line("")?;
            terminal.markdown(&lesson::plain(section, &folder))?;
            terminal.line("")?;
        }
        terminal.line(&format!("  The page: book/src/{}", question.lesson()))?;
        if let Some(exercise) = &question.exercise {
            terminal.line(&format!("  The exercise: exercises/{exercise}"))?;
        }
        Ok(())
    }

    /// Where nothing can be written any more, what was written is said.
    fn or_closing(
        &self,
        ended: Result<Ended>,
        done: &Done,
        terminal: &mut Terminal,
    ) -> Result<Ended> {
        if ended.is_err() {
            self.closing(done, terminal)?;
        }
        ended
    }

    fn closing(&self, done: &Done, terminal: &mut Terminal) -> Result<()> {
        terminal.line("")?;
        terminal.strong(&format!(
            "Done {}. right {}, proved {}, certain but wrong {}.",
            done.asked, done.right, done.proved, done.certain_but_wrong
        ))?;
        for (topic, (right, asked)) in &done.topics {
            if *asked > 0 && right * 2 <= *asked {
                terminal.text(&format!(
                    "Weak: {topic} {right}/{asked}{}",
                    self.remedy(topic, &done.grades)
                ))?;
            }
        }
        Ok(())
    }

    /// Where to go: the page and the exercise of what was wrong in a topic.
    fn remedy(&self, topic: &str, grades: &[Undoable]) -> String {
        let wrong = grades.iter().rev().filter(|grade| !grade.right);
        let mut questions = wrong.filter_map(|grade| self.bank.get(&grade.question));
        let question = questions.find(|question| question.topic == topic);
        let Some(question) = question else {
            return String::new();
        };
        let page = format!(": book/src/{}", question.page);
        match &question.exercise {
            Some(exercise) => format!("{page}, exercise {exercise}"),
            None => page,
        }
    }
}

/// Says which lines of the log are no record.
///
/// # Errors
/// If nobody reads it.
pub fn torn(state: &State, log: &Log, terminal: &mut Terminal) -> io::Result<()> {
    if state.torn.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = state.torn.iter().map(usize::to_string).collect();
    terminal.text(&format!(
        "Passed over in {}: line {}, which was never finished. All that was acknowledged is there.",
        log.path().display(),
        lines.join(", ")
    ))
}

fn opening(plan: &Plan, clock: &Clock, terminal: &mut Terminal) -> io::Result<()> {
    let due = plan.due.len() + plan.soon.len();
    let mut told = format!(
        "{due} due, {} new, about {} min.",
        plan.new.len(),
        plan.minutes
    );
    if plan.count() == 0 {
        told = match plan.next_due {
            Some(next) => format!("Nothing is due before {}.", clock.local(next)),
            None => "Nothing is due.".to_owned(),
        };
        if let Some(more) = plan.more {
            told += &format!(" `--new {more}` begins more today.");
        }
    }
    if let Some(interview) = &plan.interview {
        let when = match interview.days {
            0 => "today".to_owned(),
            1 => "tomorrow".to_owned(),
            days => format!("in {days} days"),
        };
        told += &match interview.recall {
            Some(recall) => format!(
                " Interview {when}: predicted recall {:.0} % of the {} seen, {} not seen yet.",
                recall * 100.0,
                interview.seen,
                interview.questions - interview.seen
            ),
            None => format!(
                " Interview {when}: {}, none seen yet.",
                counted(interview.questions, "question")
            ),
        };
    }
    terminal.text(&told)?;
    if plan.interview.as_ref().is_some_and(|one| one.days < 2) && plan.count() > 0 {
        terminal
            .text("Where that is too much: `drill cram` asks the weakest and most asked first.")?;
    }
    for (exercise, count) in &plan.forward {
        let questions = counted(*count, "question");
        let come = if *count == 1 { "comes" } else { "come" };
        terminal.text(&format!(
            "{questions} {come} first, because {exercise} failed."
        ))?;
    }
    for (exercise, count) in &plan.locked {
        let questions = counted(*count, "question");
        let waits = if *count == 1 { "waits" } else { "wait" };
        terminal.text(&format!(
            "{questions} {waits} until you have solved {exercise}."
        ))?;
    }
    if plan.count() > 0 {
        terminal.faint(HELP)?;
    }
    Ok(())
}

fn menu(question: &Question, right: Option<bool>) -> String {
    let mut offers = vec!["l lesson"];
    if question.why.is_some() || !question.follow_ups.is_empty() {
        offers.insert(0, "w why");
    }
    if question.has_proof() {
        offers.insert(0, "p prove");
    }
    if right == Some(false) {
        offers.push("c count as right");
    }
    format!("  {}", offers.join("  "))
}

fn grades(
    due: Option<[Timestamp; 4]>,
    suggested: Option<u8>,
    now: Timestamp,
    clock: &Clock,
) -> String {
    let names = ["again", "hard", "good", "easy"];
    let mut told = "Grade:".to_owned();
    for (index, name) in names.iter().enumerate() {
        told += &format!(" {} {name}", index + 1);
        if let Some(due) = due {
            told += &format!(" {} ", interval(now, due[index], clock));
        }
    }
    told += " u undo ";
    if let Some(suggested) = suggested {
        told += &format!("[{suggested}] ");
    }
    told
}

/// `<10m`, `2d`.
fn interval(now: Timestamp, due: Timestamp, clock: &Clock) -> String {
    match days_between(clock.day(now), clock.day(due)) {
        0 => format!("<{}m", (due.as_second() - now.as_second() + 59) / 60),
        days => format!("{days}d"),
    }
}

fn why(question: &Question, terminal: &mut Terminal) -> io::Result<()> {
    if let Some(why) = &question.why {
        terminal.markdown(why)?;
    }
    for follow_up in &question.follow_ups {
        terminal.text(&format!("Asked next: {}", follow_up.question))?;
        terminal.item("-", &follow_up.answer)?;
    }
    Ok(())
}

/// Shows what a proof came to.
///
/// # Errors
/// If nobody reads it.
pub fn show_proof(proof: &Proof, terminal: &mut Terminal) -> io::Result<()> {
    let machine = machine::words();
    match proof {
        Proof::Proved { shown, lines } => {
            // A line of a table says nothing without its head. What counts here is marked.
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

/// A time of the log, for people.
pub fn local(seconds: i64, clock: &Clock) -> String {
    clock.local(time(seconds))
}
