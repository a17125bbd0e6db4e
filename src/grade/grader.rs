//! Builds a grader with cargo, runs it, and reads the judge's verdicts as they arrive.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use course::cargo::{self, Message, NO_CARGO};
use course::exercise::Exercise;
use course::log::Verdict;
use course::process::{Group, Killer};
use serde::{Deserialize, Serialize};

use crate::grade::build_error::BuildError;
use crate::grade::compile_fail::{self, Library};
use crate::warn;

/// The result of one case: a line of the judge's report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Stage and case, such as `region::zeroed`.
    #[serde(rename = "case")]
    pub name: String,
    pub verdict: Verdict,
    /// An identifier for what happened.
    pub kind: String,
    /// The explanation for the learner; `None` if the case passed.
    pub sentence: Option<String>,
    /// The last lines that the answer printed.
    #[serde(default)]
    pub output: Vec<String>,
    /// The system calls of the watched part.
    #[serde(default)]
    pub transcript: Option<String>,
    /// How the system calls differ from the expected ones, if they were compared.
    #[serde(default)]
    pub diff: Option<String>,
    /// After a crash, the command line of a debugger.
    #[serde(default)]
    pub debug: Option<String>,
}

impl Case {
    /// Whether the case could not be graded: its verdict says nothing about the answer.
    pub fn could_not_be_graded(&self) -> bool {
        ["grader", "stale"].contains(&self.kind.as_str())
    }
}

/// What cargo prints while a grader is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CargoOutput {
    /// Its progress and the compiler's errors.
    Progress,
    /// The compiler's errors.
    Errors,
    /// Nothing: the error that `build` returns has the compiler's text.
    Nothing,
}

/// Stops a grading from another thread.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<Stopping>>);

#[derive(Debug, Default)]
struct Stopping {
    requested: bool,
    running: Option<Killer>,
}

impl Stop {
    /// Kills the process that is running for the grading, and keeps it from starting another one.
    pub fn stop(&self) {
        let mut stopping = self.lock();
        stopping.requested = true;
        if let Some(running) = &stopping.running {
            running.kill();
        }
    }

    pub(super) fn spawn(&self, command: &mut Command) -> Result<Group> {
        let mut stopping = self.lock();
        ensure!(!stopping.requested, STOPPED);
        let group = Group::spawn(command)?;
        stopping.running = Some(group.killer());
        Ok(group)
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(!self.lock().requested, STOPPED);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Stopping> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kind of a case on which the grader gave no verdict.
pub const NO_VERDICT: &str = "no-verdict";

const STOPPED: &str = "the grading was stopped";

/// A grader was built from another version of the answer: cargo decides by modification times.
#[derive(Debug)]
pub struct Stale;

impl fmt::Display for Stale {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(
            out,
            "the grader was built from another version of the answer"
        )
    }
}

impl std::error::Error for Stale {}

/// A grader that is built.
#[derive(Debug, Clone)]
pub struct Grader {
    /// The test binary.
    pub binary: PathBuf,
    /// The answer. `None` leaves all compile-fail cases to trybuild.
    pub library: Option<Library>,
    /// The folder of the package: the exercise's, or a candidate's.
    pub package: PathBuf,
    /// The root of the clone.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
}

/// One run of a grader.
struct Run {
    /// Arguments for libtest, which choose the cases.
    arguments: Vec<String>,
    /// The compile-fail cases of this run.
    compiled: BTreeSet<String>,
}

impl Run {
    fn of<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Run {
        Run {
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            compiled: BTreeSet::new(),
        }
    }
}

/// The module of the tests that grade compile-fail cases.
const COMPILE_FAIL: &str = "compile_fail::";

/// Builds the exercise's grader.
///
/// Cargo runs once per exercise: it builds the judge once for each *set* of packages, and the first verdicts do not
/// wait for other graders.
///
/// # Errors
/// Returns an error if the answer or the grader does not compile.
pub fn build(exercise: &Exercise, output: CargoOutput, stop: &Stop) -> Result<Grader> {
    let root = &exercise.root;
    let mut command = cargo::command();
    command.args(["build", "--package", &exercise.name, "--test", "grader"]);
    if output != CargoOutput::Progress {
        command.arg("--quiet");
    }
    let is_terminal = output != CargoOutput::Nothing && io::stderr().is_terminal();
    command.arg(match is_terminal {
        true => "--message-format=json-diagnostic-rendered-ansi",
        false => "--message-format=json",
    });
    if output == CargoOutput::Nothing {
        command.stderr(Stdio::piped());
    }
    command
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut cargo = stop.spawn(&mut command).context(NO_CARGO)?;
    let stdout = cargo.take_stdout().expect("a pipe was requested");
    // Read in parallel, because cargo would stop at a full pipe.
    let stderr = cargo.take_stderr();
    let errors = thread::spawn(move || stderr.and_then(|pipe| io::read_to_string(pipe).ok()));
    let (mut binary, mut library) = (None, None);
    let (mut rendered, mut in_grader) = (String::new(), Vec::new());
    for message in cargo::messages(stdout) {
        match message {
            Message::Artifact {
                executable: Some(executable),
                ..
            } => binary = Some(executable),
            Message::Artifact {
                target, filenames, ..
            } if target.name == exercise.library() => {
                library = Library::of(&target, &filenames);
            }
            Message::Diagnostic {
                target, message, ..
            } => {
                let is_error = message.level == "error";
                if is_error && target.is_test() {
                    in_grader.push(message);
                } else if is_error || message.level == "warning" && output != CargoOutput::Nothing {
                    rendered += &message.rendered.unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    let built = cargo.wait()?.success();
    stop.check()?;
    if in_grader.iter().any(|error| !error.spans.is_empty()) {
        return Err(BuildError::new(exercise, &in_grader).into());
    }
    // An error without a place in the source, such as the linker's, says nothing about the answer's items.
    rendered.extend(in_grader.into_iter().filter_map(|error| error.rendered));
    // Printed when cargo has removed its progress line.
    if output != CargoOutput::Nothing && !rendered.is_empty() {
        warn!("{}", rendered.trim_end());
    }
    let errors = errors.join().ok().flatten().unwrap_or_default();
    let Some(binary) = binary.filter(|_| built) else {
        return Err(build_error(root, output, &rendered, &errors));
    };
    Ok(Grader {
        target: cargo::target_of(root, &binary)?,
        binary,
        library,
        package: exercise.folder(),
        root: root.clone(),
    })
}

/// Sets the modification time of the answer's files to now, so that cargo and trybuild build them again. Their contents
/// do not change.
///
/// # Errors
/// Returns an error if a modification time cannot be changed.
pub fn touch(exercise: &Exercise) -> Result<()> {
    let mut folders = vec![exercise.folder().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let touch = || File::open(&path)?.set_modified(SystemTime::now());
            touch().with_context(|| format!("{} cannot be touched", path.display()))?;
        }
    }
    Ok(())
}

fn build_error(root: &Path, output: CargoOutput, diagnostics: &str, errors: &str) -> anyhow::Error {
    // Cargo reads the manifests of all exercises, so one missing file stops every build.
    let mut exercises = Exercise::all(root).unwrap_or_default().into_iter();
    if let Some(Exercise { name, .. }) = exercises.find(|one| !one.answer().is_file()) {
        return anyhow!(
            "exercises/{name}/src/lib.rs is missing; `cargo run -- reset {name}` puts the stub there"
        );
    }
    match (output, diagnostics.trim(), errors.trim()) {
        (CargoOutput::Nothing, "", errors) => anyhow!("it does not build: {errors}"),
        (CargoOutput::Nothing, diagnostics, _) => anyhow!("it does not compile:\n{diagnostics}"),
        _ => anyhow!("it does not build; see the errors above"),
    }
}

impl Grader {
    /// Returns the names of the cases. The name of a compile-fail case is made of its stage and its file.
    ///
    /// # Errors
    /// Returns `Stale` if the grader was built from another version of the answer, and another error if it cannot be
    /// run or a folder of cases cannot be read.
    pub fn cases(&self) -> Result<BTreeSet<String>> {
        // The status of a stale grader.
        const STALE: i32 = 96;
        let output = self
            .command()
            .args(["--list", "--format", "terse"])
            .env("JUDGE_CHECK_ANSWER", "1")
            .output()
            .with_context(|| format!("{} cannot be run", self.binary.display()))?;
        ensure!(output.status.code() != Some(STALE), Stale);
        let listed = String::from_utf8_lossy(&output.stdout);
        let mut cases = BTreeSet::new();
        for line in listed.lines() {
            let Some(test) = line.strip_suffix(": test") else {
                continue;
            };
            match test.strip_prefix(COMPILE_FAIL) {
                Some(stage) => cases.extend(self.compile_fail_cases(stage)?),
                None => {
                    cases.insert(test.to_owned());
                }
            }
        }
        ensure!(!cases.is_empty(), "{} lists no case", self.binary.display());
        Ok(cases)
    }

    /// Returns those of the cases that must not compile.
    pub fn compile_fail_among(&self, cases: &BTreeSet<String>) -> BTreeSet<String> {
        let is_one = |case: &&String| self.package.join(compile_fail::file(case)).is_file();
        cases.iter().filter(is_one).cloned().collect()
    }

    fn compile_fail_cases(&self, stage: &str) -> Result<BTreeSet<String>> {
        let folder = self.package.join(compile_fail::FOLDER).join(stage);
        let mut cases = BTreeSet::new();
        let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(name) = path.file_stem()
            {
                cases.insert(format!("{stage}::{}", name.to_string_lossy()));
            }
        }
        Ok(cases)
    }

    /// Runs every case and passes on each verdict as it arrives. A case without a verdict has failed.
    ///
    /// # Errors
    /// Returns an error if the grader cannot be run or its report cannot be read.
    pub fn run(&self, each: impl FnMut(Case)) -> Result<()> {
        self.run_all(self.cases()?, &Stop::default(), each)
    }

    /// Like [`Grader::run`], for callers that know the cases.
    ///
    /// The compile-fail cases take longer, so they run last and separately.
    ///
    /// # Errors
    /// As for [`Grader::run`], and if the grading was stopped.
    pub fn run_all(
        &self,
        cases: BTreeSet<String>,
        stop: &Stop,
        each: impl FnMut(Case),
    ) -> Result<()> {
        let compiled = self.compile_fail_among(&cases);
        let mut runs = vec![Run::of(["--skip", COMPILE_FAIL])];
        if !compiled.is_empty() {
            runs.push(Run {
                compiled,
                ..Run::of([COMPILE_FAIL])
            });
        }
        self.run_each(runs, cases, stop, each)
    }

    /// Runs the cases of one stage.
    ///
    /// # Errors
    /// As for [`Grader::run_all`].
    pub fn run_stage(
        &self,
        stage: &str,
        cases: BTreeSet<String>,
        stop: &Stop,
        each: impl FnMut(Case),
    ) -> Result<()> {
        let compiled = self.compile_fail_among(&cases);
        let behaviour: Vec<_> = cases.difference(&compiled).map(String::as_str).collect();
        let mut runs = Vec::new();
        if !behaviour.is_empty() {
            runs.push(Run::of(["--exact"].into_iter().chain(behaviour)));
        }
        if !compiled.is_empty() {
            runs.push(Run {
                compiled,
                ..Run::of(["--exact", &format!("{COMPILE_FAIL}{stage}")])
            });
        }
        self.run_each(runs, cases, stop, each)
    }

    fn run_each(
        &self,
        runs: Vec<Run>,
        mut missing: BTreeSet<String>,
        stop: &Stop,
        mut each: impl FnMut(Case),
    ) -> Result<()> {
        let mut pass_on = |case: Case| {
            missing.remove(&case.name);
            each(case);
        };
        let mut printed = Vec::new();
        for run in runs {
            printed.extend(self.run_once(&run, stop, &mut pass_on)?);
        }
        for name in missing {
            each(without_verdict(name, &printed));
        }
        Ok(())
    }

    /// Returns the last lines that the grader printed.
    fn run_once(&self, run: &Run, stop: &Stop, each: &mut impl FnMut(Case)) -> Result<Vec<String>> {
        let compiled = match &self.library {
            Some(library) => compile_fail::compile(&self.package, library, &run.compiled, stop)?,
            None => String::new(),
        };
        let report = tempfile::NamedTempFile::new()
            .context("no temporary file can be created for the judge's report")?;
        let mut printed = tempfile::tempfile()?;
        let mut command = self.command();
        command
            .args(&run.arguments)
            .env("JUDGE_REPORT", report.path())
            .env("JUDGE_COMPILED", compiled)
            .stdin(Stdio::null())
            .stdout(printed.try_clone()?)
            .stderr(printed.try_clone()?);
        let mut grader = stop
            .spawn(&mut command)
            .with_context(|| format!("{} cannot be run", self.binary.display()))?;
        let mut lines = Lines::of(report.reopen()?);
        loop {
            let ended = grader.try_wait()?.is_some();
            stop.check()?;
            for line in lines.complete()? {
                match serde_json::from_str(&line) {
                    Ok(case) => each(case),
                    Err(error) => bail!(
                        "line {} of the judge's report is not a verdict ({error}): {}",
                        lines.number,
                        line.trim_end()
                    ),
                }
            }
            if ended {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        printed.rewind()?;
        Ok(last_lines(printed))
    }

    /// The grader, in the environment that `cargo test` would set.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("INSTA_WORKSPACE_ROOT", &self.root)
            .env("INSTA_FORCE_PASS", "0")
            .env("INSTA_UPDATE", "no")
            .env("INSTA_OUTPUT", "none")
            .env("TRYBUILD", "wip")
            .env_remove("JUDGE_INLINE");
        command
    }
}

fn without_verdict(name: String, printed: &[String]) -> Case {
    Case {
        name,
        verdict: Verdict::Failed,
        kind: NO_VERDICT.to_owned(),
        sentence: Some(
            "The grader ended without a verdict on this case; its output follows.".to_owned(),
        ),
        output: printed.to_vec(),
        transcript: None,
        diff: None,
        debug: None,
    }
}

/// Reads a file that grows by lines.
struct Lines {
    file: BufReader<File>,
    /// The number of the last complete line, from 1.
    number: usize,
    /// The beginning of a line whose end has not been written yet.
    partial: String,
}

impl Lines {
    fn of(file: File) -> Lines {
        Lines {
            file: BufReader::new(file),
            number: 0,
            partial: String::new(),
        }
    }

    /// Returns the lines that were completed since the last call.
    fn complete(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        while self.file.read_line(&mut self.partial)? > 0 {
            if self.partial.ends_with('\n') {
                self.number += 1;
                lines.push(std::mem::take(&mut self.partial));
            }
        }
        Ok(lines)
    }
}

fn last_lines(file: File) -> Vec<String> {
    const MOST: usize = 40;
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines[lines.len().saturating_sub(MOST)..].to_vec()
}
