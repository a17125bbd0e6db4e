//! Finds the workloads in which the answer is slower than the fastest other allocator, and the likely reason in the
//! counts.

use super::rows::{Row, Rows};
use crate::allocators::Allocator;
use crate::allocators::subject::{self, Lacks};
use course::statistics::Ratio;

/// A smaller ratio is not reported.
const CLOSE: f64 = 1.05;

/// A smaller ratio of imprecise times is not reported.
const CLOSE_IF_IMPRECISE: f64 = 1.5;

/// Returns one paragraph for each workload.
///
/// `lock` is the CPU time of a lock that is taken twice in each step of the small churn, as a ratio to glibc.
pub fn behind(rows: Rows, lacks: &Lacks, lock: Option<Ratio>) -> Vec<String> {
    let workloads = [
        ("small", "Small churn", Allocator::Ours),
        ("mixed", "Mixed sizes", Allocator::Ours),
        ("large", "Large blocks", Allocator::Ours),
        ("vec", "A Vec that grows", Allocator::Ours),
        ("sparse", "Sparse zeroed memory", Allocator::Ours),
        ("threads", "Two threads", Allocator::Ours),
        ("threads", "Two threads with the cache", Allocator::Cached),
    ];
    let paragraph = |(workload, what, allocator)| {
        let (best, time) = fastest_other(rows, workload)?;
        let comparison = Comparison {
            workload,
            ours: rows.find(allocator)?,
            best,
        };
        let ratio = comparison.ours.time(workload)? / time;
        let close = match comparison.is_precise() {
            true => CLOSE,
            false => CLOSE_IF_IMPRECISE,
        };
        (ratio > close).then(|| {
            let mut reason = comparison.reason(rows, lacks);
            if let Some(lock) = lock
                && workload == "small"
            {
                reason += &format!(
                    " A lock that each call takes, and nothing else, takes {:.2} times the CPU time of glibc.",
                    lock.median
                );
            }
            let digits = if ratio < 9.95 { 1 } else { 0 };
            format!(
                "{what}: {ratio:.digits$} times the CPU time of {}. {reason}",
                best.name
            )
        })
    };
    workloads.into_iter().filter_map(paragraph).collect()
}

fn fastest_other<'a>(rows: Rows<'a>, workload: &str) -> Option<(&'a Row, f64)> {
    let is_other = |row: &&Row| !row.allocator.is_subject() && row.allocator != Allocator::Again;
    let others = rows.0.iter().filter(is_other);
    let times = others.filter_map(|row| Some((row, row.time(workload)?)));
    times.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

struct Comparison<'a> {
    workload: &'static str,
    ours: &'a Row,
    best: &'a Row,
}

impl Comparison<'_> {
    fn is_precise(&self) -> bool {
        let ratio = |row: &Row| row.times.get(self.workload).copied();
        let ratios = [self.ours, self.best].map(ratio);
        ratios.into_iter().flatten().all(Ratio::is_precise)
    }

    /// Returns the first reason that applies.
    fn reason(&self, rows: Rows, lacks: &Lacks) -> String {
        self.contention()
            .or_else(|| self.no_resize(lacks))
            .or_else(|| self.not_counted())
            .or_else(|| self.more_faults())
            .or_else(|| self.more_calls())
            .or_else(|| self.more_instructions(rows))
            .unwrap_or_else(|| "The counts show no reason.".to_owned())
    }

    fn contention(&self) -> Option<String> {
        if self.workload != "threads" {
            return None;
        }
        let slowdown =
            |row: &Row| Some(row.ns_a_step.get("threads")? / row.ns_a_step.get("small")?);
        let (ours, theirs) = (slowdown(self.ours)?, slowdown(self.best)?);
        (ours > 1.5 * theirs).then(|| {
            format!(
                "Its threads contend. With a second thread, each takes {ours:.1} times the CPU time that it takes \
                 alone. The threads of {} take {theirs:.1} times as much.",
                self.best.name
            )
        })
    }

    /// Whether the workload is faster if blocks are not copied and zeros not written.
    fn needs_resize(&self) -> bool {
        ["vec", "sparse"].contains(&self.workload)
    }

    fn no_resize(&self, lacks: &Lacks) -> Option<String> {
        (self.needs_resize() && lacks.contains("resize")).then(|| {
            "The stage resize is not solved, so blocks are copied and zeros are written.".to_owned()
        })
    }

    /// The workload that has been counted. Each of the two threads does the same as one.
    fn counted(&self) -> &'static str {
        match self.workload {
            "threads" => "small",
            workload => workload,
        }
    }

    fn not_counted(&self) -> Option<String> {
        let (row, what) = [self.ours, self.best].into_iter().find_map(|row| {
            let has_instructions = self.counted() != "small" || row.instructions.is_some();
            match row.count(self.counted()) {
                None => Some((row, "page faults were not counted, which needs ptrace")),
                Some(_) if has_instructions => None,
                Some(_) => Some((
                    row,
                    "instructions were not counted, which needs valgrind and a run without --quick",
                )),
            }
        })?;
        Some(format!(
            "The reason is not known: for {}, {what}.",
            row.name.trim()
        ))
    }

    fn more_faults(&self) -> Option<String> {
        let faults = |row: &Row| Some(row.count(self.counted())?.faults_per_step());
        let (ours, theirs) = (faults(self.ours)?, faults(self.best)?);
        if ours <= 1.0 || ours <= 1.2 * theirs {
            return None;
        }
        if self.needs_resize() {
            return Some(format!(
                "A step takes {ours:.0} page faults. With {} it takes {theirs:.0}.",
                self.best.name
            ));
        }
        let (name, kept) = (self.best.name, self.best.kept.get(self.workload)?);
        Some(format!(
            "Freed memory goes back to the kernel, and new blocks cost page faults again: {ours:.1} a step. {name} \
             takes {theirs:.1} a step, because it keeps {kept:.0} MiB when everything is freed."
        ))
    }

    fn more_calls(&self) -> Option<String> {
        let calls = |row: &Row| row.count(self.counted())?.calls_per_step();
        let (ours, theirs) = (calls(self.ours)?, calls(self.best)?);
        let name = self.best.name;
        (ours > 0.01 && ours > 1.2 * theirs)
            .then(|| format!("It makes {ours:.2} system calls a step, and {name} {theirs:.2}."))
    }

    fn more_instructions(&self, rows: Rows) -> Option<String> {
        let (ours, theirs) = (self.ours.instructions?, self.best.instructions?);
        if self.counted() != "small" || ours <= theirs {
            return None;
        }
        let mut text = format!(
            "A small block takes {ours:.0} instructions, and {theirs:.0} with {}.",
            self.best.name
        );
        let cached = rows.find(Allocator::Cached);
        if let Some(cached) = cached.and_then(|row| row.instructions)
            && self.ours.allocator == Allocator::Ours
            && cached < ours
        {
            text += &format!(
                " With the thread cache, which needs neither the lock nor the heap: {cached:.0}."
            );
            if subject::NAME == "solution" {
                text += " The solution is written for readability: without the cache, each call takes the lock, and \
                         a freed chunk is joined with its neighbours immediately.";
            }
        }
        Some(text)
    }
}
