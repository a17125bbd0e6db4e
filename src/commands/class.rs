//! `workbook class`: grades the answers of a class.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use course::exercise::Exercise;
use nix::unistd::geteuid;

use crate::class::prepare::Prepared;
use crate::class::result::{self, Outcome, Status, one_line};
use crate::class::{self, Isolation, submission};
use crate::grade::sandbox;
use crate::{say, warn};

/// The table, in the folder of the results.
const TABLE: &str = "results.csv";

/// The exit status if a submission could not be graded.
const COULD_NOT: u8 = 2;

/// Builds what grading the exercise needs.
///
/// # Errors
/// Returns an error if there is no sandbox, or if something cannot be built.
pub fn prepare(root: &Path, exercise: &str, isolation: Isolation) -> Result<Prepared> {
    let exercise = Exercise::find(root, exercise)?;
    if isolation == Isolation::Sandbox {
        sandbox::check()?;
    }
    Prepared::new(&exercise, isolation)
}

/// Grades one submission, whose cases may take `time` all together. `gradescope` is a file for the result in Gradescope's
/// format, and when students see it.
///
/// # Errors
/// Returns an error if there is no submission, if nothing can be graded here, or if the result cannot be written.
pub fn one(
    root: &Path,
    exercise: &str,
    isolation: Isolation,
    submission: &Path,
    result: &Path,
    gradescope: Option<(&Path, &str)>,
    time: Duration,
) -> Result<ExitCode> {
    // A wrong path is a mistake of the command, and no student's fault.
    fs::symlink_metadata(submission)
        .with_context(|| format!("{} cannot be read", submission::shown(submission)))?;
    ensure!(
        !resolved(result)?.starts_with(resolved(submission)?),
        "{} is the submission or a part of it: name another file for the result",
        submission::shown(result)
    );
    let prepared = prepare(root, exercise, isolation)?;
    let outcome = class::grade_one(&prepared, submission, result, time)?;
    if let Some((file, visibility)) = gradescope {
        result::write_json(file, &class::gradescope::document(&outcome, visibility))?;
    }
    say!("{}: {}", one_line(&outcome.student), line(&outcome));
    Ok(status(&[outcome], false))
}

/// Grades every submission in a folder, and writes a result file for each, and a table. The cases of a submission may take
/// `time` all together.
///
/// # Errors
/// Returns an error if nothing can be graded here, or if a result cannot be written.
pub fn grade(
    root: &Path,
    exercise: &str,
    folder: &Path,
    results: Option<&Path>,
    jobs: Option<usize>,
    time: Duration,
) -> Result<ExitCode> {
    let (submissions, nameless) = submissions(folder)?;
    let results = match results {
        Some(results) => results.to_owned(),
        None => beside(folder)?,
    };
    // An unknown exercise leaves no folder behind.
    Exercise::find(root, exercise)?;
    make_results(&results, folder)?;
    if geteuid().is_root() {
        warn!(
            "Warning: you are root, and the kernel does not limit the number of root's processes. Grade as an \
             ordinary user."
        );
    }
    let prepared = prepare(root, exercise, Isolation::Sandbox)?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(submissions.iter());
    let finished = Mutex::new(Vec::new());
    let is_missing = AtomicBool::new(nameless);
    let work = || -> Result<()> {
        loop {
            let next = waiting.lock().map_err(|_| anyhow!(POISONED))?.next();
            let Some((student, path)) = next else {
                return Ok(());
            };
            let file = results.join(format!("{student}.json"));
            let outcome = match class::grade_one(&prepared, path, &file, time) {
                Ok(outcome) => outcome,
                Err(error) => {
                    // The others can be graded, unless the disk is full, for example.
                    warn!("{}: {}", one_line(student), one_line(&format!("{error:#}")));
                    is_missing.store(true, Ordering::SeqCst);
                    continue;
                }
            };
            let mut finished = finished.lock().map_err(|_| anyhow!(POISONED))?;
            let (line, total) = (line(&outcome), submissions.len());
            finished.push(outcome);
            let student = one_line(student);
            say!("[{}/{total}] {student}: {line}", finished.len());
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let jobs = 0..jobs.unwrap_or(processors);
        let threads: Vec<_> = jobs.map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!(POISONED))?)
    })?;
    let mut finished = finished.into_inner().map_err(|_| anyhow!(POISONED))?;
    finished.sort_by(|one, other| one.student.cmp(&other.student));
    let table = results.join(TABLE);
    result::write(&table, &result::table(finished.iter()))?;
    say!(
        "The table is {}, and the verdicts are in the files beside it.",
        table.display()
    );
    Ok(status(&finished, is_missing.into_inner()))
}

/// Prints questions about the calls that an answer made.
///
/// # Errors
/// Returns an error if there is no such result, or if it has no calls.
pub fn questions(file: &Path, count: usize) -> Result<()> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
    let outcome: Outcome = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not a result file of `class grade` or `class one`",
            file.display()
        )
    })?;
    let questions = class::questions::questions(&outcome, count);
    ensure!(
        !questions.is_empty(),
        "{} has no system calls to ask about: they are recorded only if the answer was graded, makes calls in a case \
         that compares them, and could be traced",
        file.display()
    );
    for (question, number) in questions.iter().zip(1..) {
        say!("{number}. {question}\n");
    }
    Ok(())
}

fn line(outcome: &Outcome) -> String {
    let before = if outcome.kept { ", graded before" } else { "" };
    format!("{}{before}", outcome.line())
}

const POISONED: &str = "a thread panicked";

/// `is_missing` says whether a submission has no outcome.
fn status(outcomes: &[Outcome], is_missing: bool) -> ExitCode {
    let could_not = |outcome: &Outcome| outcome.status == Status::CouldNot;
    match is_missing || outcomes.iter().any(could_not) {
        true => ExitCode::from(COULD_NOT),
        false => ExitCode::SUCCESS,
    }
}

/// The submissions by their students' names, and whether there are others: with a name that cannot be written to a table, or
/// with that of another one. Hidden files are none.
fn submissions(folder: &Path) -> Result<(BTreeMap<String, PathBuf>, bool)> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut nameless = false;
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry
            .with_context(|| format!("{} cannot be read", folder.display()))?
            .path();
        match submission::student(&path) {
            Ok(student) if student.starts_with('.') => {}
            Ok(student) => found.entry(student).or_default().push(path),
            Err(error) => {
                warn!("{}: rename it", one_line(&format!("{error:#}")));
                nameless = true;
            }
        }
    }
    ensure!(!found.is_empty(), "{} is empty", folder.display());
    let mut submissions = BTreeMap::new();
    for (student, mut paths) in found {
        if let (Some(path), true) = (paths.pop(), paths.is_empty()) {
            submissions.insert(student, path);
            continue;
        }
        warn!(
            "{}: several files or folders belong to this student: remove all but one",
            one_line(&student)
        );
        nameless = true;
    }
    Ok((submissions, nameless))
}

/// Makes the folder of the results, and checks that it can be written before anything is built or graded. Results among
/// the submissions would be taken for submissions the next time.
fn make_results(results: &Path, submissions: &Path) -> Result<()> {
    let folder = fs::canonicalize(submissions)
        .with_context(|| format!("{} cannot be read", submissions.display()))?;
    ensure!(
        !resolved(&results.join(TABLE))?.starts_with(folder),
        "{} is the folder of the submissions, or inside it: name another folder for the results",
        results.display()
    );
    fs::create_dir_all(results)
        .and_then(|()| tempfile::tempfile_in(results))
        .with_context(|| format!("{} cannot be written", results.display()))?;
    Ok(())
}

/// The path without symbolic links and `..` in its folders, of which some may not exist yet. Its last part may be a link.
fn resolved(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut folders = path.ancestors().skip(1);
    let place = folders.find_map(|folder| {
        let rest = path.strip_prefix(folder).ok()?;
        Some(folder.canonicalize().ok()?.join(rest))
    });
    Ok(place.unwrap_or(path))
}

/// The folder of the results: `FOLDER-results`.
fn beside(folder: &Path) -> Result<PathBuf> {
    let folder =
        fs::canonicalize(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut name = folder.file_name().context("name a folder")?.to_owned();
    name.push("-results");
    Ok(folder.with_file_name(name))
}
