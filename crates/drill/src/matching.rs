//! Decides whether a typed answer is right. Words may have a typo; numbers and names must be exact.

use std::collections::BTreeSet;

/// How well an answer matches, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    Right,
    /// Right, but for one typo.
    Typo,
    Wrong,
}

/// Replaces each run of white space by one space, and removes it at both ends.
pub fn one_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantity {
    /// In bytes if `has_size_unit`.
    pub value: f64,
    /// Whether a unit such as KiB followed the number.
    pub has_size_unit: bool,
}

/// Parses the number at the beginning of a text: `1000`, `1,000 pages`, `4K`, `about 2`, `-1`, `two`. Returns `None`
/// if there is no number, or if more than one could be meant.
pub fn quantity(text: &str) -> Option<Quantity> {
    let text = text.trim().to_lowercase();
    let text = text.trim_start_matches(['~', '≈', '=', ' ']);
    let text = text.strip_prefix("about ").unwrap_or(text);
    if let Some(word) = text.split(|letter: char| !letter.is_alphabetic()).next()
        && let Some(value) = WORDS.iter().position(|other| *other == word)
    {
        return Some(Quantity {
            value: value as f64,
            has_size_unit: false,
        });
    }
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (value, rest) = leading_number(text)?;
    let value = if negative { -value } else { value };
    let rest = rest.trim_start();
    let word: String = rest
        .chars()
        .take_while(|letter| letter.is_alphanumeric())
        .collect();
    let factor = match &*word {
        "b" | "byte" | "bytes" => Some(1.0),
        "k" | "kb" | "kib" => Some(KIB),
        "m" | "mb" | "mib" => Some(KIB * KIB),
        "g" | "gb" | "gib" => Some(KIB * KIB * KIB),
        "t" | "tb" | "tib" => Some(KIB * KIB * KIB * KIB),
        _ => None,
    };
    // With a second number, as in `1 or 2`, `2 * 256` and `1-2`, it is unclear which is meant.
    let rest = &rest[word.len()..];
    if word.contains(|letter: char| letter.is_ascii_digit())
        || rest.contains(|letter: char| letter.is_ascii_digit())
    {
        return None;
    }
    Some(Quantity {
        value: value * factor.unwrap_or(1.0),
        has_size_unit: factor.is_some(),
    })
}

const KIB: f64 = 1024.0;

const WORDS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];

/// Splits off a number: digits, with `,` or `_` between groups of three, and a fraction.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let mut digits = String::new();
    let mut end = 0;
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(end) {
        let three = bytes.get(end + 1..end + 4);
        let three = three.is_some_and(|group| group.iter().all(u8::is_ascii_digit));
        let four = bytes.get(end + 4).is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' => digits.push(char::from(*byte)),
            b',' | b'_' if !digits.is_empty() && three && !four => {}
            b'.' if !digits.contains('.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => {
                digits.push('.');
            }
            _ => break,
        }
        end += 1;
    }
    Some((digits.parse().ok()?, &text[end..]))
}

/// Compares a typed number with the answers. If the answers' unit is a size such as KiB, a typed number without a
/// unit may be in that unit or in bytes.
pub fn number(typed: &str, answers: &[String], unit: Option<&str>, tolerance: f64) -> Match {
    let right = answers.iter().any(|answer| {
        let near = |(typed, answer): (f64, f64)| {
            (typed - answer).abs() <= answer.abs() * tolerance + f64::EPSILON
        };
        readings(typed, answer, unit).into_iter().any(near)
    });
    if right { Match::Right } else { Match::Wrong }
}

/// Returns the factor, from 1, by which a typed number is larger or smaller than the answer. Returns `None` if there is
/// no such factor, because one of them is 0 or their signs differ.
pub fn factor(typed: &str, answer: &str, unit: Option<&str>) -> Option<f64> {
    let readings = readings(typed, answer, unit).into_iter();
    let factors = readings.filter(|(typed, answer)| typed * answer > 0.0);
    let factors = factors.map(|(typed, answer)| (typed / answer).max(answer / typed));
    factors.min_by(f64::total_cmp)
}

/// Returns what a typed number may mean, each time with the value of the answer; nothing if one is no number.
fn readings(typed: &str, answer: &str, unit: Option<&str>) -> Vec<(f64, f64)> {
    let (Some(typed), Some(answer)) = (quantity(typed), quantity(answer)) else {
        return Vec::new();
    };
    let unit = unit.and_then(|unit| quantity(&format!("1 {unit}")));
    let unit = unit
        .filter(|unit| unit.has_size_unit)
        .map_or(1.0, |unit| unit.value);
    let in_unit = |number: Quantity| match number.has_size_unit {
        true => number.value,
        false => number.value * unit,
    };
    let answer = in_unit(answer);
    vec![(in_unit(typed), answer), (typed.value, answer)]
}

/// The words that are names of functions, constants and the like. A typo in them is an error.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// Collects every word between backticks.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Names {
        let mut names = BTreeSet::new();
        for text in texts {
            for code in text.split('`').skip(1).step_by(2) {
                names.extend(words(code).into_iter().map(|word| word.to_lowercase()));
            }
        }
        Names(names)
    }

    fn contains(&self, word: &str) -> bool {
        let is_code = |letter: char| letter == '_' || letter.is_ascii_digit();
        let upper = word.chars().all(|letter| letter.is_uppercase());
        upper || word.contains(is_code) || self.0.contains(&word.to_lowercase())
    }

    /// Returns the best match of `typed` with an answer.
    pub fn text(&self, typed: &str, answers: &[String]) -> Match {
        let each = answers.iter().map(|answer| self.compare(typed, answer));
        each.min().unwrap_or(Match::Wrong)
    }

    fn compare(&self, typed: &str, answer: &str) -> Match {
        let sizes = (quantity(typed), quantity(answer));
        if let (Some(typed), Some(answer)) = sizes
            && answer.has_size_unit
        {
            let right = (typed.value - answer.value).abs() < 0.5;
            return if right { Match::Right } else { Match::Wrong };
        }
        let (found, expected) = (words(typed), words(answer));
        if expected.is_empty() {
            let same = one_space(typed) == one_space(answer);
            return if same { Match::Right } else { Match::Wrong };
        }
        if found.len() != expected.len() {
            return Match::Wrong;
        }
        let mut typos = 0;
        for (found, expected) in found.iter().zip(&expected) {
            if found.to_lowercase() == expected.to_lowercase() {
                continue;
            }
            if self.contains(expected) || self.contains(found) || !is_one_typo(found, expected) {
                return Match::Wrong;
            }
            typos += 1;
        }
        match typos {
            0 => Match::Right,
            1 => Match::Typo,
            _ => Match::Wrong,
        }
    }
}

/// Splits a text into words and numbers, and drops punctuation. A minus sign before a number is part of it.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let sign = letter == '-'
            && !before.is_alphanumeric()
            && letters.peek().is_some_and(char::is_ascii_digit);
        let point = letter == '.'
            && before.is_ascii_digit()
            && letters.peek().is_some_and(char::is_ascii_digit);
        if letter.is_alphanumeric() || letter == '_' || sign || point {
            word.push(letter);
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        before = letter;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Returns whether one letter is missing, added or replaced, or two neighbours are swapped. One letter often makes a
/// short word another word, so words of up to five letters must be exact.
fn is_one_typo(found: &str, expected: &str) -> bool {
    expected.chars().count() > 5
        && expected.chars().all(char::is_alphabetic)
        && strsim::osa_distance(&found.to_lowercase(), &expected.to_lowercase()) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(typed: &str, answer: &str) -> Match {
        let names = Names::of(["`malloc` and `calloc`, `munmap`"]);
        names.text(typed, &[answer.to_owned(), "an alias".to_owned()])
    }

    #[test]
    fn case_and_punctuation_are_ignored() {
        assert_eq!(
            text(" /DEV/zero  deleted", "/dev/zero (deleted)"),
            Match::Right
        );
        assert_eq!(text("einval", "Err(EINVAL)"), Match::Wrong);
        assert_eq!(text("err einval", "Err(EINVAL)"), Match::Right);
        assert_eq!(text("An Alias.", "copy-on-write"), Match::Right);
        assert_eq!(text("copy on write", "copy-on-write"), Match::Right);
        assert_eq!(text("", "deleted"), Match::Wrong);
    }

    #[test]
    fn an_answer_of_punctuation_alone_is_compared_verbatim() {
        assert_eq!(text("\"\"", "\"\""), Match::Right);
        assert_eq!(text("", "\"\""), Match::Wrong);
    }

    #[test]
    fn a_long_word_may_have_one_typo() {
        for typed in ["deletd", "delleted", "delated", "deletde"] {
            assert_eq!(text(typed, "deleted"), Match::Typo, "{typed}");
        }
        assert_eq!(text("delted it", "deleted it"), Match::Typo);
        assert_eq!(text("dletd", "deleted"), Match::Wrong);
        assert_eq!(text("paga", "page"), Match::Wrong, "a short word");
        assert_eq!(
            text("delted privat", "deleted private"),
            Match::Wrong,
            "two typos"
        );
    }

    #[test]
    fn a_name_may_have_no_typo() {
        assert_eq!(text("calloc", "malloc"), Match::Wrong);
        assert_eq!(text("munmpa", "munmap"), Match::Wrong);
        assert_eq!(text("MAP_PRIVAT", "MAP_PRIVATE"), Match::Wrong);
        assert_eq!(text("enomem", "ENOMEN"), Match::Wrong);
        assert_eq!(text("map_private", "MAP_PRIVATE"), Match::Right);
    }

    #[test]
    fn a_number_may_have_no_typo() {
        assert_eq!(text("1000001", "1000000"), Match::Wrong);
        assert_eq!(text("1", "-1"), Match::Wrong);
        assert_eq!(text("-1", "-1"), Match::Right);
        assert_eq!(text("2.5 faults", "2.5 faults"), Match::Right);
        assert_eq!(text("25 faults", "2.5 faults"), Match::Wrong);
    }

    #[test]
    fn sizes_may_be_written_in_any_unit() {
        let page = (4 * 1024).to_string();
        for typed in ["4K", "4 KiB", "4kb", &page, "4,096 bytes", "4_096"] {
            assert_eq!(text(typed, "4 KiB"), Match::Right, "{typed}");
        }
        assert_eq!(text("4", "4 KiB"), Match::Wrong);
        assert_eq!(text("4 MiB", "4 KiB"), Match::Wrong);
    }

    #[test]
    fn a_number_may_have_a_unit_and_a_tolerance() {
        let number =
            |typed: &str, unit, tolerance| number(typed, &["2000".to_owned()], unit, tolerance);
        assert_eq!(number("2,000 faults", None, 0.0), Match::Right);
        assert_eq!(number("about 2000", None, 0.0), Match::Right);
        assert_eq!(number("2001", None, 0.0), Match::Wrong);
        assert_eq!(number("2100", None, 0.05), Match::Right);
        assert_eq!(number("2101", None, 0.05), Match::Wrong);
        assert_eq!(number("1000 or 2000", None, 0.0), Match::Wrong);
        assert_eq!(number("2000", Some("KiB"), 0.0), Match::Right);
        assert_eq!(
            number(&(2000 * 1024).to_string(), Some("KiB"), 0.0),
            Match::Right
        );
        assert_eq!(number("2000 bytes", Some("KiB"), 0.0), Match::Wrong);
        assert_eq!(number("nothing", None, 0.0), Match::Wrong);
    }

    #[test]
    fn small_numbers_may_be_written_as_words() {
        assert_eq!(number("two", &["2".to_owned()], None, 0.0), Match::Right);
        assert_eq!(
            number("two of them", &["3".to_owned()], None, 0.0),
            Match::Wrong
        );
    }
}
