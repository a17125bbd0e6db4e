//! The two preprocessors of book.toml, for a build in this process.

use anyhow::Result;
use mdbook_preprocessor::book::{Book, BookItem, Chapter};
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};

/// Replaces the fences of elements, or reports the errors of all pages together.
#[derive(Debug)]
pub struct Workbook;

impl Preprocessor for Workbook {
    fn name(&self) -> &str {
        "workbook"
    }

    fn run(&self, context: &PreprocessorContext, mut book: Book) -> Result<Book> {
        let mut elements = preprocessor::Book::new(&context.root, &context.config.book.src)?;
        each_chapter(&mut book, |chapter| {
            if let Some(source) = &chapter.source_path {
                chapter.content = elements.page(source, &chapter.content);
            }
        });
        elements.end()?;
        Ok(book)
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
        each_chapter(&mut book, |chapter| {
            chapter.content = preprocessor::listings::page(&chapter.content);
        });
        Ok(book)
    }
}

fn each_chapter(book: &mut Book, mut process: impl FnMut(&mut Chapter)) {
    book.for_each_mut(|item| {
        if let BookItem::Chapter(chapter) = item {
            process(chapter);
        }
    });
}
