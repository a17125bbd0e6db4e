//! The two preprocessors of book.toml, for a build in this process.

use anyhow::Result;
use mdbook_preprocessor::book::{Book, BookItem, Chapter};
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};

/// What happens to the folded parts of the pages, `<details>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folds {
    Kept,
    Removed,
}

/// Replaces the fences of elements, or reports the errors of all pages together.
#[derive(Debug)]
pub struct Workbook {
    pub folds: Folds,
}

impl Preprocessor for Workbook {
    fn name(&self) -> &str {
        "workbook"
    }

    fn run(&self, context: &PreprocessorContext, mut book: Book) -> Result<Book> {
        let mut elements = preprocessor::Book::new(&context.root, &context.config.book.src)?;
        each_chapter(&mut book, |chapter| {
            if let Some(source) = &chapter.source_path {
                chapter.content = elements.page(source, &chapter.content);
                if self.folds == Folds::Removed {
                    chapter.content = without_folds(&chapter.content);
                }
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

/// Removes each `<details>` with everything inside it. Folds are not nested.
fn without_folds(page: &str) -> String {
    let mut parts = page.split("<details>");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept += part.split_once("</details>").map_or("", |(_, after)| after);
    }
    kept
}

fn each_chapter(book: &mut Book, mut process: impl FnMut(&mut Chapter)) {
    book.for_each_mut(|item| {
        if let BookItem::Chapter(chapter) = item {
            process(chapter);
        }
    });
}
