//! Runs a program once, without a tracer, and keeps what it has written.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use course::process::{self, Limits, Ran};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tempfile::TempDir;

use crate::interrupt;
use crate::list::Program;
use crate::object::Object;

/// Whose malloc a program runs on.
#[derive(Clone, Copy)]
pub enum Malloc<'a> {
    Glibc,
    Object(&'a Object),
}

/// A program with its inputs, ready to run.
pub struct Ready {
    pub program: &'static Program,
    executable: PathBuf,
    folder: TempDir,
}

/// What a run has done.
#[derive(Debug)]
pub struct Outcome {
    pub ran: Ran,
    /// The files that are compared; `None` if one does not exist.
    pub files: Vec<Option<Vec<u8>>>,
    pub cpu: Duration,
    /// Minor page faults.
    pub faults: u64,
}

impl Ready {
    /// # Errors
    /// Returns an error if the inputs cannot be written.
    pub fn new(program: &'static Program, executable: PathBuf) -> Result<Ready> {
        let folder = tempfile::tempdir().context("there is no temporary folder")?;
        let input = folder.path().join("input");
        fs::create_dir(&input)?;
        (program.prepare)(&input).context("the inputs cannot be written")?;
        Ok(Ready {
            program,
            executable,
            folder,
        })
    }

    /// Returns the command for the next run, which begins in an empty folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be emptied.
    pub fn command(&self, malloc: Malloc) -> Result<Command> {
        let run = self.run_folder();
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        fs::create_dir(&run)?;
        let mut command = self.program.command(&self.executable, &run);
        if let Malloc::Object(object) = malloc {
            command.env("LD_PRELOAD", &object.path);
        }
        Ok(command)
    }

    /// # Errors
    /// Returns an error if the program cannot be started, or if the user has interrupted it.
    pub fn run(&self, malloc: Malloc, limits: Limits) -> Result<Outcome> {
        let mut command = self.command(malloc)?;
        let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let ran = process::run_with(&mut command, limits, interrupt::started)
            .with_context(|| format!("{} cannot be started", self.executable.display()))?;
        interrupt::check()?;
        let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        Ok(Outcome {
            ran,
            files: self.files(),
            cpu: cpu_time(&after).saturating_sub(cpu_time(&before)),
            faults: (after.minor_page_faults() - before.minor_page_faults()).unsigned_abs(),
        })
    }

    fn files(&self) -> Vec<Option<Vec<u8>>> {
        let read = |file: &&str| fs::read(self.run_folder().join(file)).ok();
        self.program.files.iter().map(read).collect()
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }
}

fn cpu_time(usage: &Usage) -> Duration {
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(time.num_microseconds().unsigned_abs())
}

/// Describes the first difference between two texts, in one clause.
pub fn difference(text: &str, expected: &str) -> String {
    let (mut lines, mut expected) = (text.lines(), expected.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (lines.next(), expected.next()) {
            (Some(line), Some(other)) if line == other => {}
            (Some(line), Some(other)) => {
                return format!(
                    "line {number} is `{}` instead of `{}`",
                    short(line),
                    short(other)
                );
            }
            (None, Some(_)) => return format!("it ends before line {number}"),
            (Some(line), None) => {
                return format!("it has a further line {number}, `{}`", short(line));
            }
            (None, None) => return "its last line ends differently".to_owned(),
        }
    }
}

/// Shortens a line for a sentence.
pub fn short(line: &str) -> String {
    const MOST: usize = 60;
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
