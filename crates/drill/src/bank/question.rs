//! A question, as the drill knows it.

/// The topics in the book's order. A question lies in the folder of its topic.
pub const TOPICS: [&str; 16] = [
    "anonymous",
    "private",
    "demand-paging",
    "populate",
    "overcommit",
    "fork",
    "shared",
    "where-it-shows",
    "mutex",
    "choosing",
    "malloc",
    "free",
    "neighbourhood",
    "embedded",
    "threshold-alloc",
    "unsafe",
];

/// The levels, from 1.
pub const LEVELS: [&str; 4] = [
    "first week",
    "first exercise",
    "has read the kernel's pages",
    "wrote an allocator",
];

/// One question of the bank.
#[derive(Debug, Clone)]
pub struct Question {
    /// The file's stem. It never changes, so that an edit keeps the learner's progress.
    pub id: String,
    /// The folder's name: one of [`TOPICS`].
    pub topic: String,
    /// From 1 to 4.
    pub level: u8,
    /// How often interviewers ask it, from 1 to 3.
    pub asked: u8,
    /// The exercise to be passed first.
    pub needs: Option<String>,
    /// The exercise that practises it.
    pub exercise: Option<String>,
    /// Whether that exercise asks for this question when it fails: it is needed, or the page leads to it.
    pub is_exercises_own: bool,
    /// The book's page: `private.md`.
    pub page: String,
    /// The page's heading.
    pub fragment: Option<String>,
    /// The lab's program that proves it.
    pub prove: Option<String>,
    /// The lines that this program must print.
    pub shows: Vec<String>,
    /// The errata's claim that it corrects.
    pub claim: Option<u32>,
    /// The spoken answer of thirty seconds.
    pub say: Option<String>,
    /// What is asked, as Markdown.
    pub prompt: String,
    /// The program that is shown with it.
    pub listing: Option<Listing>,
    /// Why it is so, as Markdown.
    pub why: Option<String>,
    /// What a good answer does not leave out.
    pub must_mention: Vec<String>,
    /// What an interviewer asks next.
    pub follow_ups: Vec<FollowUp>,
    /// What differs from type to type.
    pub kind: Kind,
}

/// A program that is shown with a question.
#[derive(Debug, Clone)]
pub struct Listing {
    /// From the clone's root.
    pub file: String,
    /// What is shown.
    pub text: String,
}

/// A question that follows.
#[derive(Debug, Clone)]
pub struct FollowUp {
    /// The question.
    pub question: String,
    /// Its answer.
    pub answer: String,
}

/// The eight types.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Said from memory, and graded by the learner.
    Recall {
        /// As Markdown.
        answer: String,
    },
    /// Which of these?
    Choice {
        /// One or more are right.
        options: Vec<Choice>,
    },
    /// What does the program print?
    Output {
        /// The text to type, and others as good.
        answers: Vec<String>,
    },
    /// Which line is wrong?
    Bug {
        /// Counted in the listing, from 1.
        lines: Vec<usize>,
        /// As Markdown.
        answer: String,
    },
    /// In which order?
    Order {
        /// In the right one.
        steps: Vec<String>,
    },
    /// How many?
    Estimate {
        /// The number to type, and others as good.
        answers: Vec<String>,
        /// What is counted.
        unit: Option<String>,
        /// As a part of the answer: 0.05 for 5 %.
        tolerance: f64,
    },
    /// Write the call.
    Write {
        /// The language.
        language: Language,
        /// What the proof compiles.
        answer: String,
        /// The program that it is put into, in place of the line `// ANSWER`.
        check: String,
    },
    /// A question of a mock interview.
    Mock {
        /// For the answer and its follow-ups.
        minutes: u32,
        /// What is listened for.
        rubric: Vec<String>,
    },
}

/// An option of a choice.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What it says.
    pub text: String,
    /// Whether it is right.
    pub right: bool,
    /// The reason.
    pub why: String,
}

/// What a `write` question is answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C17, compiled with cc.
    C,
    /// Rust with its standard library only.
    Rust,
}

/// The line that an answer takes the place of.
pub const ANSWER: &str = "// ANSWER";

impl Question {
    /// The type's name, as in the front matter.
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

    /// Whether it is asked in a mock interview only.
    pub fn is_mock(&self) -> bool {
        matches!(self.kind, Kind::Mock { .. })
    }

    /// Whether something can be run to prove it.
    pub fn has_proof(&self) -> bool {
        self.prove.is_some() || matches!(self.kind, Kind::Write { .. })
    }

    /// Its page with the heading: `private.md#run`.
    pub fn lesson(&self) -> String {
        match &self.fragment {
            Some(fragment) => format!("{}#{fragment}", self.page),
            None => self.page.clone(),
        }
    }

    /// Where its topic stands in the book.
    pub fn place(&self) -> usize {
        let place = TOPICS.iter().position(|topic| *topic == self.topic);
        place.unwrap_or(TOPICS.len())
    }
}

impl Language {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Language::C => "C",
            Language::Rust => "Rust",
        }
    }

    /// As in the front matter and after the backticks.
    pub fn name(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Rust => "rust",
        }
    }
}
