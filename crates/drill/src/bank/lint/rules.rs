//! Which keys and sections a question may have, and which it must have.

/// Allowed in every question. `level` and `page` are required.
pub(super) const COMMON_KEYS: [&str; 8] = [
    "type", "level", "page", "needs", "asked", "claim", "prove", "shows",
];

/// Allowed in every question.
pub(super) const COMMON_SECTIONS: [&str; 3] = ["Why", "Must mention", "Follow-ups"];

/// What only some types have.
pub(super) struct Rules {
    pub(super) name: &'static str,
    pub(super) required_keys: &'static [&'static str],
    pub(super) optional_keys: &'static [&'static str],
    pub(super) required_sections: &'static [&'static str],
}

pub(super) const TYPES: [Rules; 8] = [
    Rules {
        name: "recall",
        required_keys: &["say"],
        optional_keys: &["program"],
        required_sections: &["Answer"],
    },
    Rules {
        name: "choice",
        required_keys: &[],
        optional_keys: &["program"],
        required_sections: &[],
    },
    Rules {
        name: "output",
        required_keys: &["answer"],
        optional_keys: &["accept", "program", "without"],
        required_sections: &["Why"],
    },
    Rules {
        name: "bug",
        required_keys: &["lines", "program"],
        optional_keys: &[],
        required_sections: &["Answer"],
    },
    Rules {
        name: "order",
        required_keys: &[],
        optional_keys: &["program"],
        required_sections: &["Why"],
    },
    Rules {
        name: "estimate",
        required_keys: &["answer"],
        optional_keys: &["accept", "unit", "tolerance", "program", "without"],
        required_sections: &["Why"],
    },
    Rules {
        name: "write",
        required_keys: &["language"],
        optional_keys: &[],
        required_sections: &["Answer", "Check"],
    },
    Rules {
        name: "mock",
        required_keys: &["say", "minutes"],
        optional_keys: &[],
        required_sections: &["Rubric", "Follow-ups"],
    },
];

impl Rules {
    pub(super) fn allow_key(&self, key: &str) -> bool {
        COMMON_KEYS.contains(&key)
            || self.required_keys.contains(&key)
            || self.optional_keys.contains(&key)
    }

    pub(super) fn allow_section(&self, title: &str) -> bool {
        COMMON_SECTIONS.contains(&title) || self.required_sections.contains(&title)
    }
}
