//! The verdict on a case: a closed set, derived from the evidence by one pure function.

pub mod report;
pub mod sentence;

use nix::libc;

use crate::limits::Stop;
use crate::protocol::{EXIT_PIPE_GONE, Ended, Event, Panic, Panicked};
use crate::record::fault::Fault;
use crate::record::ledger::Difference;
use crate::record::process::Status;
use crate::record::transcript::CallDifference;

/// What a case comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Every check held.
    Passed,
    /// A check could not be made on this machine, for the reason given. Neither passed nor failed.
    Skipped(String),
    /// A `todo!()` was reached, at `file:line`.
    NotStarted(String),
    /// The answer is wrong.
    Failed(Failure),
}

/// Each way to fail that a learner is told of.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// A check of the grader did not hold; the text is its sentence.
    Check(String),
    /// The same in a forked child.
    CheckInChild(String),
    /// A panic.
    Panicked(Panic),
    /// A panic in a forked child that nobody caught.
    ChildPanicked(Panic),
    /// A panic that was caught or died with its thread, while the function returned as if nothing had been.
    SwallowedPanic(Panic),
    /// A panic that could not unwind, and aborted.
    AbortedByPanic(Panic),
    /// A forked child returned from the learner's function.
    Escaped,
    /// Children that ended and were never waited for.
    Zombies(u32),
    /// Processes that still ran when the case was over.
    LeftRunning,
    /// The process ended before the case had.
    ExitedEarly(i32),
    /// The judge's own descriptor was closed.
    DescriptorsClosed,
    /// A signal ended the process; where the kernel named an address, what was there.
    Killed(i32, Option<Fault>),
    /// A signal ended a forked child that the grader had made.
    ChildKilled(i32, Option<Fault>),
    /// A thread ran out of stack.
    StackOverflow,
    /// The judge ended the case.
    Stopped(Stop),
    /// So many bytes were unmapped that had been before.
    UnmappedTwice(u64),
    /// The net effect differs from what was asked for.
    Ledger(Vec<Difference>),
    /// The calls themselves differ, where the task fixes them.
    Calls(CallDifference),
    /// Code that must not compile did.
    Compiled(String),
    /// Code that must not compile did not, but for another reason than the lesson's.
    OtherError(String),
    /// The legal twin of a compile-fail case did not pass: the sentence is the twin's own.
    Twin(String),
    /// The grader itself is at fault.
    Grader(String),
}

/// Everything the judge knows of a case once nothing of it runs any more.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub status: Status,
    pub events: Vec<Event>,
    pub stop: Option<Stop>,
    /// The last fault of the first process, where one was traced.
    pub fault: Option<Fault>,
    /// The last signal that killed a forked child, with its fault.
    pub child_killed: Option<(i32, Option<Fault>)>,
    /// Processes that still ran when the first one was gone.
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

    /// Panics that the grader has not foreseen.
    fn unforeseen(&self) -> impl Iterator<Item = &Panic> {
        self.panics().filter(|panic| !panic.expected)
    }

    fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.events.iter().filter_map(|event| match event {
            Event::Ended(ended) => Some(ended),
            _ => None,
        })
    }

    /// The verdict that the evidence allows. The order of the questions is the order in which one cause hides another.
    pub fn verdict(&self) -> Verdict {
        if let Some(panic) = self.panics().find(|p| p.what == Panicked::NotStarted) {
            return Verdict::NotStarted(panic.at.clone());
        }
        if self.ended().any(|ended| *ended == Ended::InChild) {
            return Verdict::Failed(match self.unforeseen().find(|panic| panic.in_child) {
                // A check that it came to was meant for its parent.
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
                // What a destructor does while a failed check unwinds says nothing more.
                Some(sentence) => Failure::Check(sentence),
                None => self.killed(signal),
            }),
            (None, Status::Exited(EXIT_PIPE_GONE)) => Verdict::Failed(Failure::DescriptorsClosed),
            (None, Status::Exited(code)) => Verdict::Failed(Failure::ExitedEarly(code)),
            (Some((true, ..)), _) => self.panicked(),
            (Some((false, zombies, running)), _) => self.returned(zombies, running),
        }
    }

    /// A check that failed in the first process.
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
        // Where a panic cannot unwind core panics itself, and names a place of its own.
        let own = |panic: &&Panic| !panic.at.contains("core/src/panicking.rs:");
        match self.panics().rfind(own).or(self.panics().last()) {
            Some(panic) if signal == libc::SIGABRT => Failure::AbortedByPanic(panic.clone()),
            _ => Failure::Killed(signal, self.fault_of(signal)),
        }
    }

    fn fault_of(&self, signal: i32) -> Option<Fault> {
        self.fault.clone().filter(|fault| fault.signal == signal)
    }

    /// The body panicked in the first process: the panic that unwound it is its last.
    fn panicked(&self) -> Verdict {
        let Some(last) = self.panics().rfind(|panic| !panic.in_child) else {
            return Verdict::Failed(Failure::Grader("a panic was not reported".to_owned()));
        };
        Verdict::Failed(match last.what {
            Panicked::Skip => return Verdict::Skipped(last.message.clone()),
            Panicked::Check => Failure::Check(last.message.clone()),
            Panicked::InChild => return self.failed_in_child(last),
            Panicked::NotStarted | Panicked::Other => Failure::Panicked(last.clone()),
        })
    }

    fn failed_in_child(&self, passed_on: &Panic) -> Verdict {
        let told = self.unforeseen().find(|panic| panic.in_child);
        Verdict::Failed(match (told, &self.child_killed) {
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
        match self.unforeseen().next() {
            Some(panic) => Verdict::Failed(Failure::SwallowedPanic(panic.clone())),
            None => Verdict::Passed,
        }
    }
}
