//! Measures this process: CPU time, page faults and resident memory. Marks tell a tracer when the
//! measured part starts and stops.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{Pid, SysconfVar, getpgid, sysconf};
use serde::{Deserialize, Serialize};

/// A mark is a call of `getpgid` with this process id, or with [`STOP_MARK`]. No process can have either, so no other
/// code makes these calls.
pub const START_MARK: i32 = -7_101;
pub const STOP_MARK: i32 = -7_102;

/// The result of one workload.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measure {
    /// What the workload repeats: pairs of allocation and free, or doublings.
    pub steps: u64,
    /// The size of all blocks of these steps, in pages. A page counts once for each block.
    pub pages: u64,
    /// CPU time of all threads.
    pub cpu_ns: u64,
    /// Minor page faults.
    pub faults: u64,
    /// Bytes that are still resident after the workload has freed all of its blocks.
    pub kept: u64,
    /// Only for workloads that hold memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// Memory use in bytes, of a workload that holds many blocks at the same time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// The sum of the requested sizes while all blocks are allocated.
    pub live: u64,
    /// The size of the heap at that time. For an allocator that does not report it, the same as `peak`.
    pub heap: u64,
    /// Resident while all blocks are allocated.
    pub peak: u64,
}

/// A running measurement.
pub struct Meter {
    cpu: Duration,
    faults: u64,
}

impl Meter {
    pub fn start() -> Result<Meter> {
        let meter = Meter {
            faults: faults()?,
            cpu: cpu_time()?,
        };
        mark(START_MARK);
        Ok(meter)
    }

    /// Returns what was used since the start.
    pub fn stop(self, steps: u64, pages: u64) -> Result<Measure> {
        mark(STOP_MARK);
        let cpu = cpu_time()? - self.cpu;
        Ok(Measure {
            steps,
            pages,
            cpu_ns: cpu.as_nanos() as u64,
            faults: faults()? - self.faults,
            ..Measure::default()
        })
    }
}

fn mark(mark: i32) {
    // It fails with ESRCH.
    let _ = getpgid(Some(Pid::from_raw(mark)));
}

/// Returns the CPU time of this process. `getrusage` has no nanoseconds.
fn cpu_time() -> Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Errno::result(result)?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn faults() -> Result<u64> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.minor_page_faults() as u64)
}

/// Returns the number of resident bytes of anonymous memory. `smaps_rollup` walks the page tables; the counters in
/// `status` are updated late.
pub fn resident() -> Result<u64> {
    let path = "/proc/self/smaps_rollup";
    let rollup = fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    let mut lines = rollup.lines();
    let line = lines.find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let kib = kib.with_context(|| format!("{path} has no valid line `Anonymous:`"))?;
    Ok(kib << 10)
}

/// Returns the page size in bytes.
pub fn page_size() -> Result<usize> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?;
    Ok(size.context("sysconf does not report the page size")? as usize)
}
