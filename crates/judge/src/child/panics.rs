//! Panics in a case: their payloads, and how they are reported to the judge before they are caught or abort.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use super::common;
use crate::protocol::{self, Channel, Ended, Event, Panic, Panicked, Thrown};

/// Whether the grader has called `expect_panics`.
static EXPECTED: AtomicBool = AtomicBool::new(false);
/// Where panics are reported, and the id of the case's first process.
static REPORT: OnceLock<(Channel, u32)> = OnceLock::new();
/// The newest panic of this process that was not sent, because there had been too many.
static NOT_SENT: Mutex<Option<Panic>> = Mutex::new(None);

// How much of the socket may be full before a report is not sent any more. It holds
// 208 KiB (net.core.wmem_default), as the kernel counts them: a short line takes 768 bytes.
/// For an ordinary panic.
const ORDINARY: usize = 32 << 10;
/// For one that decides the verdict.
const DECISIVE: usize = 48 << 10;
/// For the panic that aborts a process.
const ABORTING: usize = 56 << 10;
/// What a report takes in the socket besides its message and place.
const ENVELOPE: usize = 200;

thread_local! {
    /// Whether the hook has reported the panic of this thread that is about to unwind.
    static REPORTED: Cell<bool> = const { Cell::new(false) };
}

/// The payload of a failed check: its sentence.
pub struct CheckFailed(pub String);
/// The payload of a probe that does not work here: the reason.
pub struct CannotCheck(pub String);
/// The payload of a fault in the judge's own code: the reason.
pub struct JudgeFailed(pub String);
/// The payload of `in_child` whose child failed: how.
pub struct ChildFailed(pub String);

/// Expects panics from here on: one that is caught no longer fails the case.
pub fn expect_panics() {
    EXPECTED.store(true, Ordering::SeqCst);
}

/// Ends the case as skipped, with the reason.
///
/// # Panics
/// Always: that is how it ends the case.
pub fn skip(reason: &str) -> ! {
    panic::panic_any(CannotCheck(reason.to_owned()))
}

/// Ends the case as one that could not be graded.
pub fn judge_failed(why: String) -> ! {
    panic::panic_any(JudgeFailed(why))
}

/// From here on a panic prints nothing and is reported on `channel`. `first_process` is the case's process id.
pub fn report(channel: Channel, first_process: u32) {
    let _ = REPORT.set((channel, first_process));
    panic::set_hook(Box::new(|info| {
        REPORTED.set(true);
        send(seen_by_hook(info));
    }));
}

fn seen_by_hook(info: &PanicHookInfo) -> Panic {
    let Thrown { what, message } = thrown(info.payload());
    let at = info.location().map_or_else(String::new, |location| {
        let file = location.file();
        // The standard library's files begin with a path of the machine that built it.
        let file = file.rsplit_once("/library/").map_or(file, |(_, file)| file);
        format!("{file}:{}", location.line())
    });
    // A check that fails is never expected.
    let expected = what == Panicked::Other && EXPECTED.load(Ordering::SeqCst);
    panic(what, message, at, expected)
}

/// Reports the panic that ended the closure of `in_child`: the case may have replaced the hook.
pub fn report_payload(payload: &dyn Any) {
    let Thrown { what, message } = thrown(payload);
    send(panic(what, message, String::new(), false));
}

/// Reports that a forked child has returned from the answer's function.
pub fn report_escape() {
    if let Some((channel, _)) = REPORT.get() {
        let _ = channel.send(&Event::Ended(Ended::InChild));
    }
}

/// Sends the newest panic, if it was not sent.
pub fn flush() {
    let newest = NOT_SENT
        .try_lock()
        .ok()
        .and_then(|mut newest| newest.take());
    if let (Some(panic), Some((channel, _))) = (newest, REPORT.get()) {
        let _ = channel.send(&Event::Panicked(panic));
    }
}

fn panic(what: Panicked, message: String, at: String, expected: bool) -> Panic {
    let in_child = REPORT
        .get()
        .is_some_and(|(_, first_process)| process::id() != *first_process);
    Panic {
        what,
        message,
        at,
        in_child,
        expected,
    }
}

/// Sends `panic`, unless so many were sent that the socket must be kept for more important ones.
fn send(panic: Panic) {
    let Some((channel, _)) = REPORT.get() else {
        return;
    };
    let limit = match panic.what {
        Panicked::Other if panic.aborts() => ABORTING,
        Panicked::Other | Panicked::Unreported => ORDINARY,
        _ => DECISIVE,
    };
    let len = ENVELOPE + panic.message.len() + panic.at.len();
    if !common::reserve(len, limit) {
        // Another thread that holds the lock reports its own panic.
        if let Ok(mut newest) = NOT_SENT.try_lock() {
            *newest = Some(panic);
        }
        return;
    }
    if limit == ABORTING {
        flush();
    }
    let _ = channel.send(&Event::Panicked(panic));
}

/// The message of a panic of the answer. `None` if the payload is the judge's, such as a failed check, which the caller
/// should pass to `resume_unwind`.
pub fn panic_message(payload: &dyn Any) -> Option<String> {
    let Thrown { what, message } = thrown(payload);
    matches!(what, Panicked::Other).then_some(message)
}

/// The sentence of a failed check. `None` if the payload is another one. A process that the grader has forked can send the
/// sentence to the case, which fails with it.
pub fn failed_check(payload: &dyn Any) -> Option<String> {
    let Thrown { what, message } = thrown(payload);
    matches!(what, Panicked::Check).then_some(message)
}

/// What the payload of a panic says.
pub fn thrown(payload: &dyn Any) -> Thrown {
    let (what, message) = if let Some(CheckFailed(sentence)) = payload.downcast_ref() {
        (Panicked::Check, sentence.as_str())
    } else if let Some(CannotCheck(reason)) = payload.downcast_ref() {
        (Panicked::Skip, reason.as_str())
    } else if let Some(JudgeFailed(reason)) = payload.downcast_ref() {
        (Panicked::Judge, reason.as_str())
    } else if let Some(ChildFailed(how)) = payload.downcast_ref() {
        (Panicked::InChild, how.as_str())
    } else {
        let owned = payload.downcast_ref::<String>().map(String::as_str);
        let message = owned.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("(a panic without a message)");
        // `todo!()` has no separate payload type, so it is recognised by core's message.
        let what = match message.starts_with("not yet implemented") {
            true => Panicked::NotStarted,
            false => Panicked::Other,
        };
        (what, message)
    };
    Thrown {
        what,
        message: protocol::shortened(message),
    }
}

/// Overrides libgcc's function, which Rust's runtime calls when a panic begins to unwind: also for `resume_unwind`,
/// which calls no hook, and if the case has replaced the hook.
///
/// # Safety
/// As for the function of the Itanium C++ ABI: `exception` is the header of an exception.
#[cfg(target_env = "gnu")]
#[unsafe(export_name = "_Unwind_RaiseException")]
pub unsafe extern "C-unwind" fn raise_exception(
    exception: *mut nix::libc::c_void,
) -> nix::libc::c_int {
    if !REPORTED.replace(false) && !EXPECTED.load(Ordering::SeqCst) {
        unreported();
    }
    type Raise = unsafe extern "C-unwind" fn(*mut nix::libc::c_void) -> nix::libc::c_int;
    static REAL: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let real = super::interpose::libc_function(&REAL, c"_Unwind_RaiseException");
    // SAFETY: libgcc defines the function with this type; dlsym finds it, because Rust's runtime is linked with libgcc.
    let real: Raise = unsafe { std::mem::transmute(real) };
    // SAFETY: the caller's contract is the same.
    unsafe { real(exception) }
}

#[cfg(target_env = "gnu")]
fn unreported() {
    let place = String::new();
    send(panic(Panicked::Unreported, String::new(), place, false));
}
