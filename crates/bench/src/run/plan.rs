//! The amount of work: enough for good measurements, or as little as possible for a test.

use crate::child::workload::Workload;

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
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

    /// For tests.
    pub fn quick(rounds: usize) -> Plan {
        Plan {
            rounds,
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

    /// Returns the workloads whose calls and faults are counted. Two threads are not among them: under a tracer they
    /// rarely run at the same time, so they hardly ever wait for a lock.
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
    pub fn large_sizes() -> impl Iterator<Item = usize> {
        (17..=23).map(|power| 1 << power)
    }

    /// Returns the workload with large blocks of that size. All sizes write to the same number of pages.
    pub fn large(&self, bytes: usize, page: usize) -> Workload {
        let steps = (self.large / (bytes / page)).max(1) as u64;
        Workload::Large { bytes, steps }
    }
}
