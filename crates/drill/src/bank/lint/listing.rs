//! The program that a question shows, without what would give its answer away.

use std::fs;

use super::Reader;
use crate::bank::question::{Kind, Listing};
use crate::session::between_anchors;

impl Reader<'_> {
    pub(super) fn listing(&mut self, kind: &str) -> Option<Listing> {
        let (line, name) = *self.fields.get("program")?;
        let of_the_bank =
            ["", ".rs", ".c"].map(|ending| format!("book/questions/code/{name}{ending}"));
        let of_the_lab = format!("book/lab/examples/{name}.rs");
        let mut files = of_the_bank
            .iter()
            .filter(|_| kind == "bug")
            .chain([&of_the_lab]);
        let found = files.find_map(|file| {
            let text = fs::read_to_string(self.book.root.join(file)).ok()?;
            Some((file, text))
        });
        let Some((file, text)) = found else {
            let text = match kind {
                "bug" => format!(
                    "there is no program {name} in book/questions/code or book/lab/examples"
                ),
                _ => format!("there is no program {of_the_lab}"),
            };
            self.complain(line, text);
            return None;
        };
        let anchored = between_anchors(&text, "main");
        if anchored.is_none() && *file == of_the_lab {
            self.complain(line, format!("{file} has no anchor main"));
        }
        let text = anchored.unwrap_or_else(|| text.trim_end().to_owned());
        Some(Listing {
            text: self.without(&text),
            file: file.clone(),
        })
    }

    /// The listing without the lines that would give the answer away.
    pub(super) fn without(&mut self, listing: &str) -> String {
        let Some((line, texts)) = self.fields.get("without").copied() else {
            return listing.to_owned();
        };
        let mut lines: Vec<_> = listing.lines().collect();
        for text in texts.split(" | ").map(str::trim) {
            let before = lines.len();
            lines = lines_without(&lines, text);
            if lines.len() == before {
                self.complain(line, format!("no line of the program has {text}"));
            }
        }
        lines.join("\n")
    }

    /// A name that is to be found out does not stand in the program that is shown.
    pub(super) fn listing_keeps_the_answer(&mut self, kind: &Kind, listing: Option<&Listing>) {
        let (Kind::Output { answers }, Some(listing)) = (kind, listing) else {
            return;
        };
        let line = self.fields["answer"].0;
        let given = answers.iter().find(|answer| {
            let is_name =
                answer.len() > 3 && !answer.starts_with(|letter: char| letter.is_numeric());
            is_name && listing.text.contains(answer.as_str())
        });
        if let Some(given) = given {
            self.complain(
                line,
                format!(
                    "the program that is shown has {given} in it: leave out its line by without"
                ),
            );
        }
    }
}

/// The lines that do not have that text. A comment that has it goes as a whole, down to its last line.
fn lines_without<'a>(lines: &[&'a str], text: &str) -> Vec<&'a str> {
    let mut in_comment = false;
    let kept = lines.iter().filter(|line| {
        let comment = line.trim_start().starts_with("//");
        let has = line.contains(text);
        in_comment = comment && (has || in_comment);
        !has && !in_comment
    });
    kept.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_goes_as_a_whole() {
        let lines = [
            "a();",
            "// SAFETY: one line,",
            "// and another.",
            "b();",
            "// else",
        ];
        assert_eq!(
            lines_without(&lines, "// SAFETY"),
            ["a();", "b();", "// else"]
        );
    }
}
