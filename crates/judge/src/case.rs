//! Grades one case: runs it in a child, then runs the grader's check on what was recorded.

use std::any::Any;
use std::collections::BTreeMap;
use std::env;

use crate::answer;
use crate::child::{self, panics::CheckFailed};
use crate::injection::{self, Effect, INJECT, Refusal, Run};
use crate::limits::Limits;
use crate::role::{self, Role};
use crate::seen::{Differs, Seen, snapshot};
use crate::supervise;
use crate::verdict::report::Outcome;
use crate::verdict::{Failure, Verdict};

/// A case's body. It is not generic, because generic code would be compiled again into every grader, for every case.
pub type Body<'a> = &'a mut dyn FnMut(Option<Refusal>);

/// The grader's check of what was recorded.
pub type Check<'a> = &'a dyn Fn(&Seen);

/// The calls to inject, in turn, and what happens to each.
pub type Plan<'a> = &'a [(&'static str, Effect)];

/// `body` as a `FnMut` that is called once.
pub fn once(body: impl FnOnce(Option<Refusal>)) -> impl FnMut(Option<Refusal>) {
    let mut body = Some(body);
    move |refusal| body.take().expect("a body runs once")(refusal)
}

/// Grades `body`, reports the verdict, and ends the test.
pub fn settle(plan: Plan, body: Body, check: Option<Check>) {
    if let Some((case, outcome)) = grade(&Limits::default(), plan, body, check) {
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
            let refusal = injection::refusal(&value, plan);
            child::run(channel, &mut || body(refusal))
        }
        Role::Inline => {
            body(None);
            return None;
        }
        Role::Judge { case } => case,
    };
    if let Some(verdict) = answer::stale() {
        return Some((case, Outcome::of(verdict)));
    }
    let first = match plan {
        [] => Run::Plain,
        _ => Run::Count,
    };
    let (outcome, counts) = run(&case, limits, first, check);
    if outcome.verdict == Verdict::Passed {
        for injection in injection::injections(plan, &counts) {
            let (mut injected, _) = run(&case, limits, Run::Inject(injection), check);
            if let Verdict::Failed(failure) = injected.verdict {
                injected.verdict = Verdict::Failed(failure.during(injection));
                return Some((case, injected));
            }
        }
    }
    Some((case, outcome))
}

/// Runs a case once. Returns the result, and how often each call was made in the window.
fn run(
    case: &str,
    limits: &Limits,
    run: Run,
    check: Option<Check>,
) -> (Outcome, BTreeMap<&'static str, usize>) {
    let finished = supervise::run(case, case, limits, run);
    let mut outcome = Outcome {
        verdict: finished.verdict,
        output: finished.output,
        transcript: finished
            .record
            .as_ref()
            .and_then(|record| record.transcript()),
        diff: None,
    };
    let mut counts = BTreeMap::new();
    if let Some(record) = &finished.record {
        counts.clone_from(&record.counts);
        // The calls were others than in the first run, so the body was prepared for something that did not happen.
        if run.injection().is_some() && !record.injected {
            outcome.verdict = Verdict::Passed;
            return (outcome, counts);
        }
    }
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
    (outcome, counts)
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
