//! The rows of the report: the counts of each allocator, and its times compared with glibc's.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::allocators::Allocator;
use crate::run::plan::Plan;
use crate::run::{Count, Counted, Times};
use course::statistics::{Ratio, median};

/// The results of one allocator. The maps are by the name of the workload.
#[derive(Debug, Serialize)]
pub struct Row {
    pub allocator: Allocator,
    pub name: &'static str,
    pub counts: BTreeMap<&'static str, Count>,
    /// The number of instructions for a step of the small churn.
    pub instructions: Option<f64>,
    /// CPU time in nanoseconds.
    pub ns_a_step: BTreeMap<&'static str, f64>,
    /// CPU time, as a ratio to [`Allocator::Glibc`].
    pub times: BTreeMap<&'static str, Ratio>,
    /// MiB that are still resident after the timed workload has freed all of its blocks.
    pub kept: BTreeMap<&'static str, f64>,
}

/// Large blocks of one size.
#[derive(Debug, Serialize)]
pub struct Size {
    pub bytes: usize,
    /// CPU time in nanoseconds.
    pub ns_a_page: BTreeMap<Allocator, f64>,
}

impl Row {
    pub fn count(&self, workload: &str) -> Option<&Count> {
        self.counts.get(workload)
    }

    /// Returns the ratio to glibc's CPU time, unless it is noise.
    pub fn time(&self, workload: &str) -> Option<f64> {
        let ratio = self.times.get(workload)?;
        (!ratio.is_noise()).then_some(ratio.median)
    }

    /// Returns how many MiB stay resident after all blocks of a workload that was counted have been freed.
    pub fn kept_after(&self, workload: &str) -> Option<f64> {
        Some(mib(self.count(workload)?.measure.kept))
    }

    /// Returns which share of the heap small blocks use.
    pub fn utilisation(&self) -> Option<f64> {
        let held = self.count("heap")?.measure.held.as_ref()?;
        Some(held.live as f64 / held.heap as f64)
    }

    /// Returns how many MiB are resident while small blocks are allocated.
    pub fn peak(&self) -> Option<f64> {
        let held = self.count("heap")?.measure.held.as_ref()?;
        Some(mib(held.peak))
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[derive(Clone, Copy)]
pub struct Rows<'a>(pub &'a [Row]);

impl<'a> Rows<'a> {
    pub fn find(self, allocator: Allocator) -> Option<&'a Row> {
        self.0.iter().find(|row| row.allocator == allocator)
    }
}

pub fn rows(counted: Vec<Counted>, times: &Times) -> Vec<Row> {
    let counted = counted.into_iter();
    let rows = counted.map(|counted| Row {
        allocator: counted.allocator,
        name: counted.allocator.name(),
        counts: counted.counts,
        instructions: counted.instructions,
        ns_a_step: medians(times, counted.allocator),
        times: ratios(times, counted.allocator),
        kept: kept(times, counted.allocator),
    });
    rows.collect()
}

/// Returns the answer's CPU time for large blocks as a ratio to the kernel's floor.
pub fn ratio_to_floor(times: &Times) -> Option<Ratio> {
    Ratio::of(
        &large(times, Allocator::Ours),
        &large(times, Allocator::Floor),
    )
}

/// Returns the CPU time of a lock that is taken twice in each step of the small churn, as a ratio to glibc.
pub fn ratio_of_lock(times: &Times) -> Option<Ratio> {
    ratios(times, Allocator::Lock).get("small").copied()
}

/// Returns the answer's CPU time for the small churn as a ratio to glibc, less that of an uncontended lock at each call.
/// The lock's is what a churn with it takes longer than one without.
pub fn ratio_without_lock(times: &Times) -> Option<Ratio> {
    let small = |allocator| times.steps.get(&(allocator, "small"));
    let [ours, lock, nothing, glibc] = [
        small(Allocator::Ours)?,
        small(Allocator::Lock)?,
        small(Allocator::Memset)?,
        small(Allocator::Glibc)?,
    ];
    let locks = lock
        .iter()
        .zip(nothing)
        .map(|(lock, nothing)| lock - nothing);
    let rest: Vec<f64> = ours
        .iter()
        .zip(locks)
        .map(|(ours, lock)| ours - lock)
        .collect();
    Ratio::of(&rest, glibc)
}

pub fn sizes(plan: &Plan, times: &Times) -> Vec<Size> {
    let sizes = plan.large_sizes().map(|bytes| {
        let of_size = times.pages.iter().filter(|((_, size), _)| *size == bytes);
        let medians =
            of_size.filter_map(|((allocator, _), rounds)| Some((*allocator, median(rounds)?)));
        Size {
            bytes,
            ns_a_page: medians.collect(),
        }
    });
    sizes.collect()
}

/// Returns the sum over all sizes of large blocks, for each round.
fn large(times: &Times, allocator: Allocator) -> Vec<f64> {
    let mut sums: Vec<f64> = Vec::new();
    for ((of, _), rounds) in &times.pages {
        if *of == allocator {
            sums.resize(rounds.len(), 0.0);
            for (sum, time) in sums.iter_mut().zip(rounds) {
                *sum += time;
            }
        }
    }
    sums
}

fn kept(times: &Times, allocator: Allocator) -> BTreeMap<&'static str, f64> {
    let of = times.kept.iter().filter(|((of, _), _)| *of == allocator);
    of.map(|((_, workload), bytes)| (*workload, mib(*bytes)))
        .collect()
}

fn medians(times: &Times, allocator: Allocator) -> BTreeMap<&'static str, f64> {
    let steps = times
        .steps
        .iter()
        .filter(|((name, _), _)| *name == allocator);
    let medians = steps.filter_map(|((_, workload), rounds)| Some((*workload, median(rounds)?)));
    medians.collect()
}

fn ratios(times: &Times, allocator: Allocator) -> BTreeMap<&'static str, Ratio> {
    let steps = times
        .steps
        .iter()
        .filter(|((name, _), _)| *name == allocator);
    let steps = steps.filter_map(|(&(_, workload), rounds)| {
        let glibc = times.steps.get(&(Allocator::Glibc, workload))?;
        Some((workload, Ratio::of(rounds, glibc)?))
    });
    let pages = Ratio::of(&large(times, allocator), &large(times, Allocator::Glibc));
    steps.chain(pages.map(|ratio| ("large", ratio))).collect()
}
