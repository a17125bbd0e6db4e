//! The allocators that are compared, and the lines that they are compared with.

pub mod baseline;
pub mod subject;

use std::alloc::{GlobalAlloc, System};

use anyhow::{Result, ensure};
use mimalloc::MiMalloc;
use nix::libc;
use rlsf::GlobalTlsf;
use serde::{Deserialize, Serialize};
use tikv_jemallocator::Jemalloc;

use crate::allocators::baseline::{Huge, Kept, Mapped};
use subject::Lacks;

/// Who allocates. A peer is taken as its crate ships it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allocator {
    /// The answer that is measured.
    Ours,
    /// The same with its thread cache on.
    Cached,
    /// The system's, as it ships: what the ratios are to.
    Glibc,
    /// The system's once more: how far its ratio is from 1 is what noise does.
    Again,
    /// The system's with its threshold pinned where ours is.
    Pinned,
    Mimalloc,
    Jemalloc,
    /// The pure-Rust one.
    Rlsf,
    /// No allocator: a mapping for each block.
    Floor,
    /// As the floor, on huge pages.
    Huge,
    /// No allocator: always the same block, all of it resident.
    Memset,
}

/// Bytes at which glibc's threshold is pinned, and with which ours begins.
pub const THRESHOLD: usize = 128 << 10;

/// Bytes that a thread may keep, where the cache is on: about what glibc's keeps.
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

    /// They only take large blocks.
    pub const LINES: [Allocator; 3] = [Allocator::Floor, Allocator::Huge, Allocator::Memset];

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
        }
    }

    /// Whether it is the answer that is measured.
    pub fn is_subject(self) -> bool {
        matches!(self, Allocator::Ours | Allocator::Cached)
    }

    /// The allocator, made ready in this process.
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
                // SAFETY: mallopt takes two numbers.
                let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD as i32) };
                ensure!(done == 1, "glibc does not pin its threshold");
                &System
            }
            Allocator::Mimalloc => &MiMalloc,
            Allocator::Jemalloc => &Jemalloc,
            Allocator::Rlsf => &RLSF,
            Allocator::Floor => &Mapped,
            Allocator::Huge => &Huge,
            Allocator::Memset => &Kept,
        })
    }
}
