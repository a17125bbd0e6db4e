//! Calls back when something that the book is made of has changed, and has been left alone for a moment.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// An editor writes a file in several steps.
const CALM: Duration = Duration::from_millis(150);

/// Watches for as long as the result lives.
pub fn watch(clone: &Path, changed: impl Fn() + Send + 'static) -> Result<RecommendedWatcher> {
    let clone = clone.canonicalize()?;
    let (sender, events) = mpsc::channel();
    let root = clone.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        // Reading a file is an event, too.
        let written = !matches!(event.kind, EventKind::Access(_));
        if written && event.paths.iter().any(|path| belongs(&root, path)) {
            let _ = sender.send(());
        }
    })?;
    for (folder, mode) in [
        ("book", RecursiveMode::NonRecursive),
        ("book/src", RecursiveMode::Recursive),
        ("book/theme", RecursiveMode::Recursive),
        ("book/lab/examples", RecursiveMode::Recursive),
        ("exercises", RecursiveMode::Recursive),
    ] {
        let folder = clone.join(folder);
        let watched = watcher.watch(&folder, mode);
        watched.with_context(|| folder.display().to_string())?;
    }
    thread::spawn(move || {
        while events.recv().is_ok() {
            while events.recv_timeout(CALM).is_ok() {}
            changed();
        }
    });
    Ok(watcher)
}

/// Whether the book shows it. An answer in an exercise is none of the book's.
fn belongs(clone: &Path, path: &Path) -> bool {
    let Ok(path) = path.strip_prefix(clone) else {
        return false;
    };
    if path.starts_with("exercises") {
        return path.ends_with("README.md") || path.ends_with("Cargo.toml");
    }
    let parts = [
        "book/src",
        "book/theme",
        "book/lab/examples",
        "book/book.toml",
    ];
    parts.iter().any(|part| path.starts_with(part))
}
