//! What can happen while saves are watched: a save, a typed line, the end of a grading, news of the book, leaving.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use notify::{EventKind, RecursiveMode, Watcher};

use super::book::News;
use crate::root;

/// An editor may write a file in several steps: what follows within this time is the same save.
const SAME_SAVE: Duration = Duration::from_millis(20);

/// How often to look where changes must be looked for.
const POLL: Duration = Duration::from_millis(300);

/// What can happen while it watches.
#[derive(Debug)]
pub enum Event {
    /// These files were saved.
    Saved(Vec<PathBuf>),
    /// The reader typed a line.
    Typed(String),
    /// The reader closed the input or the terminal, or pressed Ctrl-C.
    Left,
    /// The run with that number has ended, with that status.
    Graded(u64, Option<i32>),
    /// The book.
    Book(News),
}

/// The events in their order, where one save is one event.
pub struct Events {
    receiver: Receiver<Event>,
    /// It came while the end of a save was waited for.
    waiting: Option<Event>,
}

impl Events {
    pub fn of(receiver: Receiver<Event>) -> Events {
        Events {
            receiver,
            waiting: None,
        }
    }

    /// Waits for the next one; none where nobody is left who could send any.
    pub fn next(&mut self) -> Option<Event> {
        let first = match self.waiting.take() {
            Some(event) => event,
            None => self.receiver.recv().ok()?,
        };
        let Event::Saved(mut paths) = first else {
            return Some(first);
        };
        loop {
            match self.receiver.recv_timeout(SAME_SAVE) {
                Ok(Event::Saved(more)) => paths.extend(more),
                Ok(other) => {
                    self.waiting = Some(other);
                    break;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Some(Event::Saved(paths))
    }
}

/// Tells of each save of an answer, for as long as what it returns is kept.
pub fn watch_files(root: &Path, poll: bool, sender: Sender<Event>) -> Result<Box<dyn Watcher>> {
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        let mut paths = event.paths;
        paths.retain(|path| is_an_answer(path));
        if !paths.is_empty() {
            let _ = sender.send(Event::Saved(paths));
        }
    };
    let config = notify::Config::default().with_poll_interval(POLL);
    let exercises = root.join("exercises");
    if !poll && !root::is_on_a_network(root) {
        let mut watcher = notify::RecommendedWatcher::new(handler.clone(), config)?;
        if watcher.watch(&exercises, RecursiveMode::Recursive).is_ok() {
            return Ok(Box::new(watcher));
        }
    }
    let mut watcher = notify::PollWatcher::new(handler, config)?;
    watcher
        .watch(&exercises, RecursiveMode::Recursive)
        .context("the exercises cannot be watched")?;
    Ok(Box::new(watcher))
}

/// An editor's own file beside it, such as Emacs's lock `.#lib.rs`, is none.
fn is_an_answer(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    path.extension() == Some(OsStr::new("rs")) && !hidden
}

/// Tells of each line that is typed, of the input's end, of Ctrl-C, and of the terminal's end.
pub fn listen(sender: Sender<Event>) -> Result<()> {
    let left = sender.clone();
    ctrlc::set_handler(move || {
        let _ = left.send(Event::Left);
    })?;
    if is_a_device(io::stdin().as_fd()) && !io::stdin().is_terminal() {
        // Nobody can type at /dev/null, and nobody has left.
        return Ok(());
    }
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(Event::Typed(line));
        }
        let _ = sender.send(Event::Left);
    });
    Ok(())
}

fn is_a_device(file: BorrowedFd) -> bool {
    let file = file.try_clone_to_owned().map(File::from);
    let about = file.and_then(|file| file.metadata());
    about.is_ok_and(|about| about.file_type().is_char_device())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn saved(path: &str) -> Event {
        Event::Saved(vec![PathBuf::from(path)])
    }

    fn all(sent: impl IntoIterator<Item = Event>) -> Vec<String> {
        let (sender, receiver) = mpsc::channel();
        for event in sent {
            sender.send(event).expect("a receiver");
        }
        drop(sender);
        let mut events = Events::of(receiver);
        let events = std::iter::from_fn(|| events.next());
        events.map(|event| format!("{event:?}")).collect()
    }

    #[test]
    fn the_steps_of_a_save_are_one_event() {
        let events = all([saved("a.rs"), saved("b.rs")]);
        assert_eq!(events, [r#"Saved(["a.rs", "b.rs"])"#]);
    }

    /// It would have been lost, and the reader have pressed Ctrl-C for nothing.
    #[test]
    fn what_comes_right_after_a_save_is_not_lost() {
        let typed = Event::Typed("q".to_owned());
        let events = all([
            saved("a.rs"),
            typed,
            saved("a.rs"),
            Event::Graded(1, None),
            Event::Left,
        ]);
        let expected = [
            r#"Saved(["a.rs"])"#,
            r#"Typed("q")"#,
            r#"Saved(["a.rs"])"#,
            "Graded(1, None)",
            "Left",
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn an_editors_own_files_are_no_answers() {
        assert!(is_an_answer(Path::new(
            "exercises/private-alloc/src/lib.rs"
        )));
        for other in ["src/.#lib.rs", "src/.lib.rs.swp", "src/lib.rs~", "src/4913"] {
            assert!(!is_an_answer(Path::new(other)), "{other}");
        }
    }
}
