//! Renders the calls of a case so that every run of the same code gives the same text.
//!
//! Mappings get letters in reading order. Lines are grouped by process, because the order between two processes is not
//! deterministic.

use std::collections::{BTreeMap, BTreeSet};

use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::call::{self, Line, Part};

/// The transcript of the lines of each process, parents before their children: their names sort that way.
pub fn render(lines: &BTreeMap<String, Vec<Line>>) -> String {
    let mut letters = Letters::default();
    let mut text = String::new();
    for (process, lines) in lines {
        for line in lines {
            text += &format!("{process}: ");
            for part in &line.0 {
                match part {
                    Part::Text(part) => text += part,
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

/// The first call of a transcript that differs from the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDifference {
    /// The process that made the call, or should have made it.
    pub process: String,
    /// The expected call; `None` if the task asks for none here.
    pub asked: Option<String>,
    /// The call that was made; `None` if it is missing.
    pub made: Option<String>,
}

/// The first difference between two transcripts. Each process is compared with itself: a call of another process never
/// replaces one of its calls.
pub fn first_difference(expected: &str, got: &str) -> Option<CallDifference> {
    let (expected, got) = (by_process(expected), by_process(got));
    let processes: BTreeSet<_> = expected.keys().chain(got.keys()).collect();
    processes.into_iter().find_map(|process| {
        let asked = expected.get(process).map_or(&[][..], Vec::as_slice);
        let made = got.get(process).map_or(&[][..], Vec::as_slice);
        let ops = capture_diff_slices(Algorithm::Myers, asked, made);
        let differs = ops.iter().find(|op| op.tag() != DiffTag::Equal)?;
        let first = |calls: &[&str]| calls.first().map(|call| (*call).to_owned());
        Some(CallDifference {
            process: (*process).to_owned(),
            asked: first(&asked[differs.old_range()]),
            made: first(&made[differs.new_range()]),
        })
    })
}

/// The calls of each process: `P: munmap(A) = 0` is a call of `P`.
fn by_process(transcript: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut calls: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (process, call) in transcript.lines().filter_map(|line| line.split_once(": ")) {
        calls.entry(process).or_default().push(call);
    }
    calls
}

/// The index of each mapping's letter.
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
    fn mappings_get_letters_in_reading_order() {
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
    fn processes_are_compared_one_by_one() {
        let compare = |expected, got| {
            let difference = first_difference(expected, got)?;
            Some((difference.process, difference.asked, difference.made))
        };
        let some = |call: &str| Some(call.to_owned());
        let parent = "P: a() = 0\nP: b() = 0\n";
        assert_eq!(compare(parent, parent), None);
        let missing = ("P".to_owned(), some("b() = 0"), None);
        assert_eq!(compare(parent, "P: a() = 0\n"), Some(missing.clone()));
        // The child's call does not replace the one that its parent misses.
        assert_eq!(compare(parent, "P: a() = 0\nP.1: c() = 0\n"), Some(missing));
        let too_much = ("P.1".to_owned(), None, some("c() = 0"));
        assert_eq!(
            compare("P.1: exit(0)\n", "P.1: c() = 0\nP.1: exit(0)\n"),
            Some(too_much)
        );
        let another = ("P".to_owned(), some("b() = 0"), some("c() = 0"));
        assert_eq!(compare(parent, "P: a() = 0\nP: c() = 0\n"), Some(another));
    }
}
