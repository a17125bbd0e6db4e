//! The report for people, as text and as a chart.

pub mod chart;
pub mod table;

use crate::allocators::Allocator;

/// The curves of the chart, in the order in which they are drawn.
const IN_CHART: [Allocator; 6] = [
    Allocator::Floor,
    Allocator::Pinned,
    Allocator::Ours,
    Allocator::Huge,
    Allocator::Glibc,
    Allocator::Memset,
];

/// Formats a size, such as `128 KiB`.
fn kib_or_mib(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mib => format!("{mib} MiB"),
    }
}
