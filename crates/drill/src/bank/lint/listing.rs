//! Reads the program that is shown with a question, without the lines that give the answer away.

use std::fs;

use super::linter::Linter;
use crate::bank::include::between_anchors;
use crate::bank::question::{Kind, Listing};

impl Linter<'_> {
    pub(super) fn listing(&mut self, kind: &str) -> Option<Listing> {
        let (line, name) = self.value(&self.front.program)?;
        let of_the_bank =
            ["", ".rs", ".c"].map(|ending| format!("book/questions/code/{name}{ending}"));
        let of_the_lab = format!("book/lab/examples/{name}.rs");
        // Only the programs of bug questions, which are wrong, are in the bank.
        let of_the_bank = of_the_bank.iter().filter(|_| kind == "bug");
        let mut files = of_the_bank.chain([&of_the_lab]);
        let found = files.find_map(|file| {
            let text = fs::read_to_string(self.book.root.join(file)).ok()?;
            Some((file.clone(), text))
        });
        let Some((file, text)) = found else {
            let problem = match kind {
                "bug" => format!(
                    "there is no program {name} in book/questions/code or book/lab/examples"
                ),
                _ => format!("there is no program {of_the_lab}"),
            };
            self.report(line, problem);
            return None;
        };
        let main = between_anchors(&text, "main");
        if main.is_none() && file == of_the_lab {
            self.report(line, format!("{file} has no anchor main"));
        }
        let text = main.unwrap_or_else(|| text.trim_end().to_owned());
        Some(Listing {
            text: self.without(&text),
            file,
        })
    }

    /// Removes the lines that the key `without` names.
    fn without(&mut self, listing: &str) -> String {
        let Some((line, texts)) = self.value(&self.front.without) else {
            return listing.to_owned();
        };
        let mut lines: Vec<_> = listing.lines().collect();
        for text in texts {
            let before = lines.len();
            lines = lines_without(&lines, &text);
            if lines.len() == before {
                self.report(line, format!("no line of the program contains {text}"));
            }
        }
        lines.join("\n")
    }

    /// The name that an output question asks for must not be in the program that is shown.
    pub(super) fn check_that_listing_hides_answer(
        &mut self,
        kind: &Kind,
        listing: Option<&Listing>,
    ) {
        let (Kind::Output { answers }, Some(listing)) = (kind, listing) else {
            return;
        };
        let is_visible_name = |answer: &&String| {
            answer.len() > 3
                && !answer.starts_with(|letter: char| letter.is_numeric())
                && listing.text.contains(answer.as_str())
        };
        let visible = answers.iter().find(is_visible_name);
        if let (Some(visible), Some(answer)) = (visible, &self.front.answer) {
            let problem =
                format!("the listing contains {visible}; remove its line with the key without");
            self.report(self.line_of(answer), problem);
        }
    }
}

/// Returns the lines that do not contain `text`. A comment that contains it is removed to its last line.
fn lines_without<'a>(lines: &[&'a str], text: &str) -> Vec<&'a str> {
    let mut in_comment = false;
    let kept = lines.iter().filter(|line| {
        let comment = line.trim_start().starts_with("//");
        let matches = line.contains(text);
        in_comment = comment && (matches || in_comment);
        !matches && !in_comment
    });
    kept.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_comment_is_removed() {
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
