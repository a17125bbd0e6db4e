//! mdBook's preprocessors: every page with its elements, or the faults of all pages at once; listings without a margin.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use mdbook_preprocessor::book::{Book, BookItem};
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};

use crate::elements::Elements;
use crate::exercise;
use crate::listings;

/// The preprocessor `workbook` of book.toml.
#[derive(Debug)]
pub struct Workbook;

impl Preprocessor for Workbook {
    fn name(&self) -> &str {
        "workbook"
    }

    fn run(&self, context: &PreprocessorContext, mut book: Book) -> Result<Book> {
        let root = context.root.canonicalize()?;
        let clone = root.parent().unwrap_or(&root);
        let pages = root.join(&context.config.book.src);
        let mut elements = Elements::new(exercise::all(clone)?, &pages.join("traces"));
        book.for_each_mut(|item| {
            let BookItem::Chapter(chapter) = item else {
                return;
            };
            if let Some(source) = &chapter.source_path {
                let file = shown(&pages.join(source), clone);
                chapter.content = elements.page(&file, &chapter.content);
            }
        });
        if elements.faults.is_empty() {
            return Ok(book);
        }
        let faults: Vec<_> = elements.faults.iter().map(ToString::to_string).collect();
        bail!("{}", faults.join("\n"));
    }

    fn supports_renderer(&self, renderer: &str) -> Result<bool> {
        Ok(renderer == "html")
    }
}

/// The preprocessor `listings` of book.toml.
#[derive(Debug)]
pub struct Listings;

impl Preprocessor for Listings {
    fn name(&self) -> &str {
        "listings"
    }

    fn run(&self, _: &PreprocessorContext, mut book: Book) -> Result<Book> {
        book.for_each_mut(|item| {
            if let BookItem::Chapter(chapter) = item {
                chapter.content = listings::page(&chapter.content);
            }
        });
        Ok(book)
    }

    fn supports_renderer(&self, renderer: &str) -> Result<bool> {
        Workbook.supports_renderer(renderer)
    }
}

/// As a person in the clone would name it.
fn shown(file: &Path, clone: &Path) -> PathBuf {
    file.strip_prefix(clone).unwrap_or(file).to_owned()
}

/// Speaks mdBook's protocol on standard input and output.
///
/// # Errors
/// If an element is wrong, or mdBook sends no book.
pub fn speak(preprocessor: &dyn Preprocessor) -> Result<()> {
    let (context, book) = mdbook_preprocessor::parse_input(io::stdin().lock())?;
    let book = preprocessor.run(&context, book)?;
    serde_json::to_writer(io::stdout().lock(), &book)?;
    Ok(())
}
