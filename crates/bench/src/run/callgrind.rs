//! Instructions by callgrind: the difference between many steps and twice as many is what the steps cost, to the digit.

use std::io;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::allocators::Allocator;
use crate::allocators::subject::Lacks;
use crate::child::Job;
use crate::child::workload::Workload;

/// Instructions that the allocator takes for a step of the small churn; what the churn takes itself is taken off.
///
/// # Errors
/// If valgrind is not there, or the child does not end well under it.
pub fn a_small_pair(allocator: Allocator, lacks: &Lacks, steps: u64) -> Result<f64> {
    // With an allocator that does nothing.
    let own = a_step(Allocator::Memset, lacks, steps)?;
    Ok(a_step(allocator, lacks, steps)? - own)
}

fn a_step(allocator: Allocator, lacks: &Lacks, steps: u64) -> Result<f64> {
    let once = instructions(allocator, lacks, steps)?;
    let twice = instructions(allocator, lacks, 2 * steps)?;
    ensure!(once < twice, "callgrind counts nothing");
    Ok((twice - once) as f64 / steps as f64)
}

/// Whether there is a valgrind that starts.
pub fn is_there() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

fn instructions(allocator: Allocator, lacks: &Lacks, steps: u64) -> Result<u64> {
    let job = Job {
        allocator,
        workload: Workload::Small { steps },
        lacks: lacks.clone(),
        waits: false,
    };
    let callgrind = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
    ];
    let output = match job.command(&callgrind)?.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("valgrind is not installed"),
        output => output?,
    };
    ensure!(output.status.success(), "under valgrind: {}", output.status);
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said).context("callgrind does not say what it collected")
}

/// From `==123== Collected : 456`.
fn collected(said: &str) -> Option<u64> {
    let lines = said.lines();
    let mut numbers = lines.filter_map(|line| line.split_once("Collected : "));
    numbers.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_callgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n";
        assert_eq!(collected(said), Some(1_234_567));
        assert_eq!(collected("==7== I   refs:      12"), None);
    }
}
