//! `workbook watch`: grades each saved exercise, and takes short commands between gradings.

mod book;
mod events;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::UNIX_EPOCH;

use anyhow::{Result, ensure};
use course::exercise::Exercise;

use crate::commands::{hint, list, reset, solution};
use crate::grade::grader::{CargoOutput, Stop};
use crate::grade::verdicts::Verdicts;
use crate::grade::{self, Show};
use crate::progress::Progress;
use crate::terminal::{FAINT, Prompt, STRONG, clear_progress, indented, show_progress, styled};
use crate::{say, warn};
use book::{Book, News};
use events::{Event, Events};

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The exercise to begin with; `None` for the first that is not solved.
    pub exercise: Option<String>,
    /// Polls the files, for file systems that do not report changes.
    pub poll: bool,
    /// Serves the book meanwhile.
    pub read: bool,
    /// Opens the book in the browser.
    pub open: bool,
}

/// Grades the first exercise, and then whatever is saved, until the learner quits.
///
/// # Errors
/// Returns an error if the exercises cannot be read or watched.
pub fn run(root: &Path, options: &Options) -> Result<ExitCode> {
    let (sender, receiver) = mpsc::channel();
    let mut session = Session::begin(root, options, sender.clone())?;
    let _watcher = events::watch_files(root, options.poll, sender.clone())?;
    events::listen(sender)?;
    session.grade();
    session.follow(Events::of(receiver));
    Ok(ExitCode::SUCCESS)
}

/// A grading that is under way in a thread.
struct Run {
    number: u64,
    stop: Stop,
}

/// The first failure of a grading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    case: String,
    sentence: Option<String>,
}

struct Session<'a> {
    root: &'a Path,
    options: &'a Options,
    exercises: Vec<Exercise>,
    /// The index of the exercise that the learner works on.
    current: usize,
    /// The exercises that are solved. A grading of one of these does not switch to another exercise.
    solved: BTreeSet<usize>,
    /// The exercises whose dependencies are built. For the others, cargo shows its progress.
    built: BTreeSet<usize>,
    run: Option<Run>,
    runs: u64,
    /// The exercise that was just solved, until the learner works on another one: `s` shows its solution.
    just_solved: Option<usize>,
    /// The first failure of the last grading, and how many gradings in a row it came first.
    failure: Option<(Failure, u32)>,
    /// Started after the first grading, so that the first verdict does not wait for its build.
    book: Option<Book>,
    /// The address of the book.
    address: Option<String>,
    sender: Sender<Event>,
}

impl<'a> Session<'a> {
    fn begin(root: &'a Path, options: &'a Options, sender: Sender<Event>) -> Result<Session<'a>> {
        let exercises = Exercise::all(root)?;
        ensure!(!exercises.is_empty(), "the folder exercises/ is empty");
        let progress = Progress::read(root)?;
        let is_solved = |index: &usize| is_solved(&exercises[*index], &progress);
        let solved: BTreeSet<_> = (0..exercises.len()).filter(is_solved).collect();
        let current = match &options.exercise {
            Some(name) => {
                let wanted = Exercise::find(root, name)?;
                exercises.iter().position(|one| one.name == wanted.name)
            }
            None => (0..exercises.len()).find(|index| !solved.contains(index)),
        };
        let greeting = "Save an exercise and it is graded. For help, type ? and Enter.";
        say!("{}", styled(STRONG, greeting));
        Ok(Session {
            root,
            options,
            current: current.unwrap_or(exercises.len() - 1),
            exercises,
            solved,
            built: BTreeSet::new(),
            run: None,
            runs: 0,
            just_solved: None,
            failure: None,
            book: None,
            address: None,
            sender,
        })
    }

    fn exercise(&self) -> &Exercise {
        &self.exercises[self.current]
    }

    fn follow(&mut self, mut events: Events) {
        while let Some(event) = events.next() {
            match event {
                Event::Saved(paths) => self.saved(&paths),
                Event::Typed(line) => {
                    clear_progress();
                    if self.typed(line.trim()) {
                        break;
                    }
                }
                Event::Graded(number, verdicts) => self.graded(number, verdicts),
                Event::Book(news) => self.show_book_news(news),
                Event::Left => break,
            }
        }
        self.stop();
        // Ends the server.
        drop(self.book.take());
        say!("Your answers are as you saved them. `cargo run` continues.");
    }

    fn saved(&mut self, paths: &[PathBuf]) {
        let exercise_of = |path: &PathBuf| {
            let mut exercises = self.exercises.iter();
            exercises.position(|exercise| path.starts_with(exercise.folder()))
        };
        if let Some(exercise) = paths.iter().rev().find_map(exercise_of) {
            self.just_solved = None;
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

    /// Grades the current exercise. Stops the grading of an older save.
    fn grade(&mut self) {
        if self.run.is_some() {
            self.stop();
            // Some of its verdicts may be on the screen.
            self.advise("The grading was stopped, because there is a newer one.");
        }
        clear_progress();
        self.runs += 1;
        let (number, stop) = (self.runs, Stop::default());
        self.run = Some(Run {
            number,
            stop: stop.clone(),
        });
        let exercise = self.exercise().clone();
        let show = Show {
            cargo: match self.built.contains(&self.current) {
                true => CargoOutput::Errors,
                false => CargoOutput::Progress,
            },
            verdicts: Some(Prompt::Watch),
        };
        let sender = self.sender.clone();
        thread::spawn(move || {
            grade::warn_of_changed_stub(&exercise.root, &exercise);
            let graded = grade::grade(&exercise, None, show, &stop);
            let _ = sender.send(Event::Graded(number, graded));
        });
    }

    /// Stops the grading that is under way, with every process that it has started.
    fn stop(&mut self) {
        if let Some(run) = self.run.take() {
            run.stop.stop();
            clear_progress();
        }
    }

    fn graded(&mut self, number: u64, graded: Result<Verdicts>) {
        // A grading that was stopped for a newer save has no result.
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
        match graded {
            Ok(verdicts) => {
                self.built.insert(self.current);
                grade::record(self.root, &verdicts);
                match verdicts.core.failed + verdicts.core.not_started + verdicts.bonus.failed {
                    0 => self.solved(),
                    _ => self.offer_help(&verdicts),
                }
            }
            Err(error) => {
                warn!(
                    "{} cannot be graded: {}",
                    self.exercise().name,
                    grade::sentence(&error)
                );
                self.advise("Fix that and save again.");
            }
        }
    }

    /// If the exercise was not solved before, turns to the next unsolved exercise and grades it to show its first
    /// stage.
    fn solved(&mut self) {
        self.failure = None;
        let is_newly_solved = self.solved.insert(self.current);
        let count = self.exercises.len();
        let mut others = (1..count).map(|steps| (self.current + steps) % count);
        match others.find(|index| !self.solved.contains(index)) {
            Some(next) if is_newly_solved => {
                self.just_solved = Some(self.current);
                self.turn_to(next);
                self.grade();
            }
            Some(_) => self.advise("Type n for the next exercise."),
            None if is_newly_solved => say!("{}", styled(STRONG, "That was the last exercise.")),
            None => {}
        }
    }

    /// If the same failure comes first again, offers a hint; the third time, the book's page.
    fn offer_help(&mut self, verdicts: &Verdicts) {
        self.solved.remove(&self.current);
        let before = self.failure.take();
        let Some(case) = verdicts.first_failure() else {
            // No case failed, and the next step has been shown.
            return;
        };
        let failure = Failure {
            case: case.name.clone(),
            sentence: case.sentence.clone(),
        };
        let times = match before {
            Some((before, times)) if before == failure => times + 1,
            _ => 1,
        };
        self.advise(&self.help_with(&failure, times));
        self.failure = Some((failure, times));
    }

    fn help_with(&self, failure: &Failure, times: u32) -> String {
        match times {
            // The case may be many lines above.
            1 => format!("Fix {} first and save, or type h for a hint.", failure.case),
            2 => "The same as before. Type h for a hint.".to_owned(),
            _ => {
                let page = &self.exercise().about.page;
                let page = match &self.address {
                    Some(address) => format!("{address}/{}", page.replace(".md", ".html")),
                    None => format!("book/src/{page}"),
                };
                format!("Still the same. The page on it is {page}; type h for a hint.")
            }
        }
    }

    /// Shows what to do next.
    fn advise(&self, what: &str) {
        say!("{}", styled(FAINT, &indented(0, what)));
    }

    fn show_book_news(&mut self, news: News) {
        match news {
            // The line would appear among the verdicts.
            News::Built(_, _) if self.run.is_some() => {}
            News::Built(done, of) => {
                show_progress(&format!("The book's server: {done} of {of} built"));
            }
            News::Served(address) => {
                clear_progress();
                say!("The book, with your verdicts on its pages: {address}");
                self.address = Some(address);
            }
            News::Message(line) => {
                clear_progress();
                warn!("{line}");
            }
        }
    }

    /// Runs a typed command. Returns whether the learner quits.
    fn typed(&mut self, line: &str) -> bool {
        let name = self.exercise().name.clone();
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or("again");
        let options: Vec<_> = words.collect();
        let done = match (command, options.as_slice()) {
            ("again" | "a", []) => {
                self.grade();
                Ok(())
            }
            ("hint" | "h", []) => hint::run(self.root, Some(&name), None, None, Prompt::Watch),
            ("list" | "l", []) => list::run(self.root),
            ("next" | "n", []) => {
                self.just_solved = None;
                self.turn_to((self.current + 1) % self.exercises.len());
                self.grade();
                Ok(())
            }
            ("solution" | "s", flags)
                if flags
                    .iter()
                    .all(|flag| ["--spoil", "--bonus"].contains(flag)) =>
            {
                let options = solution::Options {
                    spoil: flags.contains(&"--spoil"),
                    bonus: flags.contains(&"--bonus"),
                };
                // The exercise that was just solved needs no `--spoil`: that is about the current one.
                let just_solved = self.just_solved.filter(|_| !options.spoil);
                let exercise = just_solved.unwrap_or(self.current);
                let name = &self.exercises[exercise].name;
                solution::run(self.root, name, options, Prompt::Watch)
            }
            ("reset", []) => reset::run(self.root, &name),
            ("quit" | "q", []) => return true,
            ("?" | "help", []) => {
                say!("{HELP}");
                Ok(())
            }
            _ => {
                say!("There is no command {line:?}.\n{HELP}");
                Ok(())
            }
        };
        if let Err(error) = done {
            warn!("{error:#}.");
        }
        false
    }
}

/// Returns whether the answer has passed and has not been modified since.
fn is_solved(exercise: &Exercise, progress: &Progress) -> bool {
    let graded = progress.last_graded(&exercise.name);
    let Some(graded) = graded.filter(|graded| graded.solved) else {
        return false;
    };
    let modified = fs::metadata(exercise.answer())
        .and_then(|about| about.modified())
        .ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    modified.is_some_and(|time| time.as_secs().cast_signed() <= graded.at)
}

const HELP: &str = "\
Type one of these, and Enter:
Enter       grade again
h hint      a hint: first a nudge, then a little more each time
n next      the next exercise
l list      all exercises, and what is solved
s solution  how the solution differs from your answer; s --spoil: before it is solved
reset       restore the stub; a copy of your file is kept
q quit      leave; nothing is lost";
