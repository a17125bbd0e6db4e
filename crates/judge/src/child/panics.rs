//! Panics in a case: their payloads, and the hook that reports them to the judge before they are caught or abort.

use std::any::Any;
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::protocol::{self, Channel, Event, Panic, Panicked};

/// Whether the grader has called `expect_panics`.
static EXPECTED: AtomicBool = AtomicBool::new(false);

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
    panic::set_hook(Box::new(move |info| {
        let (what, message) = classify(info);
        let panic = Panic {
            what,
            message: protocol::shortened(&message),
            at: info.location().map_or_else(String::new, |location| {
                format!("{}:{}", location.file(), location.line())
            }),
            in_child: process::id() != first_process,
            expected: EXPECTED.load(Ordering::SeqCst),
        };
        let _ = channel.send(&Event::Panicked(panic));
    }));
}

fn classify(info: &PanicHookInfo) -> (Panicked, String) {
    let payload: &dyn Any = info.payload();
    if let Some(CheckFailed(sentence)) = payload.downcast_ref() {
        (Panicked::Check, sentence.clone())
    } else if let Some(CannotCheck(reason)) = payload.downcast_ref() {
        (Panicked::Skip, reason.clone())
    } else if let Some(JudgeFailed(reason)) = payload.downcast_ref() {
        (Panicked::Judge, reason.clone())
    } else if let Some(ChildFailed(how)) = payload.downcast_ref() {
        (Panicked::InChild, how.clone())
    } else {
        let message = info
            .payload_as_str()
            .unwrap_or("(a panic without a message)");
        // `todo!()` has no separate payload type, so it is recognised by core's message.
        let what = match message.starts_with("not yet implemented") {
            true => Panicked::NotStarted,
            false => Panicked::Other,
        };
        (what, message.to_owned())
    }
}
