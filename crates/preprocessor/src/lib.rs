//! What the book's mdBook preprocessors do with its pages.

pub mod elements;
pub mod listings;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use course::exercise::Exercise;

use elements::Elements;

/// The elements of a whole book, which are replaced page by page.
#[derive(Debug)]
pub struct Book {
    clone: PathBuf,
    pages: PathBuf,
    elements: Elements,
}

impl Book {
    /// `root` is the book's folder in a clone, and `source` the folder of its pages in there.
    ///
    /// # Errors
    /// Returns an error if the clone's exercises cannot be read.
    pub fn new(root: &Path, source: &Path) -> Result<Book> {
        let root = root.canonicalize()?;
        let clone = root.parent().unwrap_or(&root);
        let pages = root.join(source);
        Ok(Book {
            elements: Elements::new(Exercise::all(clone)?, &pages.join("traces")),
            clone: clone.to_owned(),
            pages,
        })
    }

    /// Returns the text of the page `source` with its elements.
    pub fn page(&mut self, source: &Path, text: &str) -> String {
        let file = self.pages.join(source);
        let file = file.strip_prefix(&self.clone).unwrap_or(&file);
        self.elements.page(file, text)
    }

    /// # Errors
    /// Returns the errors of all pages together.
    pub fn end(self) -> Result<()> {
        if self.elements.errors.is_empty() {
            return Ok(());
        }
        let errors = self.elements.errors.iter().map(ToString::to_string);
        bail!("{}", errors.collect::<Vec<_>>().join("\n"));
    }
}
