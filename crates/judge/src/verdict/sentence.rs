//! Every sentence of the judge that a learner reads. The graders' checks have their own.

use nix::libc;

use crate::format::{self, size};
use crate::injection::{Effect, Injection};
use crate::limits::Stop;
use crate::protocol::Panic;
use crate::record::fault::{Fault, Place};
use crate::record::ledger::Difference;
use crate::record::process::{self, FIRST};
use crate::record::transcript::CallDifference;
use crate::verdict::{Failure, Verdict};

/// The sentence that the learner reads; `None` for a pass.
pub fn sentence(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Passed => None,
        Verdict::Skipped(reason) => Some(format!("Skipped: {reason}.")),
        Verdict::NotStarted(why) => Some(format!("Not started: {why}.")),
        Verdict::Failed(failure) => Some(failed(failure)),
    }
}

fn failed(failure: &Failure) -> String {
    match failure {
        Failure::Check(sentence) | Failure::StateChanged(sentence) => sentence.clone(),
        Failure::CheckInChild(sentence) => format!("In a forked child: {sentence}"),
        Failure::Panicked(panic) => {
            format!("The code panicked at {}: {}", panic.at, message(panic))
        }
        Failure::ChildPanicked(panic) => {
            format!(
                "A forked child panicked at {}: {}",
                panic.at,
                message(panic)
            )
        }
        Failure::SwallowedPanic(panic) => swallowed(panic),
        Failure::AbortedByPanic(panic) => aborted(panic),
        Failure::Escaped => {
            "A forked child returned from your function instead of ending in _exit: \
             two processes ran the caller's code."
                .to_owned()
        }
        Failure::Zombies(count) => zombies(*count),
        Failure::LeftRunning => "Your code left a process running that it had started.".to_owned(),
        Failure::ExitedEarly(code) => format!(
            "The process ended with status {code} before the case was over: something called \
             exit()."
        ),
        Failure::DescriptorsClosed => "Your code closed descriptors that it had not opened: the \
             judge's own is gone."
            .to_owned(),
        Failure::Killed(signal, fault) => {
            format!("Killed by {}", cause(*signal, fault.as_ref()))
        }
        Failure::ChildKilled(signal, fault) => {
            format!(
                "A forked child was killed by {}",
                cause(*signal, fault.as_ref())
            )
        }
        Failure::StackOverflow => {
            "The stack overflowed: a recursion without an end, or an array too \
             large for a local variable."
                .to_owned()
        }
        Failure::Stopped(stop) => stopped(stop),
        Failure::UnmappedTwice(bytes) => format!(
            "Your code called munmap on {} that were unmapped already: by then another thread's mapping may lie there.",
            size(*bytes)
        ),
        Failure::Ledger(differences) => differences
            .first()
            .map_or_else(|| "The effect is not the one asked for.".to_owned(), ledger),
        Failure::Calls(difference) => calls(difference),
        Failure::Compiled(lesson) => format!("Your signatures let this compile: {lesson}"),
        Failure::OtherError(lesson) => {
            format!("The compiler rejects this, but for another reason than the expected one: {lesson}")
        }
        Failure::Twin(sentence) => {
            format!(
                "The same program without the mistake failed, and it must work first: {sentence}"
            )
        }
        Failure::During(injection, failure) => during(injection, &failed(failure)),
        Failure::Stale => "This grader was built from another version of your answer, and cannot grade the present one: \
             save the file again, or touch(1) it."
            .to_owned(),
        Failure::Grader(why) => format!("Could not grade: {why}."),
    }
}

/// The sentence of a failure that an injection brought about.
fn during(injection: &Injection, sentence: &str) -> String {
    let call = injection.call;
    match injection.effect {
        Effect::Fail(errno) => format!("When {call} failed with {errno:?}: {sentence}"),
        Effect::Hold => format!("While another thread was inside {call}: {sentence}"),
    }
}

fn stopped(stop: &Stop) -> String {
    match stop {
        Stop::Time(seconds) => format!(
            "Still running after {seconds} s, and stopped: an endless loop, or a wait that never \
             ends."
        ),
        Stop::Memory(bytes) => {
            format!(
                "Stopped with more than {} of memory resident.",
                size(*bytes)
            )
        }
        Stop::Tasks(count) => format!(
            "Stopped with more than {count} processes and threads at once: a fork whose child does \
             not end?"
        ),
        Stop::Signal(sentence) => sentence.clone(),
        Stop::Deadlock(waits) => match &waits[..] {
            [alone] => {
                format!("Deadlock: {alone}, and nothing else runs that could end the wait.")
            }
            _ => format!(
                "Deadlock: nothing can ever run again ({}).",
                waits.join(", ")
            ),
        },
    }
}

fn swallowed(panic: &Panic) -> String {
    format!(
        "Your function returned as if all were well, but a panic at {} was lost on the way \
         (in a thread, or in catch_unwind): {}",
        panic.at,
        message(panic)
    )
}

fn aborted(panic: &Panic) -> String {
    format!(
        "The code panicked at {} where a panic cannot unwind (in Drop during another panic, or \
         across extern \"C\"), so the process aborted: {}",
        panic.at,
        message(panic)
    )
}

fn zombies(count: u32) -> String {
    match count {
        1 => "Your code left a zombie: a child ended, and nobody waited for it.".to_owned(),
        count => format!(
            "Your code left {count} zombies: children that ended, and nobody waited for them."
        ),
    }
}

/// The signal and its cause, as far as the kernel reported it.
fn cause(signal: i32, fault: Option<&Fault>) -> String {
    let place = fault.and_then(|fault| place(&fault.place));
    let cause = place.unwrap_or_else(|| usual_cause(signal).to_owned());
    format!("{}: {cause}", format::signal(signal))
}

fn usual_cause(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => "something called abort().",
        libc::SIGXFSZ => "it wrote more into a file, or to its output, than a case may.",
        libc::SIGKILL => "it killed itself, or the machine ran out of memory.",
        libc::SIGFPE => "an integer was divided by zero, or a division overflowed.",
        libc::SIGILL => "an instruction that this processor does not have, or a deliberate trap.",
        libc::SIGSEGV | libc::SIGBUS => "memory was touched that may not be.",
        libc::SIGPIPE => "it wrote to a pipe that nobody reads.",
        _ => "the signal was sent, and nothing handled it.",
    }
}

fn place(place: &Place) -> Option<String> {
    let text = match place {
        Place::Null { offset: 0 } => "a null pointer was used.".to_owned(),
        Place::Null { offset } => {
            format!("a null pointer was used ({} from null).", size(*offset))
        }
        Place::Unmapped { offset, len } => format!(
            "memory was touched after munmap, {} of a mapping of {}.",
            into(*offset),
            size(*len)
        ),
        Place::PastEnd { by: 0, len } => format!(
            "memory was touched just past the end of a mapping of {}.",
            size(*len)
        ),
        Place::PastEnd { by, len } => format!(
            "memory was touched {} past the end of a mapping of {}.",
            size(*by),
            size(*len)
        ),
        Place::BeforeStart { by, len } => format!(
            "memory was touched {} before the start of a mapping of {}.",
            size(*by),
            size(*len)
        ),
        Place::ReadOnly { offset, len } => format!(
            "memory was written that is mapped without PROT_WRITE, {} of a mapping of {}.",
            into(*offset),
            size(*len)
        ),
        Place::NoAccess { offset, len } => format!(
            "memory was touched that is mapped PROT_NONE, a guard, {} of a mapping of {}.",
            into(*offset),
            size(*len)
        ),
        Place::PastObject { offset, len } => format!(
            "the file behind a mapping of {} ends before the page that was touched, {}.",
            size(*len),
            into(*offset)
        ),
        Place::Foreign { permissions, name } => format!(
            "memory was touched that is not yours to touch that way: it is mapped {permissions} \
             ({name})."
        ),
        Place::Nowhere => {
            "memory was touched where nothing is mapped, and none of your mappings is \
             near."
                .to_owned()
        }
        Place::NoAddress => return None,
    };
    Some(text)
}

fn into(offset: u64) -> String {
    match offset {
        0 => "at the first byte".to_owned(),
        offset => format!("{} from the start", size(offset)),
    }
}

fn ledger(difference: &Difference) -> String {
    let Difference { key, expected, got } = difference;
    match (key.as_str(), expected.as_str(), got.as_str()) {
        ("mapped", _, "nothing") => format!(
            "Your code mapped nothing that can be read and written, where {expected} was asked for."
        ),
        ("mapped", "nothing", _) => {
            format!("Your code mapped {got}, where nothing was to be mapped.")
        }
        ("mapped", ..) => format!("Your code mapped {got}, where {expected} was asked for."),
        ("still mapped", "nothing", _) => format!(
            "Your code leaves {got} mapped: what it mapped must be unmapped, whole, by then."
        ),
        ("still mapped", ..) => {
            format!("When your code was done, {got} was still mapped, where {expected} must be.")
        }
        ("descriptors left", _, "1") => {
            "Your code leaves a descriptor open that it opened.".to_owned()
        }
        ("descriptors left", ..) => {
            format!("Your code leaves {got} more descriptors open than before.")
        }
        ("children left", ..) => format!("Your code leaves {got} of its children unwaited for."),
        _ => format!("{key} is {got}, where {expected} was asked for."),
    }
}

fn calls(difference: &CallDifference) -> String {
    let CallDifference {
        process,
        asked,
        made,
    } = difference;
    let (where_, who) = match process.as_str() {
        FIRST => ("Where".to_owned(), "Your code".to_owned()),
        other => (
            format!("In {}, where", process::describe(other)),
            format!("In {} your code", process::describe(other)),
        ),
    };
    match (asked, made) {
        (Some(asked), Some(made)) => {
            format!("{where_} the task asks for {asked}, your code called {made}.")
        }
        (Some(asked), None) => format!("{who} did not call {asked}."),
        (None, Some(made)) => format!("{who} called {made}, for which the task does not ask."),
        (None, None) => "The calls are not the ones asked for.".to_owned(),
    }
}

fn message(panic: &Panic) -> String {
    let text = panic.message.trim_end();
    match text.ends_with(['.', '!', '?']) {
        true => text.to_owned(),
        false => format!("{text}."),
    }
}

/// A short name of the kind of verdict, for programs.
pub fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Skipped(_) => "skipped",
        Verdict::NotStarted(_) => "not-started",
        Verdict::Failed(failure) => kind_of(failure),
    }
}

fn kind_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::During(_, failure) => kind_of(failure),
        Failure::Check(_) => "check",
        Failure::CheckInChild(_) => "check-in-child",
        Failure::Panicked(_) => "panic",
        Failure::ChildPanicked(_) => "panic-in-child",
        Failure::SwallowedPanic(_) => "panic-lost",
        Failure::AbortedByPanic(_) => "panic-aborted",
        Failure::Escaped => "escaped-child",
        Failure::Zombies(_) => "zombie",
        Failure::LeftRunning => "left-running",
        Failure::StateChanged(_) => "state-changed",
        Failure::ExitedEarly(_) => "early-exit",
        Failure::DescriptorsClosed => "descriptors-closed",
        Failure::Killed(..) => "signal",
        Failure::ChildKilled(..) => "signal-in-child",
        Failure::StackOverflow => "stack-overflow",
        Failure::Stopped(Stop::Time(_)) => "time",
        Failure::Stopped(Stop::Memory(_)) => "memory",
        Failure::Stopped(Stop::Tasks(_)) => "tasks",
        Failure::Stopped(Stop::Signal(_)) => "signal-refused",
        Failure::Stopped(Stop::Deadlock(_)) => "deadlock",
        Failure::UnmappedTwice(_) => "unmapped-twice",
        Failure::Ledger(_) => "ledger",
        Failure::Calls(_) => "calls",
        Failure::Compiled(_) => "compiled",
        Failure::OtherError(_) => "other-error",
        Failure::Twin(_) => "twin",
        Failure::Stale => "stale",
        Failure::Grader(_) => "grader",
    }
}
