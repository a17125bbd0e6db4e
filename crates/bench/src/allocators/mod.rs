//! The allocators that are compared, and the baselines.

pub mod baseline;
pub mod subject;

use std::alloc::{GlobalAlloc, System};

use anyhow::{Result, ensure};
use mimalloc::MiMalloc;
use nix::libc;
use rlsf::GlobalTlsf;
use serde::{Deserialize, Serialize};
use tikv_jemallocator::Jemalloc;

use baseline::{HugePages, Locked, Mapping, SameBlock};
use subject::Lacks;

/// Other allocators run with their default settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allocator {
    /// The answer that is measured.
    Ours,
    /// The answer with its thread cache.
    Cached,
    /// The denominator of the ratios.
    Glibc,
    /// glibc a second time. How far its ratio is from 1 shows the noise.
    Again,
    /// glibc with a fixed threshold, the same as the answer's initial one.
    Pinned,
    Mimalloc,
    Jemalloc,
    Rlsf,
    /// A baseline: one mapping for each block.
    Floor,
    /// A baseline: one mapping for each block, on huge pages.
    Huge,
    /// A baseline: always the same resident block.
    Memset,
    /// A baseline: the same, and a lock is taken at each call.
    Lock,
}

/// The answer's initial threshold in bytes, and that of [`Allocator::Pinned`].
pub const THRESHOLD: usize = 128 << 10;

/// The size limit of the answer's thread cache, about that of glibc's cache.
const CACHE: usize = 256 << 10;

impl Allocator {
    /// In the order of the report.
    pub const ALL: [Allocator; 8] = [
        Allocator::Ours,
        Allocator::Cached,
        Allocator::Glibc,
        Allocator::Again,
        Allocator::Pinned,
        Allocator::Mimalloc,
        Allocator::Jemalloc,
        Allocator::Rlsf,
    ];

    /// They run the workload with large blocks. [`Allocator::Lock`] and [`Allocator::Memset`] run the small churn, too.
    pub const BASELINES: [Allocator; 3] = [Allocator::Floor, Allocator::Huge, Allocator::Memset];

    /// The name in the report. The second line for the answer is indented.
    pub fn name(self) -> &'static str {
        match self {
            Allocator::Ours => subject::NAME,
            Allocator::Cached => " with cache",
            Allocator::Glibc => "glibc",
            Allocator::Again => "glibc again",
            Allocator::Pinned => "glibc pinned",
            Allocator::Mimalloc => "mimalloc",
            Allocator::Jemalloc => "jemalloc",
            Allocator::Rlsf => "rlsf",
            Allocator::Floor => "kernel floor",
            Allocator::Huge => "huge pages",
            Allocator::Memset => "warm memset",
            Allocator::Lock => "lock alone",
        }
    }

    /// Returns whether this is the answer, with or without its cache.
    pub fn is_subject(self) -> bool {
        matches!(self, Allocator::Ours | Allocator::Cached)
    }

    /// Sets the allocator up in this process, and returns it.
    pub fn prepare(self, lacks: &Lacks) -> Result<&'static (dyn GlobalAlloc + Sync)> {
        static RLSF: GlobalTlsf = GlobalTlsf::new();
        Ok(match self {
            Allocator::Ours => subject::allocator(lacks),
            Allocator::Cached => {
                subject::set_thread_cache(CACHE);
                subject::allocator(lacks)
            }
            Allocator::Glibc | Allocator::Again => &System,
            Allocator::Pinned => {
                pin_threshold()?;
                &System
            }
            Allocator::Mimalloc => &MiMalloc,
            Allocator::Jemalloc => &Jemalloc,
            Allocator::Rlsf => &RLSF,
            Allocator::Floor => &Mapping,
            Allocator::Huge => &HugePages,
            Allocator::Memset => &SameBlock,
            Allocator::Lock => &Locked,
        })
    }
}

fn pin_threshold() -> Result<()> {
    // SAFETY: mallopt takes two integers and no pointers.
    let result = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD as i32) };
    ensure!(
        result == 1,
        "mallopt(M_MMAP_THRESHOLD, {THRESHOLD}) returned {result}"
    );
    Ok(())
}
