//! Compiles and grades one submission in a sandbox.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use course::cargo;
use course::log::Verdict;
use course::process::{self, End, Limits};
use nix::libc;
use tempfile::TempDir;

use super::prepare::{self, Prepared};
use super::submission::Submission;
use super::{Isolation, library};
use crate::grade::grader::{Case, Confined, Grader, Stop};
use crate::grade::order::Order;
use crate::grade::sandbox::{self, COMPILE_SECONDS, Sandbox, Watch};
use crate::grade::slot::link_all;
use crate::grade::verdicts::Verdicts;

/// What became of a submission.
pub enum Graded {
    Verdicts(Verdicts),
    /// It cannot be graded, and earns nothing.
    Rejected {
        /// The reason, as a sentence.
        note: String,
        /// The compiler's errors.
        compiler: String,
    },
}

impl Graded {
    pub fn rejected(note: impl Into<String>) -> Graded {
        Graded::Rejected {
            note: note.into(),
            compiler: String::new(),
        }
    }
}

/// The beginning of the sentence about a case that was skipped because of the answer.
pub const ONLY_HERE: &str =
    "Skipped for this answer, but not for the solution, so it earns nothing";

/// Compiles and grades the submission. Its cases may take `time` all together; those without a verdict then have failed.
///
/// # Errors
/// Returns an error if it could not be graded, and that says nothing about the submission.
pub fn grade(prepared: &Prepared, submission: &Submission, time: Duration) -> Result<Graded> {
    let place = Place::new(prepared).with_context(|| {
        let folder = prepare::folder(&prepared.exercise.root);
        format!("a submission cannot be placed in {}", folder.display())
    })?;
    submission.write(&place.source)?;
    // The package in the sandbox is not one that the student knows.
    let package = prepared.built.package.file_name().unwrap_or_default();
    let package = format!("{}/", package.to_string_lossy());
    if let Some((note, compiler)) = compile(prepared, &place)? {
        let compiler = compiler.replace(&package, "");
        return Ok(Graded::Rejected { note, compiler });
    }
    // It takes as much space as the other results.
    fs::remove_dir_all(&place.incremental)
        .with_context(|| format!("{} cannot be removed", place.incremental.display()))?;
    let sandbox = place.sandbox(prepared, Step::Run)?;
    let built = &prepared.built;
    let grader = Grader {
        binary: prepared.judge(),
        library: Some(built.library.clone()),
        package: built.package.clone(),
        root: prepared.exercise.root.clone(),
        target: prepared.target.clone(),
        confined: Some(Confined {
            sandbox: Arc::new(sandbox),
            program: built.program.clone(),
        }),
    };
    let mut cases = Vec::new();
    let mut could_not = None;
    let stop = Stop::default();
    let mut missing = grader.cases()?;
    let timer = Timer::start(time, stop.clone());
    let ran = grader.run_all(missing.clone(), &stop, |mut case| {
        missing.remove(&case.name);
        if let Some(sentence) = &mut case.sentence {
            *sentence = sentence.replace(&package, "");
        }
        if case.could_not_be_graded() && could_not.is_none() {
            let sentence = case.sentence.as_deref().unwrap_or_default();
            could_not = Some(format!("{}: {}", case.name, sentence.trim_end_matches('.')));
            // Each of the others may take as long as this one.
            stop.stop();
        }
        cases.push(case);
    });
    if let Some(why) = could_not {
        bail!(why);
    }
    match timer.end() {
        true => cases.extend(missing.into_iter().map(|name| too_late(name, time))),
        false => ran?,
    }
    for case in &mut cases {
        let sentence = case.sentence.as_deref().unwrap_or_default();
        // An answer may make the judge skip a case: by code that cannot be executed step by step, for example.
        if case.verdict == Verdict::Skipped && !prepared.may_be_skipped(&case.name) {
            case.sentence = Some(format!("{ONLY_HERE}: {sentence}"));
            case.verdict = Verdict::Failed;
        }
    }
    let order = Order::of(&prepared.exercise);
    let verdicts = Verdicts::sort(&prepared.exercise, &order, cases);
    Ok(Graded::Verdicts(verdicts))
}

/// Stops a grading when its time is over.
struct Timer {
    /// Dropped when the grading has ended.
    running: Sender<()>,
    thread: JoinHandle<bool>,
}

impl Timer {
    fn start(time: Duration, stop: Stop) -> Timer {
        let (running, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let is_over = ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            if is_over {
                stop.stop();
            }
            is_over
        });
        Timer { running, thread }
    }

    /// Returns whether it has stopped the grading.
    fn end(self) -> bool {
        drop(self.running);
        self.thread.join().unwrap_or(false)
    }
}

/// The beginning of the sentence about a case for which there was no time.
pub const TOO_LATE: &str = "No verdict";

fn too_late(name: String, time: Duration) -> Case {
    Case {
        name,
        verdict: Verdict::Failed,
        kind: "too-late".to_owned(),
        sentence: Some(format!(
            "{TOO_LATE} within the {} that all cases of this submission had together: look for a function that waits or \
             loops.",
            minutes(time)
        )),
        output: Vec::new(),
        transcript: None,
        diff: None,
        debug: None,
    }
}

fn minutes(time: Duration) -> String {
    match time.as_secs() / 60 {
        1 => "minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The answer is compiled.
    Compile,
    /// The grader is compiled, and linked with the answer.
    Link,
    /// The grader runs.
    Run,
}

/// The files of one submission. In a sandbox they are visible at the paths of the prepared build.
struct Place {
    source: PathBuf,
    /// The compiler's results.
    output: PathBuf,
    /// The compiler's incremental data, in that folder.
    incremental: PathBuf,
    /// `None` in a container, where they are at those paths.
    _temporary: Option<Temporary>,
}

/// The folder of the incremental data among the compiler's results. The compiler makes hard links between them, which is
/// not possible between two mounts.
const CURRENT: &str = "current";

impl Place {
    fn new(prepared: &Prepared) -> Result<Place> {
        let first = prepared.first();
        let dependencies = prepared.dependencies();
        if prepared.isolation == Isolation::Container {
            let place = Place {
                source: prepared.built.package.join("src"),
                output: dependencies.to_owned(),
                incremental: dependencies.join(CURRENT),
                _temporary: None,
            };
            for folder in [&place.source, &place.incremental] {
                if folder.exists() {
                    fs::remove_dir_all(folder)?;
                }
            }
            fs::create_dir(&place.source)?;
            copy_all(&first, &place.incremental)?;
            return Ok(place);
        }
        let temporary = Temporary::new(&prepare::folder(&prepared.exercise.root).join("work"))?;
        let folder = temporary.folder.path();
        let place = Place {
            source: folder.join("src"),
            output: folder.join("output"),
            incremental: folder.join("output").join(CURRENT),
            _temporary: None,
        };
        fs::create_dir(&place.source)?;
        fs::create_dir(&place.output)?;
        link_all(&first, &place.incremental)?;
        // The compiler looks for the dependencies where it writes its results.
        for entry in fs::read_dir(dependencies)? {
            let name = entry?.file_name();
            let is_own = prepared.is_own(&name.to_string_lossy());
            let endings = ["rlib", "rmeta", "so"];
            let ending = Path::new(&name).extension().and_then(|name| name.to_str());
            if !is_own && ending.is_some_and(|ending| endings.contains(&ending)) {
                symlink(
                    dependencies_in_sandbox(prepared).join(&name),
                    place.output.join(&name),
                )?;
            }
        }
        Ok(Place {
            _temporary: Some(temporary),
            ..place
        })
    }

    fn sandbox(&self, prepared: &Prepared, step: Step) -> Result<Sandbox> {
        if prepared.isolation == Isolation::Container {
            let sandbox = Sandbox::user(&prepared.toolchain)?;
            self.hand_over(prepared, step)?;
            return Ok(sandbox);
        }
        let mut sandbox = Sandbox::new(&prepared.toolchain);
        let package = &prepared.built.package;
        let tests = prepared.exercise.folder().join("tests");
        sandbox.show(&tests, &tests);
        sandbox.show(&tests, &package.join("tests"));
        sandbox.show(&package.join("Cargo.toml"), &package.join("Cargo.toml"));
        // The linker takes any text that is no object file for a script, in which an answer could define symbols.
        if step != Step::Link {
            sandbox.show(&self.source, &package.join("src"));
        }
        let dependencies = prepared.dependencies();
        sandbox.show(dependencies, &dependencies_in_sandbox(prepared));
        match step {
            Step::Compile | Step::Link => {
                sandbox.share(&self.output, dependencies);
            }
            Step::Run => {
                sandbox.show(&self.output, dependencies);
                sandbox.show(&prepared.judge(), &prepared.judge());
            }
        }
        Ok(sandbox)
    }

    /// Makes the user nobody the owner of the compiler's results, or takes them back before the answer runs.
    fn hand_over(&self, prepared: &Prepared, step: Step) -> Result<()> {
        let (owner, mut folders) = match step {
            Step::Compile | Step::Link => (sandbox::NOBODY, vec![self.incremental.clone()]),
            Step::Run => (0, Vec::new()),
        };
        let readable = match step {
            Step::Compile | Step::Run => 0o755,
            Step::Link => 0o700,
        };
        fs::set_permissions(&self.source, fs::Permissions::from_mode(readable))?;
        while let Some(folder) = folders.pop() {
            chown(&folder, Some(owner), Some(owner))?;
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => chown(&path, Some(owner), Some(owner))?,
                }
            }
        }
        chown(&self.output, Some(owner), Some(owner))?;
        fs::set_permissions(&self.output, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(&self.output)? {
            let entry = entry?;
            if prepared.is_own(&entry.file_name().to_string_lossy()) {
                chown(entry.path(), Some(owner), Some(owner))?;
            }
        }
        Ok(())
    }
}

impl Prepared {
    /// Whether a file in that folder is one of the answer or its grader.
    fn is_own(&self, name: &str) -> bool {
        let name = name.strip_prefix("lib").unwrap_or(name);
        ["grader".to_owned(), self.exercise.library()]
            .iter()
            .any(|own| name.starts_with(&format!("{own}-")))
    }

    /// The compiler's incremental data for the stub and its grader.
    fn first(&self) -> PathBuf {
        self.folder.join("recorded/first")
    }

    /// The folder of the compiled dependencies. The compiler's results for an answer are there, too.
    fn dependencies(&self) -> &Path {
        let program = &self.built.program;
        program.parent().expect("cargo builds into a folder")
    }
}

/// Where the dependencies are in a sandbox. Their own folder has the compiler's results and links to them.
fn dependencies_in_sandbox(prepared: &Prepared) -> PathBuf {
    prepared.target.join("dependencies")
}

/// The limits on the compiler's time and output. The sandbox limits its processor time to `COMPILE_SECONDS`.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(5 * 60),
    output: 4 << 20,
};

/// The exit status of bubblewrap after a signal.
const SIGNAL: i32 = 128;

/// Why a submission is rejected, as a sentence, and the compiler's errors.
type Rejection = (String, String);

/// Compiles the answer and the grader. Returns why the submission is rejected if they do not compile.
fn compile(prepared: &Prepared, place: &Place) -> Result<Option<Rejection>> {
    let [answer, grader] = &prepared.commands;
    let incremental = prepared.dependencies().join(CURRENT);
    let sandbox = place.sandbox(prepared, Step::Compile)?;
    let mut command = sandbox.compiler(&answer.command(&incremental)?)?;
    let what = "the answer does not compile";
    if let Some(rejected) = run_compiler(&mut command, what, &place.output, LIMITS)? {
        return Ok(Some(rejected));
    }
    let compiled = prepared.built.library.compiled.with_extension("rlib");
    if let Some(note) = library::rejected(&sandbox, &compiled, &prepared.symbols)? {
        return Ok(Some((note, String::new())));
    }
    let sandbox = place.sandbox(prepared, Step::Link)?;
    let mut command = sandbox.compiler(&grader.command(&incremental)?)?;
    let what =
        "the grader does not compile with this answer: its public items differ from the task's";
    if let Some(rejected) = run_compiler(&mut command, what, &place.output, LIMITS)? {
        return Ok(Some(rejected));
    }
    let first = prepared.first();
    let with_stub = objects_of_grader(&first)?;
    let mut objects = objects_of_grader(&place.incremental)?;
    // Those of the grader with the stub are still there.
    objects.retain(|object| !with_stub.contains(object));
    ensure!(!objects.is_empty(), "the grader has no object files");
    let [objects, with_stub] =
        [(&incremental, objects), (&first, with_stub)].map(|(folder, objects)| {
            objects
                .iter()
                .map(|object| folder.join(object))
                .collect::<Vec<_>>()
        });
    let note = library::rejected_in_grader(&sandbox, &objects, &with_stub, &prepared.symbols)?;
    Ok(note.map(|note| (note, String::new())))
}

/// The object files of the grader, relative to the folder of the incremental data.
fn objects_of_grader(incremental: &Path) -> Result<Vec<PathBuf>> {
    let mut objects = Vec::new();
    let mut folders = Vec::new();
    for entry in fs::read_dir(incremental)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("grader-") {
            folders.push(entry.path());
        }
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "o") {
                objects.push(path.strip_prefix(incremental)?.to_owned());
            }
        }
    }
    Ok(objects)
}

/// Whether the file system of this folder has less space than a compiler's results need.
fn is_full(folder: &Path) -> Result<bool> {
    const NEEDED: u64 = 256 << 20;
    let about = nix::sys::statvfs::statvfs(folder)?;
    Ok(about.blocks_available() * about.fragment_size() < NEEDED)
}

/// The line of the compiler's errors in which the linker says what is wrong.
fn linkers_error(compiler: &str) -> &str {
    const KNOWN: [&str; 4] = [
        "undefined symbol",
        "undefined reference",
        "duplicate symbol",
        "multiple definition",
    ];
    let line = compiler
        .lines()
        .find(|line| KNOWN.iter().any(|known| line.contains(known)));
    line.unwrap_or("see the compiler's errors").trim()
}

/// `results` is the folder of the compiler's results.
fn run_compiler(
    command: &mut Command,
    what: &str,
    results: &Path,
    limits: Limits,
) -> Result<Option<Rejection>> {
    let mut watch = None;
    let ran = process::run_with(command, limits, |group| {
        watch = Some(sandbox::watch(group, Some(results.to_owned())));
    });
    let ran = ran.context("the sandbox cannot be started")?;
    if ran.success() {
        return Ok(None);
    }
    let coloured = cargo::rendered_errors(&ran.stderr);
    let compiler = anstream::adapter::strip_str(&coloured).to_string();
    // A full disk is not the student's fault. The sources may contain these words.
    ensure!(
        !compiler.contains("No space left on device") || !is_full(results)?,
        "the compiler has no space left on the disk"
    );
    if let Some(first) = compiler.lines().next() {
        let note = match first.contains("error: linking with") {
            true => format!("the answer cannot be linked: {}", linkers_error(&compiler)),
            false => format!("{what}: {first}"),
        };
        return Ok(Some((note, compiler)));
    }
    if let Some(used) = watch.as_ref().and_then(Watch::exceeded) {
        let note = format!(
            "the compiler used {used} and was stopped: look for a constant, a static, a macro or a type that is too \
             large"
        );
        return Ok(Some((note, String::new())));
    }
    let signal = match ran.end {
        End::Exited(status) => std::os::unix::process::ExitStatusExt::signal(&status)
            .or(status.code().map(|code| code - SIGNAL)),
        End::OutputLimit => {
            let note = format!(
                "the compiler printed more than {} MiB of errors, and was stopped: look for an error whose message \
                 is very long, such as one of `compile_error!`",
                limits.output >> 20
            );
            return Ok(Some((note, String::new())));
        }
        End::TimeLimit => {
            let note = format!(
                "the compiler had not ended after {} s, in which it used less than {COMPILE_SECONDS} s of processor \
                 time: look for a macro that includes a pipe or a device",
                limits.time.as_secs()
            );
            return Ok(Some((note, String::new())));
        }
    };
    let note = match signal {
        Some(libc::SIGXCPU) => format!(
            "it was still compiling after {COMPILE_SECONDS} s of processor time, and was stopped: look for a constant, \
             a macro or a type whose evaluation does not end"
        ),
        Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS) => {
            "the compiler crashed, or used more memory than it may: look for a constant, a macro or a type that is too \
             large"
                .to_owned()
        }
        Some(libc::SIGXFSZ) => {
            "the compiler's results are too large: look for a constant or a static that is too large, or for thousands \
             of functions"
                .to_owned()
        }
        _ => {
            // The compiler's messages are JSON. Others are those of the sandbox.
            let others = ran.stderr.lines().filter(|line| !line.starts_with('{'));
            let others: Vec<_> = others.take(5).collect();
            bail!("the compiler {}. {}", ran.describe(), others.join(" "))
        }
    };
    Ok(Some((note, String::new())))
}

/// A folder that disappears with this process, or when another one starts.
struct Temporary {
    folder: TempDir,
    _lock: File,
}

const LOCK: &str = "lock";

impl Temporary {
    fn new(parent: &Path) -> Result<Temporary> {
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        remove_old(parent)?;
        let folder = TempDir::new_in(parent)?;
        let lock = File::create(folder.path().join(LOCK))?;
        lock.lock()?;
        Ok(Temporary {
            folder,
            _lock: lock,
        })
    }
}

/// Removes the folders of processes that were killed. The kernel has released their locks.
fn remove_old(parent: &Path) -> Result<()> {
    // Younger folders may not be locked yet.
    const AGE: Duration = Duration::from_secs(60);
    for entry in fs::read_dir(parent)? {
        let folder = entry?.path();
        let modified = fs::metadata(&folder).and_then(|about| about.modified());
        // Another process may have removed it meanwhile.
        let age = modified.map(|time| SystemTime::now().duration_since(time));
        if !matches!(age, Ok(Ok(age)) if age > AGE) {
            continue;
        }
        let lock = File::open(folder.join(LOCK));
        if lock.map_or(true, |lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(&folder);
        }
    }
    Ok(())
}

/// Copies a folder. In a container, the copies get another owner than the originals.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &copy)?,
            false => drop(fs::copy(entry.path(), &copy)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what becomes of a submission if the compiler is this shell script.
    fn compiled(script: &str, results: &Path, limits: Limits) -> Result<Option<Rejection>> {
        let mut compiler = Command::new("sh");
        compiler.args(["-c", script]);
        run_compiler(&mut compiler, "it does not compile", results, limits)
    }

    fn rejected(script: &str, limits: Limits) -> String {
        let results = tempfile::tempdir().expect("a folder");
        let rejected = compiled(script, results.path(), limits).expect("it can be graded");
        rejected.expect("it is rejected").0
    }

    fn could_not(script: &str, results: &Path) -> String {
        let error = compiled(script, results, LIMITS).expect_err("it cannot be graded");
        format!("{error:#}")
    }

    fn error(message: &str) -> String {
        error_of("error", message)
    }

    fn error_of(level: &str, message: &str) -> String {
        let error = serde_json::json!({
            "level": level, "message": message, "spans": [], "children": [], "rendered": message,
        });
        format!("echo '{error}' >&2; exit 1")
    }

    #[test]
    fn a_submission_is_told_why_it_is_rejected() {
        let short = Limits {
            time: Duration::from_millis(1100),
            output: 1 << 20,
        };
        let note = rejected("sleep 60", short);
        assert!(note.contains("had not ended after 1 s"), "{note}");
        let note = rejected("exec yes >&2", LIMITS);
        assert!(note.contains("printed more than 4 MiB"), "{note}");
        for (signal, expected) in [
            (
                libc::SIGXCPU,
                "still compiling after 60 s of processor time",
            ),
            (libc::SIGSEGV, "the compiler crashed"),
            (libc::SIGXFSZ, "the compiler's results are too large"),
        ] {
            for script in [
                format!("kill -{signal} $$"),
                format!("exit {}", SIGNAL + signal),
            ] {
                let note = rejected(&script, LIMITS);
                assert!(note.contains(expected), "{note}");
            }
        }
        let note = rejected("for i in $(seq 600); do sleep 60 & done; wait", LIMITS);
        assert!(note.contains("more than 500 processes"), "{note}");
        let folder = tempfile::tempdir().expect("a folder");
        let script = format!(
            "fallocate -l 1100M {:?}; sleep 60",
            folder.path().join("large")
        );
        let rejected_there = compiled(&script, folder.path(), LIMITS).expect("it can be graded");
        let (note, _) = rejected_there.expect("it is rejected");
        assert!(note.contains("more than 1 GiB of disk"), "{note}");
        assert_eq!(
            rejected(&error("wrong"), LIMITS),
            "it does not compile: wrong"
        );
        let crash = error_of("error: internal compiler error", "unexpected");
        assert_eq!(rejected(&crash, LIMITS), "it does not compile: unexpected");
    }

    #[test]
    fn what_says_nothing_about_the_submission_is_an_error() {
        let empty = tempfile::tempdir().expect("a folder");
        let empty = empty.path();
        let note = could_not("echo bwrap: no room >&2; exit 1", empty);
        assert!(
            note.contains("exited with status 1. bwrap: no room"),
            "{note}"
        );
        let note = could_not("kill -9 $$", empty);
        assert!(note.contains("was killed by SIGKILL"), "{note}");
        // The file system of /proc has no blocks.
        let full = error("No space left on device (os error 28)");
        let note = could_not(&full, Path::new("/proc"));
        assert!(note.contains("no space left on the disk"), "{note}");
        assert!(rejected(&full, LIMITS).contains("No space left"));
    }
}
