//! Renders the calls of a case so that every run of the same code reads the same.
//!
//! Addresses become letters in the order in which a reader meets them; lines are grouped by process, because how
//! two processes interleave is luck.

use std::collections::BTreeMap;

use crate::call::{self, Line, Part};

/// The transcript of `lines`, by process: the first process's name sorts before its children's.
pub fn render(lines: &BTreeMap<String, Vec<Line>>) -> String {
    let mut letters = Letters::default();
    let mut text = String::new();
    for (process, lines) in lines {
        for line in lines {
            text += &format!("{process}: ");
            for part in &line.0 {
                match part {
                    Part::Text(words) => text += words,
                    Part::Place { id, offset: 0 } => text += &letters.of(*id),
                    Part::Place { id, offset } => {
                        text += &format!("{}+{}", letters.of(*id), call::argument(*offset));
                    }
                }
            }
            text.push('\n');
        }
    }
    text
}

/// The first call of a transcript that is not as asked for; `None` where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDifference {
    pub asked: Option<String>,
    pub made: Option<String>,
}

/// Where `got` first differs from `expected`.
pub fn first_difference(expected: &str, got: &str) -> CallDifference {
    let mut expected = expected.trim().lines();
    let mut got = got.trim().lines();
    loop {
        let (asked, made) = (expected.next(), got.next());
        if asked != made || asked.is_none() {
            return CallDifference {
                asked: asked.map(without_process),
                made: made.map(without_process),
            };
        }
    }
}

/// `P: munmap(A) = 0` without the process that made the call.
fn without_process(line: &str) -> String {
    let (_, call) = line.split_once(": ").unwrap_or(("", line));
    call.to_owned()
}

#[derive(Default)]
struct Letters(BTreeMap<usize, usize>);

impl Letters {
    fn of(&mut self, id: usize) -> String {
        let next = self.0.len();
        let index = *self.0.entry(id).or_insert(next);
        match u8::try_from(index) {
            Ok(index @ 0..26) => char::from(b'A' + index).to_string(),
            _ => format!("R{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_follow_the_reader_not_the_ids() {
        let lines = BTreeMap::from([
            ("P".to_owned(), vec![Line::default().text("x ").place(7, 0)]),
            (
                "P.1".to_owned(),
                vec![Line::default().place(3, 4 << 10).text(" ").place(7, 5)],
            ),
        ]);
        assert_eq!(render(&lines), "P: x A\nP.1: B+4 KiB A+5\n");
    }

    #[test]
    fn the_first_difference_is_told_without_the_process() {
        let difference = first_difference("P: a() = 0\nP: b() = 0\n", "P: a() = 0\n");
        assert_eq!(difference.asked.as_deref(), Some("b() = 0"));
        assert_eq!(difference.made, None);
    }
}
