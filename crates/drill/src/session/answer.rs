//! Parses and judges a typed answer.

use crate::bank::question::{Choice, Kind, Question};
use crate::matching::{self, Match, Names};
use crate::terminal::counted;

/// How good an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// Some of it is right.
    Partly,
    Wrong,
}

pub(super) struct Judgement {
    /// `None` if only the learner can decide.
    pub(super) verdict: Option<Verdict>,
    /// What is right in it, or how it should be spelled.
    pub(super) remark: Option<String>,
}

impl Judgement {
    /// Only the learner can decide.
    pub(super) const OPEN: Judgement = Judgement {
        verdict: None,
        remark: None,
    };

    pub(super) fn new(verdict: Verdict) -> Judgement {
        Judgement {
            verdict: Some(verdict),
            remark: None,
        }
    }

    pub(super) fn with_remark(self, remark: impl Into<String>) -> Judgement {
        Judgement {
            remark: Some(remark.into()),
            ..self
        }
    }
}

/// An estimate is partly right if it differs by less than this factor. Twice or half the number is usually a
/// misunderstanding, such as counting the page faults of reads as well.
const FACTOR: f64 = 2.0;

/// Smaller numbers are counted and not estimated, so they are right or wrong. So is a number without a unit, such as an
/// exit status: 139 is not an estimate of 137.
const SMALLEST_ESTIMATE: f64 = 10.0;

/// Returns what is wrong with the form of an answer; `None` if it can be judged.
pub(super) fn mistake(question: &Question, answer: &str) -> Option<String> {
    if answer.trim().is_empty() {
        return None;
    }
    let count = question.items().len();
    let last_letter = ('a'..).nth(count.saturating_sub(1)).unwrap_or('z');
    match &question.kind {
        Kind::Choice { .. } => {
            let is_choice = letters(answer, count).is_some_and(|found| !found.is_empty());
            (!is_choice)
                .then(|| format!("Type letters from a to {last_letter}, each at most once."))
        }
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

/// Judges an answer that has no [`mistake`] and is not empty.
pub(super) fn judge(question: &Question, turn: usize, answer: &str, names: &Names) -> Judgement {
    match &question.kind {
        Kind::Choice { options } => choice(options, &chosen(question, turn, answer)),
        Kind::Order { .. } => order(&chosen(question, turn, answer)),
        Kind::Bug { lines, .. } => selection(&numbers(answer), &sorted(lines.clone()), "line"),
        Kind::Output { answers } => output(answer, answers, names),
        Kind::Estimate {
            answers,
            unit,
            tolerance,
        } => estimate(answer, answers, unit.as_deref(), *tolerance),
        Kind::Recall { .. } | Kind::Mock { .. } | Kind::Write { .. } => Judgement::OPEN,
    }
}

/// Returns the indices of the options or steps that the letters of an answer name.
fn chosen(question: &Question, turn: usize, answer: &str) -> Vec<usize> {
    let order = question.lettered(turn);
    let places = letters(answer, order.len()).unwrap_or_default();
    places.into_iter().map(|place| order[place].1).collect()
}

fn choice(options: &[Choice], chosen: &[usize]) -> Judgement {
    let right = (0..options.len()).filter(|index| options[*index].right);
    selection(chosen, &right.collect::<Vec<_>>(), "option")
}

/// Judges a choice of options or lines. Naming everything is not partly right, so the wrong ones must not be more than
/// the right ones.
fn selection(chosen: &[usize], right: &[usize], noun: &str) -> Judgement {
    let hits = chosen.iter().filter(|one| right.contains(one)).count();
    let misses = chosen.len() - hits;
    if hits == right.len() && misses == 0 {
        return Judgement::new(Verdict::Right);
    }
    if hits == 0 || misses > hits {
        return Judgement::new(Verdict::Wrong);
    }
    let of = counted(right.len(), &format!("right {noun}"));
    let mut remark = format!("You found {hits} of {of}");
    if misses > 0 {
        remark += &format!(" and chose {}", counted(misses, &format!("wrong {noun}")));
    }
    Judgement::new(Verdict::Partly).with_remark(remark + ".")
}

fn order(steps: &[usize]) -> Judgement {
    let pairs = steps.windows(2);
    let right = pairs.clone().filter(|pair| pair[1] == pair[0] + 1).count();
    match right {
        count if count == pairs.len() => Judgement::new(Verdict::Right),
        0 => Judgement::new(Verdict::Wrong),
        count => Judgement::new(Verdict::Partly).with_remark(format!(
            "Steps that are followed by the right one: {count} of {}.",
            pairs.len()
        )),
    }
}

fn output(answer: &str, answers: &[String], names: &Names) -> Judgement {
    match names.text(answer, answers) {
        Match::Right => return Judgement::new(Verdict::Right),
        Match::Typo => {
            let remark = format!("With a typo; it is spelled {}.", answers[0]);
            return Judgement::new(Verdict::Right).with_remark(remark);
        }
        Match::Wrong => {}
    }
    let expected: Vec<_> = answers[0].lines().collect();
    let typed: Vec<_> = answer.lines().collect();
    let is_right = |index: &usize| {
        let typed = typed.get(*index).copied().unwrap_or_default();
        names.text(typed, &[expected[*index].to_owned()]) != Match::Wrong
    };
    let right: Vec<usize> = (0..expected.len()).filter(is_right).collect();
    if right.is_empty() {
        return Judgement::new(Verdict::Wrong);
    }
    let numbers: Vec<_> = right.iter().map(|index| (index + 1).to_string()).collect();
    Judgement::new(Verdict::Partly).with_remark(format!(
        "Right: {} {} of {}.",
        if right.len() == 1 { "line" } else { "lines" },
        numbers.join(", "),
        expected.len()
    ))
}

fn estimate(answer: &str, answers: &[String], unit: Option<&str>, tolerance: f64) -> Judgement {
    if matching::number(answer, answers, unit, tolerance) == Match::Right {
        return Judgement::new(Verdict::Right);
    }
    let large = matching::quantity(&answers[0]);
    let large = large.is_some_and(|answer| answer.value.abs() >= SMALLEST_ESTIMATE);
    let can_be_near = large && unit.is_some();
    match matching::factor(answer, &answers[0], unit) {
        Some(factor) if can_be_near && factor < FACTOR => {
            Judgement::new(Verdict::Partly).with_remark("The order of magnitude is right.")
        }
        _ => Judgement::new(Verdict::Wrong),
    }
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
    use super::Verdict::{Partly, Right, Wrong};
    use super::*;

    fn told(judgement: Judgement) -> (Verdict, String) {
        let verdict = judgement.verdict.expect("a verdict");
        (verdict, judgement.remark.unwrap_or_default())
    }

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

    #[test]
    fn some_right_options_are_partly_right() {
        let judge = |chosen: &[usize]| told(selection(chosen, &[0, 2], "option"));
        assert_eq!(judge(&[2, 0]), (Right, String::new()));
        let one = "You found 1 of 2 right options.";
        assert_eq!(judge(&[2]), (Partly, one.to_owned()));
        let both = "You found 2 of 2 right options and chose 1 wrong option.";
        assert_eq!(judge(&[0, 1, 2]), (Partly, both.to_owned()));
        assert_eq!(judge(&[1]), (Wrong, String::new()));
        assert_eq!(
            judge(&[0, 1, 3]).0,
            Wrong,
            "more wrong ones than right ones"
        );
    }

    #[test]
    fn some_right_neighbours_are_a_partly_right_order() {
        let judge = |steps: &[usize]| told(order(steps));
        assert_eq!(judge(&[0, 1, 2, 3]).0, Right);
        let two = "Steps that are followed by the right one: 2 of 3.";
        assert_eq!(judge(&[3, 0, 1, 2]), (Partly, two.to_owned()));
        assert_eq!(judge(&[3, 2, 1, 0]), (Wrong, String::new()));
    }

    #[test]
    fn an_output_is_compared_line_by_line() {
        let names = Names::default();
        let judge =
            |typed: &str| told(output(typed, &["one 1\ntwo 2\nthree 3".to_owned()], &names));
        assert_eq!(judge("one 1\ntwo 2\nthree 3").0, Right);
        let lines = "Right: lines 1, 3 of 3.";
        assert_eq!(judge("one 1\ntwo 3\nthree 3"), (Partly, lines.to_owned()));
        assert_eq!(judge("one 1").0, Partly);
        assert_eq!(judge("two 2\none 1").0, Wrong, "in other lines");
    }

    #[test]
    fn a_near_estimate_is_partly_right() {
        let judge = |typed: &str, answer: &str, unit| {
            told(estimate(typed, &[answer.to_owned()], unit, 0.0)).0
        };
        let faults = Some("page faults");
        assert_eq!(judge("256", "256", faults), Right);
        for typed in ["300", "129", "511"] {
            assert_eq!(judge(typed, "256", faults), Partly, "{typed}");
        }
        for typed in ["512", "128", "0", "-256"] {
            assert_eq!(judge(typed, "256", faults), Wrong, "{typed}");
        }
        assert_eq!(judge("3", "4", faults), Wrong, "a small number");
        assert_eq!(judge("139", "137", None), Wrong, "an exit status");
        assert_eq!(judge("30 MiB", "32", Some("MiB")), Partly);
        assert_eq!(judge("5", "0", faults), Wrong);
    }
}
