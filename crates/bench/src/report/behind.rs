//! Says where the answer is behind the best of its peers, and what the counts say about the reason.

use crate::allocators::Allocator;
use crate::report::{Count, Report, Row};

/// Less than that is not worth a sentence.
const CLOSE: f64 = 1.05;

/// A sentence or two for each workload.
pub fn tell(report: &Report) -> Vec<String> {
    let workloads = [
        ("small", "Small churn", Allocator::Ours),
        ("mixed", "Mixed sizes", Allocator::Ours),
        ("large", "Large blocks", Allocator::Ours),
        ("vec", "A Vec that grows", Allocator::Ours),
        ("sparse", "Sparse zeroed memory", Allocator::Ours),
        ("threads", "Two threads", Allocator::Ours),
        ("threads", "Two threads with the cache", Allocator::Cached),
    ];
    let tell = |(workload, what, allocator)| {
        let ours = report.row(allocator)?;
        let (best, time) = best(report, workload)?;
        let ratio = ours.time(workload)? / time;
        (ratio > CLOSE).then(|| {
            let why = why(report, workload, ours, best);
            format!("{what}: {ratio:.2} times {}. {why}", best.name)
        })
    };
    workloads.into_iter().filter_map(tell).collect()
}

/// The fastest peer.
fn best<'a>(report: &'a Report, workload: &str) -> Option<(&'a Row, f64)> {
    let peers = report
        .rows
        .iter()
        .filter(|row| !row.allocator.is_subject() && row.allocator != Allocator::Again);
    let times = peers.filter_map(|row| Some((row, row.time(workload)?)));
    times.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

/// How much longer a small step takes where two threads make them.
fn second_thread(row: &Row) -> Option<f64> {
    Some(row.ns_a_step.get("threads")? / row.ns_a_step.get("small")?)
}

fn why(report: &Report, workload: &str, ours: &Row, best: &Row) -> String {
    if workload == "threads"
        && let (Some(mine), Some(theirs)) = (second_thread(ours), second_thread(best))
        && mine > 1.5 * theirs
    {
        return format!(
            "Its threads are in each other's way: beside another one a thread takes {mine:.1} times the CPU time that \
             it takes alone, and {theirs:.1} times there."
        );
    }
    let copies = ["vec", "sparse"].contains(&workload);
    if copies && report.lacks.iter().any(|stage| stage == "resize") {
        return "The stage resize is not solved: blocks are copied, and zeros written.".to_owned();
    }
    // Threads make the same steps as one does.
    let counted = workload.replace("threads", "small");
    let (Some(count), Some(others)) = (ours.count(&counted), best.count(&counted)) else {
        return "Nothing was counted.".to_owned();
    };
    let faults = |count: &Count| count.measure.faults as f64 / count.measure.steps as f64;
    let (mine, theirs) = (faults(count), faults(others));
    if mine > 1.0 && mine > 1.2 * theirs {
        if copies {
            return format!("A step costs {mine:.0} faults, and {theirs:.0} there.");
        }
        let kept = best.kept().map(|[large, _]| large);
        let kept = match kept {
            Some(kept) if kept >= 1.0 => format!("still holds {kept:.0} MiB"),
            _ => "holds nothing, but what its threshold has moved past".to_owned(),
        };
        return format!(
            "What is given back to the kernel comes back fault by fault: {mine:.1} a step here, {theirs:.1} there. \
             When large blocks have been freed, {} {kept}.",
            best.name
        );
    }
    let calls = |count: &Count| count.calls_a_step(None);
    if let (Some(mine), Some(theirs)) = (calls(count), calls(others))
        && mine > 0.01
        && mine > 1.2 * theirs
    {
        return format!("It makes {mine:.2} system calls a step, and {theirs:.2} there.");
    }
    if let (Some(mine), Some(theirs)) = (ours.instructions, best.instructions)
        && counted == "small"
        && mine > theirs
    {
        let mut told = format!("A small pair takes {mine:.0} instructions, and {theirs:.0} there.");
        let cached = report.row(Allocator::Cached);
        if ours.allocator == Allocator::Ours
            && let Some(cached) = cached.and_then(|row| row.instructions)
            && cached < mine
        {
            told += &format!(" From the thread cache, without the lock and the heap: {cached:.0}.");
        }
        return told;
    }
    "The counts do not say why.".to_owned()
}
