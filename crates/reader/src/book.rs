//! Builds the book in this process and treats every warning as an error.

use std::fmt::{self, Write};
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use mdbook_driver::MDBook;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::preprocess::{Folds, Listings, Workbook};

/// Builds the book in the folder `book` into the folder `into`.
///
/// The book is built twice, because mdBook can exclude only whole pages from the search. The index comes from a build
/// without the folded parts of the pages, which are the answers.
///
/// # Errors
/// Returns an error if mdBook fails or warns, or if an element is wrong.
pub fn build(book: &Path, into: &Path) -> Result<()> {
    let warnings = render(book, into, Folds::Kept)?;
    if !warnings.is_empty() {
        bail!("{}", warnings.join("\n"));
    }
    let without = tempfile::tempdir()?;
    // mdBook warns of footnotes that only the removed parts refer to.
    render(book, without.path(), Folds::Removed)?;
    fs::copy(search_index(without.path())?, search_index(into)?)?;
    Ok(())
}

/// Returns mdBook's warnings.
fn render(book: &Path, into: &Path, folds: Folds) -> Result<Vec<String>> {
    let warnings = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    tracing::subscriber::with_default(subscriber, || {
        let mut loaded = MDBook::load(book)
            .with_context(|| format!("the book in {} cannot be loaded", book.display()))?;
        loaded.config.build.build_dir = PathBuf::from(into);
        loaded.config.set("output.html.search.enable", true)?;
        // They replace the commands of the same names in book.toml.
        loaded.with_preprocessor(Workbook { folds });
        loaded.with_preprocessor(Listings);
        loaded.build()
    })?;
    Ok(mem::take(&mut *warnings.lock()))
}

/// Returns the index in a built book. Its name contains a hash.
fn search_index(built: &Path) -> Result<PathBuf> {
    let paths = fs::read_dir(built)?.map(|entry| Ok(entry?.path()));
    let paths = paths.collect::<Result<Vec<_>>>()?;
    let is_index = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("searchindex") && name.ends_with(".js")
    };
    let index = paths.into_iter().find(is_index);
    index.context("mdBook has built no search index")
}

/// Collects mdBook's warnings and errors.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event, _: Context<S>) {
        if *event.metadata().level() <= Level::WARN {
            let mut message = Message(String::new());
            event.record(&mut message);
            self.lock().push(message.0);
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
