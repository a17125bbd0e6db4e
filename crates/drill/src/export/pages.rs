//! The book's drill pages: one for each topic, with every answer folded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::markdown;
use crate::bank::Bank;
use crate::bank::question::{Kind, LEVELS, Question, TOPICS};

/// The path from the clone's root.
pub const FOLDER: &str = "book/src/drill";

/// Returns the pages by their file names.
pub fn make(bank: &Bank) -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut rows = String::new();
    for topic in TOPICS {
        let questions = bank.questions.iter();
        let questions: Vec<_> = questions.filter(|one| one.topic == topic).collect();
        if questions.is_empty() {
            continue;
        }
        let proofs = questions.iter().filter(|one| one.has_proof()).count();
        let title = title(bank, topic);
        let count = questions.len();
        rows += &format!("| [{title}]({topic}.md) | {count} | {proofs} |\n");
        let page = page(bank, topic, &title, &questions);
        pages.insert(format!("{topic}.md"), page);
    }
    pages.insert("index.md".to_owned(), index(bank, &rows));
    pages
}

/// Writes the pages, and removes other files from their folder. Returns the number of pages.
///
/// # Errors
/// Returns an error if a file cannot be written or removed.
pub fn write(bank: &Bank, root: &Path) -> Result<usize> {
    let folder = root.join(FOLDER);
    let pages = make(bank);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        for (name, text) in &pages {
            fs::write(folder.join(name), text)?;
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if !pages.contains_key(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    write().with_context(|| format!("{} cannot be updated", folder.display()))?;
    Ok(pages.len())
}

/// Returns the title of the topic's page, or the topic's name if it has no page.
fn title(bank: &Bank, topic: &str) -> String {
    let page = format!("{topic}.md");
    let title = bank.book.title(&page);
    if title != topic {
        return title.to_owned();
    }
    let name = topic.replace('-', " ");
    let mut letters = name.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn index(bank: &Bank, rows: &str) -> String {
    let questions = bank.questions.iter();
    let proofs = questions.clone().filter(|one| one.has_proof()).count();
    let all = bank.questions.len();
    let levels = (1..).zip(LEVELS).map(|(number, level)| {
        let count = questions.clone().filter(|one| one.level == number).count();
        format!("| {number} | {level} | {count} |\n")
    });
    let levels: String = levels.collect();
    format!(
        "# The drill

<!-- `cargo run -- drill pages` writes these pages from book/questions: edit the questions, not the pages. -->

{all} questions. {proofs} of them have a proof: a program that shows the answer on your machine. On these pages every \
answer is folded. The drill asks each question when you are about to forget its answer:

```text
cargo run -- drill                          what is due, and a few new ones
cargo run -- drill --interview 2027-01-15   new questions spread over the days until then
cargo run -- drill cram                     the weakest and most asked questions first
cargo run -- drill mock -n 5 --minutes 20   a mock interview, aloud, with a scorecard
cargo run -- drill prove ID                 prove an answer on your machine
cargo run -- drill stats                    your progress
cargo run -- drill export --apkg FILE.apkg  a deck for Anki, also on a phone
```

| Topic | Questions | With a proof |
| --- | ---: | ---: |
{rows}
| Level | Who | Questions |
| --- | --- | ---: |
{levels}"
    )
}

fn page(bank: &Bank, topic: &str, title: &str, questions: &[&Question]) -> String {
    let mut text = format!(
        "# Drill: {title}

<!-- `cargo run -- drill pages` writes this page from book/questions/{topic}: edit the questions, not the page. -->

Answer each question before you unfold its answer, aloud if you can. `cargo run -- drill --topic \
{topic}` asks them when they are due.
"
    );
    for question in questions {
        text += &format!("\n{}", card(bank, question));
    }
    text
}

fn card(bank: &Bank, question: &Question) -> String {
    let exercise_link = |name: &str| {
        let page = bank.book.exercises.get(name).map_or("", |page| page);
        format!("[{name}](../{page})")
    };
    let mut about = format!("{} · level {}", question.type_name(), question.level);
    if let Some(needs) = &question.needs {
        about += &format!(" · needs {}", exercise_link(needs));
    }
    if let Some(claim) = question.claim {
        about += &format!(" · corrects [claim {claim}](../errata.md)");
    }
    let title = bank.book.title(&question.page);
    let mut links = vec![format!("Page: [{title}](../{})", question.lesson())];
    if question.has_proof() {
        links.push(format!("proof: `cargo run -- drill prove {}`", question.id));
    }
    if let Some(exercise) = &question.exercise {
        links.push(format!("exercise: {}", exercise_link(exercise)));
    }
    let prompt = markdown::prompt(question, listing);
    let prompt = markdown::with_link_prefix(&prompt, "../");
    let answer = markdown::answer(question, |language| format!("{language},ignore"));
    let answer = markdown::with_link_prefix(&answer, "../");
    let (id, links) = (&question.id, links.join("; "));
    format!(
        "## {id}\n\n*{about}*\n\n{prompt}\n\n<details><summary>Answer</summary>\n\n{answer}\n\n{links}.\n\n</details>\n"
    )
}

fn listing(question: &Question) -> String {
    let info = match question.kind {
        // The line numbers are not Rust.
        Kind::Bug { .. } => "text",
        _ => "rust,ignore",
    };
    let lines = markdown::listing_lines(question).join("\n");
    format!("```{info}\n{lines}\n```")
}
