//! Whether what was typed is the answer: lenient with words, exact with numbers and names.

use std::collections::BTreeSet;

/// How well an answer matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It is the answer.
    Right,
    /// It is the answer with one letter wrong.
    Typo,
    /// It is not.
    Wrong,
}

/// Text with every run of white space taken as one space, and none at its ends.
pub fn one_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number of things, or of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantity {
    /// In bytes where it has a unit of size.
    pub value: f64,
    /// Whether a unit of size stood after it.
    pub sized: bool,
}

/// The number that a text begins with: `1000`, `1,000 pages`, `4K`, `about 2`, `-1`.
pub fn quantity(text: &str) -> Option<Quantity> {
    let text = text.trim().to_lowercase();
    let text = text.trim_start_matches(['~', '≈', '=', ' ']);
    let text = text.strip_prefix("about ").unwrap_or(text);
    if let Some(word) = text.split(|letter: char| !letter.is_alphabetic()).next()
        && let Some(value) = WORDS.iter().position(|other| *other == word)
    {
        return Some(Quantity {
            value: value as f64,
            sized: false,
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
    // A second number: `1 or 2`, `2 * 256`, `1-2`. Nobody knows which was meant.
    let rest = &rest[word.len()..];
    if word.contains(|letter: char| letter.is_ascii_digit())
        || rest.contains(|letter: char| letter.is_ascii_digit())
    {
        return None;
    }
    Some(Quantity {
        value: value * factor.unwrap_or(1.0),
        sized: factor.is_some(),
    })
}

const KIB: f64 = 1024.0;

const WORDS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
];

/// Digits, with `,` or `_` between groups of three, and a fraction.
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

/// Compares a number with the answer, whose unit may be one of size: then a bare number is taken in that unit, or in
/// bytes.
pub fn number(typed: &str, answers: &[String], unit: Option<&str>, tolerance: f64) -> Match {
    let Some(typed) = quantity(typed) else {
        return Match::Wrong;
    };
    let unit = unit.and_then(|unit| quantity(&format!("1 {unit}")));
    let unit = unit.filter(|unit| unit.sized).map(|unit| unit.value);
    let readings = |number: Quantity| match unit {
        Some(unit) if !number.sized => vec![number.value * unit, number.value],
        _ => vec![number.value],
    };
    let right = answers
        .iter()
        .filter_map(|answer| quantity(answer))
        .any(|answer| {
            let answer = readings(answer)[0];
            let near =
                |typed: f64| (typed - answer).abs() <= answer.abs() * tolerance + f64::EPSILON;
            readings(typed).into_iter().any(near)
        });
    if right { Match::Right } else { Match::Wrong }
}

/// What words are names: no letter of them may be wrong.
#[derive(Debug, Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// Every word that stands between backticks in these texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Names {
        let mut names = BTreeSet::new();
        for text in texts {
            for code in text.split('`').skip(1).step_by(2) {
                names.extend(words(code).into_iter().map(|word| word.to_lowercase()));
            }
        }
        Names(names)
    }

    fn has(&self, word: &str) -> bool {
        let is_code = |letter: char| letter == '_' || letter.is_ascii_digit();
        let upper = word.chars().all(|letter| letter.is_uppercase());
        upper || word.contains(is_code) || self.0.contains(&word.to_lowercase())
    }

    /// Compares text with the answers.
    pub fn text(&self, typed: &str, answers: &[String]) -> Match {
        let each = answers.iter().map(|answer| self.compare(typed, answer));
        each.min_by_key(|found| *found as u8)
            .unwrap_or(Match::Wrong)
    }

    fn compare(&self, typed: &str, answer: &str) -> Match {
        let sizes = (quantity(typed), quantity(answer));
        if let (Some(typed), Some(answer)) = sizes
            && answer.sized
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
            if self.has(expected) || self.has(found) || !is_one_typo(found, expected) {
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

/// The words and numbers of a text. A sign before a number belongs to it.
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

/// One letter too many, too few, another, or two exchanged, in a word of more than five letters.
fn is_one_typo(found: &str, expected: &str) -> bool {
    let letters = |word: &str| word.to_lowercase().chars().collect::<Vec<_>>();
    let (found, expected) = (letters(found), letters(expected));
    if expected.len() <= 5 || !expected.iter().all(|letter| letter.is_alphabetic()) {
        return false;
    }
    let same = found
        .iter()
        .zip(&expected)
        .take_while(|(one, other)| one == other);
    let same = same.count();
    let (found, expected) = (&found[same..], &expected[same..]);
    match (found, expected) {
        ([_, found @ ..], [_, expected @ ..]) if found == expected => true,
        ([_, found @ ..], expected) if found == expected => true,
        (found, [_, expected @ ..]) if found == expected => true,
        ([a, b, found @ ..], [c, d, expected @ ..]) => (a, b) == (d, c) && found == expected,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(typed: &str, answer: &str) -> Match {
        let names = Names::of(["`malloc` and `calloc`, `munmap`"]);
        names.text(typed, &[answer.to_owned(), "an alias".to_owned()])
    }

    #[test]
    fn case_and_punctuation_do_not_matter() {
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
    fn an_answer_of_punctuation_is_compared_as_it_stands() {
        assert_eq!(text("\"\"", "\"\""), Match::Right);
        assert_eq!(text("", "\"\""), Match::Wrong);
    }

    #[test]
    fn one_letter_may_be_wrong_in_a_long_word() {
        for typed in ["deletd", "delleted", "delated", "deletde"] {
            assert_eq!(text(typed, "deleted"), Match::Typo, "{typed}");
        }
        assert_eq!(text("delted it", "deleted it"), Match::Typo);
        assert_eq!(text("dletd", "deleted"), Match::Wrong);
        assert_eq!(text("paga", "page"), Match::Wrong, "a short word");
        assert_eq!(
            text("delted privat", "deleted private"),
            Match::Wrong,
            "two"
        );
    }

    #[test]
    fn no_letter_may_be_wrong_in_a_name() {
        assert_eq!(text("calloc", "malloc"), Match::Wrong);
        assert_eq!(text("munmpa", "munmap"), Match::Wrong);
        assert_eq!(text("MAP_PRIVAT", "MAP_PRIVATE"), Match::Wrong);
        assert_eq!(text("enomem", "ENOMEN"), Match::Wrong);
        assert_eq!(text("map_private", "MAP_PRIVATE"), Match::Right);
    }

    #[test]
    fn no_digit_may_be_wrong_in_a_number() {
        assert_eq!(text("1000001", "1000000"), Match::Wrong);
        assert_eq!(text("1", "-1"), Match::Wrong);
        assert_eq!(text("-1", "-1"), Match::Right);
        assert_eq!(text("2.5 faults", "2.5 faults"), Match::Right);
        assert_eq!(text("25 faults", "2.5 faults"), Match::Wrong);
    }

    #[test]
    fn sizes_are_the_number() {
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
    fn small_numbers_may_be_words() {
        assert_eq!(number("two", &["2".to_owned()], None, 0.0), Match::Right);
        assert_eq!(
            number("two of them", &["3".to_owned()], None, 0.0),
            Match::Wrong
        );
    }
}
