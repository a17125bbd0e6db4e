//! Asks for code: compiles and checks it, and lets the learner correct it until it passes.

use std::io;

use anyhow::Result;

use super::answer::{Judgement, Verdict};
use super::ask::{Asked, Reply, read, read_certainty};
use super::draft::Draft;
use crate::bank::question::Language;
use crate::input::was_interrupted;
use crate::proof::{Proof, check_written};
use crate::terminal::Terminal;

/// The last attempt at a question.
pub(super) struct Written {
    pub(super) judgement: Judgement,
    pub(super) sure: u8,
    pub(super) proved: bool,
    /// How often code was checked.
    pub(super) attempts: usize,
}

/// What the learner did at the prompt.
enum Entry {
    Code(String),
    GiveUp,
    Undo,
    Stop,
}

/// Asks for code until it passes its check, or until the learner gives up.
pub(super) fn ask_code(
    language: Language,
    check: &str,
    draft: &Draft,
    terminal: &mut Terminal,
) -> Result<Result<Written, Asked>> {
    if let Some(code) = draft.read() {
        terminal.line("Your code from last time. A line with only a full stop checks it again:")?;
        terminal.numbered(&code)?;
    }
    terminal.faint(&format!(
        "In {}. End with a line that has only a full stop. :e opens your editor, :g gives up and shows the answer.",
        language.title()
    ))?;
    let mut written = Written {
        judgement: Judgement::new(Verdict::Wrong),
        sure: 1,
        proved: false,
        attempts: 0,
    };
    loop {
        let code = match read_code(draft, terminal)? {
            Entry::Code(code) => code,
            Entry::GiveUp => return Ok(Ok(written)),
            Entry::Undo => return Ok(Err(Asked::Undo)),
            Entry::Stop => return Ok(Err(Asked::Stop)),
        };
        // Once the compiler has spoken, the learner knows more.
        if written.attempts == 0 {
            written.sure = match read_certainty(terminal)? {
                Ok(sure) => sure,
                Err(asked) => {
                    say_where(draft, terminal)?;
                    return Ok(Err(asked));
                }
            };
        }
        let proof = check_written(language, check, &code);
        // The session goes on, for example if /tmp is full.
        let proof = proof.unwrap_or_else(|error| Proof::Skipped(format!("{error:#}")));
        if was_interrupted() {
            // The check was killed, which says nothing about the code.
            say_where(draft, terminal)?;
            return Ok(Err(Asked::Stop));
        }
        written.attempts += 1;
        match proof {
            Proof::Proved { .. } => {
                written.proved = true;
                written.judgement = Judgement::new(Verdict::Right);
                return Ok(Ok(written));
            }
            Proof::Differs { why, lines } => {
                terminal.strong(&format!("NOT YET: {why}."))?;
                for line in lines {
                    terminal.line(&line)?;
                }
                terminal.faint(
                    "Try again: type the whole code, or correct it with :e. :g gives up and shows the answer.",
                )?;
            }
            Proof::Skipped(why) => {
                written.judgement = Judgement::OPEN
                    .with_remark(format!("Your code was not run: {why}. Grade it yourself."));
                return Ok(Ok(written));
            }
        }
    }
}

/// Reads code. Every line is in the draft before the next one is read.
fn read_code(draft: &Draft, terminal: &mut Terminal) -> Result<Entry> {
    let mut lines: Vec<String> = Vec::new();
    loop {
        let line = match read("", terminal)? {
            Reply::Text(line) => line,
            Reply::Undo => return Ok(Entry::Undo),
            Reply::Stop => {
                say_where(draft, terminal)?;
                return Ok(Entry::Stop);
            }
        };
        match (line.trim(), lines.is_empty()) {
            (":g", _) => return Ok(Entry::GiveUp),
            (":e", _) => {
                if let Some(code) = edit(draft, terminal)? {
                    return Ok(Entry::Code(code));
                }
                lines.clear();
            }
            (".", false) => return Ok(Entry::Code(lines.join("\n"))),
            // Nothing was typed: check the last attempt again. Without one, this gives up.
            (".", true) => return Ok(draft.read().map_or(Entry::GiveUp, Entry::Code)),
            ("", true) => {}
            (_, is_first) => {
                if is_first {
                    draft.set_aside();
                }
                lines.push(line);
                draft.write(&lines.join("\n"))?;
            }
        }
    }
}

/// Opens the draft in the learner's editor. Returns `None` if there is no code to check.
fn edit(draft: &Draft, terminal: &mut Terminal) -> Result<Option<String>> {
    match draft.edit() {
        Ok(Some(code)) => {
            terminal.numbered(&code)?;
            return Ok(Some(code));
        }
        Ok(None) => terminal.line("The file is empty.")?,
        Err(error) => terminal.text(&format!(
            "{error:#}. Your code is in {}; a full stop alone checks it.",
            draft.path().display()
        ))?,
    }
    Ok(None)
}

fn say_where(draft: &Draft, terminal: &mut Terminal) -> io::Result<()> {
    match draft.read() {
        Some(_) => terminal.text(&format!("Your code is kept in {}.", draft.path().display())),
        None => Ok(()),
    }
}
