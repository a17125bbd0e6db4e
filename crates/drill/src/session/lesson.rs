//! Prints the explanation of an answer, and the section of the book that it refers to.

use std::io;
use std::path::Path;

use crate::bank::Bank;
use crate::bank::include::included;
use crate::bank::question::Question;
use crate::terminal::Terminal;

/// HTML that only a browser can show: its first and its last tag.
const BLOCKS: [(&str, &str); 2] = [("<details", "</details>"), ("<figure", "</figure>")];

/// Code blocks that the reader's preprocessor replaces by elements.
const ELEMENTS: [&str; 5] = ["trace", "quiz", "predict", "grade", "progress"];

pub(super) fn print_section(
    question: &Question,
    bank: &Bank,
    terminal: &mut Terminal,
) -> io::Result<()> {
    let page = bank.book.pages.get(&question.page);
    let fragment = question.fragment.as_deref();
    let section = fragment.and_then(|fragment| page?.section(fragment));
    if let Some(section) = section {
        let folder = bank.book.root.join("book/src");
        terminal.line("")?;
        terminal.markdown(&for_terminal(section, &folder))?;
        terminal.line("")?;
    }
    terminal.line(&format!("  The page: book/src/{}", question.lesson()))?;
    if let Some(exercise) = &question.exercise {
        terminal.line(&format!("  The exercise: exercises/{exercise}"))?;
    }
    Ok(())
}

pub(super) fn print_explanation(question: &Question, terminal: &mut Terminal) -> io::Result<()> {
    if !question.has_explanation() {
        let line = "This question has no explanation. Type l for the section of its page.";
        return terminal.line(line);
    }
    if let Some(why) = &question.why {
        terminal.markdown(why)?;
    }
    for follow_up in &question.follow_ups {
        terminal.text(&format!("Asked next: {}", follow_up.question))?;
        terminal.item("-", &follow_up.answer)?;
    }
    Ok(())
}

/// Replaces includes by the included text, and removes what a terminal cannot show. The page is in `folder`.
fn for_terminal(section: &str, folder: &Path) -> String {
    let mut result: Vec<String> = Vec::new();
    let mut in_code = false;
    let mut lines = section.lines();
    while let Some(line) = lines.next() {
        let block = BLOCKS.iter().find(|(begin, _)| line.starts_with(begin));
        let info = line.strip_prefix("```").map(str::trim).unwrap_or_default();
        let element = info.split(' ').next().unwrap_or_default();
        if let Some((_, end)) = block {
            lines.by_ref().find(|line| line.contains(end));
        } else if ELEMENTS.contains(&element) {
            lines.by_ref().find(|line| line.starts_with("```"));
        } else if let Some(text) = included(line, folder) {
            result.push(text);
        } else if !in_code && line.starts_with("[^") {
            // A footnote. The page has it.
        } else if !line.is_empty() || result.last().is_none_or(|before| !before.is_empty()) {
            in_code ^= line.starts_with("```");
            result.push(match in_code {
                true => line.to_owned(),
                false => without_footnotes(line),
            });
        }
    }
    result.join("\n").trim_end().to_owned()
}

/// Removes the references to footnotes, such as `[^name]`.
fn without_footnotes(line: &str) -> String {
    let mut result = String::new();
    let mut rest = line;
    while let Some((before, reference)) = rest.split_once("[^") {
        let Some((_, after)) = reference.split_once(']') else {
            break;
        };
        result.push_str(before);
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_section_is_shown_without_footnotes() {
        let section = "One.[^a] Two.[^b]\n\n```c\nint a[^0];\n```\n\n[^a]: Seen on 6.18.\n";
        assert_eq!(
            for_terminal(section, Path::new("")),
            "One. Two.\n\n```c\nint a[^0];\n```"
        );
    }

    #[test]
    fn a_section_is_shown_without_what_needs_a_browser() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = "// ANCHOR: main\nyes();\n// ANCHOR_END: main\nno();\n";
        fs::write(folder.path().join("a.rs"), program).expect("a file");
        let section = "## Run\n\n```predict id=x\nHow many?\nanswer: 2\n```\n\n```rust,ignore\n{{#include a.rs:main}}\n```\n\n<details><summary>C</summary>\n\n```c\nno\n```\n\n</details>\n\n- [x] `{{#include b}}`\n{{#include b.rs}}\n\n";
        assert_eq!(
            for_terminal(section, folder.path()),
            "## Run\n\n```rust,ignore\nyes();\n```\n\n- [x] `{{#include b}}`\n{{#include b.rs}}"
        );
    }
}
