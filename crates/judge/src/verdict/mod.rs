//! The verdict on a case: a closed set of outcomes.

pub mod evidence;
pub mod report;
pub mod sentence;

use crate::injection::Refusal;
use crate::limits::Stop;
use crate::protocol::Panic;
use crate::record::fault::Fault;
use crate::record::ledger::Difference;
use crate::record::transcript::CallDifference;
use crate::supervise::Left;

/// The result of grading a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Every check succeeded.
    Passed,
    /// A check does not work on this machine, for this reason. Neither passed nor failed.
    Skipped(String),
    /// The learner has not begun what the case grades, for this reason: a `todo!()` was reached.
    NotStarted(String),
    /// Not started either: the case fails, and the code that its stage is about is still the stub's.
    Unchanged(String),
    /// The answer is wrong, or the case could not be graded (`Failure::Grader`).
    Failed(Failure),
}

impl Verdict {
    /// The verdict of a case that ran with less than it needs: a failure then says nothing about the answer.
    pub fn under(self, shortage: Option<&str>) -> Verdict {
        match (self, shortage) {
            (Verdict::Failed(_), Some(shortage)) => {
                Verdict::Failed(Failure::Grader(shortage.to_owned()))
            }
            (verdict, _) => verdict,
        }
    }
}

/// Why a case failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// A check of the grader failed. The text is its sentence.
    Check(String),
    /// A check of the grader failed in a forked child.
    CheckInChild(String),
    Panicked(Panic),
    /// A panic in a forked child that nothing caught.
    ChildPanicked(Panic),
    /// A panic that was caught or ended a thread, while the function returned as if it had succeeded.
    SwallowedPanic(Panic),
    /// A panic that could not unwind and aborted the process.
    AbortedByPanic(Panic),
    /// A forked child returned from the learner's function.
    Escaped,
    /// The number of children that ended and were never waited for.
    Zombies(u32),
    /// Processes still ran when the case was over.
    LeftRunning,
    /// The state of the process is not the one that the answer found. The text is the sentence about the difference.
    StateChanged(String),
    /// The process has created an object that outlives it, and has not removed it.
    ObjectLeft(Left),
    /// The process exited with this status before the case's body had ended.
    ExitedEarly {
        code: i32,
        /// A thread of the case is known to have called exit(3), _exit(2) or exit_group(2).
        called: bool,
    },
    /// The process executed this program before the case's body had ended.
    Executed(String),
    /// The descriptor of the socket to the judge was closed or replaced.
    DescriptorsClosed,
    /// A signal killed the process, with the fault if the kernel reported an address.
    Killed(i32, Option<Fault>),
    /// A signal killed a forked child that the grader had made.
    ChildKilled(i32, Option<Fault>),
    StackOverflow,
    /// The judge stopped the case.
    Stopped(Stop),
    /// The length of a munmap of memory that had been unmapped already.
    UnmappedTwice(u64),
    /// The length of a mapping at a fixed address of which the answer had not mapped all.
    MappedOver(u64),
    /// The net effect differs from the expected one.
    Ledger(Vec<Difference>),
    /// Memory is left, because a munmap failed: its address was not at the start of a page.
    UnalignedUnmap(Difference),
    /// The calls differ from the expected ones, in a task that prescribes them.
    Calls(CallDifference),
    /// Code compiled that must not.
    Compiled(String),
    /// The compiler rejected the code for another reason than the intended one.
    OtherError(String),
    /// The legal twin of a compile-fail case did not pass. The text is the twin's sentence.
    Twin(String),
    /// The failure came after what may be its cause.
    After(Cause, Box<Failure>),
    /// The case failed while the judge made a call fail.
    During(Refusal, Box<Failure>),
    /// The case failed after the judge had stopped code of the answer while other code ran.
    Interrupted(Box<Failure>),
    /// The case could not be graded, because the grader was built from another version of the answer.
    Stale,
    /// The case could not be graded, for this reason: the grader, the judge or the machine is at fault.
    Grader(String),
}

/// What may have led to a failure that came later.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    Panic(Panic),
    /// The fault that killed a forked child.
    ChildCrash(Fault),
    /// A fault whose signal the code has handled.
    Crash(Fault),
}

impl Failure {
    /// This failure of a case in which the judge has stopped code of the answer. A check of the grader says so itself.
    pub fn interrupted(self) -> Failure {
        match self {
            Failure::Panicked(_)
            | Failure::AbortedByPanic(_)
            | Failure::Killed(..)
            | Failure::StackOverflow
            | Failure::Stopped(Stop::Deadlock(_)) => Failure::Interrupted(Box::new(self)),
            Failure::After(cause, failure) => {
                Failure::After(cause, Box::new(failure.interrupted()))
            }
            failure => failure,
        }
    }

    /// This failure of a run with an injection. A fault of the judge or the machine stays what it is.
    pub fn during(self, injection: Refusal) -> Failure {
        match self {
            Failure::Grader(_) | Failure::Stale => self,
            failure => Failure::During(injection, Box::new(failure)),
        }
    }
}
