//! What a process can tell of itself: CPU time, faults, resident memory; and the marks that its tracer looks for.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{Pid, SysconfVar, getpgid, sysconf};
use serde::{Deserialize, Serialize};

/// A call that nothing else makes, with numbers that no process has: from the first to the second the tracer counts.
pub const MARKS: (i32, i32) = (-7_101, -7_102);

/// What was seen of one workload.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measure {
    /// Pairs, or doublings: what the workload repeats.
    pub steps: u64,
    /// Pages that were written to in them, each time anew.
    pub pages: u64,
    /// CPU time of all threads.
    pub cpu_ns: u64,
    pub faults: u64,
    /// Where something was to be held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// Memory in use, in bytes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// What the program asked for, when it held most.
    pub live: u64,
    /// What it took to hold that: the heap up to its break, where the allocator tells, otherwise what was resident.
    pub heap: u64,
    /// Resident while most was held.
    pub peak: u64,
    /// Resident right after everything was freed.
    pub kept: u64,
}

/// Begins when it is made.
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
        mark(MARKS.0);
        Ok(meter)
    }

    /// What has been used since.
    pub fn stop(self, steps: u64, pages: u64) -> Result<Measure> {
        mark(MARKS.1);
        let cpu = cpu_time()? - self.cpu;
        Ok(Measure {
            steps,
            pages,
            cpu_ns: cpu.as_nanos() as u64,
            faults: faults()? - self.faults,
            held: None,
        })
    }
}

fn mark(mark: i32) {
    // Refused, as it must be.
    let _ = getpgid(Some(Pid::from_raw(mark)));
}

/// CPU time of this process: in nanoseconds, which getrusage has not.
fn cpu_time() -> Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `time` only.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Errno::result(result)?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn faults() -> Result<u64> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.minor_page_faults() as u64)
}

/// Bytes of anonymous memory that are resident. Counted page by page: what `status` says lags behind.
pub fn resident() -> Result<u64> {
    let rollup =
        fs::read_to_string("/proc/self/smaps_rollup").context("/proc/self/smaps_rollup")?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: u64 = number.context("no line `Anonymous:`")?.trim().parse()?;
    Ok(kib << 10)
}

/// Bytes in a page.
pub fn page_size() -> Result<usize> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?;
    Ok(size.context("sysconf does not know the page size")? as usize)
}
