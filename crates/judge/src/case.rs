//! Grades one case: runs it in a child, then runs the grader's check on what was recorded.

use std::any::Any;
use std::collections::BTreeMap;
use std::env;
use std::panic::{self, AssertUnwindSafe};

use crate::answer;
use crate::child;
use crate::child::panics::{self, CheckFailed};
use crate::injection::{self, INJECT, Plan, Refusal, Run};
use crate::limits::Limits;
use crate::protocol::{Panicked, Thrown};
use crate::role::{self, Role};
use crate::seen::{Differs, Seen, snapshot};
use crate::supervise;
use crate::verdict::report::Outcome;
use crate::verdict::{Failure, Verdict};
use crate::visible::visible;

/// A case's body. It is not generic, because generic code would be compiled again into every grader, for every case.
pub type Body<'a> = &'a mut dyn FnMut(Option<Refusal>);

/// The grader's check of what was recorded.
pub type Check<'a> = &'a dyn Fn(&Seen);

/// `body` as a `FnMut` that is called once.
pub fn once(body: impl FnOnce(Option<Refusal>)) -> impl FnMut(Option<Refusal>) {
    let mut body = Some(body);
    move |refusal| body.take().expect("a body runs once")(refusal)
}

/// Grades `body`, reports the verdict, and ends the test.
pub fn settle(plan: Plan, body: Body, check: Option<Check>) {
    settle_within(&Limits::default(), plan, body, check);
}

/// Like `settle`, with other limits.
pub fn settle_within(limits: &Limits, plan: Plan, body: Body, check: Option<Check>) {
    if let Some((case, outcome)) = grade(limits, plan, body, check) {
        outcome.settle(&case);
    }
}

/// Grades `body` and returns its result.
pub fn observe(limits: &Limits, plan: Plan, body: Body, check: Option<Check>) -> Outcome {
    let graded = grade(limits, plan, body, check);
    let (_, outcome) = graded.expect("observe does not work with JUDGE_INLINE");
    outcome
}

/// The case's name and its result; `None` if it has run inline.
fn grade(
    limits: &Limits,
    plan: Plan,
    body: Body,
    check: Option<Check>,
) -> Option<(String, Outcome)> {
    let case = match role::current() {
        Role::Child { channel } => {
            let value = env::var(INJECT).unwrap_or_default();
            let refusal = injection::from_variable(&value, plan);
            child::run(channel, refusal, &mut || body(refusal))
        }
        Role::Inline => {
            run_inline(body);
            return None;
        }
        Role::Judge { case } => case,
    };
    if let Some(verdict) = answer::stale() {
        return Some((case, Outcome::of(verdict)));
    }
    let mut outcome = run_all(&case, limits, plan, check);
    outcome.verdict = answer::unchanged::verdict(&case, outcome.verdict);
    Some((case, outcome))
}

/// Runs `body` in this process, for a debugger. The panic hook cannot print the payload of a failed check or of a skip.
fn run_inline(body: Body) {
    let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| body(None))) else {
        return;
    };
    let Thrown { what, message } = panics::thrown(&*payload);
    let message = visible(&message);
    match what {
        Panicked::Skip => return println!("Skipped: {message}."),
        Panicked::Check => println!("{message}"),
        Panicked::Judge => println!("Could not grade: {message}."),
        _ => {}
    }
    panic::resume_unwind(payload)
}

/// Runs a case once, and again for each call that the plan injects, until a run fails. It passes only if all runs do.
fn run_all(case: &str, limits: &Limits, plan: Plan, check: Option<Check>) -> Outcome {
    let first = match plan {
        [] => Run::Plain,
        _ => Run::Count,
    };
    let mut first = run(case, limits, first, check);
    let mut skipped = None;
    // Without a tracer the check is skipped. That the body copes with failures can still be seen.
    if matches!(first.outcome.verdict, Verdict::Passed) || first.unseen {
        for injection in injection::injections(plan, &first.counts) {
            let mut injected = run(case, limits, Run::Inject(injection), check).outcome;
            match injected.verdict {
                Verdict::Failed(failure) => {
                    injected.verdict = Verdict::Failed(failure.during(injection));
                    return injected;
                }
                // A path that only a failing call takes is still a `todo!()`.
                Verdict::NotStarted(_) | Verdict::Unchanged(_) => return injected,
                Verdict::Skipped(reason) => {
                    let Refusal { call, errno, .. } = injection;
                    skipped.get_or_insert(format!(
                        "{call} was made to fail with {errno:?}, and {reason}"
                    ));
                }
                Verdict::Passed => {}
            }
        }
    }
    if let (Verdict::Passed, Some(reason)) = (&first.outcome.verdict, skipped) {
        first.outcome.verdict = Verdict::Skipped(reason);
    }
    first.outcome
}

/// One run of a case.
struct Ran {
    outcome: Outcome,
    /// Whether the body passed, and the check could not see what the kernel saw.
    unseen: bool,
    /// How often each call was made in the window.
    counts: BTreeMap<String, usize>,
}

fn run(case: &str, limits: &Limits, run: Run, check: Option<Check>) -> Ran {
    let finished = supervise::run(case, case, limits, run);
    let mut ran = Ran {
        outcome: Outcome {
            verdict: finished.verdict,
            output: finished.output,
            transcript: finished
                .record
                .as_ref()
                .and_then(|record| record.transcript()),
            diff: None,
        },
        unseen: false,
        counts: finished.counts,
    };
    if run.injection().is_some() && !finished.injected {
        // The calls differed from those of the first run, so the body was prepared for a failure that did not happen.
        ran.outcome.verdict = Verdict::Passed;
        return ran;
    }
    if let (Verdict::Passed, Some(check)) = (&ran.outcome.verdict, check) {
        match finished.record {
            Some(record) => check_record(&mut ran.outcome, &Seen::new(record), check),
            None => {
                let reason = "the system calls cannot be seen, because ptrace is refused here";
                ran.outcome.verdict = Verdict::Skipped(reason.to_owned());
                ran.unseen = true;
            }
        }
    }
    ran.outcome.verdict = ran.outcome.verdict.under(finished.shortage.as_deref());
    ran
}

/// Checks that no memory was unmapped twice, and that no mapping replaced others' memory, as in every watched case. Then
/// runs the grader's check.
fn check_record(outcome: &mut Outcome, seen: &Seen, check: Check) {
    if let Some(bytes) = seen.unmapped_twice() {
        outcome.verdict = Verdict::Failed(Failure::UnmappedTwice(bytes));
        return;
    }
    if let Some(bytes) = seen.mapped_over() {
        outcome.verdict = Verdict::Failed(Failure::MappedOver(bytes));
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
            Err(payload) => Failure::Grader(format!(
                "the check of the grader panicked: {}",
                message(&payload)
            )),
        },
    });
}

/// The message of a panic.
fn message(payload: &Box<dyn Any + Send>) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    let text = owned.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("it did not say why")
}
