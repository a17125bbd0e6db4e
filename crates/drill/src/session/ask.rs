//! Asks one question: shows it, reads the answer and how sure the learner is, and judges where it can be judged.

use std::io;

use anyhow::Result;

use crate::bank::question::{Kind, Question};
use crate::matching::{self, Match, Names};
use crate::proof::{Proof, try_answer};
use crate::terminal::Terminal;

/// What the learner did.
#[derive(Debug)]
pub enum Asked {
    /// Answered.
    Answered(Answered),
    /// Wants the last grade undone.
    Undo,
    /// Has had enough.
    Stop,
}

/// An answer.
#[derive(Debug)]
pub struct Answered {
    /// From 1 (guess) to 3 (certain).
    pub sure: u8,
    /// Whether it was right; none where only the learner can tell.
    pub right: Option<bool>,
    /// Whether a proof has been run to judge it.
    pub proved: bool,
}

/// What can be typed instead of an answer.
const STOP: &str = ":q";
const UNDO: &str = ":u";

/// Says how to get out.
pub const HELP: &str = "Stop at any time with :q or the end of input (Ctrl-D): every grade is kept. Undo a grade with :u. Where an answer is to be typed, Enter alone leaves it open.";

enum Typed {
    Answer(String),
    Undo,
    Stop,
}

fn typed(terminal: &mut Terminal, prompt: &str) -> io::Result<Typed> {
    Ok(match terminal.ask(prompt)? {
        None => Typed::Stop,
        Some(line) if line.trim() == STOP => Typed::Stop,
        Some(line) if line.trim() == UNDO => Typed::Undo,
        Some(line) => Typed::Answer(line),
    })
}

/// The prompt, with its program, options or steps in the order in which this question shows them this time.
///
/// # Errors
/// If nobody reads it.
pub fn show(question: &Question, turn: usize, terminal: &mut Terminal) -> io::Result<()> {
    terminal.markdown(&question.prompt)?;
    if let Some(listing) = &question.listing {
        terminal.line("")?;
        terminal.numbered(&listing.text)?;
    }
    let shown: Vec<&str> = match &question.kind {
        Kind::Choice { options } => options.iter().map(|option| &*option.text).collect(),
        Kind::Order { steps } => steps.iter().map(|step| &**step).collect(),
        _ => Vec::new(),
    };
    if !shown.is_empty() {
        terminal.line("")?;
    }
    for (letter, index) in ('a'..).zip(shuffled(question, shown.len(), turn)) {
        terminal.item(&format!("{letter})"), shown[index])?;
    }
    Ok(())
}

/// Asks it. `turn` counts how often it was asked before: options and steps stand in another order each time.
///
/// # Errors
/// If the terminal is gone, or a check cannot be run.
pub fn ask(
    question: &Question,
    turn: usize,
    names: &Names,
    terminal: &mut Terminal,
) -> Result<Asked> {
    show(question, turn, terminal)?;
    terminal.line("")?;
    let mut proved = false;
    let mut told = None;
    let answer = loop {
        let answer = match &question.kind {
            Kind::Write { .. } => code(question, terminal)?,
            _ => typed(terminal, hint(&question.kind))?,
        };
        match answer {
            Typed::Answer(answer) => match slip(question, &answer) {
                Some(told) => terminal.text(&told)?,
                None => break answer,
            },
            Typed::Undo => return Ok(Asked::Undo),
            Typed::Stop => return Ok(Asked::Stop),
        }
    };
    let spoken = matches!(question.kind, Kind::Recall { .. } | Kind::Mock { .. });
    let open = answer.trim().is_empty() && !spoken;
    let right = match &question.kind {
        _ if open => Some(false),
        Kind::Recall { .. } | Kind::Mock { .. } => None,
        Kind::Choice { options } => {
            let order = shuffled(question, options.len(), turn);
            let chosen = letters(&answer, &order).unwrap_or_default();
            Some((0..options.len()).all(|index| chosen.contains(&index) == options[index].right))
        }
        Kind::Order { steps } => {
            let order = shuffled(question, steps.len(), turn);
            let chosen = letters(&answer, &order).unwrap_or_default();
            let places = (0..).zip(&chosen);
            let placed = places.take_while(|(place, step)| place == *step).count();
            if placed < steps.len() && placed > 0 {
                told = Some(match placed {
                    1 => "Your first step is right.".to_owned(),
                    _ => format!("Your first {placed} steps are right."),
                });
            }
            Some(placed == steps.len())
        }
        Kind::Bug { lines, .. } => Some(numbers(&answer) == sorted(lines.clone())),
        Kind::Output { answers } => match names.text(&answer, answers) {
            Match::Wrong => Some(false),
            Match::Right => Some(true),
            Match::Typo => {
                told = Some(format!("One letter differs: it is {}.", answers[0]));
                Some(true)
            }
        },
        Kind::Estimate {
            answers,
            unit,
            tolerance,
        } => Some(matching::number(&answer, answers, unit.as_deref(), *tolerance) == Match::Right),
        Kind::Write {
            language, check, ..
        } => match try_answer(*language, check, &answer)? {
            Proof::Proved { .. } => {
                proved = true;
                Some(true)
            }
            Proof::Differs { why, lines } => {
                told = Some(
                    [vec![format!("Your code: {why}.")], lines]
                        .concat()
                        .join("\n"),
                );
                Some(false)
            }
            Proof::Skipped(why) => {
                told = Some(format!("Not tried: {why}. Grade it yourself."));
                None
            }
        },
    };
    // Whoever leaves it open is not sure of anything.
    let sure = loop {
        if open {
            break 1;
        }
        match typed(terminal, "Sure? 1 guess  2 think  3 certain [2] ")? {
            Typed::Undo => return Ok(Asked::Undo),
            Typed::Stop => return Ok(Asked::Stop),
            Typed::Answer(line) => match line.trim() {
                "" | "2" => break 2,
                "1" => break 1,
                "3" => break 3,
                _ => terminal.line("1, 2 or 3.")?,
            },
        }
    };
    if let Some(told) = told {
        for line in told.lines() {
            terminal.line(line)?;
        }
    }
    let verdict = Verdict { right, sure, open };
    reveal(question, turn, &verdict, terminal)?;
    Ok(Asked::Answered(Answered {
        sure,
        right,
        proved,
    }))
}

/// What cannot be meant as an answer is asked for again: nobody is marked down for a slip of the finger.
fn slip(question: &Question, answer: &str) -> Option<String> {
    if answer.trim().is_empty() {
        return None;
    }
    let last = |count: usize| ('a'..).nth(count.saturating_sub(1)).unwrap_or('z');
    match &question.kind {
        Kind::Choice { options } => {
            let order = shuffled(question, options.len(), 0);
            let told = || {
                format!(
                    "Letters from a to {}, each once at most.",
                    last(order.len())
                )
            };
            letters(answer, &order).is_none().then(told)
        }
        Kind::Order { steps } => {
            let order = shuffled(question, steps.len(), 0);
            let told = || format!("Every letter from a to {}, each once.", last(order.len()));
            let all = letters(answer, &order).is_some_and(|found| found.len() == order.len());
            (!all).then(told)
        }
        Kind::Bug { .. } => {
            let listing = question.listing.as_ref();
            let last = listing.map_or(1, |listing| listing.text.lines().count());
            let numbers = numbers(answer);
            let known = numbers.iter().all(|number| (1..=last).contains(number));
            let told = || format!("The number of a line, from 1 to {last}.");
            (numbers.is_empty() || !known).then(told)
        }
        Kind::Estimate { .. } => matching::quantity(answer)
            .is_none()
            .then(|| "One number, such as 12 or 4 KiB.".to_owned()),
        _ => None,
    }
}

/// All numbers in it, sorted, each once.
fn numbers(text: &str) -> Vec<usize> {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit());
    sorted(numbers.filter_map(|number| number.parse().ok()).collect())
}

fn sorted(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn hint(kind: &Kind) -> &'static str {
    match kind {
        Kind::Recall { .. } | Kind::Mock { .. } => "Say it aloud, then press Enter ",
        Kind::Choice { .. } => "Which? The letters of all that are right ",
        Kind::Order { .. } => "The letters in the right order ",
        Kind::Bug { .. } => "Which line? ",
        Kind::Output { .. } | Kind::Estimate { .. } | Kind::Write { .. } => "",
    }
}

/// Several lines, ended by a full stop.
fn code(question: &Question, terminal: &mut Terminal) -> io::Result<Typed> {
    let Kind::Write { language, .. } = &question.kind else {
        return typed(terminal, "");
    };
    terminal.faint(&format!(
        "In {}; a line with only a full stop ends it.",
        language.title()
    ))?;
    let mut lines = Vec::new();
    loop {
        match typed(terminal, "")? {
            Typed::Answer(line) if line.trim() == "." => {
                return Ok(Typed::Answer(lines.join("\n")));
            }
            Typed::Answer(line) => lines.push(line),
            other => return Ok(other),
        }
    }
}

/// What an answer came to.
struct Verdict {
    right: Option<bool>,
    sure: u8,
    /// Nothing was typed.
    open: bool,
}

/// Says what is right, and why each option is.
fn reveal(
    question: &Question,
    turn: usize,
    Verdict { right, sure, open }: &Verdict,
    terminal: &mut Terminal,
) -> io::Result<()> {
    let mut verdict = match right {
        _ if *open => "LEFT OPEN.".to_owned(),
        None => String::new(),
        Some(true) => "RIGHT.".to_owned(),
        Some(false) => "NOT QUITE.".to_owned(),
    };
    let short = match &question.kind {
        Kind::Output { answers } => Some(answers[0].clone()),
        Kind::Estimate { answers, unit, .. } => {
            let unit = unit.as_deref().unwrap_or_default();
            Some(format!("{} {unit}", answers[0]).trim_end().to_owned())
        }
        Kind::Choice { options } => {
            let order = shuffled(question, options.len(), turn);
            let right = ('a'..)
                .zip(order)
                .filter(|(_, index)| options[*index].right);
            Some(
                right
                    .map(|(letter, _)| letter.to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        }
        Kind::Order { steps } => {
            let order = shuffled(question, steps.len(), turn);
            let letter = |step: usize| ('a'..).zip(&order).find(|(_, index)| **index == step);
            let letters = (0..steps.len()).filter_map(letter);
            Some(
                letters
                    .map(|(letter, _)| letter.to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        }
        _ => None,
    };
    if let Some(short) = short {
        verdict = format!("{}: {short}.", verdict.trim_end_matches('.'));
    }
    if *right == Some(false) && *sure == 3 {
        verdict += " You were certain: this one comes back today.";
    }
    if !verdict.is_empty() {
        terminal.strong(&verdict)?;
    }
    match &question.kind {
        Kind::Choice { options } => {
            for (letter, index) in ('a'..).zip(shuffled(question, options.len(), turn)) {
                let option = &options[index];
                let word = if option.right { "right" } else { "wrong" };
                terminal.item(&format!("{letter}) {word}:"), &option.why)?;
            }
        }
        Kind::Order { steps } if *right == Some(false) => {
            let order = shuffled(question, steps.len(), turn);
            for (step, text) in steps.iter().enumerate() {
                let letter = ('a'..).zip(&order).find(|(_, index)| **index == step);
                let letter = letter.map_or('?', |(letter, _)| letter);
                terminal.item(&format!("{letter})"), text)?;
            }
        }
        Kind::Recall { answer } | Kind::Bug { answer, .. } => terminal.markdown(answer)?,
        Kind::Write { answer, .. } => {
            terminal.line("For example:")?;
            for line in answer.lines() {
                terminal.line(&format!("  {line}"))?;
            }
        }
        _ => {}
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

/// The indices of options or steps in the order in which they are shown. Steps never stand in the right order.
pub fn shuffled(question: &Question, count: usize, turn: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if count < 2 {
        return order;
    }
    // SplitMix64, seeded by the question and the turn: the same question looks the same until it is answered.
    let mut seed = turn as u64 + 1;
    for byte in question.id.bytes() {
        seed = seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
    }
    let mut random = move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    for last in (1..count).rev() {
        let other = random() % (last as u64 + 1);
        order.swap(last, other as usize);
    }
    if matches!(question.kind, Kind::Order { .. }) && order.is_sorted() {
        order.rotate_left(1);
    }
    order
}

/// The indices that letters stand for: `b d`, `bd`, `B, D`. None if a letter stands twice, or is not there.
fn letters(typed: &str, order: &[usize]) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for letter in typed
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric())
    {
        let index = *order.get((letter as usize).checked_sub('a' as usize)?)?;
        if found.contains(&index) {
            return None;
        }
        found.push(index);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_may_be_typed_in_any_way() {
        let order = [2, 0, 1];
        for typed in ["ac", "a c", "A, C", "a,c."] {
            assert_eq!(letters(typed, &order), Some(vec![2, 1]), "{typed}");
        }
        assert_eq!(letters("", &order), Some(Vec::new()));
        for typed in ["ad", "aa", "1", "the third"] {
            assert_eq!(letters(typed, &order), None, "{typed}");
        }
    }
}
