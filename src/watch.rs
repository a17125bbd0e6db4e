//! `workbook watch`: grades what is saved, as it is saved, and takes short commands between.

use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anstream::{eprint, eprintln, println};
use anyhow::{Context, Result};
use notify::{EventKind, RecursiveMode, Watcher};

use crate::exercise::Exercise;
use crate::words::{FAINT, STRONG, styled};
use crate::{hint, list, read, reset, root, solution, state};

/// How to watch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Look at the files again and again, where the kernel does not tell of changes.
    pub poll: bool,
    /// Serve the book meanwhile.
    pub read: bool,
}

/// An editor may write a file in several steps: what follows within this time is the same save.
const SAME_SAVE: Duration = Duration::from_millis(20);

/// How often to look where changes must be looked for.
const POLL: Duration = Duration::from_millis(300);

/// What can happen while it watches.
enum Event {
    /// This file was saved.
    Saved(PathBuf),
    /// The reader typed a line.
    Typed(String),
    /// The reader closed the input, or pressed Ctrl-C.
    Left,
    /// The run with that number has ended, with that status.
    Graded(u64, Option<i32>),
}

/// Grades the first exercise that is not solved, and then whatever is saved, until the reader leaves.
///
/// # Errors
/// If the exercises cannot be read or watched.
pub fn run(root: &Path, options: Options) -> Result<ExitCode> {
    let (sender, events) = mpsc::channel();
    let _watcher = watch_files(root, options, sender.clone())?;
    listen(sender.clone())?;
    let mut session = Session::begin(root, sender, options.read)?;
    session.grade();
    session.follow(&events)
}

/// Tells of each save of an answer, for as long as what it returns is kept.
fn watch_files(root: &Path, options: Options, sender: Sender<Event>) -> Result<Box<dyn Watcher>> {
    let handler = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in event.paths {
            if path.extension().is_some_and(|ending| ending == "rs") {
                let _ = sender.send(Event::Saved(path));
            }
        }
    };
    let config = notify::Config::default().with_poll_interval(POLL);
    let exercises = root.join("exercises");
    if !options.poll && !root::is_on_a_network(root) {
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

/// Tells of each line that is typed, of the input's end, and of Ctrl-C.
fn listen(sender: Sender<Event>) -> Result<()> {
    let left = sender.clone();
    ctrlc::set_handler(move || {
        let _ = left.send(Event::Left);
    })?;
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(Event::Typed(line));
        }
        let _ = sender.send(Event::Left);
    });
    Ok(())
}

/// A grading that runs in a process of its own, so that it can be ended.
struct Run {
    number: u64,
    process: u32,
}

struct Session<'a> {
    root: &'a Path,
    exercises: Vec<Exercise>,
    /// The exercise that is worked on.
    current: usize,
    run: Option<Run>,
    runs: u64,
    /// The first failure of the last run, and how many runs in a row have had it.
    failure: Option<(String, u32)>,
    /// Whether the book is still to be served: the first verdict comes first.
    to_read: bool,
    reader: Option<Child>,
    sender: Sender<Event>,
}

impl<'a> Session<'a> {
    fn begin(root: &'a Path, sender: Sender<Event>, to_read: bool) -> Result<Session<'a>> {
        println!(
            "{}",
            styled(STRONG, "Save an exercise, and it is graded. ? for help.")
        );
        Ok(Session {
            root,
            exercises: Exercise::all(root)?,
            current: 0,
            run: None,
            runs: 0,
            failure: None,
            to_read,
            reader: None,
            sender,
        })
    }

    fn exercise(&self) -> &Exercise {
        &self.exercises[self.current]
    }

    /// What happens, until the reader leaves.
    fn follow(&mut self, events: &Receiver<Event>) -> Result<ExitCode> {
        for event in events {
            match event {
                Event::Saved(path) => {
                    let mut saved = vec![path];
                    while let Ok(Event::Saved(path)) = events.recv_timeout(SAME_SAVE) {
                        saved.push(path);
                    }
                    self.saved(&saved);
                }
                Event::Typed(line) => {
                    if self.typed(line.trim()) {
                        break;
                    }
                }
                Event::Graded(number, status) => self.graded(number, status),
                Event::Left => break,
            }
        }
        self.stop();
        if let Some(mut reader) = self.reader.take() {
            kill_group(reader.id());
            let _ = reader.wait();
        }
        println!("Your answers are as you saved them. Go on with cargo run.");
        Ok(ExitCode::SUCCESS)
    }

    fn saved(&mut self, paths: &[PathBuf]) {
        let exercise_of = |path: &PathBuf| {
            let mut exercises = self.exercises.iter();
            exercises.position(|exercise| path.starts_with(exercise.folder()))
        };
        if let Some(exercise) = paths.iter().rev().find_map(exercise_of) {
            if exercise != self.current {
                self.current = exercise;
                self.failure = None;
            }
            self.grade();
        }
    }

    /// Grades the current exercise; a run that is under way would be of an older save, and is ended.
    fn grade(&mut self) {
        self.stop();
        self.runs += 1;
        let number = self.runs;
        match self.start() {
            Ok(mut child) => {
                self.run = Some(Run {
                    number,
                    process: child.id(),
                });
                let sender = self.sender.clone();
                thread::spawn(move || {
                    let status = child.wait().ok().and_then(|status| status.code());
                    let _ = sender.send(Event::Graded(number, status));
                });
            }
            Err(error) => eprintln!("The grading cannot be started: {error:#}."),
        }
    }

    fn start(&self) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["grade", &self.exercise().name, "--failure"])
            .arg(self.failure_file())
            .env("WORKBOOK_ROOT", self.root)
            .stdin(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command.spawn()?)
    }

    fn failure_file(&self) -> PathBuf {
        state::home(self.root).join("failure")
    }

    /// Ends the run that is under way, with all that it has started.
    fn stop(&mut self) {
        if let Some(run) = self.run.take() {
            kill_group(run.process);
            if io::stderr().is_terminal() {
                // It may have been counting.
                eprint!("\r\x1b[K");
            }
        }
    }

    fn graded(&mut self, number: u64, status: Option<i32>) {
        // A run that was ended for a newer save says nothing.
        if self.run.as_ref().is_none_or(|run| run.number != number) {
            return;
        }
        self.run = None;
        if std::mem::take(&mut self.to_read) {
            match read::beside(self.root) {
                Ok(reader) => self.reader = Some(reader),
                Err(error) => eprintln!("The book cannot be served: {error:#}."),
            }
        }
        match status {
            Some(0 | 3) => self.solved(),
            _ => self.offer_help(),
        }
    }

    /// Goes on to the first exercise behind this one that is not solved; each is graded to see that.
    fn solved(&mut self) {
        self.failure = None;
        if self.current + 1 < self.exercises.len() {
            self.current += 1;
            self.grade();
        } else {
            println!("{}", styled(STRONG, "That was the last exercise."));
        }
    }

    /// The same failure a second time offers the hint, and a third time the lesson.
    fn offer_help(&mut self) {
        let failure = fs::read_to_string(self.failure_file()).unwrap_or_default();
        if failure.is_empty() {
            self.failure = None;
            return;
        }
        let times = match self.failure.take() {
            Some((before, times)) if before == failure => times + 1,
            _ => 1,
        };
        self.failure = Some((failure, times));
        match times {
            1 => {}
            2 => println!(
                "{}",
                styled(FAINT, "The same as before. Type h for a hint.")
            ),
            _ => {
                let page = &self.exercise().about.page;
                let told =
                    format!("Still the same. Type h for a hint; the lesson is book/src/{page}.");
                println!("{}", styled(FAINT, &told));
            }
        }
    }

    /// Does what was typed. Whether the reader leaves.
    fn typed(&mut self, line: &str) -> bool {
        let name = self.exercise().name.clone();
        let done = match line {
            "" | "again" | "a" => {
                self.grade();
                Ok(())
            }
            "hint" | "h" => hint::run(self.root, &name, None, None),
            "list" | "l" => list::run(self.root),
            "next" | "n" => {
                self.current = (self.current + 1) % self.exercises.len();
                self.failure = None;
                self.grade();
                Ok(())
            }
            "solution" | "s" => solution::run(self.root, &name, false),
            "solution --spoil" => solution::run(self.root, &name, true),
            "reset" => reset::run(self.root, &name),
            "quit" | "q" => return true,
            _ => {
                println!("{HELP}");
                Ok(())
            }
        };
        if let Err(error) = done {
            eprintln!("{error:#}.");
        }
        false
    }
}

/// Ends a process that was started as the first of a group, with all that it has started.
fn kill_group(process: u32) {
    use nix::sys::signal::{Signal, killpg};
    let _ = killpg(nix::unistd::Pid::from_raw(process as i32), Signal::SIGKILL);
}

const HELP: &str = "\
Enter     grade again
h hint    a hint for the first stage that is not solved
n next    another exercise
l list    all exercises
s solution  the difference between your answer and the solution
reset     put the stub back; your file is kept aside
q quit    leave; nothing is lost";
