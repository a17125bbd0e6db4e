//! Runs the measurements: first the counts of each allocator, then the times, for which the allocators take turns.

mod callgrind;
pub mod plan;
mod progress;
mod trace;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use serde::Serialize;

use crate::allocators::Allocator;
use crate::allocators::baseline::huge_page_size;
use crate::allocators::subject::Lacks;
use crate::child::Job;
use crate::child::meter::Measure;
use crate::child::workload::Workload;
use plan::Plan;
use progress::{Progress, roughly};
use trace::Calls;

#[derive(Debug)]
pub struct Results {
    /// In the order of the report.
    pub counted: Vec<Counted>,
    pub times: Times,
    /// The number of rounds in which the times were measured.
    pub rounds: usize,
    pub skipped: Vec<Skipped>,
    pub failed: Vec<Failure>,
}

/// The counts of one allocator.
#[derive(Debug)]
pub struct Counted {
    pub allocator: Allocator,
    /// By the name of the workload.
    pub counts: BTreeMap<&'static str, Count>,
    /// The number of instructions for a step of the small churn.
    pub instructions: Option<f64>,
}

/// The counts of one workload.
#[derive(Debug, Serialize)]
pub struct Count {
    #[serde(flatten)]
    pub measure: Measure,
    /// `None` if system calls were not counted.
    pub calls: Option<Calls>,
}

impl Count {
    /// Returns the number of system calls in a step.
    pub fn calls_per_step(&self) -> Option<f64> {
        let calls = self.named_calls_per_step()?;
        // The sum of no floats is -0.
        Some(calls.values().fold(0.0, |sum, calls| sum + calls))
    }

    /// Returns the number of system calls in a step, by their names.
    pub fn named_calls_per_step(&self) -> Option<BTreeMap<&'static str, f64>> {
        let calls = self.calls.as_ref()?.iter();
        let steps = self.measure.steps as f64;
        Some(
            calls
                .map(|(name, count)| (*name, *count as f64 / steps))
                .collect(),
        )
    }

    pub fn faults_per_step(&self) -> f64 {
        self.measure.faults as f64 / self.measure.steps as f64
    }

    pub fn faults_per_page(&self) -> f64 {
        self.measure.faults as f64 / self.measure.pages as f64
    }
}

/// CPU times in nanoseconds, one for each round.
#[derive(Debug, Default)]
pub struct Times {
    /// For one step of a workload.
    pub steps: BTreeMap<(Allocator, &'static str), Vec<f64>>,
    /// For one page of a large block, by the block's size.
    pub pages: BTreeMap<(Allocator, usize), Vec<f64>>,
    /// The most bytes that were still resident after a workload had freed all of its blocks, in any round.
    pub kept: BTreeMap<(Allocator, &'static str), u64>,
}

impl Times {
    fn keep(&mut self, allocator: Allocator, workload: &'static str, measure: &Measure) {
        let kept = self.kept.entry((allocator, workload)).or_default();
        *kept = (*kept).max(measure.kept);
    }
}

/// Something that cannot be measured on this machine or with this answer.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub what: &'static str,
    pub why: String,
}

/// A workload that an allocator did not complete.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    pub allocator: Allocator,
    pub workload: &'static str,
    pub why: String,
}

/// The name of the instruction count in [`Skipped`] and [`Failure`].
pub const INSTRUCTIONS: &str = "instructions";

/// Runs all measurements. A measurement that fails is noted, and not repeated.
pub fn run(plan: &Plan, lacks: &Lacks, page: usize) -> Results {
    let mut runner = Runner {
        plan,
        lacks,
        page,
        huge_page: huge_page_size(),
        skipped: Vec::new(),
        failed: Vec::new(),
        begin: Instant::now(),
        churn: None,
        progress: Progress::new(),
    };
    runner.note_unsupported();
    let counted = runner.count();
    let (times, rounds) = runner.time();
    Results {
        counted,
        times,
        rounds,
        skipped: runner.skipped,
        failed: runner.failed,
    }
}

struct Runner<'a> {
    plan: &'a Plan,
    lacks: &'a Lacks,
    page: usize,
    huge_page: Option<usize>,
    skipped: Vec<Skipped>,
    failed: Vec<Failure>,
    begin: Instant,
    /// The number of instructions in a step of the small churn that are its own.
    churn: Option<f64>,
    progress: Progress,
}

impl Runner<'_> {
    fn note_unsupported(&mut self) {
        for (stage, what) in [("cache", "the thread cache"), ("global", "two threads")] {
            if self.lacks.contains(stage) {
                self.skip(what, format!("the stage {stage} is not solved"));
            }
        }
        if self.huge_page.is_none() {
            self.skip("huge pages", "they are disabled in the kernel".to_owned());
        }
    }

    fn count(&mut self) -> Vec<Counted> {
        let all = Allocator::ALL.into_iter();
        let allocators: Vec<_> = all.filter(|one| self.is_solved(*one)).collect();
        let of = allocators.len();
        let numbered = allocators.into_iter().enumerate();
        numbered
            .map(|(index, allocator)| {
                self.progress.phase(format!(
                    "Counting system calls, page faults and instructions: {} ({} of {of})",
                    allocator.name().trim(),
                    index + 1
                ));
                self.count_one(allocator)
            })
            .collect()
    }

    fn count_one(&mut self, allocator: Allocator) -> Counted {
        let mut counts = BTreeMap::new();
        if allocator == Allocator::Again {
            // Its counts would be the same as glibc's.
            return Counted {
                allocator,
                counts,
                instructions: None,
            };
        }
        for (name, workload) in self.plan.counted() {
            if let Some(count) = self.count_workload(allocator, name, workload) {
                counts.insert(name, count);
            }
        }
        for (name, workload) in self.plan.held() {
            if let Some(measure) = self.measure(allocator, name, workload) {
                let calls = None;
                counts.insert(name, Count { measure, calls });
            }
        }
        Counted {
            allocator,
            counts,
            instructions: self.instructions(allocator),
        }
    }

    /// In each round every allocator runs every workload. Each round starts with another allocator. Returns the number of
    /// rounds as well.
    fn time(&mut self) -> (Times, usize) {
        let mut times = Times::default();
        let begin = Instant::now();
        for round in 0..self.plan.rounds {
            let one = begin.elapsed().checked_div(round as u32);
            if !self.plan.allows_round(self.begin.elapsed(), one) {
                return (times, round);
            }
            self.progress.phase(self.announcement(round, one));
            self.time_steps(round, &mut times);
            self.time_pages(round, &mut times);
        }
        (times, self.plan.rounds)
    }

    /// `one` is how long a round takes.
    fn announcement(&self, round: usize, one: Option<Duration>) -> String {
        let (number, rounds) = (round + 1, self.plan.rounds);
        let all_left = one.map(|one| one * (rounds - round) as u32);
        let left = match self.plan.budget {
            Some(budget) => {
                let rest = budget.saturating_sub(self.begin.elapsed());
                Some(all_left.map_or(rest, |left| left.min(rest)))
            }
            None => all_left,
        };
        let left = left.map(|left| format!(", about {} left", roughly(left)));
        format!(
            "Timing, round {number} of {rounds}{}",
            left.unwrap_or_default()
        )
    }

    fn time_steps(&mut self, round: usize, times: &mut Times) {
        for (name, workload) in self.plan.timed() {
            let mut all = Allocator::ALL.to_vec();
            if name == "small" {
                all.extend([Allocator::Lock, Allocator::Memset]);
            }
            for allocator in rotated(&all, round) {
                self.progress
                    .detail(&format!("{name}, {}", allocator.name().trim()));
                if let Some(measure) = self.measure(allocator, name, workload) {
                    times.keep(allocator, name, &measure);
                    let time = measure.cpu_ns as f64 / measure.steps as f64;
                    times.steps.entry((allocator, name)).or_default().push(time);
                }
            }
        }
    }

    fn time_pages(&mut self, round: usize, times: &mut Times) {
        let all = [Allocator::ALL.as_slice(), &Allocator::BASELINES].concat();
        for bytes in self.plan.large_sizes() {
            let workload = self.plan.large(bytes, self.page);
            for allocator in rotated(&all, round) {
                let too_small = self.huge_page.is_none_or(|huge| bytes < huge);
                if allocator == Allocator::Huge && too_small {
                    continue;
                }
                self.progress
                    .detail(&format!("large, {}", allocator.name().trim()));
                if let Some(measure) = self.measure(allocator, "large", workload) {
                    times.keep(allocator, "large", &measure);
                    let time = measure.cpu_ns as f64 / measure.pages as f64;
                    let rounds = times.pages.entry((allocator, bytes));
                    rounds.or_default().push(time);
                }
            }
        }
    }

    fn is_solved(&self, allocator: Allocator) -> bool {
        allocator != Allocator::Cached || !self.lacks.contains("cache")
    }

    /// Returns the job, unless the answer does not support it or it has already failed.
    fn job(&self, allocator: Allocator, name: &str, workload: Workload) -> Option<Job> {
        let threads = matches!(workload, Workload::Threads { .. });
        let not_thread_safe = allocator.is_subject() && self.lacks.contains("global");
        let mut failed = self.failed.iter();
        let has_failed =
            failed.any(|failure| failure.allocator == allocator && failure.workload == name);
        let skip = !self.is_solved(allocator) || (threads && not_thread_safe) || has_failed;
        (!skip).then(|| Job {
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
        let measured = self.job(allocator, name, workload)?.measure();
        measured
            .map_err(|error| self.fail(allocator, name, &error))
            .ok()
    }

    fn count_workload(
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
            // If the workload succeeds without the tracer, tracing is to blame and not the allocator.
            Err(error) => {
                let measure = self.measure(allocator, name, workload)?;
                self.skip("system calls", format!("{error:#}"));
                Some(Count {
                    measure,
                    calls: None,
                })
            }
        }
    }

    fn instructions(&mut self, allocator: Allocator) -> Option<f64> {
        let mut skipped = self.skipped.iter();
        if skipped.any(|skipped| skipped.what == INSTRUCTIONS)
            || !self.plan.counts_instructions(allocator)
        {
            return None;
        }
        match self.allocator_step(allocator) {
            Ok(instructions) => return Some(instructions),
            Err(error) if allocator == Allocator::Ours && callgrind::is_installed() => {
                self.fail(allocator, INSTRUCTIONS, &error);
            }
            Err(error) => self.skip(INSTRUCTIONS, format!("{error:#}")),
        }
        None
    }

    /// Returns the number of instructions in a step of the small churn, without those of the churn itself.
    fn allocator_step(&mut self, allocator: Allocator) -> Result<f64> {
        let step = |allocator| callgrind::small_step(allocator, self.lacks, self.plan.instructions);
        let churn = match self.churn {
            Some(churn) => churn,
            // This allocator only returns a pointer.
            None => step(Allocator::Memset)?,
        };
        self.churn = Some(churn);
        Ok(step(allocator)? - churn)
    }

    /// Keeps the first reason for each thing that is skipped.
    fn skip(&mut self, what: &'static str, why: String) {
        if self.skipped.iter().all(|skipped| skipped.what != what) {
            self.skipped.push(Skipped { what, why });
        }
    }

    fn fail(&mut self, allocator: Allocator, workload: &'static str, error: &Error) {
        self.failed.push(Failure {
            allocator,
            workload,
            why: format!("{error:#}"),
        });
    }
}

fn rotated(allocators: &[Allocator], round: usize) -> Vec<Allocator> {
    let mut rotated = allocators.to_vec();
    rotated.rotate_left(round % allocators.len());
    rotated
}
