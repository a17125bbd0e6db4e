//! Proves an answer: runs the lab's program, or compiles the call that was written, and compares.

pub mod machine;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use course::cargo::{self, Message, NO_CARGO};
use course::process::{Limits, Ran, run};

use crate::bank::question::{ANSWER, Kind, Language, Question};
use crate::matching::{is_shown, one_space};

/// What a proof came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// This machine does what the answer says.
    Proved {
        /// The lines that show it.
        shown: Vec<String>,
        /// All that was printed.
        lines: Vec<String>,
    },
    /// It does not.
    Differs {
        /// In what.
        why: String,
        /// All that was printed.
        lines: Vec<String>,
    },
    /// It could not be tried.
    Skipped(String),
}

/// How long a program of the lab may take, and a compiler.
const LIMIT: Limits = Limits::time(Duration::from_secs(60));

/// How long a check may take: what was typed may never end.
const CHECK_LIMIT: Limits = Limits::time(Duration::from_secs(10));

/// A program that cannot show its claim on this machine ends with this status; its last line says why.
const CANNOT: i32 = 77;

/// Builds programs, runs them, and remembers what they printed.
#[derive(Debug)]
pub struct Prover {
    root: PathBuf,
    target: PathBuf,
    ran: BTreeMap<String, Result<Ran, String>>,
}

impl Proof {
    /// In one word, or two.
    pub fn word(&self) -> &'static str {
        match self {
            Proof::Proved { .. } => "proved",
            Proof::Differs { .. } => "differs here",
            Proof::Skipped(_) => "skipped",
        }
    }
}

impl Prover {
    /// Proves in that clone. It builds where cargo is told to build, or else apart from the learner's builds.
    pub fn new(root: &Path) -> Prover {
        let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        Prover::building_in(root, &target.unwrap_or_else(|| cargo::target_apart(root)))
    }

    /// The same, with a target directory.
    pub fn building_in(root: &Path, target: &Path) -> Prover {
        Prover {
            root: root.to_owned(),
            target: target.to_owned(),
            ran: BTreeMap::new(),
        }
    }

    /// Whether a question's proof takes a build first.
    pub fn is_ready(&self, question: &Question) -> bool {
        question
            .prove
            .as_ref()
            .is_none_or(|name| self.ran.contains_key(name))
    }

    /// Builds and runs all the programs that these questions need.
    ///
    /// # Errors
    /// If cargo cannot be started.
    pub fn prepare<'a>(&mut self, questions: impl IntoIterator<Item = &'a Question>) -> Result<()> {
        let names = questions
            .into_iter()
            .filter_map(|question| question.prove.as_deref());
        let mut names: Vec<_> = names.filter(|name| !self.ran.contains_key(*name)).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let (mut built, said) = self.build(&names)?;
        for name in names {
            let ran = match built.remove(name) {
                Some(program) => run(Command::new(program).current_dir(&self.root), LIMIT)
                    .map_err(|error| format!("{name} cannot be run: {error}")),
                None => Err(format!("{name} does not build: {said}")),
            };
            self.ran.insert(name.to_owned(), ran);
        }
        Ok(())
    }

    /// The programs by their names, and the first thing that cargo complained of.
    fn build(&self, names: &[&str]) -> Result<(BTreeMap<String, PathBuf>, String)> {
        let mut command = cargo::command();
        command.args(["build", "--quiet", "--keep-going", "--package", "lab"]);
        for name in names {
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
        let programs = cargo::messages(&*output.stdout).filter_map(|message| match message {
            Message::Artifact {
                executable: Some(program),
                ..
            } => Some((program.file_stem()?.to_string_lossy().into_owned(), program)),
            _ => None,
        });
        let programs = programs.collect();
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| line.starts_with("error"));
        let first = first
            .or(said.lines().next())
            .unwrap_or("cargo does not say why");
        Ok((programs, first.to_owned()))
    }

    /// Proves a question's answer.
    ///
    /// # Errors
    /// If cargo cannot be started, or no file can be written.
    pub fn prove(&mut self, question: &Question) -> Result<Proof> {
        if let Kind::Write {
            language,
            answer,
            check,
        } = &question.kind
        {
            let proof = try_answer(*language, check, answer)?;
            if question.prove.is_none() || !matches!(proof, Proof::Proved { .. }) {
                return Ok(proof);
            }
        }
        let Some(name) = &question.prove else {
            return Ok(Proof::Skipped(
                "no program shows it: its page says why it is so".to_owned(),
            ));
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
        return Proof::Skipped(last.unwrap_or_else(|| end(ran)));
    }
    if !ran.success() {
        return Proof::Differs {
            why: end(ran),
            lines,
        };
    }
    let mut shown = Vec::new();
    for expected in &question.shows {
        match lines
            .iter()
            .find(|line| one_space(line) == one_space(expected))
        {
            Some(line) => shown.push(line.clone()),
            None => {
                let why = format!("it did not print: {}", one_space(expected));
                return Proof::Differs { why, lines };
            }
        }
    }
    if let Kind::Output { answers } | Kind::Estimate { answers, .. } = &question.kind
        && !is_shown(answers, &shown)
    {
        let why = format!("nothing that it printed says {}", answers[0]);
        return Proof::Differs { why, lines };
    }
    Proof::Proved { shown, lines }
}

/// Puts an answer into its check, compiles it and runs it.
///
/// # Errors
/// If no file can be written.
pub fn try_answer(language: Language, check: &str, answer: &str) -> Result<Proof> {
    let folder = tempfile::tempdir().context("no room for the check")?;
    let program = folder.path().join("check");
    // In C it is a file of its own, so that the compiler counts the learner's lines, and not the check's.
    let (name, put) = match language {
        Language::C => {
            fs::write(folder.path().join("answer.c"), format!("{answer}\n"))?;
            ("check.c", "#include \"answer.c\"")
        }
        Language::Rust => ("check.rs", answer),
    };
    let lines = check.lines();
    let lines = lines.map(|line| if line.trim() == ANSWER { put } else { line });
    let file = folder.path().join(name);
    fs::write(&file, lines.collect::<Vec<_>>().join("\n") + "\n")?;
    let mut compiler = match language {
        Language::C => {
            let mut cc = Command::new("cc");
            cc.args(["-std=c17", "-D_GNU_SOURCE", "-O1", "-pthread", "-w"]);
            cc
        }
        Language::Rust => {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition=2024", "--cap-lints=allow"]);
            rustc
        }
    };
    let named = compiler.get_program().to_string_lossy().into_owned();
    let compiled = match run(compiler.arg("-o").arg(&program).arg(&file), LIMIT) {
        Ok(compiled) => compiled,
        Err(error) => {
            return Ok(Proof::Skipped(format!(
                "{named} cannot be started: {error}"
            )));
        }
    };
    if !compiled.success() {
        let inside = folder.path().display().to_string() + "/";
        let said = compiled.stderr.replace(&inside, "");
        let lines = said
            .lines()
            .skip_while(|line| line.starts_with("In file included"));
        let lines = lines.take(12).map(str::to_owned);
        return Ok(Proof::Differs {
            why: "it does not compile".to_owned(),
            lines: lines.collect(),
        });
    }
    let ran = run(
        Command::new(&program).current_dir(folder.path()),
        CHECK_LIMIT,
    )?;
    if ran.success() {
        let lines = vec!["it compiles, and it passes its check".to_owned()];
        return Ok(Proof::Proved {
            shown: lines.clone(),
            lines,
        });
    }
    Ok(Proof::Differs {
        why: reason(check, &ran).unwrap_or_else(|| end(&ran)),
        lines: Vec::new(),
    })
}

/// Describes how a program ended: the message of a panic, or else the last line on standard error, or else its status.
fn end(ran: &Ran) -> String {
    if ran.code().is_none() {
        return format!("it {}", ran.describe());
    }
    let mut lines = ran.stderr.lines();
    // The line after "panicked at" is the message.
    let panic = lines
        .find(|line| line.contains("panicked at"))
        .and(lines.next());
    let last = ran.stderr.lines().rfind(|line| !line.trim().is_empty());
    match panic.or(last) {
        Some(line) => line.to_owned(),
        None => format!("it {}", ran.describe()),
    }
}

/// What the check says of the status that it ended with: the comment beside `return 3;`.
fn reason(check: &str, ran: &Ran) -> Option<String> {
    let status = ran.code()?;
    let returns = format!("return {status};");
    let line = check.lines().find(|line| line.contains(&returns))?;
    let (_, comment) = line.split_once("/*").or(line.split_once("//"))?;
    let comment = comment.trim_end().trim_end_matches("*/");
    Some(comment.trim().to_owned())
}
