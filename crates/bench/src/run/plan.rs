//! How much of everything is done: enough to measure, or as little as shows that it works.

use crate::child::workload::Workload;

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds in which the allocators take turns.
    pub rounds: usize,
    /// Steps of a churn with small blocks.
    small: u64,
    mixed: u64,
    /// Pages that are written to for each size of large blocks.
    large: usize,
    vec: usize,
    sparse: usize,
    blocks: usize,
    heap: usize,
    /// Steps under callgrind.
    pub instructions: u64,
}

/// The large block of which everything is counted.
const LARGE: usize = 1 << 20;

impl Plan {
    pub fn full(rounds: usize) -> Plan {
        Plan {
            rounds,
            small: 1_000_000,
            mixed: 800,
            large: 16_384,
            vec: 256 << 20,
            sparse: 64 << 20,
            blocks: 256 << 20,
            heap: 64 << 20,
            instructions: 50_000,
        }
    }

    /// For a test.
    pub fn quick(rounds: usize) -> Plan {
        Plan {
            rounds,
            small: 1_000,
            mixed: 10,
            large: 512,
            vec: 4 << 20,
            sparse: 4 << 20,
            blocks: 8 << 20,
            heap: 4 << 20,
            instructions: 500,
        }
    }

    /// Of which calls and faults are counted. Not of threads: under a tracer they take turns, and hardly wait for a lock.
    pub fn counted(&self) -> Vec<(&'static str, Workload)> {
        let (bytes, steps) = (self.sparse, 4);
        vec![
            ("small", Workload::Small { steps: self.small }),
            ("mixed", Workload::Mixed { steps: self.mixed }),
            (
                "large",
                Workload::Large {
                    bytes: LARGE,
                    steps: 16,
                },
            ),
            ("vec", Workload::Vec { bytes: self.vec }),
            ("sparse", Workload::Sparse { bytes, steps }),
            ("untouched", Workload::Untouched { bytes, steps }),
        ]
    }

    /// After which memory may be kept.
    pub fn held(&self) -> Vec<(&'static str, Workload)> {
        let (blocks, heap) = (self.blocks, self.heap);
        vec![
            ("blocks", Workload::Blocks { bytes: blocks }),
            ("heap", Workload::Heap { bytes: heap }),
        ]
    }

    /// What is timed, beside the large blocks.
    pub fn timed(&self) -> Vec<(&'static str, Workload)> {
        let sparse = Workload::Sparse {
            bytes: self.sparse,
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

    /// The sizes of large blocks, from 128 KiB to 8 MiB.
    pub fn large_sizes() -> impl Iterator<Item = usize> {
        (17..=23).map(|power| 1 << power)
    }

    /// So many blocks of that size that each size touches as many pages.
    pub fn large(&self, bytes: usize, page: usize) -> Workload {
        let steps = (self.large / (bytes / page)).max(1) as u64;
        Workload::Large { bytes, steps }
    }
}
