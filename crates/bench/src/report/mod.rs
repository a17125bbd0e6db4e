//! The report: the results of a run, compared with glibc, scored, and explained.

mod facts;
mod machine;
mod reasons;
pub mod rows;
pub mod score;

use anyhow::Result;
use serde::Serialize;

use crate::allocators::subject::{self, Lacks};
use crate::run::plan::Plan;
use crate::run::{self, Failure, Skipped};
use course::statistics::Ratio;
use facts::Facts;
use machine::Machine;
use rows::{Row, Rows, Size};
use score::Score;

#[derive(Debug, Serialize)]
pub struct Report {
    /// `solution`, or `yours` for the learner's answer.
    pub subject: &'static str,
    pub lacks: Lacks,
    pub machine: Machine,
    /// The number of rounds in which the times were measured.
    pub rounds: usize,
    pub score: Score,
    /// The answer is the first row.
    pub rows: Vec<Row>,
    /// CPU time for large blocks, as a ratio to the kernel's floor.
    pub floor: Option<Ratio>,
    /// CPU time of a lock that is taken twice in each step of the small churn, as a ratio to glibc.
    pub lock: Option<Ratio>,
    /// The times for large blocks.
    pub large: Vec<Size>,
    /// The workloads in which the answer is slower than another allocator, with the reason.
    pub behind: Vec<String>,
    pub skipped: Vec<Skipped>,
    pub failed: Vec<Failure>,
}

/// Runs all measurements.
///
/// # Errors
/// Returns an error if the machine cannot be described. A failed measurement is an entry of the report.
pub fn run(plan: &Plan, lacks: Lacks) -> Result<Report> {
    let machine = Machine::detect()?;
    let results = run::run(plan, &lacks, machine.page);
    let floor = rows::ratio_to_floor(&results.times);
    let lock = rows::ratio_of_lock(&results.times);
    let large = rows::sizes(plan, &results.times);
    let rows = rows::rows(results.counted, &results.times);
    let table = Rows(&rows);
    let without_lock = rows::ratio_without_lock(&results.times);
    let facts = Facts::collect(table, floor, without_lock, &lacks, &results.failed);
    Ok(Report {
        subject: subject::NAME,
        machine,
        rounds: results.rounds,
        score: score::score(&facts),
        floor,
        lock,
        large,
        behind: reasons::behind(table, &lacks, lock),
        rows,
        lacks,
        skipped: results.skipped,
        failed: results.failed,
    })
}
