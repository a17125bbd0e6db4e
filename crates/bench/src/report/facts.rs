//! Collects the measurements that are scored.

use super::rows::{Row, Rows};
use super::statistics::Ratio;
use crate::allocators::Allocator;
use crate::run::{Count, Failure, INSTRUCTIONS, Skipped};

/// The names of the items that have another value with the thread cache.
pub const SMALL_STEP: &str = "instructions, a warm small pair";
pub const SMALL_CHURN: &str = "small churn, to glibc";

/// A measurement that is scored.
#[derive(Debug, Clone, Default)]
pub enum Fact<T> {
    Measured(T),
    /// The allocator did not complete the workload. This earns no points.
    Failed,
    /// It could not be measured on this machine. This costs no points.
    #[default]
    Skipped,
}

impl<T> Fact<T> {
    fn new(measured: Option<T>, failed: bool) -> Fact<T> {
        match (measured, failed) {
            (Some(measured), _) => Fact::Measured(measured),
            (None, true) => Fact::Failed,
            (None, false) => Fact::Skipped,
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Fact::Measured(measured) => Fact::Measured(f(measured)),
            Fact::Failed => Fact::Failed,
            Fact::Skipped => Fact::Skipped,
        }
    }
}

#[derive(Debug, Default, Clone)]
pub struct Facts {
    /// Calls for a large block: `mmap`, `munmap`, and all.
    pub large_calls: Fact<[f64; 3]>,
    /// Calls for a step of the small churn.
    pub small_calls: Fact<f64>,
    /// Calls for a doubling of the `Vec`: `mremap`, and all.
    pub doubling_calls: Fact<[f64; 2]>,
    /// Faults for each page of a large block.
    pub large_faults: Fact<f64>,
    /// Faults for each page of untouched zeroed memory.
    pub zeroed_faults: Fact<f64>,
    /// The share of the heap that small blocks use.
    pub utilisation: Fact<f64>,
    /// MiB that stay resident after large and small blocks have been freed: the answer's, jemalloc's, mimalloc's.
    pub kept: Fact<[[f64; 2]; 3]>,
    /// Instructions for a step of the small churn.
    pub instructions: Fact<f64>,
    /// Why instructions were not counted.
    pub no_instructions: Option<String>,
    /// The values of items with the thread cache. They are shown beside the item and not scored.
    pub with_cache: Vec<(&'static str, f64)>,
    pub times: Vec<Timed>,
    /// The ratios of glibc to itself.
    pub again: Vec<f64>,
}

/// A ratio of CPU times that is scored.
#[derive(Debug, Clone)]
pub struct Timed {
    pub what: &'static str,
    /// The largest ratio that earns all points.
    pub limit: f64,
    pub ratio: Fact<f64>,
}

impl Facts {
    pub fn collect(
        rows: Rows,
        floor: Option<Ratio>,
        skipped: &[Skipped],
        failed: &[Failure],
    ) -> Facts {
        let source = Source { rows, failed };
        let again = rows.find(Allocator::Again);
        let mut no_instructions = skipped
            .iter()
            .filter(|skipped| skipped.what == INSTRUCTIONS);
        Facts {
            large_calls: source.fact(source.large_calls(), "large"),
            small_calls: source.fact(source.calls("small", None), "small"),
            doubling_calls: source.fact(source.doubling_calls(), "vec"),
            large_faults: source.faults("large"),
            zeroed_faults: source.faults("untouched"),
            utilisation: source.fact(source.ours().and_then(Row::utilisation), "heap"),
            kept: source.kept(),
            instructions: source.fact(source.ours().and_then(|row| row.instructions), INSTRUCTIONS),
            no_instructions: no_instructions.next().map(|skipped| skipped.why.clone()),
            with_cache: source.with_cache(),
            times: source.times(floor),
            again: again.map_or(Vec::new(), |row| {
                row.times.values().map(|ratio| ratio.median).collect()
            }),
        }
    }
}

struct Source<'a> {
    rows: Rows<'a>,
    failed: &'a [Failure],
}

impl<'a> Source<'a> {
    fn ours(&self) -> Option<&'a Row> {
        self.rows.find(Allocator::Ours)
    }

    fn has_failed(&self, allocator: Allocator, workload: &str) -> bool {
        let mut failed = self.failed.iter();
        failed.any(|failure| failure.allocator == allocator && failure.workload == workload)
    }

    /// Returns a fact about the answer.
    fn fact<T>(&self, measured: Option<T>, workload: &str) -> Fact<T> {
        Fact::new(measured, self.has_failed(Allocator::Ours, workload))
    }

    fn count(&self, workload: &str) -> Option<&'a Count> {
        self.ours()?.count(workload)
    }

    fn calls(&self, workload: &str, name: Option<&str>) -> Option<f64> {
        self.count(workload)?.calls_per_step(name)
    }

    fn faults(&self, workload: &str) -> Fact<f64> {
        let faults = self.count(workload).map(Count::faults_per_page);
        self.fact(faults, workload)
    }

    fn large_calls(&self) -> Option<[f64; 3]> {
        let calls = |name| self.calls("large", name);
        Some([calls(Some("mmap"))?, calls(Some("munmap"))?, calls(None)?])
    }

    fn doubling_calls(&self) -> Option<[f64; 2]> {
        let calls = |name| self.calls("vec", name);
        Some([calls(Some("mremap"))?, calls(None)?])
    }

    fn kept(&self) -> Fact<[[f64; 2]; 3]> {
        let kept = |allocator| self.rows.find(allocator)?.kept();
        let all = || {
            Some([
                kept(Allocator::Ours)?,
                kept(Allocator::Jemalloc)?,
                kept(Allocator::Mimalloc)?,
            ])
        };
        let failed = |workload| self.has_failed(Allocator::Ours, workload);
        Fact::new(all(), failed("heap") || failed("blocks"))
    }

    fn with_cache(&self) -> Vec<(&'static str, f64)> {
        let cached = self.rows.find(Allocator::Cached);
        let values = [
            (SMALL_STEP, cached.and_then(|row| row.instructions)),
            (SMALL_CHURN, cached.and_then(|row| row.time("small"))),
        ];
        let values = values.into_iter();
        values
            .filter_map(|(what, value)| Some((what, value?)))
            .collect()
    }

    fn times(&self, floor: Option<Ratio>) -> Vec<Timed> {
        let floor = floor.map(|ratio| ratio.median);
        vec![
            self.timed(SMALL_CHURN, 0.75, Allocator::Ours, "small"),
            Timed {
                what: "large blocks, to the kernel's floor",
                limit: 1.05,
                ratio: self.fact(floor, "large"),
            },
            self.timed("a Vec that grows, to glibc", 1.0, Allocator::Ours, "vec"),
            self.timed(
                "sparse zeroed memory, to glibc",
                1.1,
                Allocator::Ours,
                "sparse",
            ),
            self.timed(
                "two threads with cache, to glibc",
                1.0,
                Allocator::Cached,
                "threads",
            ),
        ]
    }

    fn timed(&self, what: &'static str, limit: f64, allocator: Allocator, workload: &str) -> Timed {
        let row = self.rows.find(allocator);
        let ratio = row.and_then(|row| row.time(workload));
        Timed {
            what,
            limit,
            ratio: Fact::new(ratio, self.has_failed(allocator, workload)),
        }
    }
}
