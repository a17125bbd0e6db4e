//! Runs everything, the allocators taking turns, and holds what came of it.

mod behind;
pub mod score;
pub mod statistics;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use nix::libc;
use serde::Serialize;

use crate::allocators::Allocator;
use crate::allocators::subject::{self, Lacks};
use crate::child::meter::{Measure, page_size};
use crate::report::score::{Fact, Facts, SMALL_CHURN, SMALL_PAIR, Score, score};
use crate::report::statistics::{Ratio, median};
use crate::run::plan::Plan;
use crate::run::trace::Calls;
use crate::run::{Runner, Times};

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whose answer: `solution` or `yours`.
    pub subject: &'static str,
    /// The bonus stages that it does not solve.
    pub lacks: Lacks,
    pub machine: Machine,
    pub rounds: usize,
    pub score: Score,
    /// The answer first.
    pub rows: Vec<Row>,
    /// CPU time for large blocks, as a ratio to the kernel's floor.
    pub floor: Option<Ratio>,
    /// The large blocks, size by size.
    pub large: Vec<Size>,
    /// Where the answer is behind, and why.
    pub behind: Vec<String>,
    pub skipped: Vec<Skipped>,
    pub failed: Vec<Failure>,
}

/// What could not be measured here.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub what: &'static str,
    pub why: String,
}

/// An allocator that did not come to its end.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    pub allocator: Allocator,
    pub workload: &'static str,
    pub why: String,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub libc: String,
    pub kernel: String,
    pub cpus: usize,
    pub page: usize,
    /// `always`, `madvise` or `never`.
    pub huge_pages: String,
}

/// What one allocator did.
#[derive(Debug, Serialize)]
pub struct Row {
    pub allocator: Allocator,
    pub name: &'static str,
    pub counts: BTreeMap<&'static str, Count>,
    /// For a warm small pair.
    pub instructions: Option<f64>,
    /// CPU time in nanoseconds.
    pub ns_a_step: BTreeMap<&'static str, f64>,
    /// CPU time, as a ratio to glibc as it ships.
    pub times: BTreeMap<&'static str, Ratio>,
}

/// Counts of one workload.
#[derive(Debug, Serialize)]
pub struct Count {
    #[serde(flatten)]
    pub measure: Measure,
    /// None where ptrace is refused.
    pub calls: Option<Calls>,
}

impl Count {
    /// System calls of that name in a step; without a name all.
    pub fn calls_a_step(&self, name: Option<&str>) -> Option<f64> {
        let calls = self.calls.as_ref()?.iter();
        let wanted = calls.filter(|(call, _)| name.is_none_or(|name| name == **call));
        let count: u64 = wanted.map(|(_, count)| count).sum();
        Some(count as f64 / self.measure.steps as f64)
    }

    pub fn faults_a_page(&self) -> f64 {
        self.measure.faults as f64 / self.measure.pages as f64
    }
}

/// Large blocks of one size.
#[derive(Debug, Serialize)]
pub struct Size {
    pub bytes: usize,
    /// CPU time for each page.
    pub ns_a_page: BTreeMap<Allocator, f64>,
}

impl Report {
    pub fn row(&self, allocator: Allocator) -> Option<&Row> {
        self.rows.iter().find(|row| row.allocator == allocator)
    }
}

impl Row {
    pub fn count(&self, workload: &str) -> Option<&Count> {
        self.counts.get(workload)
    }

    pub fn time(&self, workload: &str) -> Option<f64> {
        self.times.get(workload).map(|ratio| ratio.median)
    }

    /// MiB that it kept of large blocks, and of small ones.
    pub fn kept(&self) -> Option<[f64; 2]> {
        let kept = |workload| {
            let held = self.count(workload)?.measure.held.as_ref()?;
            Some(mib(held.kept))
        };
        Some([kept("blocks")?, kept("heap")?])
    }
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Runs all of it.
///
/// # Errors
/// If the machine cannot be asked about itself. An allocator that fails is an entry of the report.
pub fn run(plan: &Plan, lacks: Lacks) -> Result<Report> {
    let machine = machine()?;
    let mut runner = Runner::new(plan, &lacks);
    let mut rows = runner.count();
    let times = runner.time(machine.page);
    let (skipped, failed) = runner.end();
    for row in &mut rows {
        row.times = ratios(&times, row.allocator);
        row.ns_a_step = medians(&times, row.allocator);
    }
    let floor = large(&times, Allocator::Floor);
    let floor = Ratio::of(&large(&times, Allocator::Ours), &floor);
    let mut report = Report {
        subject: subject::NAME,
        lacks,
        machine,
        rounds: plan.rounds,
        score: score(&Facts::default()),
        rows,
        floor,
        large: sizes(&times),
        behind: Vec::new(),
        skipped,
        failed,
    };
    report.score = score(&facts(&report));
    report.behind = behind::tell(&report);
    Ok(report)
}

/// Large blocks of all sizes together, round by round.
fn large(times: &Times, allocator: Allocator) -> Vec<f64> {
    let mut sums: Vec<f64> = Vec::new();
    for ((of, _), rounds) in &times.sizes {
        if *of == allocator {
            sums.resize(rounds.len(), 0.0);
            for (sum, time) in sums.iter_mut().zip(rounds) {
                *sum += time;
            }
        }
    }
    sums
}

fn medians(times: &Times, allocator: Allocator) -> BTreeMap<&'static str, f64> {
    let workloads = times.workloads.iter();
    let own = workloads.filter(|((of, _), _)| *of == allocator);
    own.filter_map(|((_, workload), rounds)| Some((*workload, median(rounds)?)))
        .collect()
}

fn ratios(times: &Times, allocator: Allocator) -> BTreeMap<&'static str, Ratio> {
    let mut ratios = BTreeMap::new();
    for (&(of, workload), rounds) in &times.workloads {
        let glibc = times.workloads.get(&(Allocator::Glibc, workload));
        if of == allocator
            && let Some(glibc) = glibc
            && let Some(ratio) = Ratio::of(rounds, glibc)
        {
            ratios.insert(workload, ratio);
        }
    }
    let glibc = large(times, Allocator::Glibc);
    if let Some(ratio) = Ratio::of(&large(times, allocator), &glibc) {
        ratios.insert("large", ratio);
    }
    ratios
}

fn sizes(times: &Times) -> Vec<Size> {
    let sizes = Plan::large_sizes().map(|bytes| {
        let of_size = times.sizes.iter().filter(|((_, size), _)| *size == bytes);
        let medians = of_size
            .filter_map(|((allocator, _), rounds)| Some((*allocator, median(rounds)?)))
            .collect();
        Size {
            bytes,
            ns_a_page: medians,
        }
    });
    sizes.collect()
}

/// What is scored, of all that was measured.
fn facts(report: &Report) -> Facts {
    let failed = |allocator: Allocator, workload: &str| {
        let mut failed = report.failed.iter();
        failed.any(|failure| failure.allocator == allocator && failure.workload == workload)
    };
    // Not there because it failed, or because it was not tried.
    fn fact<T>(seen: Option<T>, failed: bool) -> Fact<T> {
        match (seen, failed) {
            (Some(seen), _) => Fact::Seen(seen),
            (None, true) => Fact::Failed,
            (None, false) => Fact::Skipped,
        }
    }
    let ours = Allocator::Ours;
    let row = report.row(ours);
    let count = |workload| row.and_then(|row| row.count(workload));
    let calls = |workload, name| count(workload).and_then(|count| count.calls_a_step(name));
    let faults = |workload| {
        let faults = count(workload).map(Count::faults_a_page);
        fact(faults, failed(ours, workload))
    };
    let large_calls = || {
        let [mmap, munmap] = ["mmap", "munmap"].map(|name| calls("large", Some(name)));
        Some([mmap?, munmap?, calls("large", None)?])
    };
    let doubling_calls = || Some([calls("vec", Some("mremap"))?, calls("vec", None)?]);
    let utilisation = || {
        let held = count("heap")?.measure.held.as_ref()?;
        Some(held.live as f64 / held.heap as f64)
    };
    let kept = || {
        let of = [ours, Allocator::Jemalloc, Allocator::Mimalloc];
        let [ours, jemalloc, mimalloc] =
            of.map(|allocator| report.row(allocator).and_then(Row::kept));
        Some([ours?, jemalloc?, mimalloc?])
    };
    let time = |what, asked, allocator, workload| {
        let time = report.row(allocator).and_then(|row| row.time(workload));
        (what, asked, fact(time, failed(allocator, workload)))
    };
    let floor = report.floor.map(|ratio| ratio.median);
    let again = report.row(Allocator::Again);
    let cached = report.row(Allocator::Cached);
    let with_cache = [
        (SMALL_PAIR, cached.and_then(|row| row.instructions)),
        (SMALL_CHURN, cached.and_then(|row| row.time("small"))),
    ];
    Facts {
        large_calls: fact(large_calls(), failed(ours, "large")),
        small_calls: fact(calls("small", None), failed(ours, "small")),
        doubling_calls: fact(doubling_calls(), failed(ours, "vec")),
        large_faults: faults("large"),
        zeroed_faults: faults("untouched"),
        utilisation: fact(utilisation(), failed(ours, "heap")),
        kept: fact(kept(), failed(ours, "heap") || failed(ours, "blocks")),
        instructions: fact(
            row.and_then(|row| row.instructions),
            failed(ours, "instructions"),
        ),
        no_instructions: report
            .skipped
            .iter()
            .find(|skipped| skipped.what == "instructions")
            .map(|skipped| skipped.why.clone()),
        with_cache: with_cache
            .into_iter()
            .filter_map(|(what, value)| Some((what, value?)))
            .collect(),
        times: vec![
            time(SMALL_CHURN, 0.75, ours, "small"),
            (
                "large blocks, to the kernel's floor",
                1.05,
                fact(floor, failed(ours, "large")),
            ),
            time("a Vec that grows, to glibc", 1.0, ours, "vec"),
            time("sparse zeroed memory, to glibc", 1.1, ours, "sparse"),
            time(
                "two threads with cache, to glibc",
                1.0,
                Allocator::Cached,
                "threads",
            ),
        ],
        again: again.map_or(Vec::new(), |row| {
            row.times.values().map(|ratio| ratio.median).collect()
        }),
    }
}

fn machine() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
    // SAFETY: it gives a text that nobody changes.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: the text ends with a zero byte.
    let version = unsafe { CStr::from_ptr(version) };
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = modes
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    // What a distribution appends is long, and says nothing here.
    let release = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    Ok(Machine {
        libc: format!("glibc {}", version.to_string_lossy()),
        kernel: format!("Linux {}", release.split('-').next().unwrap_or_default()),
        cpus: available_parallelism()?.get(),
        page: page_size()?,
        huge_pages: chosen.map_or("none", |(chosen, _)| chosen).to_owned(),
    })
}
