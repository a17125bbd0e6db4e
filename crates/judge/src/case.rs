//! Grades one case: runs it in a child, then runs the grader's check on what was recorded.

use std::any::Any;

use crate::answer;
use crate::child::{self, panics::CheckFailed};
use crate::limits::Limits;
use crate::role::{self, Role};
use crate::seen::{Differs, Seen, snapshot};
use crate::supervise;
use crate::verdict::report::Outcome;
use crate::verdict::{Failure, Verdict};

/// A case's body. It is not generic, because generic code would be compiled again into every grader, for every case.
pub type Body<'a> = &'a mut dyn FnMut();

/// The grader's check of what was recorded.
pub type Check<'a> = &'a dyn Fn(&Seen);

/// `body` as a `FnMut` that is called once.
pub fn once(body: impl FnOnce()) -> impl FnMut() {
    let mut body = Some(body);
    move || body.take().expect("a body runs once")()
}

/// Grades `body`, reports the verdict, and ends the test.
pub fn settle(body: Body, check: Option<Check>) {
    if let Some((case, outcome)) = grade(&Limits::default(), body, check) {
        outcome.settle(&case);
    }
}

/// Grades `body` and returns its result.
pub fn observe(limits: &Limits, body: Body, check: Option<Check>) -> Outcome {
    let (_, outcome) = grade(limits, body, check).expect("observe does not work with JUDGE_INLINE");
    outcome
}

/// The case's name and its result; `None` if it has run inline.
fn grade(limits: &Limits, body: Body, check: Option<Check>) -> Option<(String, Outcome)> {
    let case = match role::current() {
        Role::Child { channel } => child::run(channel, body),
        Role::Inline => {
            body();
            return None;
        }
        Role::Judge { case } => case,
    };
    if let Some(verdict) = answer::stale() {
        return Some((case, Outcome::of(verdict)));
    }
    let finished = supervise::run(&case, &case, limits);
    let mut outcome = Outcome {
        verdict: finished.verdict,
        output: finished.output,
        transcript: finished
            .record
            .as_ref()
            .and_then(|record| record.transcript()),
        diff: None,
    };
    if let (Verdict::Passed, Some(check)) = (&outcome.verdict, check) {
        match finished.record {
            Some(record) => check_record(&mut outcome, &Seen::new(record), check),
            None => {
                let reason = "the system calls cannot be seen, because ptrace is refused here";
                outcome.verdict = Verdict::Skipped(reason.to_owned());
            }
        }
    }
    outcome.verdict = outcome.verdict.under(finished.shortage.as_deref());
    Some((case, outcome))
}

/// Checks that no memory was unmapped twice, as in every watched case, and then runs the grader's check.
fn check_record(outcome: &mut Outcome, seen: &Seen, check: Check) {
    if let Some(bytes) = seen.unmapped_twice() {
        outcome.verdict = Verdict::Failed(Failure::UnmappedTwice(bytes));
        return;
    }
    let Err(payload) = snapshot::quietly(&mut || check(seen)) else {
        return;
    };
    outcome.verdict = Verdict::Failed(match payload.downcast::<Differs>() {
        Ok(differs) => {
            outcome.diff = Some(differs.diff);
            differs.failure
        }
        Err(payload) => match payload.downcast::<CheckFailed>() {
            Ok(failed) => Failure::Check(failed.0),
            Err(payload) => Failure::Grader(format!("its check panicked: {}", message(&payload))),
        },
    });
}

/// The message of a panic.
fn message(payload: &Box<dyn Any + Send>) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    let text = owned.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("it did not say why")
}
