//! The verdicts on one answer, by stage.

use course::exercise::Exercise;
use course::log::{Count, Graded, StageCount, Verdict, now};
use serde::Serialize;

use crate::grade::grader::Case;
use crate::grade::order::Order;

/// The result for one exercise.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    Graded(Verdicts),
    /// It could not be graded.
    CouldNot {
        name: String,
        error: String,
    },
}

/// The verdicts on one answer.
#[derive(Debug, Serialize)]
pub struct Verdicts {
    /// The name of the exercise.
    pub name: String,
    pub title: String,
    /// In the manifest's order.
    pub stages: Vec<Stage>,
    /// The sums over all stages that are not bonus stages.
    #[serde(flatten)]
    pub core: Count,
    /// The sums over the bonus stages.
    pub bonus: Count,
}

/// The verdicts on one stage.
#[derive(Debug, Serialize)]
pub struct Stage {
    pub name: String,
    pub title: String,
    /// An estimate of how long it takes.
    pub minutes: u32,
    pub bonus: bool,
    /// In the order of the grader's source: causes before their symptoms.
    pub cases: Vec<Case>,
}

impl Stage {
    pub fn count(&self) -> Count {
        count(&self.cases)
    }

    /// Returns the failed case to look at first. A case that could not be graded is none.
    pub fn first_failure(&self) -> Option<&Case> {
        first_failure(&self.cases)
    }
}

fn first_failure<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Option<&'a Case> {
    let is_failure = |case: &&Case| case.verdict == Verdict::Failed && !case.could_not_be_graded();
    cases.into_iter().find(is_failure)
}

pub fn count<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Count {
    cases.into_iter().map(|case| case.verdict).collect()
}

/// Returns whether the case belongs to the stage, as `region::zeroed` belongs to `region`.
pub fn is_of(case: &str, stage: &str) -> bool {
    case.split_once("::")
        .is_some_and(|(prefix, _)| prefix == stage)
}

impl Verdicts {
    /// Sorts the cases into the exercise's stages. A stage without cases is left out.
    pub fn sort(exercise: &Exercise, order: &Order, mut cases: Vec<Case>) -> Verdicts {
        order.sort(&mut cases);
        let mut stages = Vec::new();
        for stage in &exercise.about.stages {
            let (in_stage, rest): (Vec<_>, Vec<_>) = cases
                .into_iter()
                .partition(|case| is_of(&case.name, &stage.name));
            cases = rest;
            if !in_stage.is_empty() {
                stages.push(Stage {
                    name: stage.name.clone(),
                    title: stage.title.clone(),
                    minutes: stage.minutes,
                    bonus: stage.bonus,
                    cases: in_stage,
                });
            }
        }
        // A repository test makes sure that there are none; but a verdict must never get lost.
        if !cases.is_empty() {
            stages.push(Stage {
                name: "other".to_owned(),
                title: "Cases without a stage".to_owned(),
                minutes: 0,
                bonus: false,
                cases,
            });
        }
        let count = |bonus: bool| {
            let stages = stages.iter().filter(|stage| stage.bonus == bonus);
            count(stages.flat_map(|stage| &stage.cases))
        };
        Verdicts {
            name: exercise.name.clone(),
            title: exercise.about.title.clone(),
            core: count(false),
            bonus: count(true),
            stages,
        }
    }

    pub fn first_failure(&self) -> Option<&Case> {
        first_failure(self.stages.iter().flat_map(|stage| &stage.cases))
    }

    /// Returns whether the judge itself failed in a case, so that the verdicts may be wrong.
    pub fn has_fault_of_judge(&self) -> bool {
        let mut cases = self.stages.iter().flat_map(|stage| &stage.cases);
        cases.any(Case::could_not_be_graded)
    }

    /// The record for the log.
    pub fn record(&self) -> Graded {
        let stages = self.stages.iter().map(|stage| StageCount {
            name: stage.name.clone(),
            bonus: stage.bonus,
            count: stage.count(),
            failure: stage.first_failure().and_then(|case| case.sentence.clone()),
        });
        Graded {
            at: now(),
            exercise: self.name.clone(),
            solved: self.core.possible > 0 && self.core.failed + self.core.not_started == 0,
            stages: stages.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grade::grader::NO_VERDICT;

    fn case(name: &str, verdict: Verdict, kind: &str) -> Case {
        Case {
            name: name.to_owned(),
            verdict,
            kind: kind.to_owned(),
            sentence: None,
            output: Vec::new(),
            transcript: None,
            diff: None,
            debug: None,
        }
    }

    #[test]
    fn the_first_failure_is_the_first_in_the_order_that_says_something_about_the_answer() {
        let cases = [
            case("a::not_begun", Verdict::NotStarted, "not-started"),
            case("a::no_memory", Verdict::Failed, "grader"),
            case("a::old", Verdict::Failed, "stale"),
            case("a::lost", Verdict::Failed, NO_VERDICT),
            case("b::z_cause", Verdict::Failed, "check"),
            case("b::a_symptom", Verdict::Failed, "check"),
        ];
        let first = |cases: &[Case]| first_failure(cases).map(|case| case.name.clone());
        assert_eq!(first(&cases).as_deref(), Some("b::z_cause"));
        assert_eq!(first(&cases[..4]), None);
    }

    #[test]
    fn cases_are_sorted_by_stage_and_by_source() {
        let root = course::root::find().expect("the tests run in a clone");
        let exercise = Exercise::find(&root, "private-alloc").expect("an exercise");
        // In the order of the alphabet, as libtest runs them.
        let names = [
            "by_hand::failure_is_an_error",
            "by_hand::unmapped",
            "by_hand::zeroed_and_writable",
        ];
        let names = names.into_iter().chain([
            "errors::usize_max",
            "region::exact_length",
            "region::zeroed",
        ]);
        let cases = names.map(|name| case(name, Verdict::Failed, "check"));
        let verdicts = Verdicts::sort(&exercise, &Order::of(&exercise), cases.collect());
        let sorted: Vec<_> = verdicts
            .stages
            .iter()
            .flat_map(|stage| &stage.cases)
            .collect();
        let sorted: Vec<_> = sorted.iter().map(|case| case.name.as_str()).collect();
        let expected = [
            "by_hand::zeroed_and_writable",
            "by_hand::failure_is_an_error",
            "by_hand::unmapped",
            "region::zeroed",
            "region::exact_length",
            "errors::usize_max",
        ];
        assert_eq!(sorted, expected);
    }
}
