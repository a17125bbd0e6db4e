//! Calls back when something that the book is made of has changed, and has been left alone for a moment.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::statfs;
use notify::{Config, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};

/// An editor writes a file in several steps.
const CALM: Duration = Duration::from_millis(50);

/// How often to look where changes must be looked for.
const POLL: Duration = Duration::from_millis(500);

/// Watches for as long as the result lives.
pub fn watch(clone: &Path, changed: impl Fn() + Send + 'static) -> Result<Box<dyn Watcher + Send>> {
    let clone = clone.canonicalize()?;
    let (sender, events) = mpsc::channel();
    let root = clone.clone();
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        // Reading a file is an event, too.
        let written = !matches!(event.kind, EventKind::Access(_));
        if written && event.paths.iter().any(|path| belongs(&root, path)) {
            let _ = sender.send(());
        }
    };
    let told = match is_on_a_network(&clone) {
        true => None,
        // The kernel has a limit on what it tells of, too.
        false => RecommendedWatcher::new(handler.clone(), Config::default())
            .ok()
            .and_then(|mut watcher| watch_folders(&mut watcher, &clone).ok().map(|()| watcher)),
    };
    let watcher: Box<dyn Watcher + Send> = match told {
        Some(watcher) => Box::new(watcher),
        None => {
            let mut watcher =
                PollWatcher::new(handler, Config::default().with_poll_interval(POLL))?;
            watch_folders(&mut watcher, &clone)?;
            Box::new(watcher)
        }
    };
    thread::spawn(move || {
        while events.recv().is_ok() {
            while events.recv_timeout(CALM).is_ok() {}
            changed();
        }
    });
    Ok(watcher)
}

fn watch_folders(watcher: &mut impl Watcher, clone: &Path) -> Result<()> {
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
    Ok(())
}

/// Whether the kernel may not tell of changes there: a network's file system, or a foreign one below WSL's /mnt.
fn is_on_a_network(path: &Path) -> bool {
    const V9FS: i64 = 0x0102_1997;
    const CIFS: i64 = 0xff53_4d42;
    const SMB2: i64 = 0xfe53_4d42;
    let kind = statfs::statfs(path).map(|about| about.filesystem_type().0);
    kind.is_ok_and(|kind| [V9FS, CIFS, SMB2, statfs::NFS_SUPER_MAGIC.0].contains(&kind))
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
