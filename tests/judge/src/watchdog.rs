//! Ends a case that takes too long, takes too much memory, or can never go on.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::limits::{Limits, Stop};
use crate::shared::Shared;
use crate::{deadlock, procfs};

/// Between two looks.
const STEP: Duration = Duration::from_millis(20);
/// Looks in a row at which nothing may have moved before it counts as a deadlock: 100 ms.
const STILL: usize = 5;

/// Watches until `done` is closed, or ends the case. `census` is taken first at each look: it brings `shared` up to
/// date where no tracer does.
pub fn watch(
    shared: &Shared,
    root: Pid,
    limits: &Limits,
    done: &Receiver<()>,
    census: impl Fn(&Shared),
) {
    let deadline = Instant::now() + limits.wall;
    let mut last = None;
    let mut still = 0;
    while done.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
        census(shared);
        let live = shared.live();
        let now = deadlock::waits(root, &live);
        still = match &now {
            Some(_) if now == last => still + 1,
            _ => 0,
        };
        let resident: u64 = live
            .keys()
            .filter(|tid| procfs::process_of(**tid) == Some(**tid))
            .map(|tid| procfs::resident_bytes(*tid))
            .sum();
        let reason = if live.len() > limits.tasks + LIBTEST {
            Stop::Tasks(limits.tasks)
        } else if resident > limits.memory + PROGRAM {
            Stop::Memory(limits.memory)
        } else if let Some(waits) = &now
            && still >= STILL
        {
            Stop::Deadlock(deadlock::describe(waits))
        } else if Instant::now() > deadline {
            Stop::Time(limits.wall.as_secs())
        } else {
            last = now;
            continue;
        };
        shared.stop(reason);
        return;
    }
}

/// Bytes resident of the test program itself: its code, libtest's and the first stacks. A case that RLIMIT_DATA stops
/// is told so by its own failed allocation, before the judge ends it.
const PROGRAM: u64 = 32 << 20;

/// libtest's own thread and the one that runs the case.
pub const LIBTEST: usize = 2;
