//! Ends a case that takes too long, takes too much memory, or can never go on.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::limits::{LIBTEST, Limits, Stop};
use crate::procfs;
use crate::supervise::deadlock;
use crate::supervise::shared::Shared;

/// Between two looks.
const STEP: Duration = Duration::from_millis(20);
/// Looks in a row at which nothing may have moved before it counts as a deadlock: 100 ms.
const STILL: usize = 5;

/// Watches until `done` is closed, or ends the case. `census` is taken first at each look: it brings `shared` up to
/// date where no tracer does. `judge` is the thread that the case's calls stop for.
pub fn watch(
    shared: &Shared,
    root: Pid,
    judge: Pid,
    limits: &Limits,
    done: &Receiver<()>,
    census: impl Fn(&Shared),
) {
    let begun = Instant::now();
    let judge_waited = procfs::waited_for_a_cpu(judge.as_raw());
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
        // A stopped task is not ready to run: while it waits for the judge, the judge waits for a processor.
        let waited = || {
            let judge = procfs::waited_for_a_cpu(judge.as_raw()).saturating_sub(judge_waited);
            longest_wait(live.keys()) + judge
        };
        let reason = if live.len() > limits.tasks + LIBTEST {
            Stop::Tasks(limits.tasks)
        } else if resident > limits.memory + PROGRAM {
            Stop::Memory(limits.memory)
        } else if let Some(waits) = &now
            && still >= STILL
        {
            Stop::Deadlock(deadlock::describe(waits))
        } else if begun.elapsed() > limits.wall
            && time_is_up(begun.elapsed(), limits.wall, waited())
        {
            Stop::Time(limits.wall.as_secs())
        } else {
            last = now;
            continue;
        };
        shared.stop(reason);
        return;
    }
}

/// Whether a case has had its time. What it spent ready to run, while the machine ran others, does not count: a right
/// answer on a busy machine is no endless loop. Not even so may it last for ever.
fn time_is_up(elapsed: Duration, wall: Duration, waited: Duration) -> bool {
    elapsed > wall + waited.min(wall * 5)
}

/// The longest that one of the tasks has waited for a processor.
fn longest_wait<'a>(tasks: impl Iterator<Item = &'a i32>) -> Duration {
    tasks
        .map(|tid| procfs::waited_for_a_cpu(*tid))
        .max()
        .unwrap_or_default()
}

/// Bytes resident of the test program itself: its code, libtest's and the first stacks. A case that RLIMIT_DATA stops
/// is told so by its own failed allocation, before the judge ends it.
const PROGRAM: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_processor_does_not_count() {
        let seconds = Duration::from_secs;
        let up = |elapsed, waited| time_is_up(seconds(elapsed), seconds(10), seconds(waited));
        assert!(!up(10, 0) && up(11, 0), "an idle machine");
        assert!(!up(19, 9) && up(20, 9), "a busy one");
        assert!(up(61, 60), "not for ever");
    }

    #[test]
    fn the_kernel_counts_the_waiting() {
        if !std::path::Path::new("/proc/self/schedstat").exists() {
            eprintln!("skipped: this kernel does not count it (CONFIG_SCHED_INFO)");
            return;
        }
        // More threads than processors, none of which ever sleeps: each waits.
        let spinning = || {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(200) {
                std::hint::spin_loop();
            }
            procfs::waited_for_a_cpu(nix::unistd::gettid().as_raw())
        };
        let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| std::thread::spawn(spinning)).collect();
        let waits = threads.into_iter().map(|thread| thread.join().unwrap());
        assert!(waits.max() > Some(Duration::ZERO));
    }
}
