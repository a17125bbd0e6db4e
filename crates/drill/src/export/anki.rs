//! The questions as a file that Anki imports: tab-separated, with a column of ids, so that an edited deck updates its
//! cards and keeps their progress.

use pulldown_cmark::{Parser, html};

use crate::bank::Bank;
use crate::bank::question::{Kind, Question};
use crate::bank::source;
use crate::export::markdown;

/// The ids begin with this: they are not to meet those of another deck.
const DECK: &str = "anonymous-mappings";

/// The file. Its note type is Anki's own `Basic`, which every collection has; another can be chosen in the dialogue.
pub fn export(bank: &Bank) -> String {
    let mut text = String::from(
        "#separator:tab\n#html:true\n#guid column:1\n#notetype:Basic\n#deck:Anonymous mappings\n#tags column:4\n",
    );
    for question in &bank.questions {
        let fields = [
            format!("{DECK}/{}", question.id),
            front(question),
            back(bank, question),
            tags(question),
        ];
        let fields = fields.map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
        text += &fields.join("\t");
        text.push('\n');
    }
    text
}

fn front(question: &Question) -> String {
    html(&markdown::prompt(question, listing))
}

fn back(bank: &Bank, question: &Question) -> String {
    let mut places = vec![format!(
        "Page: {} (book/src/{})",
        bank.book.title(&question.page),
        question.lesson()
    )];
    if question.has_proof() {
        places.push(format!("Proof: `cargo run -- drill prove {}`", question.id));
    }
    if let Some(exercise) = &question.exercise {
        places.push(format!("Exercise: {exercise}"));
    }
    let answer = markdown::answer(question, str::to_owned);
    html(&format!("{answer}\n\n{}", places.join("; ")))
}

fn listing(question: &Question) -> String {
    let Some(listing) = &question.listing else {
        return String::new();
    };
    let numbered = matches!(question.kind, Kind::Bug { .. });
    let lines = (1..)
        .zip(listing.text.lines())
        .map(|(number, line)| match numbered {
            true => format!("{number:>3}  {line}"),
            false => line.to_owned(),
        });
    format!("```text\n{}\n```", lines.collect::<Vec<_>>().join("\n"))
}

/// Hierarchical, as Anki shows them.
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

/// HTML on one line: a line of code ends with `<br>`. Links into the book lead nowhere from Anki: their words stay.
fn html(markdown: &str) -> String {
    let events = Parser::new_ext(markdown, source::options());
    let events = events.filter(|event| {
        use pulldown_cmark::{Event, Tag, TagEnd};
        !matches!(
            event,
            Event::Start(Tag::Link { .. }) | Event::End(TagEnd::Link)
        )
    });
    let mut text = String::new();
    html::push_html(&mut text, events);
    let mut told = String::new();
    let mut in_code = false;
    for part in text.trim_end().split_inclusive('>') {
        if part.ends_with("</pre>") {
            in_code = false;
        }
        let end = if in_code { "<br>" } else { " " };
        told += &part.replace('\n', end).replace('\t', "    ");
        in_code |= part.ends_with("<pre>");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_keeps_its_lines() {
        let told = html("a\nb [c](d.md)\n\n```c\nif (x > 1)\n\ty();\n```\n");
        assert_eq!(
            told,
            "<p>a b c</p> <pre><code class=\"language-c\">if (x &gt; 1)<br>    y();<br></code></pre>"
        );
    }
}
