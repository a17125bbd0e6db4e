//! A question and its answer as Markdown, for the book's drill pages and for Anki.

use pulldown_cmark::{Event, Parser, Tag};

use crate::bank::question::{Kind, Question};
use crate::bank::source;
use crate::session::ask::shuffled;

/// The options of a choice or the steps of an order, in the order in which they are shown, each with its letter.
fn lettered(question: &Question) -> Vec<(char, usize)> {
    let count = match &question.kind {
        Kind::Choice { options } => options.len(),
        Kind::Order { steps } => steps.len(),
        _ => 0,
    };
    ('a'..).zip(shuffled(question, count, 0)).collect()
}

/// What is asked. A listing is shown as `listing` makes it.
pub fn prompt(question: &Question, listing: impl Fn(&Question) -> String) -> String {
    let mut parts = vec![question.prompt.clone()];
    if question.listing.is_some() {
        parts.push(listing(question));
    }
    let item = |(letter, index): &(char, usize)| {
        let text = match &question.kind {
            Kind::Choice { options } => &options[*index].text,
            Kind::Order { steps } => &steps[*index],
            _ => return String::new(),
        };
        format!("- **{letter}** {text}")
    };
    let items: Vec<_> = lettered(question).iter().map(item).collect();
    if !items.is_empty() {
        parts.push(items.join("\n"));
    }
    parts.join("\n\n")
}

/// The answer, with what goes with it. Where the answer is code, `fence` names its block.
pub fn answer(question: &Question, fence: impl Fn(&str) -> String) -> String {
    let mut parts = Vec::new();
    if let Some(say) = &question.say {
        parts.push(format!("**In thirty seconds.** {say}"));
    }
    match &question.kind {
        Kind::Recall { answer } | Kind::Bug { answer, .. } => parts.push(answer.clone()),
        Kind::Choice { options } => {
            let items = lettered(question).into_iter().map(|(letter, index)| {
                let option = &options[index];
                let word = if option.right { "right" } else { "wrong" };
                format!("- **{letter}** {word}: {}", option.why)
            });
            parts.push(items.collect::<Vec<_>>().join("\n"));
        }
        Kind::Order { steps } => {
            let items = (1..)
                .zip(steps)
                .map(|(number, step)| format!("{number}. {step}"));
            parts.push(items.collect::<Vec<_>>().join("\n"));
        }
        Kind::Output { answers } => parts.push(format!("`{}`", answers[0])),
        Kind::Estimate { answers, unit, .. } => {
            let unit = unit.as_deref().unwrap_or_default();
            parts.push(format!(
                "**{}**",
                format!("{} {unit}", answers[0]).trim_end()
            ));
        }
        Kind::Write {
            language, answer, ..
        } => parts.push(format!(
            "```{}\n{}\n```",
            fence(language.name()),
            answer.trim_end()
        )),
        Kind::Mock { rubric, .. } => {
            let items = rubric.iter().map(|point| format!("- {point}"));
            parts.push(format!(
                "What is listened for:\n\n{}",
                items.collect::<Vec<_>>().join("\n")
            ));
        }
    }
    parts.extend(question.why.clone());
    if !question.must_mention.is_empty() {
        let items = question
            .must_mention
            .iter()
            .map(|point| format!("- {point}"));
        parts.push(format!(
            "A good answer mentions:\n\n{}",
            items.collect::<Vec<_>>().join("\n")
        ));
    }
    if !question.follow_ups.is_empty() {
        let items = question
            .follow_ups
            .iter()
            .map(|one| format!("- *{}* {}", one.question, one.answer));
        parts.push(format!(
            "Asked next:\n\n{}",
            items.collect::<Vec<_>>().join("\n")
        ));
    }
    parts.join("\n\n")
}

/// Puts `before` in front of every link that leads to another page of the book.
pub fn with_links(text: &str, before: &str) -> String {
    let mut told = String::new();
    let mut from = 0;
    for (event, range) in Parser::new_ext(text, source::options()).into_offset_iter() {
        let Event::Start(Tag::Link { dest_url, .. }) = event else {
            continue;
        };
        let place = format!("]({dest_url}");
        if dest_url.starts_with("https://") || range.start < from {
            continue;
        }
        if let Some(index) = text[range.clone()].find(&place) {
            let at = range.start + index + 2;
            told += &text[from..at];
            told += before;
            from = at;
        }
    }
    told + &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_into_the_book_are_changed() {
        let text = "[a](fork.md#run), `[b](c.md)`, [d](https://e.org) and [f](free.md).";
        let told = "[a](../fork.md#run), `[b](c.md)`, [d](https://e.org) and [f](../free.md).";
        assert_eq!(with_links(text, "../"), told);
    }
}
