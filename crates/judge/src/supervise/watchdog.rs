//! Stops a case that exceeds its limits or is deadlocked.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::deadlock;
use super::objects::Objects;
use super::shared::Shared;
use crate::limits::{LIBTEST, Limits, Overrun, Stop};
use crate::procfs::{self, FileId};

/// The polling interval.
const STEP: Duration = Duration::from_millis(20);
/// The number of polls in a row with the same waits of all tasks that count as a deadlock: 100 ms.
const DEADLOCK_POLLS: usize = 5;

/// A case whose time is up may go on for this part of its limit after it has begun to stop code at a place. If it reaches
/// the next place, it only has many of them. If not, it hangs.
const STALLED: u32 = 6;

/// Watches until `done` is closed or the case must be stopped. Each poll begins with `census`, which updates the tasks
/// in `shared` if no tracer does. `judge` is the thread that traces the case.
pub fn watch(
    shared: &Shared,
    root: Pid,
    judge: Pid,
    limits: &Limits,
    objects: &Objects,
    done: &Receiver<()>,
    census: impl Fn(&Shared),
) {
    let mut clock = Clock {
        begun: Instant::now(),
        judge,
        judge_waited: procfs::waited_for_a_cpu(judge.as_raw()),
    };
    let mut pauses = Pauses::new();
    let mut last = None;
    let mut unchanged = 0;
    let mut last_steps = 0;
    // The last place that the case had reached when its time was up.
    let mut late = None;
    while done.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
        clock.begun += pauses.since_last_poll();
        census(shared);
        let live = shared.live();
        let waits = match shared.may_have_timer() {
            true => None, // its signal may end a wait, or a process
            false => deadlock::waits(root, &live),
        };
        unchanged = match &waits {
            Some(_) if waits == last => unchanged + 1,
            _ => 0,
        };
        let steps = shared.steps();
        let is_stepping = steps != std::mem::replace(&mut last_steps, steps);
        let wall = match steps {
            0 => limits.wall,
            _ => limits.stepped,
        };
        let reason = if live.len() > limits.tasks + LIBTEST {
            Stop::Tasks(limits.tasks)
        } else if memory(&live, objects) > limits.memory + PROGRAM {
            Stop::Memory(limits.memory)
        } else if let Some(waits) = &waits
            && unchanged >= DEADLOCK_POLLS
        {
            match shared.has_lost_its_thread() {
                true => Stop::ThreadEnded,
                false => Stop::Deadlock(deadlock::describe(waits)),
            }
        } else if clock.is_up(&live, wall) {
            if let Some((places, since)) = shared.places() {
                if late.get_or_insert(places) != &places {
                    shared.stop(Stop::ManyPlaces(places));
                    return;
                }
                if since.elapsed() < wall / STALLED {
                    continue;
                }
            }
            // The number of steps has a limit, so this is not a loop that does not end.
            if is_stepping {
                shared.stop(Stop::ManySteps(steps));
                return;
            }
            match shared.has_lost_its_thread() && procfs::sleeps(root.as_raw()) == Some(true) {
                true => Stop::ThreadEnded,
                false => Stop::Time(Overrun {
                    limit: wall,
                    elapsed: clock.begun.elapsed(),
                    cpu: cpu_time(&live),
                    waits: deadlock::all_wait_for(root, &live, &shared.halted()),
                }),
            }
        } else {
            last = waits;
            continue;
        };
        shared.stop(reason);
        return;
    }
}

/// Bytes of memory that all processes among the tasks use: resident bytes, page tables, and files in memory, mapped or not.
fn memory(live: &BTreeMap<i32, String>, objects: &Objects) -> u64 {
    let (files, segments) = objects.memory();
    let mut files: BTreeMap<FileId, u64> = files.into_iter().collect();
    let (mut resident, mut shared) = (0, 0);
    for process in processes(live) {
        let thread = procfs::thread_with_memory(process);
        resident += procfs::resident_bytes(thread) + procfs::page_table_bytes(thread);
        shared += procfs::resident_shared_bytes(thread);
    }
    // A thread may have a table of descriptors of its own.
    for tid in live.keys() {
        files.extend(procfs::open_files_in_memory(*tid));
    }
    // What is mapped from such a file is also resident.
    resident.saturating_sub(shared) + shared.max(files.values().sum::<u64>() + segments)
}

/// The CPU time of all processes among the tasks.
fn cpu_time(live: &BTreeMap<i32, String>) -> Duration {
    processes(live).map(procfs::cpu_time).sum()
}

fn processes(live: &BTreeMap<i32, String>) -> impl Iterator<Item = i32> {
    let tasks = live.keys().copied();
    tasks.filter(|tid| procfs::process_of(*tid) == Some(*tid))
}

/// Measures the time that a case has used.
struct Clock {
    begun: Instant,
    judge: Pid,
    /// How long the judge's thread had waited for a processor before the case began.
    judge_waited: Duration,
}

impl Clock {
    fn is_up(&self, live: &BTreeMap<i32, String>, wall: Duration) -> bool {
        let elapsed = self.begun.elapsed();
        if elapsed <= wall {
            return false;
        }
        // A task that is stopped for the tracer is not ready to run. Then it is the tracer that may wait for a
        // processor.
        let judge = procfs::waited_for_a_cpu(self.judge.as_raw()).saturating_sub(self.judge_waited);
        let tasks = live.keys();
        let times = tasks.map(|tid| (procfs::waited_for_a_cpu(*tid), procfs::ran(*tid)));
        time_is_up(elapsed, wall, waited_for_others(times) + judge)
    }
}

/// The longest time that a task has waited for a processor while the machine ran others than the tasks of its case. `times`
/// has how long each task has waited and run.
///
/// A case with many threads would otherwise get more time than one whose only thread computes as long as all of them.
fn waited_for_others(times: impl Iterator<Item = (Duration, Duration)>) -> Duration {
    let (mut longest, mut all_ran) = (Duration::ZERO, Duration::ZERO);
    for (waited, ran) in times {
        longest = longest.max(waited + ran);
        all_ran += ran;
    }
    longest.saturating_sub(all_ran)
}

/// Finds out when the judge was stopped: by job control, or with its whole machine. Then it polls nothing for seconds, and
/// cannot see the end of its case.
struct Pauses {
    polled: Instant,
    /// How long this thread had run at the end of the last pause. A poll that takes long is no pause.
    ran: Duration,
}

impl Pauses {
    fn new() -> Pauses {
        Pauses {
            polled: Instant::now(),
            ran: Pauses::ran(),
        }
    }

    fn since_last_poll(&mut self) -> Duration {
        const LATE: Duration = Duration::from_secs(1);
        let elapsed = self.polled.elapsed();
        self.polled = Instant::now();
        if elapsed < LATE {
            return Duration::ZERO;
        }
        let before = std::mem::replace(&mut self.ran, Pauses::ran());
        pause(elapsed, self.ran.saturating_sub(before))
    }

    fn ran() -> Duration {
        procfs::ran(nix::unistd::gettid().as_raw())
    }
}

/// The pause in a time between two polls that is longer than a poll, of which the thread ran for `ran`.
fn pause(elapsed: Duration, ran: Duration) -> Duration {
    elapsed.saturating_sub(ran + STEP)
}

/// Whether a case has used up its time. Time in which it was ready to run while the machine ran others does not count,
/// up to five times the limit: a right answer on a busy machine is no endless loop.
fn time_is_up(elapsed: Duration, wall: Duration, waited: Duration) -> bool {
    elapsed > wall + waited.min(wall * 5)
}

/// Resident bytes of the test program itself: its code, libtest's and the first stacks. The allowance lets RLIMIT_DATA
/// fail an allocation of the case before the judge stops it.
const PROGRAM: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spent_waiting_for_a_processor_does_not_count() {
        let seconds = Duration::from_secs;
        let up = |elapsed, waited| time_is_up(seconds(elapsed), seconds(10), seconds(waited));
        assert!(!up(10, 0) && up(11, 0), "on an idle machine");
        assert!(!up(19, 9) && up(20, 9), "on a busy machine");
        assert!(up(61, 60), "the wait counts up to a limit");
    }

    #[test]
    fn a_long_time_between_two_polls_is_a_pause_unless_the_thread_ran() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(seconds(5), Duration::ZERO), seconds(5) - STEP);
        assert_eq!(pause(seconds(5), seconds(5)), Duration::ZERO);
        let mut pauses = Pauses::new();
        pauses.polled = Instant::now().checked_sub(seconds(60)).unwrap();
        assert!(pauses.since_last_poll() > seconds(40));
    }

    #[test]
    fn only_waits_for_others_count() {
        let seconds = |(waited, ran)| (Duration::from_secs(waited), Duration::from_secs(ran));
        let waited =
            |times: &[(u64, u64)]| waited_for_others(times.iter().copied().map(seconds)).as_secs();
        assert_eq!(waited(&[(6, 4), (0, 0)]), 6, "one thread on a busy machine");
        assert_eq!(waited(&[(8, 2); 10]), 0, "many threads on two processors");
        assert_eq!(waited(&[(9, 1); 5]), 5, "with a quarter of them");
    }

    #[test]
    fn the_kernel_counts_the_wait_for_a_processor() {
        if !std::path::Path::new("/proc/self/schedstat").exists() {
            eprintln!("skipped: this kernel has no /proc/PID/schedstat (CONFIG_SCHED_INFO)");
            return;
        }
        // There are more threads than processors and none sleeps, so each has to wait.
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
