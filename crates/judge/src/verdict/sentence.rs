//! Every sentence of the judge that a learner reads. The graders' checks have their own.

use nix::errno::Errno;
use nix::libc;

use crate::format::{self, size};
use crate::injection::{INTERRUPTIONS, Refusal};
use crate::limits::{Overrun, Places, Stop};
use crate::protocol::{Panic, Panicked};
use crate::record::call::argument;
use crate::record::fault::{Access, Fault, Mapped, Place};
use crate::record::ledger::Difference;
use crate::record::process::{self, FIRST};
use crate::record::space::Gone;
use crate::record::transcript::CallDifference;
use crate::supervise::Left;
use crate::verdict::{Cause, Failure, Verdict};

/// The sentence that the learner reads; `None` for a pass.
pub fn sentence(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Passed => None,
        Verdict::Skipped(reason) => Some(format!("Skipped: {reason}.")),
        Verdict::NotStarted(why) | Verdict::Unchanged(why) => Some(format!("Not started: {why}.")),
        Verdict::Failed(failure) => Some(failed(failure)),
    }
}

fn failed(failure: &Failure) -> String {
    match failure {
        Failure::Check(sentence) | Failure::StateChanged(sentence) => sentence.clone(),
        Failure::ObjectLeft(Left { what, removed_by }) => format!(
            "Your code created {what} and did not remove it; expected nothing that outlives the process. Call \
             {removed_by}, also if a later call fails."
        ),
        Failure::CheckInChild(sentence) => format!("In a forked child: {sentence}"),
        Failure::Panicked(panic) => format!("The code panicked{}", panic_and_message(panic)),
        Failure::ChildPanicked(panic) => match undefined_behaviour(panic) {
            Some(sentence) => format!("In a forked child: {sentence}"),
            None => format!("A forked child panicked{}", panic_and_message(panic)),
        },
        Failure::SwallowedPanic(panic) => swallowed(panic),
        Failure::AbortedByPanic(panic) => undefined_behaviour(panic).unwrap_or_else(|| {
            format!(
                "The code panicked{} where a panic cannot unwind (in Drop during another panic, or in an extern \"C\" \
                 function), so the process aborted: {}",
                place(&panic.at),
                message(panic)
            )
        }),
        Failure::Escaped => "A forked child left your function, by returning or by a panic, and ran the caller's \
                             code. End it with _exit on every path, also after a panic."
            .to_owned(),
        Failure::Zombies(count) => zombies(*count),
        Failure::LeftRunning => "A process that your code had started was still running when the case ended. Wait for \
             it, or end it."
            .to_owned(),
        Failure::ExitedEarly { code, called: true } => format!(
            "Your code ended the process with status {code} (exit, _exit or exit_group) before the case had ended. \
             Return instead."
        ),
        Failure::ExitedEarly { code, .. } => format!(
            "The process exited with status {code} before the case had ended; expected your code to return."
        ),
        Failure::Executed(program) => format!(
            "Your code executed {program} in place of the case (execve). Call execve only in a child process."
        ),
        Failure::DescriptorsClosed => "Your code closed, replaced or filled a file descriptor that it had not opened: the \
             judge's socket. Use only your own descriptors."
            .to_owned(),
        Failure::Killed(signal, fault) => cause(*signal, fault.as_ref()),
        Failure::ChildKilled(signal, fault) => {
            format!("A forked child was killed by {}", cause(*signal, fault.as_ref()))
        }
        Failure::StackOverflow => {
            format!("The stack overflowed: {STACK_OVERFLOW}")
        }
        Failure::Stopped(stop) => stopped(stop),
        Failure::UnmappedTwice(bytes) => format!(
            "munmap was called for {} that were already unmapped. Unmap memory only once: another thread may have \
             mapped that range again.",
            size(*bytes)
        ),
        Failure::MappedOver(bytes) => format!(
            "{} were mapped at a fixed address, where your code had not mapped all of them before. MAP_FIXED replaces \
             whatever is mapped there, also memory of others: let the kernel choose the address, or reserve the range \
             first.",
            size(*bytes)
        ),
        Failure::Ledger(differences) => differences
            .first()
            .map_or_else(|| "The net effect differs from the expected one.".to_owned(), ledger),
        Failure::UnalignedUnmap(Difference { got, .. }) => format!(
            "{got} were still mapped at the end; expected nothing. A munmap failed with EINVAL, because its address was \
             not at the start of a page. Round the address up to a whole page, and check munmap's result."
        ),
        Failure::Calls(difference) => calls(difference),
        Failure::Compiled(lesson) => format!("This compiled, but your signatures must prevent it: {lesson}"),
        Failure::OtherError(lesson) => {
            format!("The compiler rejects this, but not for the expected reason: {lesson}")
        }
        Failure::Twin(sentence) => {
            format!(
                "The same program without the mistake failed, and it must work first: {sentence}"
            )
        }
        Failure::After(earlier, failure) => format!("{} {}", failed(failure), before(earlier)),
        Failure::During(injection, failure) => during(injection, failure),
        Failure::Interrupted(failure) => interrupted(failure),
        Failure::Stale => "This grader was built from another version of your answer and cannot grade the present one. \
             Save the file again, or touch(1) it."
            .to_owned(),
        Failure::Grader(why) => format!("Could not grade: {why}."),
    }
}

const STACK_OVERFLOW: &str = "a recursion is too deep, or a local variable is too large.";

/// The sentence of what may be the cause of the failure just described.
fn before(earlier: &Cause) -> String {
    match earlier {
        Cause::Panic(panic) => {
            let who = match panic.in_child {
                true => "a forked child",
                false => "the code",
            };
            format!(
                "Before that, {who} had panicked{}",
                panic_and_message(panic)
            )
        }
        Cause::ChildCrash(fault) => format!(
            "Before that, a forked child was killed by {}",
            cause(fault.signal, Some(fault))
        ),
        Cause::Crash(fault) => format!(
            "Before that, the code had caused {}",
            cause(fault.signal, Some(fault))
        ),
    }
}

/// ` at file:line`, if it is known.
fn place(at: &str) -> String {
    match at {
        "" => String::new(),
        at => format!(" at {at}"),
    }
}

fn panic_and_message(panic: &Panic) -> String {
    format!("{}: {}", place(&panic.at), message(panic))
}

/// The sentence on a failed check for undefined behaviour.
fn undefined_behaviour(panic: &Panic) -> Option<String> {
    let what = panic.undefined_behaviour()?;
    // The place of a check of the standard library is its own source.
    let is_own = !panic.at.starts_with("core/src/");
    let place = if is_own {
        place(&panic.at)
    } else {
        String::new()
    };
    Some(format!(
        "A check for undefined behaviour failed{place}, so the process aborted: {what}."
    ))
}

/// The sentence of a failure after code was stopped.
fn interrupted(failure: &Failure) -> String {
    let sentence = failed(failure);
    let advice = match failure {
        Failure::Killed(..) => " If both change the same memory, protect it with a lock.",
        _ => "",
    };
    format!(
        "The grader stopped a thread or process inside your code while another one ran. {sentence}{advice}"
    )
}

/// The sentence of a failure that an injection caused.
fn during(injection: &Refusal, failure: &Failure) -> String {
    let Refusal {
        call,
        errno,
        lasting,
        ..
    } = *injection;
    let (every, times) = match (lasting, errno) {
        (false, _) => ("", String::new()),
        (true, Errno::EINTR) => ("", format!(" {INTERRUPTIONS} times in a row")),
        (true, _) => ("every ", String::new()),
    };
    let sentence = failed(failure);
    if errno == Errno::EEXIST {
        let existed = match call {
            "shmget" => {
                "System V memory with that key existed already when your code called shmget."
            }
            _ => "A file of that name existed already when your code created one in /dev/shm.",
        };
        return format!("{existed} {sentence}");
    }
    let advice = advice_after(call, failure).unwrap_or_default();
    format!("The grader made {every}{call} fail with {errno:?}{times}. {sentence}{advice}")
}

/// What to do about a failure whose own sentence cannot know that `call` was made to fail.
fn advice_after(call: &str, failure: &Failure) -> Option<String> {
    match failure {
        Failure::Panicked(_) | Failure::ChildPanicked(_) | Failure::AbortedByPanic(_) => {
            Some(" Handle the error without a panic.".to_owned())
        }
        Failure::Killed(libc::SIGABRT, _) | Failure::ChildKilled(libc::SIGABRT, _) => {
            Some(" Handle the error instead.".to_owned())
        }
        Failure::Killed(libc::SIGSEGV | libc::SIGBUS, fault)
        | Failure::ChildKilled(libc::SIGSEGV | libc::SIGBUS, fault) => {
            // The result of a failed mmap is no address in a mapping.
            let is_result = match fault.as_ref().map(|fault| &fault.place) {
                Some(Place::Forbidden { .. } | Place::Gone { .. } | Place::PastEnd { .. }) => {
                    !["mmap", "mremap"].contains(&call)
                }
                _ => true,
            };
            is_result.then(|| format!(" Check the result of {call}."))
        }
        Failure::After(_, failure) => advice_after(call, failure),
        _ => None,
    }
}

fn stopped(stop: &Stop) -> String {
    match stop {
        Stop::Time(overrun) => time(overrun),
        Stop::ManyPlaces(places) => format!("{}.", many_places(*places)),
        Stop::ManySteps(steps) => format!("{}.", many_steps(*steps)),
        Stop::Memory(bytes) => format!(
            "The case was stopped, because more than {} of its memory was resident.",
            size(*bytes)
        ),
        Stop::Tasks(count) => format!(
            "The case was stopped, because it had more than {count} processes and threads at the same time. Look for a \
             fork whose child does not end."
        ),
        Stop::Signal(sentence) => sentence.clone(),
        Stop::ThreadEnded => "The thread that called your code ended before your code had returned; expected it to \
                              return. Do not end a thread of your caller (pthread_exit, or the system call exit)."
            .to_owned(),
        Stop::Deadlock(waits) => match &waits[..] {
            [alone] => {
                format!("Deadlock: {alone}, and nothing else runs that could end the wait.")
            }
            _ => format!(
                "Deadlock: no process or thread can run again ({}).",
                waits.join(", ")
            ),
        },
    }
}

/// Returns why a case is skipped if its time is up before the code was stopped at each place.
pub fn many_places(places: Places) -> String {
    format!(
        "the case's time was up when the code had been stopped at {} of the {} places where it changes shared memory",
        places.last, places.all
    )
}

/// Returns why a case is skipped if its time is up while code is executed step by step.
pub fn many_steps(steps: usize) -> String {
    format!(
        "the case's time was up when {steps} instructions of the code had been executed one by one"
    )
}

/// A case that computed may have an endless loop, or be slow. Nothing here can tell. One that hardly computed waited, also
/// if a task ran when it was stopped.
fn time(overrun: &Overrun) -> String {
    let Overrun {
        limit,
        elapsed,
        cpu,
        waits,
    } = overrun;
    let (limit, elapsed) = (limit.as_secs_f64(), elapsed.as_secs_f64());
    let clock = match elapsed > limit + 1.0 {
        true => ", not counting waits for a processor,",
        false => "",
    };
    let cpu = cpu.as_secs_f64();
    // The screen shows equal sentences once, so they should not differ by fractions of a second.
    let digits = usize::from(cpu < 1.0);
    let ran = format!(
        "The case was still running after {limit} s{clock} and had used {cpu:.digits$} s of CPU time"
    );
    match waits.is_empty() || cpu > limit / 2.0 {
        true if cpu < limit / 20.0 => {
            format!("{ran}, so it waited nearly all the time. Look for a wait that does not end.")
        }
        true => format!("{ran}. Look for a loop that does not end, or for too much work."),
        false => format!("{ran}: {}.", waits.join(", ")),
    }
}

fn swallowed(panic: &Panic) -> String {
    match panic.what {
        Panicked::Unreported => {
            "The case ended normally, although a panic had begun to unwind (in a thread, or inside \
             catch_unwind). Pass the panic on to the caller."
                .to_owned()
        }
        _ => format!(
            "The case ended normally, although the code had panicked{} (in a thread, or inside catch_unwind). Pass the \
             panic on to the caller. Its message: {}",
            place(&panic.at),
            message(panic)
        ),
    }
}

fn zombies(count: u32) -> String {
    match count {
        1 => "Your code left a zombie: a child that has ended and was not waited for. Call waitpid for each child, or \
              waitid without WNOWAIT."
            .to_owned(),
        count => format!(
            "Your code left {count} zombies: children that have ended and were not waited for. Call waitpid for each \
             child, or waitid without WNOWAIT."
        ),
    }
}

/// The signal and its cause, as far as the kernel reported it.
fn cause(signal: i32, fault: Option<&Fault>) -> String {
    let name = format::signal(signal);
    let aborts = signal == libc::SIGABRT;
    let cause = match fault {
        // Rust's handler of SIGSEGV aborts after an access below the stack.
        Some(fault) if aborts && fault.place == Place::StackOverflow => stack_overflow(),
        Some(fault) if fault.signal == signal => {
            fault_place(&fault.place).unwrap_or_else(|| format!("{}.", usual_cause(signal)))
        }
        _ if matches!(
            signal,
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL
        ) =>
        {
            format!("{}, or a process sent the signal.", usual_cause(signal))
        }
        _ => format!("{}.", usual_cause(signal)),
    };
    format!("{name}: {cause}")
}

fn stack_overflow() -> String {
    format!("the stack overflowed. {}", capitalised(STACK_OVERFLOW))
}

fn capitalised(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

fn usual_cause(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => {
            "the process aborted. Look for a call of abort(), or for a message that a library printed before it \
             aborted"
        }
        libc::SIGXFSZ => {
            "a write or ftruncate exceeded the limit on the size of a file or of the output"
        }
        libc::SIGKILL => {
            "a process or a timer sent the signal, RLIMIT_CPU was exceeded, or the machine ran out of memory"
        }
        libc::SIGFPE => "an integer was divided by zero, or the quotient overflowed",
        libc::SIGILL => {
            "an instruction that this processor does not have, or a deliberate trap, was executed"
        }
        libc::SIGSEGV | libc::SIGBUS => "an access to memory was invalid",
        libc::SIGPIPE => "a pipe or socket without a reader was written to",
        _ => "the signal arrived, and no handler for it was installed",
    }
}

fn fault_place(place: &Place) -> Option<String> {
    let text = match place {
        Place::Unknown => return None,
        Place::Sent => {
            "a process sent the signal (kill, raise or tgkill), and no instruction caused it."
                .to_owned()
        }
        Place::Null {
            access: Access::Execute,
            ..
        } => "a null function pointer was called.".to_owned(),
        Place::Null { offset: 0, .. } => "a null pointer was dereferenced.".to_owned(),
        Place::Null { offset, .. } => format!(
            "a null pointer was dereferenced, with an offset of {}.",
            size(*offset)
        ),
        Place::StackOverflow => stack_overflow(),
        Place::Gone {
            how,
            offset,
            len,
            access,
        } => {
            let (done, into) = (verb(*access), into(*offset, *len));
            match how {
                Gone::Unmapped => format!(
                    "memory was {done} after it had been unmapped, {into}. Unmap it only when \
                                           nothing uses it any more."
                ),
                Gone::Moved => format!(
                    "memory was {done} at its old address after mremap had moved it, {into}. Use the address that \
                     mremap returned."
                ),
                Gone::CutOff => {
                    format!("memory was {done} after mremap had shortened its mapping, {into}.")
                }
                Gone::NotForked => format!(
                    "memory that a forked child does not inherit (MADV_DONTFORK) was {done}, {into}."
                ),
            }
        }
        Place::PastEnd { by: 0, len } => {
            format!(
                "memory was accessed just past the end of a mapping of {}.",
                size(*len)
            )
        }
        Place::PastEnd { by, len } => format!(
            "memory was accessed {} past the end of a mapping of {}.",
            size(*by),
            size(*len)
        ),
        Place::BeforeStart { by, len } => format!(
            "memory was accessed {} before the start of a mapping of {}.",
            size(*by),
            size(*len)
        ),
        Place::Nowhere { access } => {
            format!("an address was {} where nothing is mapped.", verb(*access))
        }
        Place::Forbidden { access, at } => {
            let mapped = match access {
                Access::Write => "without PROT_WRITE",
                Access::Execute => "without PROT_EXEC",
                Access::Unknown if at.permissions.starts_with("---") => "with PROT_NONE",
                Access::Unknown => "without PROT_READ",
            };
            format!(
                "memory that is mapped {mapped} was {}, {}.",
                verb(*access),
                of(at)
            )
        }
        Place::ProtectionKey { at } => format!(
            "memory was accessed although its protection key does not permit it (pkey_mprotect), {}.",
            of(at)
        ),
        Place::Guarded { at } => format!(
            "the kernel refused an access to memory that is mapped {}, as it does for a guard (MADV_GUARD_INSTALL), {}.",
            at.permissions,
            of(at)
        ),
        Place::PastObject {
            object,
            offset,
            anonymous: true,
        } => format!(
            "byte {} of shared memory was accessed, but that memory is only {} long. mremap lengthens only the \
             mapping, not the memory behind it.",
            argument(*offset),
            size(*object)
        ),
        Place::PastObject { object, offset, .. } => format!(
            "byte {} of the file behind a mapping was accessed, but the file is only {} long.",
            argument(*offset),
            size(*object)
        ),
        Place::NoHugePage { at } => format!(
            "the kernel provided no huge page for an access to memory that is mapped with huge pages, {}.",
            of(at)
        ),
        Place::NotProvided { at } => {
            format!(
                "the kernel could not provide the page that was accessed, {}.",
                of(at)
            )
        }
        Place::Misaligned => "an address was not aligned as the instruction requires.".to_owned(),
        Place::Damaged { at } => format!(
            "a page that is marked as damaged (by a memory error, or MADV_HWPOISON) was accessed, {}.",
            of(at)
        ),
    };
    Some(text)
}

fn verb(access: Access) -> &'static str {
    match access {
        Access::Unknown => "accessed",
        Access::Write => "written",
        Access::Execute => "executed",
    }
}

fn into(offset: u64, len: u64) -> String {
    match offset {
        0 => format!("at the first byte of a mapping of {}", size(len)),
        offset => format!("{} into a mapping of {}", size(offset), size(len)),
    }
}

fn of(at: &Mapped) -> String {
    match (at.inside, at.name.as_str()) {
        (Some((offset, len)), _) => into(offset, len),
        (None, "") => format!("in a mapping without a name ({})", at.permissions),
        (None, name) => format!("in {name} ({})", at.permissions),
    }
}

fn ledger(difference: &Difference) -> String {
    let Difference { key, expected, got } = difference;
    match (key.as_str(), expected.as_str(), got.as_str()) {
        ("mapped", _, "nothing") => {
            format!("mmap mapped no readable and writable memory; expected {expected}.")
        }
        ("mapped", "nothing", _) => format!("Your code mapped {got}; expected no new mapping."),
        ("mapped", ..) => format!("Your code mapped {got}; expected {expected}."),
        ("still mapped", "nothing", _) => {
            format!(
                "{got} were still mapped at the end; expected nothing. Unmap all that your code maps, on every \
                     path."
            )
        }
        ("still mapped", ..) => {
            format!("At the end, {got} was still mapped; expected {expected}.")
        }
        ("descriptors left", ..) => match got.parse::<i64>() {
            Ok(closed @ ..0) => {
                let closed = format::count(closed.unsigned_abs() as usize, "file descriptor");
                format!("Your code closed {closed} that it had not opened.")
            }
            _ => {
                let left = numbered(got, "file descriptor");
                format!(
                    "Your code left {left} open; expected {expected}. Close each descriptor that it opens, on \
                         every path."
                )
            }
        },
        ("children left", ..) => {
            let left = numbered(got, "child process");
            format!(
                "Your code left {left} that it had not waited for; expected {expected}. Call waitpid on every \
                     path."
            )
        }
        _ => format!("{key}: {got}; expected {expected}."),
    }
}

/// A number in a ledger with its noun.
fn numbered(number: &str, noun: &str) -> String {
    match number.parse() {
        Ok(number) => format::count(number, noun),
        Err(_) => format!("{number} {noun}s"),
    }
}

fn calls(difference: &CallDifference) -> String {
    let CallDifference {
        process,
        asked,
        made,
    } = difference;
    let who = match process.as_str() {
        FIRST => "Your code".to_owned(),
        other => format!("In {}, your code", process::describe(other)),
    };
    match (asked, made) {
        (Some(asked), Some(made)) => format!("{who} called {made}; expected {asked}."),
        (Some(asked), None) => format!("{who} did not call {asked}, which the task asks for."),
        (None, Some(made)) => format!("{who} called {made}, which the task does not ask for."),
        (None, None) => "The calls differ from the expected ones.".to_owned(),
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
        Verdict::Unchanged(_) => "unchanged",
        Verdict::Failed(failure) => kind_of(failure),
    }
}

fn kind_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::During(_, failure)
        | Failure::Interrupted(failure)
        | Failure::After(_, failure) => kind_of(failure),
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
        Failure::ObjectLeft(_) => "object-left",
        Failure::ExitedEarly { .. } => "early-exit",
        Failure::Executed(_) => "executed",
        Failure::DescriptorsClosed => "descriptors-closed",
        Failure::Killed(..) => "signal",
        Failure::ChildKilled(..) => "signal-in-child",
        Failure::StackOverflow => "stack-overflow",
        Failure::Stopped(Stop::Time(_) | Stop::ManyPlaces(_) | Stop::ManySteps(_)) => "time",
        Failure::Stopped(Stop::Memory(_)) => "memory",
        Failure::Stopped(Stop::Tasks(_)) => "tasks",
        Failure::Stopped(Stop::Signal(_)) => "signal-refused",
        Failure::Stopped(Stop::Deadlock(_)) => "deadlock",
        Failure::Stopped(Stop::ThreadEnded) => "early-exit",
        Failure::UnmappedTwice(_) => "unmapped-twice",
        Failure::MappedOver(_) => "mapped-over",
        Failure::Ledger(_) => "ledger",
        Failure::UnalignedUnmap(_) => "unaligned-unmap",
        Failure::Calls(_) => "calls",
        Failure::Compiled(_) => "compiled",
        Failure::OtherError(_) => "other-error",
        Failure::Twin(_) => "twin",
        Failure::Stale => "stale",
        Failure::Grader(_) => "grader",
    }
}
