//! Builds the book in this process: a warning is an error.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use mdbook_driver::MDBook;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as Within, Layer, SubscriberExt};

use crate::preprocess::{Listings, Workbook};

/// Builds the book in folder `book` into folder `into`.
///
/// # Errors
/// If mdBook cannot build it, an element is wrong, or anything is warned of.
pub fn build(book: &Path, into: &Path) -> Result<()> {
    let warnings = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let built = tracing::subscriber::with_default(subscriber, || {
        let mut loaded = MDBook::load(book).context("book.toml")?;
        loaded.config.build.build_dir = PathBuf::from(into);
        // In place of the commands of those names.
        loaded.with_preprocessor(Workbook);
        loaded.with_preprocessor(Listings);
        loaded.build()
    });
    let warnings = std::mem::take(&mut *warnings.lock());
    match built {
        Err(error) => Err(error),
        Ok(()) if warnings.is_empty() => Ok(()),
        Ok(()) => bail!("{}", warnings.join("\n")),
    }
}

/// What mdBook warns of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        let lock = self.0.lock();
        lock.unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event, _: Within<S>) {
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
