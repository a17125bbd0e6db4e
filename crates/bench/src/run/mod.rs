//! Starts the children: first those that count, then in rounds those that are timed.

mod callgrind;
pub mod plan;
pub mod trace;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr};

use crate::allocators::Allocator;
use crate::allocators::baseline;
use crate::allocators::subject::Lacks;
use crate::child::Job;
use crate::child::meter::Measure;
use crate::child::workload::Workload;
use crate::report::{Count, Failure, Row, Skipped};
use crate::run::plan::Plan;

/// CPU times in nanoseconds, round by round: for a step of a workload; for a page of large blocks, by their size.
#[derive(Default)]
pub struct Times {
    pub workloads: BTreeMap<(Allocator, &'static str), Vec<f64>>,
    pub sizes: BTreeMap<(Allocator, usize), Vec<f64>>,
}

/// Notes what could not be done.
pub struct Runner<'a> {
    plan: &'a Plan,
    lacks: &'a Lacks,
    skipped: Vec<Skipped>,
    failed: Vec<Failure>,
    progress: Progress,
}

impl Runner<'_> {
    pub fn new<'a>(plan: &'a Plan, lacks: &'a Lacks) -> Runner<'a> {
        let mut skipped = Vec::new();
        for (stage, what) in [("cache", "the thread cache"), ("global", "two threads")] {
            if lacks.iter().any(|lacked| lacked == stage) {
                let why = format!("the stage {stage} is not solved");
                skipped.push(Skipped { what, why });
            }
        }
        if baseline::huge_page().is_none() {
            let why = "the kernel gives none".to_owned();
            skipped.push(Skipped {
                what: "huge pages",
                why,
            });
        }
        Runner {
            plan,
            lacks,
            skipped,
            failed: Vec::new(),
            progress: Progress(stderr().is_terminal()),
        }
    }

    /// Calls, faults, memory and instructions of every allocator.
    pub fn count(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for allocator in Allocator::ALL {
            let mut row = Row {
                allocator,
                name: allocator.name(),
                counts: BTreeMap::new(),
                instructions: None,
                ns_a_step: BTreeMap::new(),
                times: BTreeMap::new(),
            };
            // Counts are the same each time.
            if allocator != Allocator::Again && self.solved(allocator) {
                self.progress
                    .show(&format!("counting: {}", row.name.trim()));
                for (name, workload) in self.plan.counted() {
                    if let Some(count) = self.calls(allocator, name, workload) {
                        row.counts.insert(name, count);
                    }
                }
                for (name, workload) in self.plan.held() {
                    if let Some(measure) = self.measure(allocator, name, workload) {
                        let calls = None;
                        row.counts.insert(name, Count { measure, calls });
                    }
                }
                row.instructions = self.instructions(allocator);
            }
            rows.push(row);
        }
        rows.retain(|row| self.solved(row.allocator));
        rows
    }

    /// The rounds. In each every allocator is run for every workload, and each time another one begins.
    pub fn time(&mut self, page: usize) -> Times {
        let mut times = Times::default();
        for round in 0..self.plan.rounds {
            self.progress
                .show(&format!("round {} of {}", round + 1, self.plan.rounds));
            for (name, workload) in self.plan.timed() {
                for allocator in turned(&Allocator::ALL, round) {
                    if let Some(measure) = self.measure(allocator, name, workload) {
                        let time = measure.cpu_ns as f64 / measure.steps as f64;
                        let rounds = times.workloads.entry((allocator, name));
                        rounds.or_default().push(time);
                    }
                }
            }
            let all = [Allocator::ALL.as_slice(), &Allocator::LINES].concat();
            for bytes in Plan::large_sizes() {
                for allocator in turned(&all, round) {
                    let huge = baseline::huge_page().unwrap_or(usize::MAX);
                    if allocator == Allocator::Huge && bytes < huge {
                        continue;
                    }
                    let workload = self.plan.large(bytes, page);
                    if let Some(measure) = self.measure(allocator, "large", workload) {
                        let time = measure.cpu_ns as f64 / measure.pages as f64;
                        let rounds = times.sizes.entry((allocator, bytes));
                        rounds.or_default().push(time);
                    }
                }
            }
        }
        times
    }

    pub fn end(self) -> (Vec<Skipped>, Vec<Failure>) {
        self.progress.clear();
        (self.skipped, self.failed)
    }

    /// Whether the answer has what this row shows.
    fn solved(&self, allocator: Allocator) -> bool {
        allocator != Allocator::Cached || !self.lacked("cache")
    }

    fn lacked(&self, stage: &str) -> bool {
        self.lacks.iter().any(|lacked| lacked == stage)
    }

    /// The job, if it can be done and has not failed before.
    fn job(&self, allocator: Allocator, name: &str, workload: Workload) -> Option<Job> {
        let threads = matches!(workload, Workload::Threads { .. });
        let alone = allocator.is_subject() && self.lacked("global");
        let has_failed =
            |failure: &Failure| failure.allocator == allocator && failure.workload == name;
        let tried =
            self.solved(allocator) && !(threads && alone) && !self.failed.iter().any(has_failed);
        tried.then(|| Job {
            allocator,
            workload,
            lacks: self.lacks.clone(),
        })
    }

    fn measure(
        &mut self,
        allocator: Allocator,
        name: &'static str,
        workload: Workload,
    ) -> Option<Measure> {
        let job = self.job(allocator, name, workload)?;
        match job.measure() {
            Ok(measure) => Some(measure),
            Err(error) => {
                self.fail(allocator, name, &error);
                None
            }
        }
    }

    fn calls(
        &mut self,
        allocator: Allocator,
        name: &'static str,
        workload: Workload,
    ) -> Option<Count> {
        let job = self.job(allocator, name, workload)?;
        match trace::count(&job) {
            Ok((measure, calls)) => Some(Count {
                measure,
                calls: Some(calls),
            }),
            // The tracer may be at fault: without it the allocator shows whether it is.
            Err(error) => {
                let measure = self.measure(allocator, name, workload)?;
                self.skip("system calls", &error);
                Some(Count {
                    measure,
                    calls: None,
                })
            }
        }
    }

    fn instructions(&mut self, allocator: Allocator) -> Option<f64> {
        const WHAT: &str = "instructions";
        if self.skipped.iter().any(|skipped| skipped.what == WHAT) {
            return None;
        }
        match callgrind::small_step(allocator, self.lacks, self.plan.instructions) {
            Ok(instructions) => Some(instructions),
            Err(error) if allocator == Allocator::Ours && callgrind::is_installed() => {
                self.fail(allocator, WHAT, &error);
                None
            }
            Err(error) => {
                self.skip(WHAT, &error);
                None
            }
        }
    }

    fn skip(&mut self, what: &'static str, why: &anyhow::Error) {
        if self.skipped.iter().all(|skipped| skipped.what != what) {
            let why = format!("{why:#}");
            self.skipped.push(Skipped { what, why });
        }
    }

    fn fail(&mut self, allocator: Allocator, workload: &'static str, why: &anyhow::Error) {
        self.failed.push(Failure {
            allocator,
            workload,
            why: format!("{why:#}"),
        });
    }
}

/// All of them, and another one first in each round.
fn turned(allocators: &[Allocator], round: usize) -> Vec<Allocator> {
    let mut turned = allocators.to_vec();
    turned.rotate_left(round % allocators.len());
    turned
}

/// A line on a terminal that tells what is being done.
struct Progress(bool);

impl Progress {
    fn show(&self, what: &str) {
        if self.0 {
            eprint!("\r\x1b[K{what}");
            let _ = stderr().flush();
        }
    }

    fn clear(&self) {
        self.show("");
    }
}
