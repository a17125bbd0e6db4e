//! `workbook watch`: grades what is saved, as it is saved, and takes short commands between.

mod book;
mod events;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;

use anstream::{eprintln, println};
use anyhow::{Context, Result, ensure};

use crate::exercise::Exercise;
use crate::progress::Progress;
use crate::words::{FAINT, Prompt, STRONG, clear_passing_line, indented, passing_line, styled};
use crate::{hint, list, reset, solution};
use book::{Book, News};
use events::{Event, Events};

/// How to watch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Look at the files again and again, where the kernel does not tell of changes.
    pub poll: bool,
    /// Serve the book meanwhile.
    pub read: bool,
    /// Show the book in the browser.
    pub open: bool,
}

/// Grades the first exercise that is not solved, and then whatever is saved, until the reader leaves.
///
/// # Errors
/// If the exercises cannot be read or watched.
pub fn run(root: &Path, options: Options) -> Result<ExitCode> {
    let (sender, receiver) = mpsc::channel();
    let _watcher = events::watch_files(root, options.poll, sender.clone())?;
    events::listen(sender.clone())?;
    let mut session = Session::begin(root, options, sender)?;
    session.grade();
    session.follow(Events::of(receiver));
    Ok(ExitCode::SUCCESS)
}

/// A grading that runs in a process of its own, so that it can be ended.
struct Run {
    number: u64,
    process: u32,
}

struct Session<'a> {
    root: &'a Path,
    options: Options,
    exercises: Vec<Exercise>,
    /// The exercise that is worked on.
    current: usize,
    /// The exercises that are solved: who goes on with such a one is not led away from it.
    solved: BTreeSet<usize>,
    /// The exercises whose dependencies are built: cargo's progress is news only before.
    built: BTreeSet<usize>,
    run: Option<Run>,
    runs: u64,
    /// The first failure of the last run, and how many runs in a row have had it.
    failure: Option<(String, u32)>,
    /// Where a run writes its first failure: two sessions at once have a file each.
    failure_file: tempfile::NamedTempFile,
    /// The first verdict comes first, then the book is built.
    book: Option<Book>,
    /// Where it is served.
    address: Option<String>,
    sender: Sender<Event>,
}

impl<'a> Session<'a> {
    fn begin(root: &'a Path, options: Options, sender: Sender<Event>) -> Result<Session<'a>> {
        let exercises = Exercise::all(root)?;
        ensure!(!exercises.is_empty(), "there is no exercise");
        let progress = Progress::read(root)?;
        let all = 0..exercises.len();
        let solved: BTreeSet<usize> = all
            .clone()
            .filter(|index| is_solved(&exercises[*index], &progress))
            .collect();
        let current = all.clone().find(|index| !solved.contains(index));
        println!(
            "{}",
            styled(STRONG, "Save an exercise, and it is graded. ? for help.")
        );
        Ok(Session {
            root,
            options,
            current: current.unwrap_or(exercises.len() - 1),
            exercises,
            solved,
            built: BTreeSet::new(),
            run: None,
            runs: 0,
            failure: None,
            failure_file: tempfile::NamedTempFile::new().context("no room for a passing file")?,
            book: None,
            address: None,
            sender,
        })
    }

    fn exercise(&self) -> &Exercise {
        &self.exercises[self.current]
    }

    /// What happens, until the reader leaves.
    fn follow(&mut self, mut events: Events) {
        while let Some(event) = events.next() {
            match event {
                Event::Saved(paths) => self.saved(&paths),
                Event::Typed(line) => {
                    clear_passing_line();
                    if self.typed(line.trim()) {
                        break;
                    }
                }
                Event::Graded(number, status) => self.graded(number, status),
                Event::Book(news) => self.tell_of_book(news),
                Event::Left => break,
            }
        }
        self.stop();
        // Ends its server.
        drop(self.book.take());
        println!("Your answers are as you saved them. Go on with cargo run.");
    }

    fn saved(&mut self, paths: &[PathBuf]) {
        let exercise_of = |path: &PathBuf| {
            let mut exercises = self.exercises.iter();
            exercises.position(|exercise| path.starts_with(exercise.folder()))
        };
        if let Some(exercise) = paths.iter().rev().find_map(exercise_of) {
            self.turn_to(exercise);
            self.grade();
        }
    }

    fn turn_to(&mut self, exercise: usize) {
        if exercise != self.current {
            self.current = exercise;
            self.failure = None;
        }
    }

    /// Grades the current exercise; a run that is under way would be of an older save, and is ended.
    fn grade(&mut self) {
        self.stop();
        clear_passing_line();
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

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["grade", &self.exercise().name, "--failure"])
            .arg(self.failure_file.path())
            .env("WORKBOOK_ROOT", self.root)
            .stdin(Stdio::null());
        if self.built.contains(&self.current) {
            command.arg("--quiet");
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn()
    }

    /// Ends the run that is under way, with all that it has started.
    fn stop(&mut self) {
        if let Some(run) = self.run.take() {
            kill_group(run.process);
            // It may have been counting.
            clear_passing_line();
        }
    }

    fn graded(&mut self, number: u64, status: Option<i32>) {
        // A run that was ended for a newer save says nothing.
        if self.run.as_ref().is_none_or(|run| run.number != number) {
            return;
        }
        self.run = None;
        if self.options.read && self.book.is_none() {
            let sender = self.sender.clone();
            self.book = Some(Book::start(self.root, self.options.open, move |news| {
                let _ = sender.send(Event::Book(news));
            }));
        }
        if let Some(0 | 1 | 3) = status {
            self.built.insert(self.current);
        }
        match status {
            Some(0 | 3) => self.solved(),
            Some(1) => self.offer_help(),
            // It was not graded, and has said why.
            _ => self.tell("Save it again when that is mended."),
        }
    }

    /// The first time, goes on to the next exercise that is not solved; that is graded to show where it begins.
    fn solved(&mut self) {
        self.failure = None;
        let is_news = self.solved.insert(self.current);
        let count = self.exercises.len();
        let mut others = (1..count).map(|steps| (self.current + steps) % count);
        match others.find(|index| !self.solved.contains(index)) {
            Some(next) if is_news => {
                self.turn_to(next);
                self.grade();
            }
            Some(_) => self.tell("Type n for the next exercise."),
            None if is_news => println!("{}", styled(STRONG, "That was the last exercise.")),
            None => {}
        }
    }

    /// The same failure a second time offers the hint, and a third time the lesson.
    fn offer_help(&mut self) {
        self.solved.remove(&self.current);
        let failure = fs::read_to_string(self.failure_file.path()).unwrap_or_default();
        if failure.is_empty() {
            // Nothing is wrong: it has said what comes next.
            self.failure = None;
            return;
        }
        let times = match self.failure.take() {
            Some((before, times)) if before == failure => times + 1,
            _ => 1,
        };
        self.tell(&self.help_with(&failure, times));
        self.failure = Some((failure, times));
    }

    /// What helps with a failure that has been seen so many times in a row.
    fn help_with(&self, failure: &str, times: u32) -> String {
        match times {
            1 => {
                // It may stand many lines above.
                let (case, _) = failure.split_once(": ").unwrap_or((failure, ""));
                format!("Mend {case} first and save, or type h for a hint.")
            }
            2 => "The same as before. Type h for a hint.".to_owned(),
            _ => {
                let page = &self.exercise().about.page;
                let lesson = match &self.address {
                    Some(address) => format!("{address}/{}", page.replace(".md", ".html")),
                    None => format!("book/src/{page}"),
                };
                format!("Still the same. The lesson is {lesson}; type h for a hint.")
            }
        }
    }

    /// What can be done next.
    fn tell(&self, what: &str) {
        println!("{}", styled(FAINT, &indented(0, what)));
    }

    fn tell_of_book(&mut self, news: News) {
        match news {
            // The line would stand among the verdicts.
            News::Built(_, _) if self.run.is_some() => {}
            News::Built(done, of) => {
                passing_line(&format!("The book's server: {done} of {of} built"));
            }
            News::Served(address) => {
                clear_passing_line();
                println!("The book, with your verdicts on its pages: {address}");
                self.address = Some(address);
            }
            News::Said(line) => {
                clear_passing_line();
                eprintln!("{line}");
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
            "hint" | "h" => hint::run(self.root, Some(&name), None, None, Prompt::Watch),
            "list" | "l" => list::run(self.root),
            "next" | "n" => {
                self.turn_to((self.current + 1) % self.exercises.len());
                self.grade();
                Ok(())
            }
            "solution" | "s" => solution::run(self.root, &name, false, Prompt::Watch),
            "solution --spoil" | "s --spoil" => {
                solution::run(self.root, &name, true, Prompt::Watch)
            }
            "reset" => reset::run(self.root, &name),
            "quit" | "q" => return true,
            "?" | "help" => {
                println!("{HELP}");
                Ok(())
            }
            other => {
                println!("There is no {other}. What there is:\n{HELP}");
                Ok(())
            }
        };
        if let Err(error) = done {
            eprintln!("{error:#}.");
        }
        false
    }
}

/// Whether the answer is as it was when its core passed.
fn is_solved(exercise: &Exercise, progress: &Progress) -> bool {
    let graded = progress.last_graded(&exercise.name);
    let Some(graded) = graded.filter(|graded| graded.solved) else {
        return false;
    };
    let changed = fs::metadata(exercise.answer())
        .and_then(|about| about.modified())
        .ok();
    let changed = changed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    changed.is_some_and(|time| time.as_secs() as i64 <= graded.at)
}

/// Ends a process that was started as the first of a group, with all that it has started.
fn kill_group(process: u32) {
    use nix::sys::signal::{Signal, killpg};
    let _ = killpg(nix::unistd::Pid::from_raw(process as i32), Signal::SIGKILL);
}

const HELP: &str = "\
Enter       grade again
h hint      a hint: a nudge first, each time a little more
n next      another exercise
l list      all exercises, and what is solved
s solution  how your answer differs from the solution
reset       put the stub back; your file is kept aside
q quit      leave; nothing is lost";
