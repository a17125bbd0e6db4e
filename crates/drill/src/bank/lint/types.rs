//! What a file of each type of question must have, and may have.

pub(super) const EVERYWHERE: [&str; 9] = [
    "type", "level", "needs", "page", "prove", "shows", "myth", "claim", "asked",
];

/// What each type has: its own keys, those of them that it needs, and the sections that it needs beside its prompt.
/// `## Why` may stand everywhere, and so may `## Must mention` and `## Follow-ups`.
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) keys: &'static [&'static str],
    pub(super) needs_keys: &'static [&'static str],
    pub(super) needs_sections: &'static [&'static str],
}

pub(super) const TYPES: [Type; 8] = [
    Type {
        name: "recall",
        keys: &["say", "program"],
        needs_keys: &["say"],
        needs_sections: &["Answer"],
    },
    Type {
        name: "choice",
        keys: &["program"],
        needs_keys: &[],
        needs_sections: &[],
    },
    Type {
        name: "output",
        keys: &["answer", "accept", "program", "without"],
        needs_keys: &["answer"],
        needs_sections: &["Why"],
    },
    Type {
        name: "bug",
        keys: &["lines", "program"],
        needs_keys: &["lines", "program"],
        needs_sections: &["Answer"],
    },
    Type {
        name: "order",
        keys: &["program"],
        needs_keys: &[],
        needs_sections: &["Why"],
    },
    Type {
        name: "estimate",
        keys: &[
            "answer",
            "accept",
            "unit",
            "tolerance",
            "program",
            "without",
        ],
        needs_keys: &["answer"],
        needs_sections: &["Why"],
    },
    Type {
        name: "write",
        keys: &["language"],
        needs_keys: &["language"],
        needs_sections: &["Answer", "Check"],
    },
    Type {
        name: "mock",
        keys: &["say", "minutes"],
        needs_keys: &["say", "minutes"],
        needs_sections: &["Rubric", "Follow-ups"],
    },
];

pub(super) const ANY_SECTIONS: [&str; 3] = ["Why", "Must mention", "Follow-ups"];
