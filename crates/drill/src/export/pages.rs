//! The book's drill pages: one per topic, with every answer folded away.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::bank::Bank;
use crate::bank::question::{Kind, LEVELS, Question, TOPICS};
use crate::export::markdown;

/// Where they lie.
pub const FOLDER: &str = "book/src/drill";

/// The pages by their file names.
pub fn make(bank: &Bank) -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut rows = String::new();
    for topic in TOPICS {
        let mine: Vec<_> = bank
            .questions
            .iter()
            .filter(|one| one.topic == topic)
            .collect();
        if mine.is_empty() {
            continue;
        }
        let proofs = mine.iter().filter(|question| question.has_proof()).count();
        let title = title(bank, topic);
        rows += &format!("| [{title}]({topic}.md) | {} | {proofs} |\n", mine.len());
        pages.insert(format!("{topic}.md"), page(bank, topic, &title, &mine));
    }
    pages.insert("index.md".to_owned(), index(bank, &rows));
    pages
}

/// Writes them, and removes what belongs to no topic any more.
///
/// # Errors
/// If that fails.
pub fn write(bank: &Bank, root: &Path) -> Result<usize> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let pages = make(bank);
    for (name, text) in &pages {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if !pages.contains_key(&*entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(pages.len())
}

/// A topic's title: its page's, or its own name where it has no page.
fn title(bank: &Bank, topic: &str) -> String {
    let page = format!("{topic}.md");
    let title = bank.book.title(&page);
    if title != topic {
        return title.to_owned();
    }
    let words = topic.replace('-', " ");
    let mut letters = words.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn index(bank: &Bank, rows: &str) -> String {
    let all = bank.questions.len();
    let proofs = bank
        .questions
        .iter()
        .filter(|question| question.has_proof())
        .count();
    let levels = (1..).zip(LEVELS).map(|(number, level)| {
        let count = bank
            .questions
            .iter()
            .filter(|question| question.level == number)
            .count();
        format!("| {number} | {level} | {count} |\n")
    });
    let levels: String = levels.collect();
    format!(
        "# The drill

<!-- `cargo run -- drill pages` writes these pages from book/questions: change the questions, and not the pages. -->

{all} questions, {proofs} of them with a proof: a program that shows the answer on your machine. The pages fold every \
answer away. To be asked the right question at the right time, run the drill:

```text
cargo run -- drill                          what is due, and a few new ones
cargo run -- drill --interview 2027-01-15   spread over the days that are left
cargo run -- drill cram                     the weakest and most asked first
cargo run -- drill mock -n 5 --minutes 20   an interview, aloud, with a scorecard
cargo run -- drill prove ID                 see the answer happen
cargo run -- drill stats                    how it stands
cargo run -- drill export --anki FILE.tsv   for Anki
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

<!-- `cargo run -- drill pages` writes this from book/questions/{topic}: change the questions, and not the page. -->

Answer before you unfold, aloud if you can. `cargo run -- drill --topic {topic}` asks these at the right time.
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
        about += &format!(" · a myth: [claim {claim}](../errata.md)");
    }
    let mut places = vec![format!(
        "Page: [{}](../{})",
        bank.book.title(&question.page),
        question.lesson()
    )];
    if question.has_proof() {
        places.push(format!("proof: `cargo run -- drill prove {}`", question.id));
    }
    if let Some(exercise) = &question.exercise {
        places.push(format!("exercise: {}", exercise_link(exercise)));
    }
    let prompt = markdown::with_links(&markdown::prompt(question, listing), "../");
    let answer = markdown::with_links(
        &markdown::answer(question, |language| format!("{language},ignore")),
        "../",
    );
    format!(
        "## {}\n\n*{about}*\n\n{prompt}\n\n<details><summary>Answer</summary>\n\n{answer}\n\n{}.\n\n</details>\n",
        question.id,
        places.join("; ")
    )
}

/// Where a line is asked for, the lines are numbered.
fn listing(question: &Question) -> String {
    let Some(listing) = &question.listing else {
        return String::new();
    };
    if let Kind::Bug { .. } = question.kind {
        let lines = (1..).zip(listing.text.lines());
        let lines: Vec<_> = lines
            .map(|(number, line)| format!("{number:>3}  {line}"))
            .collect();
        let lines = lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>();
        return format!("```text\n{}\n```", lines.join("\n"));
    }
    format!("```rust,ignore\n{}\n```", listing.text)
}
