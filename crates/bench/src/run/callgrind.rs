//! Counts instructions with callgrind. Two runs, one with twice as many steps as the other, differ by the cost of the
//! steps alone.

use std::io;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use course::process;

use crate::allocators::Allocator;
use crate::allocators::subject::Lacks;
use crate::child::workload::Workload;
use crate::child::{Job, LIMITS};

/// Returns the number of instructions in one step of the small churn, with those of the churn itself.
///
/// # Errors
/// Returns an error if valgrind is not installed, or if the child fails under it.
pub fn small_step(allocator: Allocator, lacks: &Lacks, steps: u64) -> Result<f64> {
    let once = instructions(allocator, lacks, steps)?;
    let twice = instructions(allocator, lacks, 2 * steps)?;
    ensure!(
        once < twice,
        "callgrind counted {once} instructions for {steps} steps and {twice} for twice as many"
    );
    Ok((twice - once) as f64 / steps as f64)
}

pub fn is_installed() -> bool {
    let version = process::run(Command::new("valgrind").arg("--version"), LIMITS);
    version.is_ok_and(|version| version.success())
}

fn instructions(allocator: Allocator, lacks: &Lacks, steps: u64) -> Result<u64> {
    let job = Job {
        allocator,
        workload: Workload::Small { steps },
        lacks: lacks.clone(),
    };
    let callgrind = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
    ];
    let child = match process::run(&mut job.command(&callgrind)?, LIMITS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("valgrind is not installed"),
        child => child?,
    };
    ensure!(
        child.success(),
        "under valgrind the child {}",
        child.describe()
    );
    total(&child.stderr).context("callgrind did not print how many instructions it counted")
}

/// Parses callgrind's line `==123== Collected : 456`.
fn total(stderr: &str) -> Option<u64> {
    let mut totals = stderr
        .lines()
        .filter_map(|line| line.split_once("Collected : "));
    totals.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_parsed() {
        let stderr = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n";
        assert_eq!(total(stderr), Some(1_234_567));
        assert_eq!(total("==7== I   refs:      12"), None);
    }
}
