//! Runs the drill for a learner with the small clone, a temporary log and a stopped clock.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub struct Learner {
    /// Holds the log.
    home: tempfile::TempDir,
}

/// The result of a command.
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The time of the stopped clock.
pub const NOW: &str = "2026-11-25T10:00:00Z";

impl Learner {
    /// Returns a learner with an empty log.
    pub fn new() -> Learner {
        Learner {
            home: tempfile::tempdir().expect("a folder"),
        }
    }

    pub fn log(&self) -> PathBuf {
        self.home.path().join("log.jsonl")
    }

    /// Returns the records of the log, all of which must be complete.
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let records = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record"));
        records.collect()
    }

    /// Returns the questions that were graded, and their grades.
    pub fn grades(&self) -> Vec<(String, u64)> {
        let records = self.records().into_iter();
        let grades = records.filter(|record| record["what"] == "grade");
        let grade = |record: Value| {
            let question = record["question"].as_str().expect("a question").to_owned();
            (question, record["grade"].as_u64().expect("a grade"))
        };
        grades.map(grade).collect()
    }

    /// Returns the command of the drill with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drill"));
        command
            .args(arguments)
            .env("WORKBOOK_ROOT", clone())
            .env("WORKBOOK_HOME", self.home.path())
            .env("WORKBOOK_NOW", NOW)
            .env(
                "CARGO_TARGET_DIR",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("clone"),
            )
            .env("TZ", "UTC0")
            .env("TERM", "xterm");
        command
    }

    /// Runs the drill with these typed lines, followed by the end of the input.
    pub fn run(&self, arguments: &[&str], typed: &[&str]) -> Ran {
        self.run_at(NOW, arguments, typed)
    }

    /// Like [`Learner::run`], at another time.
    pub fn run_at(&self, now: &str, arguments: &[&str], typed: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        finish(command.env("WORKBOOK_NOW", now), typed)
    }
}

/// Runs a command to its end with these typed lines.
pub fn finish(command: &mut Command, typed: &[&str]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the drill starts");
    let mut stdin = child.stdin.take().expect("a pipe was requested");
    let typed: String = typed.iter().map(|line| format!("{line}\n")).collect();
    // Fails if the command ends before it has read everything.
    let _ = stdin.write_all(typed.as_bytes());
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("the drill ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        status: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// The path of the small clone.
pub fn clone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clone")
}
