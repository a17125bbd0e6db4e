//! Builds the book in this process and treats every warning as an error.

use std::fmt::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use mdbook_driver::MDBook;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::preprocess::{Listings, Workbook};

/// Builds the book in the folder `book` into the folder `into`.
///
/// # Errors
/// Returns an error if mdBook fails or warns, or if an element is wrong.
pub fn build(book: &Path, into: &Path) -> Result<()> {
    let warnings = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let built = tracing::subscriber::with_default(subscriber, || {
        let mut loaded = MDBook::load(book)
            .with_context(|| format!("the book in {} cannot be loaded", book.display()))?;
        loaded.config.build.build_dir = PathBuf::from(into);
        // They replace the commands of the same names in book.toml.
        loaded.with_preprocessor(Workbook);
        loaded.with_preprocessor(Listings);
        loaded.build()
    });
    let warnings = mem::take(&mut *warnings.lock());
    match built {
        Err(error) => Err(error),
        Ok(()) if warnings.is_empty() => Ok(()),
        Ok(()) => bail!("{}", warnings.join("\n")),
    }
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
