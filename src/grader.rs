//! Builds a grader with cargo, runs it, and collects the judge's verdicts, each as it comes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::cargo::{self, Message, NO_CARGO};
use crate::exercise::Exercise;

/// What the judge wrote of one case: a line of its report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// `region::zeroed`.
    #[serde(rename = "case")]
    pub name: String,
    /// What it came to.
    pub verdict: Verdict,
    /// A short name for what happened.
    pub kind: String,
    /// What the learner reads; none for a pass.
    pub sentence: Option<String>,
    /// More of it, a line each.
    #[serde(default)]
    pub details: Vec<String>,
    /// What the answer printed last.
    #[serde(default)]
    pub output: Vec<String>,
    /// The system calls that were watched.
    #[serde(default)]
    pub transcript: Option<String>,
    /// Where they were compared: how they differ.
    #[serde(default)]
    pub diff: Option<String>,
    /// After a crash: the command line for a debugger.
    #[serde(default)]
    pub debug: Option<String>,
}

/// What a case can come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Right.
    Passed,
    /// Wrong.
    Failed,
    /// This machine cannot check it.
    Skipped,
    /// A `todo!()` was reached.
    #[serde(rename = "not started")]
    NotStarted,
}

/// A built grader, ready to run.
#[derive(Debug, Clone)]
pub struct Grader {
    /// The test binary.
    pub binary: PathBuf,
    /// The package's folder: the exercise's, or a candidate's.
    pub package: PathBuf,
    /// The clone's root.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
}

/// The module of the cases that must not compile.
const COMPILE_FAIL: &str = "compile_fail::";

/// Builds the exercise's grader. Cargo shows the compiler's words, and unless it is to be quiet its progress.
///
/// One exercise at a time: cargo builds the judge once for each set of packages that it is asked for, and the first
/// verdicts need not wait for the others' builds.
///
/// # Errors
/// If it does not build.
pub fn build(exercise: &Exercise, quiet: bool) -> Result<Grader> {
    let root = &exercise.root;
    let mut command = cargo::command();
    command.args(["build", "--package", &exercise.name, "--test", "grader"]);
    if quiet {
        command.arg("--quiet");
    }
    let mut child = command
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context(NO_CARGO)?;
    let stdout = child.stdout.take().expect("a pipe was asked for");
    let mut binary = None;
    for message in cargo::messages(stdout) {
        if let Message::Built {
            executable: Some(executable),
            ..
        } = message
        {
            binary = Some(executable);
        }
    }
    let built = child.wait()?.success();
    let binary = binary.filter(|_| built).ok_or_else(|| why_not(root))?;
    Ok(Grader {
        target: cargo::target_of(root, &binary)?,
        binary,
        package: exercise.folder(),
        root: root.clone(),
    })
}

fn why_not(root: &Path) -> anyhow::Error {
    // Without one of them cargo builds none of the others either.
    let mut exercises = Exercise::all(root).unwrap_or_default().into_iter();
    match exercises.find(|exercise| !exercise.answer().is_file()) {
        Some(Exercise { name, .. }) => anyhow!(
            "exercises/{name}/src/lib.rs is gone. To begin again, copy tests/{name}/answers/stub.rs there"
        ),
        None => anyhow!("it does not build: the reason is above"),
    }
}

impl Grader {
    /// The names of its cases. A case of `compile_fail/` is named by its stage and its file.
    ///
    /// # Errors
    /// If the grader cannot be run, or a folder of cases cannot be read.
    pub fn cases(&self) -> Result<BTreeSet<String>> {
        let output = self
            .command()
            .args(["--list", "--format", "terse"])
            .output()
            .with_context(|| format!("{} cannot be run", self.binary.display()))?;
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

    fn compile_fail_cases(&self, stage: &str) -> Result<Vec<String>> {
        let folder = self.package.join("compile_fail").join(stage);
        let mut cases = Vec::new();
        let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(name) = path.file_stem()
            {
                cases.push(format!("{stage}::{}", name.to_string_lossy()));
            }
        }
        Ok(cases)
    }

    /// Runs every case, and tells `each` of every verdict as it comes. A case that gets none has failed.
    ///
    /// # Errors
    /// If the grader cannot be run, or its report cannot be read.
    pub fn run(&self, each: impl FnMut(Case)) -> Result<()> {
        self.run_all(self.cases()?, each)
    }

    /// The same, where it is known which cases there are.
    ///
    /// What the answer does comes first, in a run of its own; what the compiler refuses takes longer to see.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_all(&self, mut missing: BTreeSet<String>, mut each: impl FnMut(Case)) -> Result<()> {
        let mut tell = |case: Case| {
            missing.remove(&case.name);
            each(case);
        };
        let mut words = self.run_some(&["--skip", COMPILE_FAIL], &mut tell)?;
        if self.package.join("compile_fail").is_dir() {
            words.extend(self.run_some(&[COMPILE_FAIL], &mut tell)?);
        }
        for name in missing {
            each(Case {
                name,
                verdict: Verdict::Failed,
                kind: "no-verdict".to_owned(),
                sentence: Some(
                    "The grader ended and gave no verdict on this case; what it printed follows."
                        .to_owned(),
                ),
                details: Vec::new(),
                output: words.clone(),
                transcript: None,
                diff: None,
                debug: None,
            });
        }
        Ok(())
    }

    /// Runs the cases that these arguments choose. Returns the last lines that the grader has printed.
    fn run_some(&self, which: &[&str], each: &mut impl FnMut(Case)) -> Result<Vec<String>> {
        let report = tempfile::NamedTempFile::new().context("no room for the judge's report")?;
        let mut words = tempfile::tempfile()?;
        let mut child = self
            .command()
            .args(which)
            .env("JUDGE_REPORT", report.path())
            .stdin(Stdio::null())
            .stdout(words.try_clone()?)
            .stderr(words.try_clone()?)
            .spawn()
            .with_context(|| format!("{} cannot be run", self.binary.display()))?;
        let mut lines = Lines::of(report.reopen()?);
        loop {
            let over = child.try_wait()?.is_some();
            for line in lines.complete()? {
                let case = serde_json::from_str(&line)
                    .with_context(|| format!("the judge's report has a line of its own: {line}"))?;
                each(case);
            }
            if over {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        words.rewind()?;
        Ok(last_lines(words))
    }

    /// The grader in the surroundings that `cargo test` would give it.
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

/// A file that grows by lines.
struct Lines {
    file: BufReader<File>,
    /// The beginning of a line whose end has not been written yet.
    begun: String,
}

impl Lines {
    fn of(file: File) -> Lines {
        Lines {
            file: BufReader::new(file),
            begun: String::new(),
        }
    }

    /// The lines that have been completed since the last time.
    fn complete(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while self.file.read_line(&mut self.begun)? > 0 {
            if self.begun.ends_with('\n') {
                lines.push(std::mem::take(&mut self.begun));
            }
        }
        Ok(lines)
    }
}

fn last_lines(words: File) -> Vec<String> {
    const MOST: usize = 40;
    let lines: Vec<String> = BufReader::new(words)
        .lines()
        .map_while(Result::ok)
        .collect();
    lines[lines.len().saturating_sub(MOST)..].to_vec()
}
