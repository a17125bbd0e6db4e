//! Runs one case in a watched child process and says in one sentence what happened.
//!
//! ```ignore
//! #[test]
//! fn zeroed() {
//!     judge::case(|| {
//!         let region = Region::new(100).unwrap();
//!         judge::check!(region.as_slice()[0] == 0, "Fresh memory must read as zero.");
//!     })
//! }
//! ```
//!
//! The test binary is started again for this one test; there the closure runs, traced, limited, and alone in its
//! process. What it leaves running is killed. What happened becomes a closed `Verdict` and one plain sentence.
//!
//! # What it guards against
//! Mistakes of an honest learner, however bad: a crash, an endless loop, a deadlock, `exit()` in the middle, a
//! forked child that comes back out of the function, a zombie, a process left running, a panic that a joined thread
//! swallows, closed descriptors, a flood of output, a memory hog, a fork bomb. None of them stops the other cases,
//! passes, or outlives its case.
//!
//! # What it does not guard against
//! - Code that runs while the answer is compiled: a build script or a procedural macro.
//! - An answer that lies: it runs in the process that reports, can read the nonce there, and can forge a verdict.
//! - Files and the network: a case may use whatever its user may.
//! - Where ptrace is refused: a process that clears its environment and detaches is not found; a fork bomb run by
//!   root is only noticed every 20 ms.
//!
//! Grade strangers' code in a container or a virtual machine.
//!
//! # Environment
//! `JUDGE_REPORT=file` appends one JSON line per case; `JUDGE_INLINE=1` runs a case in the test's own process, for a
//! debugger; `JUDGE_NO_PTRACE=1` does without tracing, as where it is refused.

#[cfg(not(target_os = "linux"))]
compile_error!("the judge needs Linux: open the dev container in .devcontainer, or use WSL2");

mod child;
pub mod compile_fail;
mod format;
mod limits;
mod procfs;
mod protocol;
mod record;
mod role;
mod seen;
mod supervise;
mod verdict;

use std::any::Any;
use std::panic;

pub use child::probe::cannot_check as skip;
pub use child::{expect_panics, in_child, pretend, probe, watch};
pub use limits::Limits;
pub use record::call::Call;
pub use seen::Seen;
pub use verdict::report::Outcome;

use role::Role;
use seen::snapshot;
use verdict::{Failure, Verdict};

/// Grades `body`, the whole of a `#[test]`.
///
/// # Panics
/// If the case did not pass; everything has been said by then.
pub fn case(body: impl FnOnce()) {
    settled(&mut once(body), None);
}

/// Grades `body`, and once it has passed what the kernel saw in its `watch`ed part. `check` runs in the judge.
///
/// Where the calls cannot be seen, `check` is skipped, visibly.
///
/// # Panics
/// If the case did not pass.
pub fn watched(body: impl FnOnce(), check: impl Fn(&Seen)) {
    settled(&mut once(body), Some(&check));
}

/// Runs `body` as a case and returns what it came to: for the judge's own tests.
pub fn observe(limits: Limits, body: impl FnOnce()) -> Outcome {
    observed(&limits, &mut once(body), None)
}

/// The same as `watched` would.
pub fn observe_watched(body: impl FnOnce(), check: impl Fn(&Seen)) -> Outcome {
    observed(&Limits::default(), &mut once(body), Some(&check))
}

/// The grader's assertion: unless the condition holds, the case fails with this sentence.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            $crate::fail(format!($($sentence)+));
        }
    };
}

/// `bytes` as a sentence names them, in the largest unit that divides them: `512 KiB`, `5000 bytes`.
pub fn amount(bytes: usize) -> String {
    format::size(bytes as u64)
}

/// Fails the case with this sentence.
///
/// # Panics
/// Always: that is how it ends the case.
pub fn fail(sentence: String) -> ! {
    panic::panic_any(child::CheckFailed(sentence))
}

/// A case's body. From here on nothing is generic: what is would be compiled anew into every grader, for every case.
type Body<'a> = &'a mut dyn FnMut();

/// The grader's questions about what was seen.
type Check<'a> = &'a dyn Fn(&Seen);

/// `body` as a `FnMut` that is called once.
fn once(body: impl FnOnce()) -> impl FnMut() {
    let mut body = Some(body);
    move || body.take().expect("a body runs once")()
}

fn settled(body: Body, check: Option<Check>) {
    if let Some((case, outcome)) = judged(&Limits::default(), body, check) {
        outcome.settle(&case);
    }
}

fn observed(limits: &Limits, body: Body, check: Option<Check>) -> Outcome {
    let (_, outcome) = judged(limits, body, check).expect("JUDGE_INLINE observes nothing");
    outcome
}

/// The case's name and what it came to; `None` where it has run inline.
fn judged(limits: &Limits, body: Body, check: Option<Check>) -> Option<(String, Outcome)> {
    let case = match role::current() {
        Role::Child { nonce } => child::run(&nonce, body),
        Role::Inline => {
            body();
            return None;
        }
        Role::Judge { case } => case,
    };
    let over = supervise::run(&case, &case, limits);
    let mut outcome = Outcome {
        verdict: over.verdict,
        details: Vec::new(),
        output: over.output,
        transcript: over.record.as_ref().and_then(|record| record.transcript()),
        diff: None,
    };
    if let (Verdict::Passed, Some(check)) = (&outcome.verdict, check) {
        match over.record {
            Some(record) => ask(&mut outcome, &Seen::new(record), check),
            None => {
                let reason = "the system calls cannot be seen, because ptrace is refused here";
                outcome.verdict = Verdict::Skipped(reason.to_owned());
            }
        }
    }
    Some((case, outcome))
}

/// Puts the grader's questions to what was seen; one is the same for all.
fn ask(outcome: &mut Outcome, seen: &Seen, check: Check) {
    if let Some(bytes) = seen.unmapped_twice() {
        outcome.verdict = Verdict::Failed(Failure::UnmappedTwice(bytes));
        return;
    }
    let Err(payload) = snapshot::quietly(&mut || check(seen)) else {
        return;
    };
    outcome.verdict = Verdict::Failed(match payload.downcast::<seen::Differs>() {
        Ok(differs) => {
            outcome.diff = Some(differs.diff);
            differs.failure
        }
        Err(payload) => match payload.downcast::<child::CheckFailed>() {
            Ok(failed) => Failure::Check(failed.0),
            Err(payload) => Failure::Grader(format!("its check panicked: {}", words(&payload))),
        },
    });
}

/// What a panic said.
fn words(payload: &Box<dyn Any + Send>) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    let text = owned.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("it did not say why")
}
