//! A question and its answer as Markdown, for the book's drill pages and for Anki.

use pulldown_cmark::{Event, Parser, Tag};

use crate::bank::question::{Kind, Question};
use crate::bank::source;

/// Returns what is asked. `listing` formats the listing.
pub fn prompt(question: &Question, listing: impl Fn(&Question) -> String) -> String {
    let mut parts = vec![question.prompt.clone()];
    if question.listing.is_some() {
        parts.push(listing(question));
    }
    let texts = question.items();
    if !texts.is_empty() {
        let items = question.lettered(0).into_iter();
        parts.push(list(
            items.map(|(letter, index)| format!("- **{letter}** {}", texts[index])),
        ));
    }
    parts.join("\n\n")
}

/// Returns the answer and its explanation. If the answer is code, `fence` returns what follows the backticks.
pub fn answer(question: &Question, fence: impl Fn(&str) -> String) -> String {
    let mut parts = Vec::new();
    if let Some(say) = &question.say {
        parts.push(format!("**In thirty seconds.** {say}"));
    }
    parts.push(answer_of_kind(question, fence));
    parts.extend(question.why.clone());
    if !question.must_mention.is_empty() {
        let points = question.must_mention.iter();
        let points = list(points.map(|point| format!("- {point}")));
        parts.push(format!("A good answer mentions:\n\n{points}"));
    }
    if !question.follow_ups.is_empty() {
        let follow_ups = question.follow_ups.iter();
        let follow_ups = list(follow_ups.map(|one| format!("- *{}* {}", one.question, one.answer)));
        parts.push(format!("Asked next:\n\n{follow_ups}"));
    }
    parts.join("\n\n")
}

fn answer_of_kind(question: &Question, fence: impl Fn(&str) -> String) -> String {
    match &question.kind {
        Kind::Recall { answer } | Kind::Bug { answer, .. } => answer.clone(),
        Kind::Choice { options } => {
            let letters = question.lettered(0).into_iter();
            list(letters.map(|(letter, index)| {
                let option = &options[index];
                let word = if option.right { "right" } else { "wrong" };
                format!("- **{letter}** {word}: {}", option.why)
            }))
        }
        Kind::Order { steps } => {
            let steps = (1..).zip(steps);
            list(steps.map(|(number, step)| format!("{number}. {step}")))
        }
        Kind::Output { answers } => format!("`{}`", answers[0]),
        Kind::Estimate { answers, unit, .. } => {
            let unit = unit.as_deref().unwrap_or_default();
            let answer = format!("{} {unit}", answers[0]);
            format!("**{}**", answer.trim_end())
        }
        Kind::Write {
            language, answer, ..
        } => format!("```{}\n{}\n```", fence(language.name()), answer.trim_end()),
        Kind::Mock { rubric, .. } => {
            let points = list(rubric.iter().map(|point| format!("- {point}")));
            format!("The interviewer listens for:\n\n{points}")
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join("\n")
}

/// Returns the lines of a listing. If the question asks for a line, they are numbered.
pub fn listing_lines(question: &Question) -> Vec<String> {
    let Some(listing) = &question.listing else {
        return Vec::new();
    };
    let numbered = matches!(question.kind, Kind::Bug { .. });
    let lines = (1..).zip(listing.text.lines());
    let lines = lines.map(|(number, line)| match numbered {
        true => format!("{number:>3}  {line}").trim_end().to_owned(),
        false => line.to_owned(),
    });
    lines.collect()
}

/// Inserts `prefix` before the target of every link to another page of the book.
pub fn with_link_prefix(text: &str, prefix: &str) -> String {
    let mut result = String::new();
    let mut copied = 0;
    for (event, range) in Parser::new_ext(text, source::options()).into_offset_iter() {
        let Event::Start(Tag::Link { dest_url, .. }) = event else {
            continue;
        };
        if dest_url.starts_with("https://") || range.start < copied {
            continue;
        }
        if let Some(index) = text[range.clone()].find(&format!("]({dest_url}")) {
            let target = range.start + index + "](".len();
            result += &text[copied..target];
            result += prefix;
            copied = target;
        }
    }
    result + &text[copied..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_into_the_book_are_changed() {
        let text = "[a](fork.md#run), `[b](c.md)`, [d](https://e.org) and [f](free.md).";
        let expected = "[a](../fork.md#run), `[b](c.md)`, [d](https://e.org) and [f](../free.md).";
        assert_eq!(with_link_prefix(text, "../"), expected);
    }
}
