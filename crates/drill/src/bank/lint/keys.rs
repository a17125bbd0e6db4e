//! Checks the keys of the front matter, and the values of those that every question may have.

use toml::de::DeTable;

use super::linter::Linter;
use super::rules::{COMMON_KEYS, Rules, TYPES};

impl Linter<'_> {
    /// Parses the front matter. Returns `None` if it cannot be parsed.
    pub(super) fn read_front(&mut self, toml: &str) -> Option<&'static Rules> {
        let table = match DeTable::parse(toml) {
            Ok(table) => table,
            Err(error) => return self.report_toml(&error),
        };
        let table = table.get_ref();
        let types = TYPES.map(|rules| rules.name).join(", ");
        let Some(kind) = table.get("type") else {
            self.report(1, format!("the key type is missing; the types are {types}"));
            return None;
        };
        let name = kind.get_ref().as_str().unwrap_or_default();
        let Some(rules) = TYPES.iter().find(|rules| rules.name == name) else {
            let line = self.line_of(kind);
            self.report(line, format!("unknown type; the types are {types}"));
            return None;
        };
        self.check_keys(table, rules);
        match toml::from_str(toml) {
            Ok(front) => self.front = front,
            Err(error) => return self.report_toml(&error),
        }
        Some(rules)
    }

    fn check_keys(&mut self, table: &DeTable, rules: &Rules) {
        for key in table.keys() {
            let name = &**key.get_ref();
            if rules.allow_key(name) {
                continue;
            }
            let text = if TYPES.iter().any(|other| other.allow_key(name)) {
                format!("a question of type {} has no key {name}", rules.name)
            } else {
                let allowed = [&COMMON_KEYS, rules.required_keys, rules.optional_keys].concat();
                let allowed = allowed.join(", ");
                format!("unknown key {name}; the keys are {allowed}")
            };
            self.report(self.line_of(key), text);
        }
        for key in ["level", "page"].iter().chain(rules.required_keys) {
            if !table.contains_key(*key) {
                let text = format!("a question of type {} needs the key {key}", rules.name);
                self.report(1, text);
            }
        }
    }

    fn report_toml<T>(&mut self, error: &toml::de::Error) -> Option<T> {
        let line = error.span().map_or(1, |span| self.line_at(span.start));
        self.report(line, error.message());
        None
    }

    pub(super) fn page(&mut self) -> (Option<String>, Option<String>) {
        let Some((line, target)) = self.value(&self.front.page) else {
            return (None, None);
        };
        self.check_target(line, &target);
        match target.split_once('#') {
            Some((page, fragment)) => (Some(page.to_owned()), Some(fragment.to_owned())),
            None => (Some(target), None),
        }
    }

    pub(super) fn needs(&mut self) -> Option<String> {
        let (line, name) = self.value(&self.front.needs)?;
        if !self.book.exercises.contains_key(&name) {
            let names: Vec<_> = self.book.exercises.keys().map(String::as_str).collect();
            let names = names.join(", ");
            self.report(
                line,
                format!("there is no exercise {name}; the exercises are {names}"),
            );
        }
        Some(name)
    }

    pub(super) fn program_that_proves(&mut self) -> Option<String> {
        let Some((line, name)) = self.value(&self.front.prove) else {
            if let Some((line, _)) = self.value(&self.front.shows) {
                self.report(line, "shows needs the key prove, which names the program");
            }
            return None;
        };
        if !self.book.programs.contains(&name) {
            self.report(
                line,
                format!("there is no program book/lab/examples/{name}.rs"),
            );
        }
        if self.shows().is_empty() {
            self.report(
                line,
                "prove needs the key shows with the lines that the program must print",
            );
        }
        Some(name)
    }

    pub(super) fn shows(&self) -> &[String] {
        let shows = self.front.shows.as_ref();
        shows.map_or(&[], |shows| shows.get_ref())
    }

    pub(super) fn claim(&mut self) -> Option<u32> {
        let (line, number) = self.value(&self.front.claim)?;
        if let Some(claims) = &self.book.claims {
            match claims.get(&number) {
                None => self.report(line, format!("book/src/errata.md has no claim {number}")),
                Some(true) => self.report(
                    line,
                    format!("claim {number} is true, so there is nothing to correct"),
                ),
                Some(false) => {}
            }
        }
        Some(number)
    }

    pub(super) fn say(&mut self) -> Option<String> {
        /// As many words as a speaker says in about twenty seconds.
        const MOST_WORDS: usize = 55;
        const MOST_SENTENCES: usize = 3;
        let (line, text) = self.value(&self.front.say)?;
        let words = text.split_whitespace().count();
        if words > MOST_WORDS {
            let problem = format!("say has {words} words; {MOST_WORDS} can be said in one go");
            self.report(line, problem);
        }
        let sentences = sentences(&text);
        if sentences > MOST_SENTENCES {
            let problem = format!(
                "say has {sentences} sentences; {MOST_SENTENCES} are enough, and the rest is a follow-up"
            );
            self.report(line, problem);
        }
        Some(text)
    }
}

/// Returns the number of sentences. A semicolon ends one, too: a speaker pauses there.
fn sentences(text: &str) -> usize {
    let ends = |word: &&str| {
        let word = word.trim_end_matches(['"', ')']);
        word.ends_with(['.', '!', '?', ';'])
    };
    let ended = text.split_whitespace().filter(ends).count();
    let last_is_open = text
        .split_whitespace()
        .last()
        .is_some_and(|word| !ends(&word));
    ended + usize::from(last_is_open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_full_stops_and_semicolons() {
        assert_eq!(sentences(""), 0);
        assert_eq!(sentences("Yes"), 1);
        assert_eq!(sentences("Linux 6.1 has it."), 1);
        assert_eq!(sentences("One; two. \"Three?\" Four"), 4);
    }
}
