//! What the keys of a file's front matter may say.

use super::Reader;

impl Reader<'_> {
    pub(super) fn page(&mut self) -> (Option<String>, Option<String>) {
        let Some((line, value)) = self.fields.get("page").copied() else {
            return (None, None);
        };
        self.leads_somewhere(line, value);
        match value.split_once('#') {
            Some((page, fragment)) => (Some(page.to_owned()), Some(fragment.to_owned())),
            None => (Some(value.to_owned()), None),
        }
    }

    pub(super) fn needs(&mut self) -> Option<String> {
        let (line, value) = *self.fields.get("needs")?;
        if !self.book.exercises.contains_key(value) {
            let names: Vec<_> = self.book.exercises.keys().map(String::as_str).collect();
            let text = format!(
                "there is no exercise {value}: there is {}",
                names.join(", ")
            );
            self.complain(line, text);
        }
        Some(value.to_owned())
    }

    pub(super) fn program_that_proves(&mut self) -> Option<String> {
        let Some((line, value)) = self.fields.get("prove").copied() else {
            if let Some((line, _)) = self.shows.first().copied() {
                self.complain(line, "shows needs the key prove: which program shows it?");
            }
            return None;
        };
        if !self.book.programs.contains(value) {
            self.complain(
                line,
                format!("there is no program book/lab/examples/{value}.rs"),
            );
        }
        if self.shows.is_empty() {
            self.complain(
                line,
                "prove needs a line that the program must print: shows",
            );
        }
        Some(value.to_owned())
    }

    pub(super) fn claim(&mut self) -> Option<u32> {
        match (
            self.fields.get("myth").copied(),
            self.fields.get("claim").copied(),
        ) {
            (None, None) => None,
            (None, Some((line, _))) => {
                self.complain(line, "a question with a claim is `myth: yes`");
                None
            }
            (Some((line, value)), claim) => {
                if value != "yes" {
                    self.complain(
                        line,
                        format!("myth is yes, or it is not there; it is not {value}"),
                    );
                }
                let Some((line, value)) = claim else {
                    self.complain(line, "a myth has a claim: its number in the errata");
                    return None;
                };
                let Ok(number) = value.parse() else {
                    self.complain(line, format!("a claim is a number, and not {value}"));
                    return None;
                };
                if let Some(claims) = &self.book.claims {
                    match claims.get(&number) {
                        None => {
                            self.complain(line, format!("book/src/errata.md has no claim {number}"))
                        }
                        Some(true) => {
                            self.complain(
                                line,
                                format!("claim {number} is true: there is no myth in it"),
                            );
                        }
                        Some(false) => {}
                    }
                }
                Some(number)
            }
        }
    }

    /// Thirty seconds are about eighty words.
    pub(super) fn say(&mut self) -> Option<String> {
        const MOST: usize = 90;
        let (line, value) = *self.fields.get("say")?;
        let words = value.split_whitespace().count();
        if words > MOST {
            let text = format!("say has {words} words: thirty seconds are {MOST} at most");
            self.complain(line, text);
        }
        Some(value.to_owned())
    }
}
