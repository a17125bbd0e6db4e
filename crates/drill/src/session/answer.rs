//! Parses and judges a typed answer.

use anyhow::Result;

use crate::bank::question::{Kind, Language, Question};
use crate::matching::{self, Match, Names};
use crate::proof::{Proof, check_written};

pub(super) struct Judgement {
    /// `None` if only the learner can decide.
    pub(super) right: Option<bool>,
    /// Whether a proof has confirmed the answer.
    pub(super) proved: bool,
    /// Whether the learner typed nothing where an answer was to be typed.
    pub(super) skipped: bool,
    pub(super) remark: Option<String>,
}

impl Judgement {
    fn new(right: impl Into<Option<bool>>) -> Judgement {
        Judgement {
            right: right.into(),
            proved: false,
            skipped: false,
            remark: None,
        }
    }

    fn with_remark(self, remark: impl Into<String>) -> Judgement {
        Judgement {
            remark: Some(remark.into()),
            ..self
        }
    }
}

/// Returns what is wrong with the form of an answer; `None` if it can be judged.
pub(super) fn mistake(question: &Question, answer: &str) -> Option<String> {
    if answer.trim().is_empty() {
        return None;
    }
    let count = question.items().len();
    let last_letter = ('a'..).nth(count.saturating_sub(1)).unwrap_or('z');
    match &question.kind {
        Kind::Choice { .. } => letters(answer, count)
            .is_none()
            .then(|| format!("Type letters from a to {last_letter}, each at most once.")),
        Kind::Order { .. } => {
            let is_complete = letters(answer, count).is_some_and(|found| found.len() == count);
            (!is_complete).then(|| format!("Type every letter from a to {last_letter} once."))
        }
        Kind::Bug { .. } => {
            let listing = question.listing.as_ref();
            let last = listing.map_or(1, |listing| listing.text.lines().count());
            let numbers = numbers(answer);
            let exist = numbers.iter().all(|number| (1..=last).contains(number));
            (numbers.is_empty() || !exist)
                .then(|| format!("Type the number of a line, from 1 to {last}."))
        }
        Kind::Estimate { .. } => matching::quantity(answer)
            .is_none()
            .then(|| "Type one number, such as 12 or 4 KiB.".to_owned()),
        _ => None,
    }
}

/// Judges an answer that has no [`mistake`].
pub(super) fn judge(
    question: &Question,
    turn: usize,
    answer: &str,
    names: &Names,
) -> Result<Judgement> {
    if let Kind::Recall { .. } | Kind::Mock { .. } = question.kind {
        return Ok(Judgement::new(None));
    }
    if answer.trim().is_empty() {
        return Ok(Judgement {
            skipped: true,
            ..Judgement::new(false)
        });
    }
    Ok(match &question.kind {
        Kind::Choice { options } => {
            let chosen = chosen(question, turn, answer);
            let right =
                (0..options.len()).all(|index| chosen.contains(&index) == options[index].right);
            Judgement::new(right)
        }
        Kind::Order { .. } => order(&chosen(question, turn, answer)),
        Kind::Bug { lines, .. } => Judgement::new(numbers(answer) == sorted(lines.clone())),
        Kind::Output { answers } => match names.text(answer, answers) {
            Match::Right => Judgement::new(true),
            Match::Typo => Judgement::new(true)
                .with_remark(format!("With a typo; it is spelled {}.", answers[0])),
            Match::Wrong => Judgement::new(false),
        },
        Kind::Estimate {
            answers,
            unit,
            tolerance,
        } => {
            let found = matching::number(answer, answers, unit.as_deref(), *tolerance);
            Judgement::new(found == Match::Right)
        }
        Kind::Write {
            language, check, ..
        } => written(*language, check, answer)?,
        Kind::Recall { .. } | Kind::Mock { .. } => Judgement::new(None),
    })
}

/// Returns the indices of the options or steps that the letters of an answer name.
fn chosen(question: &Question, turn: usize, answer: &str) -> Vec<usize> {
    let order = question.lettered(turn);
    let places = letters(answer, order.len()).unwrap_or_default();
    places.into_iter().map(|place| order[place].1).collect()
}

fn order(steps: &[usize]) -> Judgement {
    let right = (0..).zip(steps).take_while(|(place, step)| place == *step);
    match right.count() {
        count if count == steps.len() => Judgement::new(true),
        0 => Judgement::new(false),
        1 => Judgement::new(false).with_remark("Your first step is right."),
        count => Judgement::new(false).with_remark(format!("Your first {count} steps are right.")),
    }
}

fn written(language: Language, check: &str, answer: &str) -> Result<Judgement> {
    Ok(match check_written(language, check, answer)? {
        Proof::Proved { .. } => Judgement {
            proved: true,
            ..Judgement::new(true)
        },
        Proof::Differs { why, lines } => {
            let remark = [vec![format!("Your code: {why}.")], lines].concat();
            Judgement::new(false).with_remark(remark.join("\n"))
        }
        Proof::Skipped(why) => Judgement::new(None)
            .with_remark(format!("Your code was not run: {why}. Grade it yourself.")),
    })
}

/// Returns the numbers in a text, sorted, each once.
fn numbers(text: &str) -> Vec<usize> {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit());
    sorted(numbers.filter_map(|number| number.parse().ok()).collect())
}

fn sorted(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Returns the places in the alphabet of the letters in `typed`, such as `b d`, `bd` and `B, D`. Returns `None` if a
/// letter occurs twice or is not among the first `count`.
fn letters(typed: &str, count: usize) -> Option<Vec<usize>> {
    let mut places = Vec::new();
    let typed = typed.to_lowercase();
    for letter in typed.chars().filter(|letter| letter.is_alphanumeric()) {
        let place = (letter as usize).checked_sub('a' as usize)?;
        if place >= count || places.contains(&place) {
            return None;
        }
        places.push(place);
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_may_be_separated_in_any_way() {
        for typed in ["ac", "a c", "A, C", "a,c."] {
            assert_eq!(letters(typed, 3), Some(vec![0, 2]), "{typed}");
        }
        assert_eq!(letters("", 3), Some(Vec::new()));
        for typed in ["ad", "aa", "1", "the third"] {
            assert_eq!(letters(typed, 3), None, "{typed}");
        }
    }
}
