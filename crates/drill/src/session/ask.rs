//! Asks one question: shows it, reads the answer and the learner's certainty, and reveals the right answer.

use std::io;

use anyhow::Result;

use super::answer::{Judgement, Verdict, judge, mistake};
use super::draft::Draft;
use super::drill::Drill;
use super::write::{Written, ask_code};
use crate::bank::question::{Kind, Question};
use crate::matching::Names;
use crate::terminal::Terminal;

pub(super) enum Asked {
    Answered(Answered),
    /// The learner wants to undo the last grade.
    Undo,
    Stop,
}

pub(super) struct Answered {
    /// From 1 (guess) to 3 (certain).
    pub(super) sure: u8,
    /// `None` if only the learner can decide.
    pub(super) verdict: Option<Verdict>,
    /// Whether a proof has confirmed the answer.
    pub(super) proved: bool,
    /// Whether it took more than one attempt.
    pub(super) retried: bool,
}

/// What the learner typed at a prompt.
pub(super) enum Reply {
    Text(String),
    Undo,
    Stop,
}

/// Asks a question. `turn` counts how often it was asked before. `scheduled` says whether the grade decides when it
/// comes back.
pub(super) fn ask(
    drill: &Drill,
    question: &Question,
    turn: usize,
    scheduled: bool,
    names: &Names,
    terminal: &mut Terminal,
) -> Result<Asked> {
    show(question, turn, terminal)?;
    if let Kind::Write {
        language, check, ..
    } = &question.kind
    {
        let draft = Draft::of(drill, question, *language);
        return match ask_code(*language, check, &draft, terminal)? {
            Ok(written) => reveal_code(question, written, scheduled, terminal).map(Asked::Answered),
            Err(asked) => Ok(asked),
        };
    }
    let answer = match read_answer(question, terminal)? {
        Reply::Text(answer) => answer,
        Reply::Undo => return Ok(Asked::Undo),
        Reply::Stop => return Ok(Asked::Stop),
    };
    let is_open = matches!(question.kind, Kind::Recall { .. } | Kind::Mock { .. });
    let skipped = answer.trim().is_empty() && !is_open;
    let (judgement, sure) = match skipped {
        true => (Judgement::new(Verdict::Wrong), 1),
        false => match read_certainty(terminal)? {
            Ok(sure) => (judge(question, turn, &answer, names), sure),
            Err(asked) => return Ok(asked),
        },
    };
    if let Some(verdict) = judgement.verdict {
        let word = if skipped { "NO ANSWER" } else { word(verdict) };
        let mut line = match (short_answer(question, turn), verdict) {
            (Some(answer), Verdict::Right) => format!("{word}: {answer}."),
            (Some(answer), _) => format!("{word}. The answer: {answer}."),
            (None, _) => format!("{word}."),
        };
        if let Some(remark) = &judgement.remark {
            line += &format!(" {remark}");
        }
        line += when_certain(verdict, sure, scheduled);
        terminal.strong(&line)?;
    }
    if is_open && !answer.trim().is_empty() {
        terminal.text(&format!("Your answer: {}", answer.trim()))?;
        terminal.line("Expected answer:")?;
    }
    reveal(question, turn, judgement.verdict, terminal)?;
    Ok(Asked::Answered(Answered {
        sure,
        verdict: judgement.verdict,
        proved: false,
        retried: false,
    }))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Right => "RIGHT",
        Verdict::Partly => "PARTLY RIGHT",
        Verdict::Wrong => "WRONG",
    }
}

/// Returns what follows a verdict on an answer of which the learner was certain.
fn when_certain(verdict: Verdict, sure: u8, scheduled: bool) -> &'static str {
    match (verdict, sure, scheduled) {
        (Verdict::Wrong, 3, true) => " You were certain, so this question comes back today.",
        _ => "",
    }
}

/// Prints the result of the last attempt, and the answer.
fn reveal_code(
    question: &Question,
    written: Written,
    scheduled: bool,
    terminal: &mut Terminal,
) -> Result<Answered> {
    let Written {
        judgement,
        sure,
        proved,
        attempts,
    } = written;
    let line = match (judgement.verdict, attempts) {
        (None, _) => judgement.remark.unwrap_or_default(),
        (Some(_), 0) => "NO ANSWER.".to_owned(),
        (Some(verdict), _) => {
            let word = word(verdict);
            let after = match attempts {
                1 => String::new(),
                _ => format!(" after {attempts} attempts"),
            };
            format!("{word}{after}.{}", when_certain(verdict, sure, scheduled))
        }
    };
    terminal.strong(&line)?;
    reveal(question, 0, judgement.verdict, terminal)?;
    Ok(Answered {
        sure,
        verdict: judgement.verdict,
        proved,
        retried: attempts > 1,
    })
}

fn show(question: &Question, turn: usize, terminal: &mut Terminal) -> io::Result<()> {
    terminal.markdown(&question.prompt)?;
    if let Some(listing) = &question.listing {
        terminal.line("")?;
        terminal.numbered(&listing.text)?;
    }
    let items = question.items();
    if !items.is_empty() {
        terminal.line("")?;
    }
    for (letter, index) in question.lettered(turn) {
        terminal.item(&format!("{letter})"), items[index])?;
    }
    terminal.line("")
}

pub(super) fn read(prompt: &str, terminal: &mut Terminal) -> io::Result<Reply> {
    let typed = terminal.ask(prompt)?;
    Ok(match typed {
        None => Reply::Stop,
        Some(line) if line.trim() == ":q" => Reply::Stop,
        Some(line) if line.trim() == ":u" => Reply::Undo,
        Some(line) => Reply::Text(line),
    })
}

/// Reads an answer. Asks again after a mistyped answer, so that a typing mistake does not count as wrong.
fn read_answer(question: &Question, terminal: &mut Terminal) -> io::Result<Reply> {
    let prompt = match &question.kind {
        Kind::Recall { .. } | Kind::Mock { .. } => "Say or type your answer, then press Enter ",
        Kind::Choice { .. } => "Letters of all right options ",
        Kind::Order { .. } => "Letters in the right order ",
        Kind::Bug { .. } => "Number of the wrong line ",
        Kind::Output { answers } if answers[0].contains('\n') => return read_lines(terminal),
        Kind::Output { .. } | Kind::Estimate { .. } | Kind::Write { .. } => "Your answer ",
    };
    loop {
        match read(prompt, terminal)? {
            Reply::Text(answer) => match mistake(question, &answer) {
                Some(remark) => terminal.text(&remark)?,
                None => return Ok(Reply::Text(answer)),
            },
            other => return Ok(other),
        }
    }
}

/// Reads the lines of an output. An empty line alone skips the question.
fn read_lines(terminal: &mut Terminal) -> io::Result<Reply> {
    terminal.faint("Several lines. End with a line that has only a full stop.")?;
    let mut lines = Vec::new();
    loop {
        match read("", terminal)? {
            Reply::Text(line) if line.trim() == "." || (lines.is_empty() && line.is_empty()) => {
                return Ok(Reply::Text(lines.join("\n")));
            }
            Reply::Text(line) => lines.push(line),
            other => return Ok(other),
        }
    }
}

pub(super) fn read_certainty(terminal: &mut Terminal) -> io::Result<Result<u8, Asked>> {
    loop {
        let line = match read("How sure? 1 guess  2 think  3 certain [2] ", terminal)? {
            Reply::Text(line) => line,
            Reply::Undo => return Ok(Err(Asked::Undo)),
            Reply::Stop => return Ok(Err(Asked::Stop)),
        };
        match line.trim() {
            "1" => return Ok(Ok(1)),
            "" | "2" => return Ok(Ok(2)),
            "3" => return Ok(Ok(3)),
            _ => terminal.line("Type 1, 2 or 3.")?,
        }
    }
}

fn short_answer(question: &Question, turn: usize) -> Option<String> {
    let letters = question.lettered(turn);
    match &question.kind {
        Kind::Output { answers } => Some(answers[0].clone()),
        Kind::Estimate { answers, unit, .. } => {
            let unit = unit.as_deref().unwrap_or_default();
            Some(format!("{} {unit}", answers[0]).trim_end().to_owned())
        }
        Kind::Choice { options } => {
            let right = letters.iter().filter(|(_, index)| options[*index].right);
            Some(join(right.map(|(letter, _)| *letter)))
        }
        Kind::Order { steps } => Some(join((0..steps.len()).map(|step| letter_of(step, &letters)))),
        _ => None,
    }
}

fn join(letters: impl Iterator<Item = char>) -> String {
    let letters: Vec<_> = letters.map(String::from).collect();
    letters.join(" ")
}

fn letter_of(index: usize, letters: &[(char, usize)]) -> char {
    let found = letters.iter().find(|(_, other)| *other == index);
    found.map_or('?', |(letter, _)| *letter)
}

/// Prints the right answer and what a good answer mentions.
fn reveal(
    question: &Question,
    turn: usize,
    verdict: Option<Verdict>,
    terminal: &mut Terminal,
) -> io::Result<()> {
    let letters = question.lettered(turn);
    match &question.kind {
        Kind::Choice { options } => {
            for (letter, index) in letters {
                let option = &options[index];
                let word = if option.right { "right" } else { "wrong" };
                terminal.item(&format!("{letter}) {word}:"), &option.why)?;
            }
        }
        Kind::Order { steps } if verdict != Some(Verdict::Right) => {
            for (step, text) in steps.iter().enumerate() {
                terminal.item(&format!("{})", letter_of(step, &letters)), text)?;
            }
        }
        Kind::Recall { answer } | Kind::Bug { answer, .. } => terminal.markdown(answer)?,
        Kind::Write { answer, .. } => {
            terminal.line("For example:")?;
            for line in answer.lines() {
                terminal.line(&format!("  {line}"))?;
            }
        }
        Kind::Order { .. } | Kind::Output { .. } | Kind::Estimate { .. } | Kind::Mock { .. } => {}
    }
    if !question.must_mention.is_empty() {
        terminal.line("A good answer mentions:")?;
        for point in &question.must_mention {
            terminal.item("-", point)?;
        }
    }
    if let Some(say) = &question.say {
        terminal.text(&format!("In thirty seconds: {say}"))?;
    }
    Ok(())
}
