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
                vec![Line::default().place(3, 4096).text(" ").place(7, 5)],
            ),
        ]);
        assert_eq!(render(&lines), "P: x A\nP.1: B+4 KiB A+5\n");
    }
}
