//! Builds a grader with cargo, runs it, and reads the judge's verdicts as they arrive.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use course::cargo::{self, Message, NO_CARGO};
use course::exercise::Exercise;
use course::log::Verdict;
use course::patience::{self, Patience};
use course::process::{self, End, Group, Killer};
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::grade::build_error::BuildError;
use crate::grade::compile_fail::{self, Library};
use crate::grade::lines::{Report, in_memory};
use crate::grade::sandbox::{self, Sandbox, Watch};
use crate::grade::sources;
use crate::grade::visible::visible;
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
        ["grader", "stale", NO_VERDICT].contains(&self.kind.as_str())
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
    /// `None` runs the grader as an ordinary process.
    pub confined: Option<Confined>,
}

/// How a grader of an answer that is not trusted runs.
#[derive(Debug, Clone)]
pub struct Confined {
    pub sandbox: Arc<Sandbox>,
    /// The test binary with the answer. The grader's own binary then has the stub: no code of the answer runs in the judge.
    pub program: PathBuf,
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

/// What the compiler may use between two crates. It compiles the largest of them in a minute on a slow machine.
const COMPILER: patience::Limits = patience::Limits {
    processor: Duration::from_secs(5 * 60),
    time: Duration::from_secs(15 * 60),
};

/// What a grader may use between two verdicts. A case ends within a minute, and the compiler, which checks the
/// compile-fail cases, has a limit of its own.
const VERDICT: patience::Limits = patience::Limits {
    processor: Duration::from_secs(10 * 60),
    time: Duration::from_secs(25 * 60),
};

/// What a grader may use to list its cases.
const TO_MAIN: process::Limits = process::Limits::time(Duration::from_secs(20));

/// The most bytes that a grader may print.
const PRINTED: u64 = 16 << 20;

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
    sources::check(exercise)?;
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
    let patience = Patience::begin(cargo.killer(), COMPILER);
    let stdout = patience.reading(cargo.take_stdout().expect("a pipe was requested"));
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
    ensure!(
        !patience.is_exceeded(),
        "it was still compiling after {} s of processor time, or {} minutes, without a sign of progress, and was stopped: look for a constant, a macro or a type whose evaluation does not end, unless the machine is overloaded",
        COMPILER.processor.as_secs(),
        COMPILER.time.as_secs() / 60
    );
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
        confined: None,
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
        let mut command = self.command();
        command
            .args(["--list", "--format", "terse"])
            .env("JUDGE_CHECK_ANSWER", "1");
        let mut command = self.confine(command)?;
        let listed = process::run(&mut command, TO_MAIN)
            .with_context(|| format!("{} cannot be run", self.binary.display()))?;
        ensure!(listed.code() != Some(STALE), Stale);
        let time = TO_MAIN.time.as_secs();
        ensure!(
            listed.end != End::TimeLimit || !listed.stdout.is_empty(),
            "the test program did not reach main within {time} s, so no test of the answer began: code of the answer that runs before main (.init_array) does not end, or the machine is overloaded"
        );
        ensure!(
            listed.end != End::TimeLimit,
            "the test program, which listed its cases, had not ended after {time} s: code of the answer that runs after main (.fini_array, atexit) does not end, or the machine is overloaded"
        );
        let ended = || {
            let how = listed.describe();
            // The message of a panic that cannot unwind is followed by a backtrace.
            let mut lines = listed.stderr.lines();
            let panicked = lines.find(|line| line.contains(" panicked at "));
            let printed = match panicked {
                Some(place) => [place, lines.next().unwrap_or_default()].join(" "),
                None => last_lines(&listed.stderr).join(" "),
            };
            let printed = match printed.trim() {
                "" => String::new(),
                printed => format!(". It printed: {}", visible(printed)),
            };
            match listed.stdout.lines().any(|line| line.ends_with(": test")) {
                true => format!(
                    "the test program {how} after it had listed its cases: look for code of the answer that runs after main (.fini_array, atexit){printed}"
                ),
                false => format!(
                    "the test program {how} before it listed its cases, so no test of the answer began: look for code of the answer that runs before main (.init_array){printed}"
                ),
            }
        };
        ensure!(listed.success(), ended());
        let mut cases = BTreeSet::new();
        for line in listed.stdout.lines() {
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
        ensure!(!cases.is_empty(), ended());
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
        let mut compiled = self.compile_fail_among(&cases);
        let behaviour: Vec<_> = cases.difference(&compiled).map(String::as_str).collect();
        let mut runs = Vec::new();
        if !behaviour.is_empty() {
            runs.push(Run::of(["--exact"].into_iter().chain(behaviour)));
        }
        if !compiled.is_empty() {
            // The test grades all of the stage's, and would compile the others with trybuild.
            compiled = self.compile_fail_cases(stage)?;
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
        let mut ends = Vec::new();
        for run in runs {
            ends.push(self.run_once(&run, stop, &mut pass_on)?);
        }
        let forged: usize = ends.iter().map(|end| end.forged).sum();
        for name in missing {
            each(without_verdict(name, &ends));
        }
        ensure!(
            forged == 0,
            "{forged} lines of the judge's report were not written by the judge: the answer writes verdicts of its own"
        );
        Ok(())
    }

    /// Runs the grader once.
    fn run_once(&self, run: &Run, stop: &Stop, each: &mut impl FnMut(Case)) -> Result<RunEnd> {
        let sandbox = self.confined.as_ref().map(|confined| &*confined.sandbox);
        let compiled = match &self.library {
            Some(library) => {
                compile_fail::compile(&self.package, library, &run.compiled, stop, sandbox)?
            }
            None => String::new(),
        };
        let mut report =
            Report::new().context("no file in memory can be created for the judge's report")?;
        let printed = in_memory()?;
        let mut command = self.command();
        command.args(&run.arguments).env("JUDGE_COMPILED", compiled);
        let mut command = self.confine(command)?;
        command
            .stdin(Stdio::null())
            .stdout(printed.try_clone()?)
            .stderr(printed.try_clone()?);
        report.pass_to(&mut command);
        let mut grader = stop
            .spawn(&mut command)
            .with_context(|| format!("{} cannot be run", self.binary.display()))?;
        let watch = sandbox.map(|_| sandbox::watch(grader.killer(), None));
        let patience = Patience::begin(grader.killer(), VERDICT);
        let mut status = None;
        while status.is_none() {
            status = grader.try_wait()?;
            stop.check()?;
            let cases = report.new_verdicts()?;
            if !cases.is_empty() {
                patience.progress();
            }
            cases.into_iter().for_each(&mut *each);
            if printed.metadata()?.len() > PRINTED {
                grader.killer().kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let how = match status {
            _ if patience.is_exceeded() => format!(
                "gave no verdict for {} minutes and was stopped",
                VERDICT.time.as_secs() / 60
            ),
            _ if printed.metadata()?.len() > PRINTED => {
                "printed without end and was stopped".to_owned()
            }
            _ if let Some(used) = watch.as_ref().and_then(Watch::exceeded) => {
                format!("used {used} and was stopped")
            }
            Some(status) => describe(status),
            None => String::new(),
        };
        let mut text = String::new();
        // The end of what it printed, which may begin within a character.
        let mut bytes = vec![0; PRINTED.min(printed.metadata()?.len()).min(64 << 10) as usize];
        let from = printed.metadata()?.len().saturating_sub(bytes.len() as u64);
        if printed.read_exact_at(&mut bytes, from).is_ok() {
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Ok(RunEnd {
            how,
            printed: last_lines(&text).into_iter().map(visible).collect(),
            forged: report.forged,
        })
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
            .env_remove("JUDGE_INLINE")
            .env_remove("JUDGE_REPORT")
            .env_remove("JUDGE_REPORT_KEY");
        if let Some(confined) = &self.confined {
            command
                .env("JUDGE_PROGRAM", &confined.program)
                // Cases that wait for a time limit overlap. More at a time would disturb the other submissions.
                .env("RUST_TEST_THREADS", "2");
            if is_untraced() {
                command.env(UNTRACED, "1");
            }
        }
        command
    }

    /// The command, in the sandbox if there is one.
    fn confine(&self, command: Command) -> Result<Command> {
        match &self.confined {
            Some(confined) => confined.sandbox.judge(&command),
            None => Ok(command),
        }
    }
}

/// The variable with which the judge does not trace.
const UNTRACED: &str = "JUDGE_NO_PTRACE";

/// Whether the environment rules out tracing.
pub fn is_untraced() -> bool {
    env::var_os(UNTRACED).is_some()
}

/// How a run of the grader ended.
struct RunEnd {
    /// "exited with status 101".
    how: String,
    /// The last lines that it printed.
    printed: Vec<String>,
    /// The number of lines in the report that the judge has not written.
    forged: usize,
}

/// A case that got no verdict. The answer may be to blame, if it has code that runs before main, or the machine.
fn without_verdict(name: String, ends: &[RunEnd]) -> Case {
    let how: Vec<_> = ends.iter().map(|end| end.how.as_str()).collect();
    Case {
        name,
        verdict: Verdict::Failed,
        kind: NO_VERDICT.to_owned(),
        sentence: Some(format!(
            "Could not grade: the grader {} without a verdict on this case. What it printed follows.",
            how.join(", then ")
        )),
        output: ends.iter().flat_map(|end| end.printed.clone()).collect(),
        transcript: None,
        diff: None,
        debug: None,
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGKILL) => {
            "was killed (SIGKILL; the machine may have run out of memory)".to_owned()
        }
        Some(signal) => format!("was killed by signal {signal}"),
        None => format!("exited with status {}", status.code().unwrap_or(0)),
    }
}

fn last_lines(text: &str) -> Vec<&str> {
    const MOST: usize = 40;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(MOST)..].to_vec()
}
