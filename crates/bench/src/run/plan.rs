//! The amount of work: enough for good measurements, enough for a first impression, or as little as possible for a test.

use std::time::Duration;

use crate::allocators::Allocator;
use crate::child::workload::Workload;

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// No further round begins if it would probably end later than this after the start of the benchmark.
    pub budget: Option<Duration>,
    /// Whether to leave out some allocators' instructions, and some sizes of large blocks.
    brief: bool,
    /// Steps of the small churn.
    small: u64,
    /// Steps of the mixed churn.
    mixed: u64,
    /// Pages to write to, for each size of large blocks.
    large: usize,
    /// The final size of the `Vec`, in bytes.
    vec: usize,
    /// The size of a zeroed block, in bytes.
    zeroed: usize,
    /// Bytes to hold in blocks of 1 MiB.
    blocks: usize,
    /// Bytes to hold in small blocks.
    heap: usize,
    /// Steps of the small churn under callgrind.
    pub instructions: u64,
}

/// The size of the large blocks whose calls and faults are counted.
const LARGE: usize = 1 << 20;

impl Plan {
    pub fn full(rounds: usize) -> Plan {
        Plan {
            rounds,
            budget: None,
            brief: false,
            small: 1_000_000,
            mixed: 800,
            large: 16_384,
            vec: 256 << 20,
            zeroed: 64 << 20,
            blocks: 256 << 20,
            heap: 64 << 20,
            instructions: 50_000,
        }
    }

    /// Less work, and as many rounds as fit into a minute.
    pub fn quick(rounds: usize) -> Plan {
        Plan {
            rounds,
            budget: Some(Duration::from_secs(45)),
            brief: true,
            small: 200_000,
            mixed: 100,
            large: 2_048,
            vec: 64 << 20,
            // Above 32 MiB, the most that glibc's dynamic threshold becomes.
            zeroed: 64 << 20,
            blocks: 64 << 20,
            heap: 16 << 20,
            instructions: 10_000,
        }
    }

    /// As little work as possible, for tests of the benchmark itself.
    pub fn smoke(rounds: usize) -> Plan {
        Plan {
            rounds,
            budget: None,
            brief: false,
            small: 1_000,
            mixed: 10,
            large: 512,
            vec: 4 << 20,
            zeroed: 4 << 20,
            blocks: 8 << 20,
            heap: 4 << 20,
            instructions: 500,
        }
    }

    /// Returns whether another round may begin, `elapsed` after the start, if one takes as long as `round`. The first
    /// round, before which that is not known, always may.
    pub fn allows_round(&self, elapsed: Duration, round: Option<Duration>) -> bool {
        match (self.budget, round) {
            (Some(budget), Some(round)) => elapsed + round <= budget,
            _ => true,
        }
    }

    pub fn counts_instructions(&self, allocator: Allocator) -> bool {
        let compared = allocator.is_subject() || allocator == Allocator::Glibc;
        !self.brief || compared
    }

    /// Returns the workloads whose calls and faults are counted. The one with two threads is not among them: under
    /// a tracer they rarely run at the same time, so they hardly ever wait for a lock.
    pub fn counted(&self) -> Vec<(&'static str, Workload)> {
        let large = Workload::Large {
            bytes: LARGE,
            steps: 16,
        };
        let (bytes, steps) = (self.zeroed, 4);
        vec![
            ("small", Workload::Small { steps: self.small }),
            ("mixed", Workload::Mixed { steps: self.mixed }),
            ("large", large),
            ("vec", Workload::Vec { bytes: self.vec }),
            ("sparse", Workload::Sparse { bytes, steps }),
            ("untouched", Workload::Untouched { bytes, steps }),
        ]
    }

    /// Returns the workloads after which an allocator may keep memory.
    pub fn held(&self) -> Vec<(&'static str, Workload)> {
        let (blocks, heap) = (self.blocks, self.heap);
        vec![
            ("blocks", Workload::Blocks { bytes: blocks }),
            ("heap", Workload::Heap { bytes: heap }),
        ]
    }

    /// Returns the workloads that are timed, except the large blocks.
    pub fn timed(&self) -> Vec<(&'static str, Workload)> {
        let sparse = Workload::Sparse {
            bytes: self.zeroed,
            steps: 32,
        };
        let threads = Workload::Threads {
            steps: self.small / 2,
        };
        vec![
            ("small", Workload::Small { steps: self.small }),
            ("mixed", Workload::Mixed { steps: self.mixed }),
            ("vec", Workload::Vec { bytes: self.vec }),
            ("sparse", sparse),
            ("threads", threads),
        ]
    }

    /// Returns the sizes of the large blocks that are timed: 128 KiB to 8 MiB.
    pub fn large_sizes(&self) -> impl Iterator<Item = usize> + use<> {
        let step = if self.brief { 3 } else { 1 };
        (17..=23).step_by(step).map(|power| 1 << power)
    }

    /// Returns the workload with large blocks of that size. All sizes write to the same number of pages.
    pub fn large(&self, bytes: usize, page: usize) -> Workload {
        let steps = (self.large / (bytes / page)).max(1) as u64;
        Workload::Large { bytes, steps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_begins_no_round_that_would_end_after_a_minute() {
        let seconds = Duration::from_secs;
        let plan = Plan::quick(15);
        assert!(plan.allows_round(seconds(50), None));
        assert!(plan.allows_round(seconds(20), Some(seconds(20))));
        assert!(!plan.allows_round(seconds(40), Some(seconds(20))));
        assert!(Plan::full(15).allows_round(seconds(4_000), Some(seconds(20))));
    }
}
