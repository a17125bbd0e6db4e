//! The events of a session: a save, a typed line, the end of a grading, news of the book, quitting.

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
use course::root;
use notify::{EventKind, RecursiveMode, Watcher};

use super::book::News;
use crate::grade::verdicts::Verdicts;

/// An editor may write a file in several steps. Steps within this time are one save.
///
/// `notify-debouncer-full` does the same, but it also waits for its own tick, so a save would be graded up to 5 ms
/// later. Here, the channel that all events share has the timeout.
const SAME_SAVE: Duration = Duration::from_millis(20);

/// The interval at which files are polled.
const POLL: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub enum Event {
    /// These files were saved.
    Saved(Vec<PathBuf>),
    /// The learner typed a line.
    Typed(String),
    /// The learner closed the input or the terminal, or pressed Ctrl-C.
    Left,
    /// The grading with that number has ended.
    Graded(u64, Result<Verdicts>),
    Book(News),
}

/// The events in their order. The steps of one save are merged.
pub struct Events {
    receiver: Receiver<Event>,
    /// An event that arrived while the steps of a save were merged.
    next: Option<Event>,
}

impl Events {
    pub fn of(receiver: Receiver<Event>) -> Events {
        Events {
            receiver,
            next: None,
        }
    }

    /// Waits for the next event. Returns `None` once no sender is left.
    pub fn next(&mut self) -> Option<Event> {
        let first = match self.next.take() {
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
                    self.next = Some(other);
                    break;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Some(Event::Saved(paths))
    }
}

/// Sends an event for each saved answer, as long as the returned watcher lives.
///
/// # Errors
/// Returns an error if the exercises cannot be watched.
pub fn watch_files(root: &Path, poll: bool, sender: Sender<Event>) -> Result<Box<dyn Watcher>> {
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        let mut paths = event.paths;
        paths.retain(|path| is_answer(path));
        if !paths.is_empty() {
            let _ = sender.send(Event::Saved(paths));
        }
    };
    let config = notify::Config::default().with_poll_interval(POLL);
    let exercises = root.join("exercises");
    if !poll && !root::is_on_a_network(root) {
        let mut watcher = notify::RecommendedWatcher::new(handler.clone(), config)?;
        // Fails if the user's limit of inotify watches is reached.
        if watcher.watch(&exercises, RecursiveMode::Recursive).is_ok() {
            return Ok(Box::new(watcher));
        }
    }
    let mut watcher = notify::PollWatcher::new(handler, config)?;
    watcher
        .watch(&exercises, RecursiveMode::Recursive)
        .context("the folder exercises/ cannot be watched")?;
    Ok(Box::new(watcher))
}

/// Returns whether the file is `src/lib.rs` or another source of an answer. Hidden files belong to editors, such as the
/// lock `.#lib.rs` of Emacs; what is below `tests/` belongs to the grader.
fn is_answer(path: &Path) -> bool {
    let is_hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_in_src = path.components().any(|part| part.as_os_str() == "src");
    path.extension() == Some(OsStr::new("rs")) && is_in_src && !is_hidden
}

/// Sends an event for each typed line, at the end of the input, on Ctrl-C, and when the terminal is closed.
///
/// # Errors
/// Returns an error if the signal handler cannot be installed.
pub fn listen(sender: Sender<Event>) -> Result<()> {
    let left = sender.clone();
    ctrlc::set_handler(move || {
        let _ = left.send(Event::Left);
    })?;
    if is_char_device(io::stdin().as_fd()) && !io::stdin().is_terminal() {
        // End of file on /dev/null does not mean that the learner has quit.
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

fn is_char_device(file: BorrowedFd) -> bool {
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

    /// Otherwise Ctrl-C right after a save would do nothing.
    #[test]
    fn an_event_right_after_a_save_is_not_lost() {
        let typed = Event::Typed("q".to_owned());
        let events = all([
            saved("a.rs"),
            typed,
            saved("a.rs"),
            Event::Book(News::Built(1, 2)),
            Event::Left,
        ]);
        let expected = [
            r#"Saved(["a.rs"])"#,
            r#"Typed("q")"#,
            r#"Saved(["a.rs"])"#,
            "Book(Built(1, 2))",
            "Left",
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn only_sources_of_an_answer_count() {
        assert!(is_answer(Path::new("exercises/private-alloc/src/lib.rs")));
        for other in [
            "src/.#lib.rs",
            "src/.lib.rs.swp",
            "src/lib.rs~",
            "src/4913",
            "exercises/private-alloc/stub.rs",
            "exercises/private-alloc/tests/grader/main.rs",
        ] {
            assert!(!is_answer(Path::new(other)), "{other}");
        }
    }
}
