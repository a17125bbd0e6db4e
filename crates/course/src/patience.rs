//! Ends a program that makes no progress.
//!
//! A slow or busy machine is no reason to give up, so the limit is on the processor time that the program has used
//! since its last sign of progress. A program that only waits uses none, so there is a longer limit on the time, too.

use std::fs;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::process::Killer;

/// What a program may use between two signs of progress.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of all processes of its group together.
    pub processor: Duration,
    pub time: Duration,
}

/// Watches a process group, and kills it when it exceeds its limits.
#[derive(Debug)]
pub struct Patience {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    last: Mutex<Instant>,
    /// Whether there has been progress since the last poll.
    progress: AtomicBool,
    exceeded: AtomicBool,
    ended: AtomicBool,
}

/// The interval between two polls.
const POLL: Duration = Duration::from_millis(250);

impl Patience {
    pub fn begin(group: Killer, limits: Limits) -> Patience {
        let state = Arc::new(State {
            last: Mutex::new(Instant::now()),
            progress: AtomicBool::new(false),
            exceeded: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let watched = Arc::clone(&state);
        let thread = thread::spawn(move || watch(&watched, &group, limits));
        Patience {
            state,
            thread: Some(thread),
        }
    }

    /// Records that the program has made progress.
    pub fn progress(&self) {
        self.state.progress();
    }

    /// Returns a reader that records each read as progress.
    pub fn reading<R: Read>(&self, source: R) -> impl Read + use<R> {
        Reading {
            source,
            state: Arc::clone(&self.state),
        }
    }

    /// Returns whether the program was killed.
    pub fn is_exceeded(&self) -> bool {
        self.state.exceeded.load(Ordering::SeqCst)
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl State {
    fn progress(&self) {
        *self.lock() = Instant::now();
        self.progress.store(true, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(state: &State, group: &Killer, limits: Limits) {
    let mut used_before = Duration::ZERO;
    while !state.ended.load(Ordering::SeqCst) {
        let Some(leader) = group.leader() else { return };
        let used = processor_time(leader);
        if state.progress.swap(false, Ordering::SeqCst) {
            used_before = used;
        }
        let since = state.lock().elapsed();
        if since > limits.time || used.saturating_sub(used_before) > limits.processor {
            state.exceeded.store(true, Ordering::SeqCst);
            group.kill();
            return;
        }
        thread::park_timeout(POLL);
    }
}

struct Reading<R> {
    source: R,
    state: Arc<State>,
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.state.progress();
        Ok(count)
    }
}

/// The processor time of the processes of a group, with the children that they have waited for.
fn processor_time(group: Pid) -> Duration {
    let ticks_a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ticks = entries.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in parentheses, may contain spaces and parentheses.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // From the third field on: state ppid pgrp …, and utime stime cutime cstime are fields 14 to 17.
        if fields.get(2)?.parse() != Ok(group.as_raw()) {
            return None;
        }
        let times = fields.get(11..15)?.iter();
        Some(
            times
                .filter_map(|time| time.parse::<u64>().ok())
                .sum::<u64>(),
        )
    });
    let milliseconds = ticks.sum::<u64>() * 1000 / ticks_a_second.unsigned_abs();
    Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::Group;

    fn run(script: &str, limits: Limits) -> bool {
        let mut group = Group::spawn(Command::new("sh").args(["-c", script])).expect("a shell");
        let patience = Patience::begin(group.killer(), limits);
        group.wait().expect("the shell can be waited for");
        patience.is_exceeded()
    }

    const SHORT: Duration = Duration::from_millis(400);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_program_that_computes_without_progress_is_killed() {
        let limits = Limits {
            processor: SHORT,
            time: LONG,
        };
        assert!(run("while :; do :; done", limits));
        // A process that was started by the first one, and one that has ended, count as well.
        assert!(run("sh -c 'while :; do :; done'; sleep 60", limits));
    }

    #[test]
    fn a_program_that_waits_is_killed_later() {
        let limits = Limits {
            processor: SHORT,
            time: LONG,
        };
        assert!(!run("sleep 1", limits));
        let limits = Limits {
            processor: LONG,
            time: SHORT,
        };
        assert!(run("sleep 60", limits));
    }

    #[test]
    fn progress_begins_the_limit_anew() {
        let limits = Limits {
            processor: LONG,
            time: Duration::from_secs(2),
        };
        let mut command = Command::new("sh");
        command.args(["-c", "for i in 1 2 3 4 5 6; do echo; sleep 0.5; done"]);
        command.stdout(std::process::Stdio::piped());
        let mut group = Group::spawn(&mut command).expect("a shell");
        let stdout = group.take_stdout().expect("a pipe");
        let patience = Patience::begin(group.killer(), limits);
        let mut text = String::new();
        patience
            .reading(stdout)
            .read_to_string(&mut text)
            .expect("text");
        group.wait().expect("the shell can be waited for");
        assert!(!patience.is_exceeded());
    }
}
