//! The drill's program at a desk of its own: the small clone, a log in a folder that goes away, a clock that stands.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A learner's desk.
pub struct Desk {
    folder: tempfile::TempDir,
}

/// What a run of the program came to.
pub struct Ran {
    /// Its status.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// When every test begins.
pub const NOW: &str = "2026-11-25T10:00:00Z";

impl Desk {
    /// An empty one.
    pub fn new() -> Desk {
        Desk {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// The log's file.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log.jsonl")
    }

    /// The log's records, which are all whole.
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let records = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a record"));
        records.collect()
    }

    /// The questions that were graded, and how.
    pub fn grades(&self) -> Vec<(String, u64)> {
        let records = self.records().into_iter();
        let grades = records.filter(|record| record["what"] == "grade");
        let grade = |record: Value| {
            let question = record["question"].as_str().expect("a question").to_owned();
            (question, record["grade"].as_u64().expect("a grade"))
        };
        grades.map(grade).collect()
    }

    /// The program with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drill"));
        command
            .args(arguments)
            .env("WORKBOOK_ROOT", clone())
            .env("WORKBOOK_HOME", self.folder.path())
            .env("WORKBOOK_NOW", NOW)
            .env(
                "CARGO_TARGET_DIR",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("clone"),
            )
            .env("TZ", "UTC0")
            .env("TERM", "xterm");
        command
    }

    /// Runs it with these lines typed, and then the end of the input.
    pub fn run(&self, arguments: &[&str], typed: &[&str]) -> Ran {
        self.run_at(NOW, arguments, typed)
    }

    /// The same, at another time.
    pub fn run_at(&self, now: &str, arguments: &[&str], typed: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        finish(command.env("WORKBOOK_NOW", now), typed)
    }
}

/// Runs a command with these lines typed.
pub fn finish(command: &mut Command, typed: &[&str]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the drill starts");
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    let typed: String = typed.iter().map(|line| format!("{line}\n")).collect();
    // Whatever does not read it all has ended before.
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

/// The small clone.
pub fn clone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clone")
}
