//! One measurement, in a separate process so that no allocator inherits another's heap.

pub mod block;
pub mod meter;
pub mod workload;

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use course::process::{self, Limits};
use serde::{Deserialize, Serialize};

use crate::allocators::Allocator;
use crate::allocators::subject::{self, Lacks};
use meter::Measure;
use workload::Workload;

/// What a child measures. The child receives it as JSON, in its argument `--job`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub allocator: Allocator,
    pub workload: Workload,
    pub lacks: Lacks,
}

/// A child that takes longer is killed, and its allocator has failed.
pub const LIMITS: Limits = Limits::time(Duration::from_secs(120));

impl Job {
    /// Measures in this process, which is the child, and prints the result as JSON.
    pub fn run(&self) -> Result<()> {
        let alloc = self.allocator.prepare(&self.lacks)?;
        let heap_bytes: fn() -> usize = subject::heap_bytes;
        let heap_bytes = self.allocator.is_subject().then_some(heap_bytes);
        let measure = self.workload.run(alloc, heap_bytes)?;
        println!("{}", serde_json::to_string(&measure)?);
        Ok(())
    }

    /// Returns the command line of the child. `wrapper` is a program that runs it, with its arguments, or empty.
    pub fn command(&self, wrapper: &[&str]) -> Result<Command> {
        let program = env::current_exe().context("the path of this program is unknown")?;
        let mut command = match wrapper {
            [] => Command::new(program),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        command.arg("--job").arg(serde_json::to_string(self)?);
        // A backtrace would hide the error, which `measure` looks for in the last line.
        command.env("RUST_BACKTRACE", "0");
        Ok(command)
    }

    /// Runs the job in a child and returns its result.
    ///
    /// # Errors
    /// Returns an error with the last line that the child printed if it fails.
    pub fn measure(&self) -> Result<Measure> {
        let child = process::run(&mut self.command(&[])?, LIMITS)?;
        if !child.success() {
            // A panic ends with a note on how to get a backtrace.
            let mut lines = child.stderr.lines();
            let last = lines.rfind(|line| !line.starts_with("note: "));
            let last = last.unwrap_or("it printed nothing");
            bail!("the child {}: {last}", child.describe());
        }
        parse(&child.stdout)
    }
}

/// Parses the standard output of a child.
pub fn parse(stdout: &str) -> Result<Measure> {
    serde_json::from_str(stdout).context("the child did not print a measurement as JSON")
}
