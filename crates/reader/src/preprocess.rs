//! The two preprocessors of book.toml.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use course::exercise::Exercise;
use mdbook_preprocessor::book::{Book, BookItem};
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};

use crate::elements::Elements;
use crate::listings;

/// Replaces the fences of elements, or reports the errors of all pages together.
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
        let mut elements = Elements::new(Exercise::all(clone)?, &pages.join("traces"));
        book.for_each_mut(|item| {
            let BookItem::Chapter(chapter) = item else {
                return;
            };
            if let Some(source) = &chapter.source_path {
                let file = relative_to(clone, &pages.join(source));
                chapter.content = elements.page(&file, &chapter.content);
            }
        });
        if elements.errors.is_empty() {
            return Ok(book);
        }
        let errors: Vec<_> = elements.errors.iter().map(ToString::to_string).collect();
        bail!("{}", errors.join("\n"));
    }

    fn supports_renderer(&self, renderer: &str) -> Result<bool> {
        Ok(renderer == "html")
    }
}

/// Removes the common indentation of listings.
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

fn relative_to(clone: &Path, file: &Path) -> PathBuf {
    file.strip_prefix(clone).unwrap_or(file).to_owned()
}

/// Reads a book from standard input as mdBook sends it, and writes the processed book to standard output.
///
/// # Errors
/// Returns an error if the input is not a book, if an element is wrong, or if the output cannot be written.
pub fn answer_mdbook(preprocessor: &dyn Preprocessor) -> Result<()> {
    let (context, book) = mdbook_preprocessor::parse_input(io::stdin().lock())?;
    let book = preprocessor.run(&context, book)?;
    serde_json::to_writer(io::stdout().lock(), &book)?;
    Ok(())
}
