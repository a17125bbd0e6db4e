//! Collects the measurements that are compared with the goals.

use std::collections::BTreeMap;

use super::rows::{Row, Rows};
use crate::allocators::Allocator;
use crate::allocators::subject::Lacks;
use crate::run::{Count, Failure, INSTRUCTIONS};
use course::statistics::Ratio;

/// A measurement that is compared with a goal.
#[derive(Debug, Clone)]
pub enum Fact<T> {
    Measured(T),
    /// The allocator did not complete the workload. This earns no points.
    Failed,
    /// The answer does not solve this bonus stage. This costs no points.
    Unsolved(&'static str),
    /// It could not be measured on this machine. This costs no points.
    Skipped,
}

/// System calls for a step, by name.
pub type Calls = BTreeMap<&'static str, f64>;

#[derive(Debug, Clone)]
pub struct Facts {
    /// Calls for a large block that is allocated and freed.
    pub large_calls: Fact<Calls>,
    /// Calls for a small block that is allocated and freed.
    pub small_calls: Fact<Calls>,
    /// Calls for a doubling of the `Vec`.
    pub doubling_calls: Fact<Calls>,
    /// Faults for each page of a large block.
    pub large_faults: Fact<f64>,
    /// Faults for each page of untouched zeroed memory.
    pub zeroed_faults: Fact<f64>,
    /// The share of the heap that small blocks use.
    pub utilisation: Fact<f64>,
    /// MiB that stay resident after large blocks have been freed: the answer's and glibc's.
    pub large_kept: Fact<[f64; 2]>,
    /// MiB that stay resident after small blocks have been freed: the answer's and glibc's.
    pub small_kept: Fact<[f64; 2]>,
    /// Instructions for a step of the small churn.
    pub instructions: Fact<f64>,
    pub times: Vec<Timed>,
}

/// A ratio of CPU times that has a goal.
#[derive(Debug, Clone)]
pub struct Timed {
    /// Identifies the ratio in the history.
    pub key: &'static str,
    pub what: &'static str,
    /// The largest ratio that earns all points.
    pub limit: f64,
    pub ratio: Fact<Ratio>,
    /// The ratio of glibc to itself in the same workload; 1 for the ratio to the kernel's floor, in which glibc has no
    /// part.
    pub again: Option<f64>,
}

impl Timed {
    /// Returns how far the ratio may be off, as a share: because the rounds differ, and because equal times do. `None` if
    /// that is unknown.
    pub fn noise(&self) -> Option<f64> {
        let Fact::Measured(ratio) = self.ratio else {
            return None;
        };
        Some(ratio.spread? + (self.again? - 1.0).abs())
    }
}

impl Facts {
    pub fn collect(
        rows: Rows,
        floor: Option<Ratio>,
        without_lock: Option<Ratio>,
        lacks: &Lacks,
        failed: &[Failure],
    ) -> Facts {
        let source = Source {
            rows,
            lacks,
            failed,
        };
        let instructions = source.ours().and_then(|row| row.instructions);
        let utilisation = source.ours().and_then(Row::utilisation);
        Facts {
            large_calls: source.calls("large", &[]),
            small_calls: source.calls("small", &[]),
            doubling_calls: source.calls("vec", &["resize"]),
            large_faults: source.faults("large", &[]),
            zeroed_faults: source.faults("untouched", &["resize"]),
            utilisation: source.ours_in("heap", &[], utilisation),
            large_kept: source.kept("blocks", &[]),
            small_kept: source.kept("heap", &["merge"]),
            instructions: source.ours_in(INSTRUCTIONS, &[], instructions),
            times: source.times(floor, without_lock),
        }
    }
}

/// The small churn without the lock that each call takes. On some processors a lock alone takes longer than a block of
/// glibc, which takes none here, so that no core could reach the goal.
const UNLOCKED: &str = "small-unlocked";

struct Source<'a> {
    rows: Rows<'a>,
    lacks: &'a Lacks,
    failed: &'a [Failure],
}

impl<'a> Source<'a> {
    fn ours(&self) -> Option<&'a Row> {
        self.rows.find(Allocator::Ours)
    }

    /// Returns a fact about a workload that needs these bonus stages.
    fn fact<T>(
        &self,
        allocator: Allocator,
        workload: &str,
        needs: &[&'static str],
        measured: Option<T>,
    ) -> Fact<T> {
        let failed =
            |failure: &Failure| failure.allocator == allocator && failure.workload == workload;
        if let Some(stage) = needs.iter().find(|stage| self.lacks.contains(stage)) {
            return Fact::Unsolved(stage);
        }
        match measured {
            Some(measured) => Fact::Measured(measured),
            None if self.failed.iter().any(failed) => Fact::Failed,
            None => Fact::Skipped,
        }
    }

    /// Returns a fact about the answer without its cache.
    fn ours_in<T>(&self, workload: &str, needs: &[&'static str], measured: Option<T>) -> Fact<T> {
        self.fact(Allocator::Ours, workload, needs, measured)
    }

    fn count(&self, workload: &str) -> Option<&'a Count> {
        self.ours()?.count(workload)
    }

    fn calls(&self, workload: &str, needs: &[&'static str]) -> Fact<Calls> {
        let calls = self.count(workload).and_then(Count::named_calls_per_step);
        self.ours_in(workload, needs, calls)
    }

    fn faults(&self, workload: &str, needs: &[&'static str]) -> Fact<f64> {
        let faults = self.count(workload).map(Count::faults_per_page);
        self.ours_in(workload, needs, faults)
    }

    fn kept(&self, workload: &str, needs: &[&'static str]) -> Fact<[f64; 2]> {
        let kept = |allocator| self.rows.find(allocator)?.kept_after(workload);
        let both = || Some([kept(Allocator::Ours)?, kept(Allocator::Glibc)?]);
        self.ours_in(workload, needs, both())
    }

    fn times(&self, floor: Option<Ratio>, without_lock: Option<Ratio>) -> Vec<Timed> {
        let goals = [
            (
                UNLOCKED,
                "small churn, without its lock",
                0.9,
                Allocator::Ours,
                "small",
            ),
            (
                "small-cached",
                "small churn, cached",
                0.5,
                Allocator::Cached,
                "small",
            ),
            (
                "large",
                "large blocks, to the kernel's floor",
                1.05,
                Allocator::Ours,
                "large",
            ),
            ("vec", "a Vec that grows", 1.0, Allocator::Ours, "vec"),
            (
                "sparse",
                "sparse zeroed memory",
                1.05,
                Allocator::Ours,
                "sparse",
            ),
            (
                "threads-cached",
                "two threads, cached",
                0.8,
                Allocator::Cached,
                "threads",
            ),
        ];
        let timed = goals.map(|(key, what, limit, allocator, workload)| {
            let again = self.ratio(Allocator::Again, workload);
            let again = again.map(|ratio| ratio.median);
            let (ratio, again) = match key {
                "large" => (floor, Some(1.0)),
                UNLOCKED => (without_lock, again),
                _ => (self.ratio(allocator, workload), again),
            };
            let needs = needs(allocator, workload);
            Timed {
                key,
                what,
                limit,
                ratio: self.fact(allocator, workload, needs, ratio),
                again,
            }
        });
        timed.into()
    }

    fn ratio(&self, allocator: Allocator, workload: &str) -> Option<Ratio> {
        self.rows.find(allocator)?.times.get(workload).copied()
    }
}

/// Returns the bonus stages without which no answer can reach a goal for times.
fn needs(allocator: Allocator, workload: &str) -> &'static [&'static str] {
    match (allocator, workload) {
        (Allocator::Cached, "threads") => &["cache", "global"],
        (Allocator::Cached, _) => &["cache"],
        (_, "vec" | "sparse") => &["resize"],
        _ => &[],
    }
}
