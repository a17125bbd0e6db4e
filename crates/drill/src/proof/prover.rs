//! Builds and runs programs of the lab, and compares their output with a question.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use course::cargo::{self, Message, NO_CARGO};
use course::process::{Limits, Ran};

use super::result::{Proof, describe_end};
use super::written::check_written;
use crate::bank::question::{Kind, Question};
use crate::input::{run_until_interrupt, was_interrupted};
use crate::matching::one_space;

const LIMITS: Limits = Limits::time(Duration::from_secs(60));

/// The exit status of a program that cannot show its claim on this machine. Its last line says why.
const CANNOT: i32 = 77;

/// Builds and runs programs of the lab, each of them once.
#[derive(Debug)]
pub struct Prover {
    root: PathBuf,
    target: PathBuf,
    /// What each program printed, or why it did not run.
    ran: BTreeMap<String, Result<Ran, String>>,
}

impl Prover {
    /// Builds in `CARGO_TARGET_DIR`, or else in the target directory that the learner's builds do not use.
    pub fn new(root: &Path) -> Prover {
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        Prover::building_in(
            root,
            &target.unwrap_or_else(|| cargo::separate_target(root)),
        )
    }

    pub fn building_in(root: &Path, target: &Path) -> Prover {
        Prover {
            root: root.to_owned(),
            target: target.to_owned(),
            ran: BTreeMap::new(),
        }
    }

    /// Returns whether the program of a question has been run before.
    pub fn has_run(&self, program: &str) -> bool {
        self.ran.contains_key(program)
    }

    /// Builds and runs the programs of these questions.
    ///
    /// # Errors
    /// Returns an error if cargo cannot be started.
    pub fn prepare<'a>(&mut self, questions: impl IntoIterator<Item = &'a Question>) -> Result<()> {
        let programs = questions.into_iter();
        let programs = programs.filter_map(|question| question.prove.as_deref());
        let mut programs: Vec<_> = programs.filter(|name| !self.has_run(name)).collect();
        programs.sort_unstable();
        programs.dedup();
        if programs.is_empty() {
            return Ok(());
        }
        let (mut built, error) = self.build(&programs)?;
        for name in programs {
            let ran = match built.remove(name) {
                _ if was_interrupted() => Err("Ctrl-C ended the proof".to_owned()),
                Some(path) => {
                    run_until_interrupt(Command::new(path).current_dir(&self.root), LIMITS)
                        .map_err(|error| format!("{name} cannot be started: {error}"))
                }
                None => Err(format!("{name} does not build: {error}")),
            };
            self.ran.insert(name.to_owned(), ran);
        }
        Ok(())
    }

    /// Returns the paths of the programs that were built, and cargo's first error.
    fn build(&self, programs: &[&str]) -> Result<(BTreeMap<String, PathBuf>, String)> {
        let mut command = cargo::command();
        command.args(["build", "--quiet", "--keep-going", "--package", "lab"]);
        for name in programs {
            command.args(["--example", name]);
        }
        let output = command
            .arg("--message-format=json-render-diagnostics")
            .arg("--manifest-path")
            .arg(self.root.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&self.target)
            .stdin(Stdio::null())
            .output()
            .context(NO_CARGO)?;
        let built = cargo::messages(&*output.stdout).filter_map(|message| match message {
            Message::Artifact {
                executable: Some(path),
                ..
            } => Some((path.file_stem()?.to_string_lossy().into_owned(), path)),
            _ => None,
        });
        let built = built.collect();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let first = stderr.lines().find(|line| line.starts_with("error"));
        let first = first.or(stderr.lines().next());
        Ok((built, first.unwrap_or("cargo printed no error").to_owned()))
    }

    /// Proves the answer of a question.
    ///
    /// # Errors
    /// Returns an error if cargo cannot be started, or if a file cannot be written.
    pub fn prove(&mut self, question: &Question) -> Result<Proof> {
        if let Kind::Write {
            language,
            answer,
            check,
        } = &question.kind
        {
            let proof = check_written(*language, check, answer)?;
            if question.prove.is_none() || !proof.is_proved() {
                return Ok(proof);
            }
        }
        let Some(name) = &question.prove else {
            let why = "this question has no program; its page explains the answer";
            return Ok(Proof::Skipped(why.to_owned()));
        };
        self.prepare([question])?;
        Ok(match &self.ran[name] {
            Ok(ran) => compare(question, ran),
            Err(why) => Proof::Skipped(why.clone()),
        })
    }
}

/// Compares what a program printed with what the question says.
fn compare(question: &Question, ran: &Ran) -> Proof {
    let lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    if ran.code() == Some(CANNOT) {
        let last = lines.last().cloned();
        return Proof::Skipped(last.unwrap_or_else(|| describe_end(ran)));
    }
    if !ran.success() {
        let why = describe_end(ran);
        return Proof::Differs { why, lines };
    }
    let mut shown = Vec::new();
    for expected in question.expected_lines() {
        let expected = one_space(&expected);
        match lines.iter().find(|line| one_space(line) == expected) {
            Some(line) => shown.push(line.clone()),
            None => {
                let why = format!("the program did not print: {expected}");
                return Proof::Differs { why, lines };
            }
        }
    }
    Proof::Proved { shown, lines }
}
