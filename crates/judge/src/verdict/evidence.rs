//! Derives the verdict from the evidence, in one pure function.

use nix::libc;

use super::{Failure, Verdict};
use crate::limits::Stop;
use crate::protocol::{EXIT_PIPE_GONE, Ended, Event, Panic, Panicked};
use crate::record::fault::Fault;
use crate::record::process::Status;

/// All that is known of a case once none of its processes runs.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// How the first process ended.
    pub status: Status,
    pub events: Vec<Event>,
    pub stop: Option<Stop>,
    /// The last fault of the first process, if it was traced.
    pub fault: Option<Fault>,
    /// The last signal that killed a forked child, with its fault.
    pub child_killed: Option<(i32, Option<Fault>)>,
    /// The number of processes that still ran when the first one had ended.
    pub leftovers: usize,
    pub output: String,
}

impl Evidence {
    fn panics(&self) -> impl DoubleEndedIterator<Item = &Panic> {
        self.events.iter().filter_map(|event| match event {
            Event::Panicked(panic) => Some(panic),
            _ => None,
        })
    }

    fn unexpected(&self) -> impl Iterator<Item = &Panic> {
        self.panics().filter(|panic| !panic.expected)
    }

    fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.events.iter().filter_map(|event| match event {
            Event::Ended(ended) => Some(ended),
            _ => None,
        })
    }

    /// Derives the verdict. A cause is checked before its possible consequences.
    pub fn verdict(&self) -> Verdict {
        if let Some(panic) = self.panics().find(|p| p.what == Panicked::Judge) {
            return Verdict::Failed(Failure::Grader(panic.message.clone()));
        }
        if let Some(panic) = self.panics().find(|p| p.what == Panicked::NotStarted) {
            return Verdict::NotStarted(format!("a todo!() at {} was reached", panic.at));
        }
        if self.ended().any(|ended| *ended == Ended::InChild) {
            return Verdict::Failed(match self.unexpected().find(|panic| panic.in_child) {
                // A check that the child reached and failed was meant for its parent.
                Some(panic) if panic.what != Panicked::Check => {
                    Failure::ChildPanicked(panic.clone())
                }
                _ => Failure::Escaped,
            });
        }
        if let Some(stop) = &self.stop {
            return Verdict::Failed(Failure::Stopped(stop.clone()));
        }
        let end = self.ended().find_map(|ended| match ended {
            Ended::Here {
                panicked,
                zombies,
                running,
            } => Some((*panicked, *zombies, *running)),
            Ended::InChild => None,
        });
        match (end, self.status) {
            (None, Status::Signaled(signal)) => Verdict::Failed(match self.failed_check() {
                // A destructor that crashes while a failed check unwinds is not the cause.
                Some(sentence) => Failure::Check(sentence),
                None => self.killed(signal),
            }),
            (None, Status::Exited(EXIT_PIPE_GONE)) => Verdict::Failed(Failure::DescriptorsClosed),
            (None, Status::Exited(code)) => Verdict::Failed(Failure::ExitedEarly(code)),
            (Some((true, ..)), _) => self.panicked(),
            (Some((false, zombies, running)), _) => self.returned(zombies, running),
        }
    }

    /// The sentence of a check that failed in the first process.
    fn failed_check(&self) -> Option<String> {
        let failed = |panic: &&Panic| panic.what == Panicked::Check && !panic.in_child;
        self.panics()
            .find(failed)
            .map(|panic| panic.message.clone())
    }

    fn killed(&self, signal: i32) -> Failure {
        if self.output.contains("has overflowed its stack") {
            return Failure::StackOverflow;
        }
        // If a panic cannot unwind, core panics once more, at a location in its own source.
        let outside_core = |panic: &&Panic| !panic.at.contains("core/src/panicking.rs:");
        match self.panics().rfind(outside_core).or(self.panics().last()) {
            Some(panic) if signal == libc::SIGABRT => Failure::AbortedByPanic(panic.clone()),
            _ => Failure::Killed(signal, self.fault_of(signal)),
        }
    }

    fn fault_of(&self, signal: i32) -> Option<Fault> {
        self.fault.clone().filter(|fault| fault.signal == signal)
    }

    /// The verdict on a body that a panic unwound: the last one in the first process.
    fn panicked(&self) -> Verdict {
        let Some(last) = self.panics().rfind(|panic| !panic.in_child) else {
            return Verdict::Failed(Failure::Grader("a panic was not reported".to_owned()));
        };
        Verdict::Failed(match last.what {
            Panicked::Skip => return Verdict::Skipped(last.message.clone()),
            Panicked::Check => Failure::Check(last.message.clone()),
            Panicked::InChild => return self.failed_in_child(last),
            Panicked::NotStarted | Panicked::Judge | Panicked::Other => {
                Failure::Panicked(last.clone())
            }
        })
    }

    fn failed_in_child(&self, passed_on: &Panic) -> Verdict {
        let cause = self.unexpected().find(|panic| panic.in_child);
        Verdict::Failed(match (cause, &self.child_killed) {
            (Some(panic), _) => match panic.what {
                Panicked::Skip => return Verdict::Skipped(panic.message.clone()),
                Panicked::Check => Failure::CheckInChild(panic.message.clone()),
                _ => Failure::ChildPanicked(panic.clone()),
            },
            (None, Some((signal, fault))) => Failure::ChildKilled(*signal, fault.clone()),
            (None, None) => Failure::Panicked(passed_on.clone()),
        })
    }

    fn returned(&self, zombies: u32, running: bool) -> Verdict {
        if running || self.leftovers > 0 {
            return Verdict::Failed(Failure::LeftRunning);
        }
        if zombies > 0 {
            return Verdict::Failed(Failure::Zombies(zombies));
        }
        if let Some(panic) = self.unexpected().next() {
            return Verdict::Failed(Failure::SwallowedPanic(panic.clone()));
        }
        let changed = self.events.iter().find_map(|event| match event {
            Event::StateChanged(sentence) => Some(sentence.clone()),
            _ => None,
        });
        match changed {
            Some(sentence) => Verdict::Failed(Failure::StateChanged(sentence)),
            None => Verdict::Passed,
        }
    }
}
