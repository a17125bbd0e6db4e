//! The mdBook preprocessors of book.toml: `preprocessor workbook` and `preprocessor listings`.
//!
//! mdBook asks `NAME supports RENDERER`. Then it sends the book as JSON, `[context, book]`, and reads the processed book.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use preprocessor::{Book, listings};
use serde_json::Value;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode> {
    let process = match arguments {
        ["workbook", ..] => workbook,
        ["listings", ..] => listings,
        _ => bail!("expected `workbook` or `listings`"),
    };
    match arguments[1..] {
        [] => {
            let (context, mut book): (Value, Value) =
                serde_json::from_reader(io::stdin().lock())
                    .context("standard input is not a book of mdBook")?;
            process(&context, &mut book)?;
            serde_json::to_writer(io::stdout().lock(), &book)?;
            Ok(ExitCode::SUCCESS)
        }
        ["supports", renderer] => Ok(ExitCode::from(u8::from(renderer != "html"))),
        _ => bail!("expected no further arguments, or `supports RENDERER`"),
    }
}

/// Replaces the fences of elements.
fn workbook(context: &Value, book: &mut Value) -> Result<()> {
    let root = context["root"].as_str().context("there is no root")?;
    let source = context["config"]["book"]["src"].as_str();
    let mut processed = Book::new(Path::new(root), Path::new(source.unwrap_or("src")))?;
    each_chapter(book, "items", &mut |chapter| {
        if let Some(source) = chapter["source_path"].as_str() {
            let text = chapter["content"].as_str().unwrap_or_default();
            chapter["content"] = processed.page(Path::new(source), text).into();
        }
    })?;
    processed.end()
}

/// Removes the common indentation of listings.
fn listings(_: &Value, book: &mut Value) -> Result<()> {
    each_chapter(book, "items", &mut |chapter| {
        let text = chapter["content"].as_str().unwrap_or_default();
        chapter["content"] = listings::page(text).into();
    })
}

/// Calls `process` for each chapter in the list `key` of `parent`, and for the chapters inside it.
fn each_chapter(parent: &mut Value, key: &str, process: &mut impl FnMut(&mut Value)) -> Result<()> {
    let items = parent.get_mut(key).and_then(Value::as_array_mut);
    let items = items.with_context(|| format!("the book has no {key}; mdBook 0.5 is needed"))?;
    for item in items {
        if let Some(chapter) = item.get_mut("Chapter") {
            process(chapter);
            each_chapter(chapter, "sub_items", process)?;
        }
    }
    Ok(())
}
