//! A question in memory, and what its parts mean.

use serde::Deserialize;

/// The topics, in the book's order. The folder of a question names its topic.
pub const TOPICS: [&str; 22] = [
    "address-space",
    "anonymous",
    "private",
    "demand-paging",
    "populate",
    "overcommit",
    "fork",
    "processes",
    "shared",
    "where-it-shows",
    "mutex",
    "synchronisation",
    "choosing",
    "malloc",
    "free",
    "c-memory",
    "neighbourhood",
    "reclaim",
    "embedded",
    "drivers",
    "threshold-alloc",
    "unsafe",
];

/// Who should be able to answer the questions of each level, from level 1.
pub const LEVELS: [&str; 4] = [
    "first week",
    "first exercise",
    "has read the kernel's pages",
    "wrote an allocator",
];

/// The line of a check program that the learner's code replaces.
pub const ANSWER: &str = "// ANSWER";

/// The place of the expected answer in a line that the program must print.
pub const PLACE: &str = "{answer}";

#[derive(Debug, Clone)]
pub struct Question {
    /// The name of its file without `.md`. It never changes, so that an edited question keeps the learner's progress.
    pub id: String,
    /// One of [`TOPICS`].
    pub topic: String,
    /// From 1 to 4.
    pub level: u8,
    /// How often interviewers ask it, from 1 to 3.
    pub asked: u8,
    /// The exercise that must be solved before the question is asked.
    pub needs: Option<String>,
    /// The exercise that practises the subject.
    pub exercise: Option<String>,
    /// Whether a failure of that exercise brings the question forward. It does if the question needs the exercise, or
    /// if the question's page leads to it.
    pub follows_exercise: bool,
    /// The file name of the book's page, such as `private.md`.
    pub page: String,
    /// The anchor of a heading on that page.
    pub fragment: Option<String>,
    /// The lab program that proves the answer.
    pub prove: Option<String>,
    /// The lines that the program must print, with [`PLACE`] where the expected answer stands.
    pub shows: Vec<String>,
    /// The number of the wrong statement in the errata that this question corrects.
    pub claim: Option<u32>,
    /// A spoken answer of about thirty seconds.
    pub say: Option<String>,
    /// The question itself, as Markdown.
    pub prompt: String,
    /// A program that is shown with the prompt.
    pub listing: Option<Listing>,
    /// An explanation, as Markdown.
    pub why: Option<String>,
    /// The points that a good answer mentions.
    pub must_mention: Vec<String>,
    /// What an interviewer asks next.
    pub follow_ups: Vec<FollowUp>,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub struct Listing {
    /// The path from the clone's root.
    pub file: String,
    /// The part of the file that is shown.
    pub text: String,
}

#[derive(Debug, Clone)]
pub struct FollowUp {
    pub question: String,
    pub answer: String,
}

/// The type of a question, with what only that type has.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Answered aloud, and graded by the learner.
    Recall {
        /// As Markdown.
        answer: String,
    },
    /// Multiple choice.
    Choice {
        /// At least one is right, and at least one is wrong.
        options: Vec<Choice>,
    },
    /// What does the program print?
    Output {
        /// The expected answer, then other accepted ones.
        answers: Vec<String>,
    },
    /// Which line is wrong?
    Bug {
        /// Line numbers in the listing, from 1.
        lines: Vec<usize>,
        /// As Markdown.
        answer: String,
    },
    /// Put the steps in order.
    Order {
        /// In the right order.
        steps: Vec<String>,
    },
    /// A number.
    Estimate {
        /// The expected number, then other accepted ones.
        answers: Vec<String>,
        unit: Option<String>,
        /// The accepted deviation, as a fraction of the answer: 0.05 for 5 %.
        tolerance: f64,
    },
    /// A few lines of code.
    Write {
        language: Language,
        /// A right answer.
        answer: String,
        /// The program that tests an answer. Its line [`ANSWER`] is replaced by the answer.
        check: String,
    },
    /// A question of a mock interview.
    Mock {
        /// The time for the answer and its follow-ups.
        minutes: u8,
        /// The points that the interviewer listens for.
        rubric: Vec<String>,
    },
}

/// An option of a multiple-choice question.
#[derive(Debug, Clone)]
pub struct Choice {
    pub text: String,
    pub right: bool,
    /// Why it is right or wrong.
    pub why: String,
}

/// The language of a `write` question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// C17, compiled with cc.
    C,
    /// Rust with its standard library only.
    Rust,
}

impl Question {
    /// The name of the type in the front matter.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Recall { .. } => "recall",
            Kind::Choice { .. } => "choice",
            Kind::Output { .. } => "output",
            Kind::Bug { .. } => "bug",
            Kind::Order { .. } => "order",
            Kind::Estimate { .. } => "estimate",
            Kind::Write { .. } => "write",
            Kind::Mock { .. } => "mock",
        }
    }

    /// Returns whether the question is asked in mock interviews only.
    pub fn is_mock(&self) -> bool {
        matches!(self.kind, Kind::Mock { .. })
    }

    /// Returns whether a program can prove the answer.
    pub fn has_proof(&self) -> bool {
        self.prove.is_some() || matches!(self.kind, Kind::Write { .. })
    }

    /// Returns the lines that the program must print. They contain the expected answer in its place, so the proof
    /// fails if the answer is wrong, even if another line contains it.
    pub fn expected_lines(&self) -> Vec<String> {
        let answer = match &self.kind {
            Kind::Output { answers } | Kind::Estimate { answers, .. } => &*answers[0],
            _ => PLACE,
        };
        let lines = self.shows.iter();
        lines.map(|line| line.replace(PLACE, answer)).collect()
    }

    /// Returns whether `w` has something to show after the answer.
    pub fn has_explanation(&self) -> bool {
        self.why.is_some() || !self.follow_ups.is_empty()
    }

    /// The page with its fragment: `private.md#run`.
    pub fn lesson(&self) -> String {
        match &self.fragment {
            Some(fragment) => format!("{}#{fragment}", self.page),
            None => self.page.clone(),
        }
    }

    /// The position of the topic in the book.
    pub fn topic_index(&self) -> usize {
        let index = TOPICS.iter().position(|topic| *topic == self.topic);
        index.unwrap_or(TOPICS.len())
    }

    /// The options of a choice or the steps of an order; empty for other types.
    pub fn items(&self) -> Vec<&str> {
        match &self.kind {
            Kind::Choice { options } => options.iter().map(|option| &*option.text).collect(),
            Kind::Order { steps } => steps.iter().map(|step| &**step).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the letters and indices of the items in the order in which they are shown. `turn` counts how often the
    /// question was asked before: every turn has another order. Steps are never shown in the right order.
    pub fn lettered(&self, turn: usize) -> Vec<(char, usize)> {
        let mut order = shuffled(self.items().len(), &self.id, turn);
        if matches!(self.kind, Kind::Order { .. }) && order.is_sorted() {
            order.rotate_left(1);
        }
        ('a'..).zip(order).collect()
    }
}

/// Returns the numbers below `count` in an order that depends only on `id` and `turn`.
///
/// The book's pages and the Anki deck contain this order, so it must never change. `fastrand` does not promise the
/// same numbers in its next version.
fn shuffled(count: usize, id: &str, turn: usize) -> Vec<usize> {
    let mut seed = turn as u64 + 1;
    for byte in id.bytes() {
        seed = seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
    }
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = split_mix_64(&mut seed) % (last as u64 + 1);
        order.swap(last, other as usize);
    }
    order
}

fn split_mix_64(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Language {
    pub fn title(self) -> &'static str {
        match self {
            Language::C => "C",
            Language::Rust => "Rust",
        }
    }

    /// The name in the front matter and after the backticks of a code block.
    pub fn name(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Rust => "rust",
        }
    }
}
