//! Derives the verdict from the evidence, in one pure function.

use nix::libc;

use super::{Cause, Failure, Verdict, sentence};
use crate::limits::Stop;
use crate::protocol::{EXIT_SOCKET_GONE, Ended, Event, Panic, Panicked, Thrown};
use crate::record::fault::{Fault, Place};
use crate::record::process::Status;
use crate::supervise::{First, Left};

/// All that is known of a case once none of its processes runs.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// How the first process ended.
    pub status: Status,
    /// What the first process did before, if it was traced.
    pub first: Option<First>,
    pub events: Vec<Event>,
    pub stop: Option<Stop>,
    /// The last fault of the first process, if it was traced.
    pub fault: Option<Fault>,
    /// The last signal that killed a forked child, with its fault.
    pub child_killed: Option<(i32, Option<Fault>)>,
    /// The number of processes that still ran when the first one had ended.
    pub leftovers: usize,
    /// The objects of the kernel that the first process has created, and that were still there when it had ended.
    pub objects_left: Vec<Left>,
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
            return Verdict::NotStarted(reached(&panic.at));
        }
        if self.ended().any(|ended| *ended == Ended::InChild) {
            let in_child = |panic: &&Panic| panic.in_child && panic.what != Panicked::Unreported;
            return Verdict::Failed(match self.unexpected().find(in_child) {
                // A check that the child reached and failed was meant for its parent.
                Some(panic) if panic.what != Panicked::Check => {
                    Failure::ChildPanicked(panic.clone())
                }
                _ => Failure::Escaped,
            });
        }
        let end = self.ended().find_map(|ended| match ended {
            Ended::Here {
                panicked,
                zombies,
                running,
            } => Some((panicked, *zombies, *running)),
            Ended::InChild => None,
        });
        // A destructor that crashes, exits or hangs while a failed check unwinds is not the cause.
        if let (None, Some(sentence)) = (end, self.failed_check()) {
            return Verdict::Failed(Failure::Check(sentence));
        }
        if let Some(program) = self.first.as_ref().and_then(|first| first.executed.clone()) {
            return Verdict::Failed(Failure::Executed(program));
        }
        if let Some(stop) = &self.stop {
            return match stop {
                Stop::ManyPlaces(places) => Verdict::Skipped(sentence::many_places(*places)),
                Stop::ManySteps(steps) => Verdict::Skipped(sentence::many_steps(*steps)),
                stop => Verdict::Failed(self.after_a_cause(Failure::Stopped(stop.clone()))),
            };
        }
        match (end, self.status) {
            (None, Status::Signaled(signal)) => {
                Verdict::Failed(self.after_a_cause(self.killed(signal)))
            }
            (None, Status::Exited(code)) => Verdict::Failed(self.after_a_cause(self.exited(code))),
            (Some((Some(thrown), ..)), _) => self.panicked(thrown),
            (Some((None, zombies, running)), _) => self.returned(zombies, running),
        }
    }

    /// The first process exited before the case's body had ended.
    fn exited(&self, code: i32) -> Failure {
        match &self.first {
            Some(first) if first.socket_gone => Failure::DescriptorsClosed,
            None if code == EXIT_SOCKET_GONE => Failure::DescriptorsClosed,
            first => Failure::ExitedEarly {
                code,
                called: first.as_ref().is_some_and(|first| first.called_exit),
            },
        }
    }

    /// `failure`, with the panic or the crash before it that may be its cause: whoever waits for a thread or a child that
    /// has failed may wait for ever, a destructor may crash while a panic unwinds, and a handler may hide a crash.
    fn after_a_cause(&self, failure: Failure) -> Failure {
        let hides_a_crash = match failure {
            Failure::Stopped(Stop::Time(_) | Stop::Deadlock(_) | Stop::ThreadEnded)
            | Failure::ExitedEarly { .. }
            | Failure::Killed(_, None) => true,
            Failure::Killed(_, Some(_)) | Failure::StackOverflow | Failure::AbortedByPanic(_) => {
                false
            }
            failure => return failure,
        };
        let told = match &failure {
            Failure::AbortedByPanic(panic) => Some(panic),
            _ => None,
        };
        let panic = self
            .unexpected()
            .find(|panic| panic.what == Panicked::Other && !panic.aborts() && Some(*panic) != told);
        let by_code = |fault: &&Fault| fault.place != Place::Sent;
        let crash = || {
            self.fault
                .as_ref()
                .filter(by_code)
                .filter(|_| hides_a_crash)
        };
        let child_crash = || match &self.child_killed {
            Some((signal, fault)) if hides_a_crash => {
                let fault = fault.as_ref().filter(|fault| fault.signal == *signal);
                fault.filter(by_code)
            }
            _ => None,
        };
        let cause = panic
            .map(|panic| Cause::Panic(panic.clone()))
            .or_else(|| crash().map(|fault| Cause::Crash(fault.clone())))
            .or_else(|| child_crash().map(|fault| Cause::ChildCrash(fault.clone())));
        match cause {
            Some(cause) => Failure::After(cause, Box::new(failure)),
            None => failure,
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
        let overflow = |fault: &Fault| fault.place == Place::StackOverflow;
        if signal == libc::SIGABRT {
            // Rust's handler of SIGSEGV aborts after an access below the stack.
            if self.fault.as_ref().is_some_and(overflow) {
                return Failure::StackOverflow;
            }
            if let Some(panic) = self.panic_that_aborted(false) {
                return Failure::AbortedByPanic(panic.clone());
            }
        }
        let fault = self.fault.clone().filter(|fault| fault.signal == signal);
        match fault {
            Some(fault) if overflow(&fault) => Failure::StackOverflow,
            fault => Failure::Killed(signal, fault),
        }
    }

    /// The panic of the first process, or of a child, that could not unwind. It is a failed check for undefined behaviour,
    /// or core panics once more then, in its own source.
    fn panic_that_aborted(&self, in_child: bool) -> Option<&Panic> {
        let mut panics = self
            .panics()
            .filter(|panic| panic.in_child == in_child)
            .rev()
            .peekable();
        if let Some(panic) = panics.next_if(|panic| panic.undefined_behaviour().is_some()) {
            return Some(panic);
        }
        let second = panics.find(|panic| panic.aborts())?;
        let reported = |panic: &&Panic| !panic.aborts() && panic.what != Panicked::Unreported;
        panics.find(reported).or(Some(second))
    }

    /// The report of the panic that was thrown, with its place. If the case has replaced the hook, there is none.
    fn report_of(&self, what: Panicked, message: &str, in_child: bool) -> Panic {
        let is_it = |panic: &&Panic| {
            let same = panic.what == what && panic.message == message;
            same && panic.in_child == in_child && !panic.at.is_empty()
        };
        self.panics()
            .rfind(is_it)
            .cloned()
            .unwrap_or_else(|| Panic {
                what,
                message: message.to_owned(),
                at: String::new(),
                in_child,
                expected: false,
            })
    }

    /// The verdict on a body that a panic unwound.
    fn panicked(&self, thrown: &Thrown) -> Verdict {
        let panic = self.report_of(thrown.what, &thrown.message, false);
        Verdict::Failed(match panic.what {
            Panicked::Skip => return Verdict::Skipped(panic.message),
            Panicked::NotStarted => return Verdict::NotStarted(reached(&panic.at)),
            Panicked::Check => Failure::Check(panic.message),
            Panicked::Judge => Failure::Grader(panic.message),
            Panicked::InChild => return self.failed_in_child(&panic),
            Panicked::Other | Panicked::Unreported => Failure::Panicked(panic),
        })
    }

    /// The verdict on a body that `in_child` ended. `passed_on` says how its child ended.
    fn failed_in_child(&self, passed_on: &Panic) -> Verdict {
        // `in_child` reports the panic that ended its closure without a place.
        let mut in_child = self.panics().filter(|panic| panic.in_child).rev();
        let cause = in_child.find(|panic| {
            panic.at.is_empty() && !panic.expected && panic.what != Panicked::Unreported
        });
        let cause = cause.map(|panic| self.report_of(panic.what, &panic.message, true));
        Verdict::Failed(match (cause, &self.child_killed) {
            (Some(panic), _) => match panic.what {
                Panicked::Skip => return Verdict::Skipped(panic.message),
                Panicked::Check => Failure::CheckInChild(panic.message),
                _ => Failure::ChildPanicked(panic),
            },
            (None, Some((signal, fault))) => match self.panic_that_aborted(true) {
                Some(panic) if *signal == libc::SIGABRT => Failure::ChildPanicked(panic.clone()),
                _ => Failure::ChildKilled(*signal, fault.clone()),
            },
            (None, None) => Failure::Check(passed_on.message.clone()),
        })
    }

    fn returned(&self, zombies: u32, running: bool) -> Verdict {
        if running || self.leftovers > 0 {
            return Verdict::Failed(Failure::LeftRunning);
        }
        if zombies > 0 {
            return Verdict::Failed(Failure::Zombies(zombies));
        }
        let reported = |panic: &&Panic| panic.what != Panicked::Unreported;
        let lost = self.unexpected().find(reported);
        if let Some(panic) = lost.or_else(|| self.unexpected().next()) {
            let sentence = panic.message.clone();
            return Verdict::Failed(match panic.what {
                // The code has caught what the grader threw.
                Panicked::Skip => return Verdict::Skipped(sentence),
                Panicked::InChild => return self.failed_in_child(panic),
                Panicked::Check if panic.in_child => Failure::CheckInChild(sentence),
                Panicked::Check => Failure::Check(sentence),
                _ => Failure::SwallowedPanic(panic.clone()),
            });
        }
        let changed = self.events.iter().find_map(|event| match event {
            Event::StateChanged(sentence) => Some(sentence.clone()),
            _ => None,
        });
        match changed {
            Some(sentence) => Verdict::Failed(Failure::StateChanged(sentence)),
            None => match self.objects_left.first() {
                Some(left) => Verdict::Failed(Failure::ObjectLeft(left.clone())),
                None => Verdict::Passed,
            },
        }
    }
}

/// Why a case is not started.
fn reached(at: &str) -> String {
    match at {
        // The case has replaced the panic hook, which reports the place.
        "" => "a todo!() was reached".to_owned(),
        at => format!("a todo!() at {at} was reached"),
    }
}
