//! The questions as Anki's notes: as a file with tab-separated columns, and for a package. Each note has an id, so that
//! importing an edited deck updates its cards and keeps their progress.

use std::time::SystemTime;

use pulldown_cmark::{Event, Parser, Tag, TagEnd, html};
use serde::Serialize;

use super::markdown;
use crate::bank::Bank;
use crate::bank::question::Question;
use crate::bank::source;
use crate::progress::plan::in_order_of_introduction;

/// The prefix of the ids, so that they differ from those of other decks.
const DECK: &str = "anonymous-mappings";

const DECK_NAME: &str = "Anonymous mappings";

/// The deck that the program `apkg` turns into a package.
#[derive(Debug, Serialize)]
pub struct Deck<'a> {
    name: &'static str,
    /// In seconds since 1970.
    modified: i64,
    notes: Vec<Note<'a>>,
}

/// The package and the file with columns have the same notes.
#[derive(Debug, Serialize)]
struct Note<'a> {
    guid: String,
    id: &'a str,
    front: String,
    back: String,
    tags: String,
}

impl<'a> Note<'a> {
    fn new(bank: &Bank, question: &'a Question) -> Note<'a> {
        Note {
            guid: format!("{DECK}/{}", question.id),
            id: &question.id,
            front: html(&markdown::prompt(question, listing)),
            back: back(bank, question),
            tags: tags(question),
        }
    }
}

/// Returns the deck with its new cards in the order in which the drill asks new questions. `modified` is when the questions
/// last changed.
pub fn deck(bank: &Bank, modified: SystemTime) -> Deck<'_> {
    let since = modified.duration_since(SystemTime::UNIX_EPOCH);
    let questions = in_order_of_introduction(bank).into_iter();
    Deck {
        name: DECK_NAME,
        modified: since.map_or(0, |since| since.as_secs().cast_signed()),
        notes: questions
            .map(|question| Note::new(bank, question))
            .collect(),
    }
}

/// Returns the contents of the file with columns. The note type is Anki's own `Basic`, which every collection has.
pub fn export(bank: &Bank) -> String {
    let mut text = format!(
        "#separator:tab\n#html:true\n#guid column:1\n#notetype:Basic\n#deck:{DECK_NAME}\n#tags column:4\n",
    );
    for question in &bank.questions {
        let note = Note::new(bank, question);
        let columns = [note.guid, note.front, note.back, note.tags];
        let columns = columns.map(|column| format!("\"{}\"", column.replace('"', "\"\"")));
        text += &columns.join("\t");
        text.push('\n');
    }
    text
}

fn back(bank: &Bank, question: &Question) -> String {
    let title = bank.book.title(&question.page);
    let mut links = vec![format!("Page: {title} (book/src/{})", question.lesson())];
    if question.has_proof() {
        links.push(format!("Proof: `cargo run -- drill prove {}`", question.id));
    }
    if let Some(exercise) = &question.exercise {
        links.push(format!("Exercise: {exercise}"));
    }
    let answer = markdown::answer(question, str::to_owned);
    html(&format!("{answer}\n\n{}", links.join("; ")))
}

fn listing(question: &Question) -> String {
    let lines = markdown::listing_lines(question).join("\n");
    format!("```text\n{lines}\n```")
}

/// In Anki, `::` separates the levels of a hierarchy of tags.
fn tags(question: &Question) -> String {
    let mut tags = vec![
        format!("topic::{}", question.topic),
        format!("level::{}", question.level),
        format!("type::{}", question.type_name()),
    ];
    if question.claim.is_some() {
        tags.push("myth".to_owned());
    }
    tags.join(" ")
}

/// Converts Markdown to HTML on one line: a line of code ends with `<br>`. Links into the book would lead nowhere, so
/// only their text is kept.
fn html(markdown: &str) -> String {
    let events = Parser::new_ext(markdown, source::options());
    let events = events.filter(|event| {
        !matches!(
            event,
            Event::Start(Tag::Link { .. }) | Event::End(TagEnd::Link)
        )
    });
    let mut html = String::new();
    html::push_html(&mut html, events);
    let mut line = String::new();
    let mut in_code = false;
    for part in html.trim_end().split_inclusive('>') {
        if part.ends_with("</pre>") {
            in_code = false;
        }
        let line_end = if in_code { "<br>" } else { " " };
        line += &part.replace('\n', line_end).replace('\t', "    ");
        in_code |= part.ends_with("<pre>");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_keeps_its_line_ends() {
        let line = html("a\nb [c](d.md)\n\n```c\nif (x > 1)\n\ty();\n```\n");
        assert_eq!(
            line,
            "<p>a b c</p> <pre><code class=\"language-c\">if (x &gt; 1)<br>    y();<br></code></pre>"
        );
    }
}
