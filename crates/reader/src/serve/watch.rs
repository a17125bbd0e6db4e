//! Watches the files that the book is built from.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use course::root;
use notify_debouncer_full::notify::{
    Config, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher,
};
use notify_debouncer_full::{
    DebounceEventResult, DebouncedEvent, Debouncer, NoCache, new_debouncer_opt,
};

/// How long to wait after a change, because an editor saves a file in several steps.
const DELAY: Duration = Duration::from_millis(50);

/// The polling interval if the kernel does not report changes.
const POLL: Duration = Duration::from_millis(500);

/// Watches until it is dropped.
#[expect(dead_code, reason = "the watchers are only kept alive")]
pub enum Watching {
    Kernel(Debouncer<RecommendedWatcher, NoCache>),
    Polling(Debouncer<PollWatcher, NoCache>),
}

/// Calls `changed` each time that a file of the book has changed.
///
/// # Errors
/// Returns an error if a folder of the book cannot be watched.
pub fn watch(clone: &Path, changed: impl Fn() + Clone + Send + 'static) -> Result<Watching> {
    let clone = clone.canonicalize()?;
    if !root::is_on_a_network(&clone) {
        // This fails if the user's limit on inotify watches is reached.
        let watcher = start::<RecommendedWatcher>(&clone, Config::default(), changed.clone());
        if let Ok(watcher) = watcher {
            return Ok(Watching::Kernel(watcher));
        }
    }
    let config = Config::default().with_poll_interval(POLL);
    Ok(Watching::Polling(start(&clone, config, changed)?))
}

fn start<W: Watcher>(
    clone: &Path,
    config: Config,
    changed: impl Fn() + Send + 'static,
) -> Result<Debouncer<W, NoCache>> {
    let root = clone.to_owned();
    let handler = move |result: DebounceEventResult| {
        if result.is_ok_and(|events| events.iter().any(|event| concerns_book(&root, event))) {
            changed();
        }
    };
    // Without a cache of file ids: it is only needed to match the two events of a rename.
    let mut debouncer = new_debouncer_opt::<_, W, _>(DELAY, Some(DELAY), handler, NoCache, config)?;
    for (folder, mode) in [
        ("book", RecursiveMode::NonRecursive),
        ("book/src", RecursiveMode::Recursive),
        ("book/theme", RecursiveMode::Recursive),
        ("book/lab", RecursiveMode::Recursive),
        ("exercises", RecursiveMode::Recursive),
    ] {
        let folder = clone.join(folder);
        let watched = debouncer.watch(&folder, mode);
        watched.with_context(|| format!("{} cannot be watched", folder.display()))?;
    }
    Ok(debouncer)
}

fn concerns_book(clone: &Path, event: &DebouncedEvent) -> bool {
    // Reading a file is an event, too. After an overflow the kernel does not say which files have changed.
    let changed = !matches!(event.kind, EventKind::Access(_));
    event.need_rescan() || changed && event.paths.iter().any(|path| is_in_book(clone, path))
}

/// Returns whether the book shows the file. It does not show the learner's answers.
fn is_in_book(clone: &Path, path: &Path) -> bool {
    let Ok(path) = path.strip_prefix(clone) else {
        return false;
    };
    if path.starts_with("exercises") {
        return path.ends_with("README.md") || path.ends_with("Cargo.toml");
    }
    let parts = ["book/src", "book/theme", "book/lab", "book/book.toml"];
    parts.iter().any(|part| path.starts_with(part))
}
