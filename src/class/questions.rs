//! Questions for a student about the system calls that their own answer made. Code that somebody else wrote is hard to
//! explain.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::result::Outcome;
use crate::grade::grader::Case;

/// Questions about each system call.
const QUESTIONS: [(&str, [&str; 2]); 9] = [
    (
        "mmap",
        [
            "Why this protection and these flags? Which of them could you leave out, and what would change?",
            "How many pages of this mapping are resident when the call returns? What changes that?",
        ],
    ),
    (
        "munmap",
        [
            "Where does your code have this length from? What happens if it is one byte shorter or longer?",
            "Which line of your code makes this call? On which paths would it be missed if that line were elsewhere?",
        ],
    ),
    (
        "mprotect",
        [
            "Why is the protection changed here, and not when the memory was mapped?",
            "What happens to the data that is in these pages before the call?",
        ],
    ),
    (
        "mremap",
        [
            "Who may still have a pointer into the old place, and how does your code rule that out?",
            "What does the kernel copy for this call, and what does it not copy?",
        ],
    ),
    (
        "madvise",
        [
            "What does the next access to these pages see and cost?",
            "What does your code do if this call fails, and which errors can it have?",
        ],
    ),
    (
        "fork",
        [
            "What do the two processes share after this call, and when is a page copied?",
            "What may the child not do between this call and its end, and why?",
        ],
    ),
    (
        "wait4",
        [
            "What would be left behind without this call?",
            "How does your code tell a child that exited from one that was killed?",
        ],
    ),
    (
        "waitid",
        [
            "What would be left behind without this call?",
            "How does your code tell a child that exited from one that was killed?",
        ],
    ),
    (
        "brk",
        [
            "What lies directly below and above the memory that this call adds?",
            "When can memory that came from this call be given back?",
        ],
    ),
];

/// Returns `count` questions, or fewer if the answer made fewer calls. The answer's hash chooses them.
pub fn questions(outcome: &Outcome, count: usize) -> Vec<String> {
    let seed = outcome.answer.get(..8).unwrap_or_default();
    let seed = usize::from_str_radix(seed, 16).unwrap_or(0);
    let mut possible: Vec<(&Case, usize, &str)> = outcome.cases.iter().flat_map(lines).collect();
    if !possible.is_empty() {
        let first = seed % possible.len();
        possible.rotate_left(first);
    }
    let mut asked = BTreeSet::new();
    let mut questions = Vec::new();
    for (case, number, line) in possible {
        let Some((_, texts)) = QUESTIONS
            .iter()
            .find(|(call, _)| Some(*call) == call_of(line))
        else {
            continue;
        };
        let text = texts[(seed + questions.len()) % texts.len()];
        if questions.len() < count && asked.insert(text) {
            questions.push(question(case, number, text));
        }
    }
    questions
}

/// The calls of a case, with their numbers.
fn lines(case: &Case) -> impl Iterator<Item = (&Case, usize, &str)> {
    let transcript = case.transcript.as_deref().unwrap_or_default();
    let lines = transcript.lines().enumerate();
    lines.map(move |(number, line)| (case, number, line))
}

/// The name of the call in a line such as `P: mmap(NULL, 512 KiB, …) = A`.
fn call_of(line: &str) -> Option<&str> {
    let (_, call) = line.split_once(": ")?;
    let (name, _) = call.split_once('(')?;
    Some(name)
}

/// The question, with the calls around the one that it is about.
fn question(case: &Case, number: usize, text: &str) -> String {
    const AROUND: usize = 3;
    let mut question = format!("In the case {}, your code made these calls:\n", case.name);
    for (_, index, line) in lines(case) {
        if index.abs_diff(number) <= AROUND {
            let sign = if index == number { ">" } else { " " };
            let _ = writeln!(question, "  {sign} {line}");
        }
    }
    question + text
}

#[cfg(test)]
mod tests {
    use course::exercise::Exercise;
    use course::log::Verdict;

    use super::*;

    #[test]
    fn questions_quote_the_calls_and_do_not_repeat() {
        let root = course::root::find().expect("the tests run in a clone");
        let exercise = Exercise::find(&root, "private-alloc").expect("an exercise");
        let mut outcome = Outcome::new("alice", &exercise, "0123456789".to_owned(), "");
        assert!(questions(&outcome, 3).is_empty());
        outcome.cases.push(Case {
            name: "region::zeroed".to_owned(),
            verdict: Verdict::Passed,
            kind: "passed".to_owned(),
            sentence: None,
            output: Vec::new(),
            transcript: Some("P: mmap(NULL, 512 KiB) = A\nP: munmap(A, 512 KiB) = 0\n".to_owned()),
            diff: None,
            debug: None,
        });
        let asked = questions(&outcome, 3);
        assert_eq!(asked.len(), 2);
        assert!(asked[0].contains("region::zeroed"), "{asked:?}");
        let marked = |text: &str| asked.iter().any(|question| question.contains(text));
        assert!(marked("> P: mmap(") && marked("> P: munmap("), "{asked:?}");
        assert_eq!(questions(&outcome, 1), asked[..1]);
    }
}
