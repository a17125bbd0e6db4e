//! Asks one question: shows it, reads the answer and the learner's certainty, and reveals the right answer.

use std::io;

use anyhow::Result;

use super::answer::{Judgement, judge, mistake};
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
    pub(super) right: Option<bool>,
    /// Whether a proof has confirmed the answer.
    pub(super) proved: bool,
}

/// What the learner typed.
enum Typed {
    Text(String),
    Undo,
    Stop,
}

/// Asks a question. `turn` counts how often it was asked before.
pub(super) fn ask(
    question: &Question,
    turn: usize,
    names: &Names,
    terminal: &mut Terminal,
) -> Result<Asked> {
    show(question, turn, terminal)?;
    let answer = match read_answer(question, terminal)? {
        Typed::Text(answer) => answer,
        Typed::Undo => return Ok(Asked::Undo),
        Typed::Stop => return Ok(Asked::Stop),
    };
    let judgement = judge(question, turn, &answer, names)?;
    let sure = match judgement.skipped {
        true => 1,
        false => match read_certainty(terminal)? {
            Ok(sure) => sure,
            Err(asked) => return Ok(asked),
        },
    };
    for line in judgement.remark.iter().flat_map(|remark| remark.lines()) {
        terminal.line(line)?;
    }
    let verdict = verdict(question, turn, &judgement, sure);
    if !verdict.is_empty() {
        terminal.strong(&verdict)?;
    }
    reveal(question, turn, judgement.right, terminal)?;
    Ok(Asked::Answered(Answered {
        sure,
        right: judgement.right,
        proved: judgement.proved,
    }))
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

fn read(prompt: &str, terminal: &mut Terminal) -> io::Result<Typed> {
    let typed = terminal.ask(prompt)?;
    Ok(match typed {
        None => Typed::Stop,
        Some(line) if line.trim() == ":q" => Typed::Stop,
        Some(line) if line.trim() == ":u" => Typed::Undo,
        Some(line) => Typed::Text(line),
    })
}

/// Reads an answer. Asks again after a mistyped answer, so that a typing mistake does not count as wrong.
fn read_answer(question: &Question, terminal: &mut Terminal) -> io::Result<Typed> {
    let prompt = match &question.kind {
        Kind::Recall { .. } | Kind::Mock { .. } => "Say it aloud, then press Enter ",
        Kind::Choice { .. } => "Letters of all right options ",
        Kind::Order { .. } => "Letters in the right order ",
        Kind::Bug { .. } => "Number of the wrong line ",
        Kind::Output { .. } | Kind::Estimate { .. } => "",
        Kind::Write { language, .. } => return read_code(language.title(), terminal),
    };
    loop {
        match read(prompt, terminal)? {
            Typed::Text(answer) => match mistake(question, &answer) {
                Some(remark) => terminal.text(&remark)?,
                None => return Ok(Typed::Text(answer)),
            },
            other => return Ok(other),
        }
    }
}

fn read_code(language: &str, terminal: &mut Terminal) -> io::Result<Typed> {
    terminal.faint(&format!(
        "In {language}. End with a line that has only a full stop."
    ))?;
    let mut lines = Vec::new();
    loop {
        match read("", terminal)? {
            Typed::Text(line) if line.trim() == "." => return Ok(Typed::Text(lines.join("\n"))),
            Typed::Text(line) => lines.push(line),
            other => return Ok(other),
        }
    }
}

fn read_certainty(terminal: &mut Terminal) -> io::Result<Result<u8, Asked>> {
    loop {
        let line = match read("How sure? 1 guess  2 think  3 certain [2] ", terminal)? {
            Typed::Text(line) => line,
            Typed::Undo => return Ok(Err(Asked::Undo)),
            Typed::Stop => return Ok(Err(Asked::Stop)),
        };
        match line.trim() {
            "1" => return Ok(Ok(1)),
            "" | "2" => return Ok(Ok(2)),
            "3" => return Ok(Ok(3)),
            _ => terminal.line("Type 1, 2 or 3.")?,
        }
    }
}

/// Returns the line that says whether the answer was right, with the right answer if it is short.
fn verdict(question: &Question, turn: usize, judgement: &Judgement, sure: u8) -> String {
    let word = match judgement.right {
        _ if judgement.skipped => "NO ANSWER",
        Some(true) => "RIGHT",
        Some(false) => "WRONG",
        None => return String::new(),
    };
    let mut verdict = match short_answer(question, turn) {
        Some(answer) => format!("{word}: {answer}."),
        None => format!("{word}."),
    };
    if judgement.right == Some(false) && sure == 3 {
        verdict += " You were certain, so this question comes back today.";
    }
    verdict
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
    right: Option<bool>,
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
        Kind::Order { steps } if right == Some(false) => {
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
