//! One measurement in a process of its own, so that no allocator inherits another's heap.

pub mod meter;
pub mod workload;

use std::env;
use std::io::{Read, stdin};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::alarm;
use serde::{Deserialize, Serialize};

use crate::allocators::Allocator;
use crate::allocators::subject::{self, Lacks};
use crate::child::meter::Measure;
use crate::child::workload::Workload;

/// What a child is told to do: its one argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub allocator: Allocator,
    pub workload: Workload,
    pub lacks: Lacks,
    /// Whether it waits for a byte on its standard input: until then it can be given a tracer.
    pub waits: bool,
}

/// Seconds after which a child has hung.
const PATIENCE: u32 = 120;

impl Job {
    /// In the child.
    ///
    /// # Errors
    /// If the measurement fails; an allocator may also end the process.
    pub fn run(&self) -> Result<()> {
        alarm::set(PATIENCE);
        if self.waits {
            stdin().read_exact(&mut [0])?;
        }
        let alloc = self.allocator.prepare(&self.lacks)?;
        let heap_bytes: fn() -> usize = subject::heap_bytes;
        let heap_bytes = self.allocator.is_subject().then_some(heap_bytes);
        let measure = self.workload.run(alloc, heap_bytes)?;
        println!("{}", serde_json::to_string(&measure)?);
        Ok(())
    }

    /// The child's command line: a program that runs it may be put before it.
    ///
    /// # Errors
    /// If this program does not know where it is.
    pub fn command(&self, before: &[&str]) -> Result<Command> {
        let program = env::current_exe()?;
        let mut command = match before {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command.arg("--job").arg(serde_json::to_string(self)?);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Runs it in a child.
    ///
    /// # Errors
    /// If the child does not end well: then with the last that it said.
    pub fn measure(&self) -> Result<Measure> {
        let output = self.command(&[])?.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().next_back().unwrap_or("it said nothing");
            bail!("{}: {last}", output.status);
        }
        read(&output.stdout)
    }
}

/// What a child wrote.
///
/// # Errors
/// If it is no measure.
pub fn read(stdout: &[u8]) -> Result<Measure> {
    serde_json::from_slice(stdout).context("the child wrote no measure")
}
