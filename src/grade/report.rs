//! Reports for machines: one JSON document, or JUnit XML.

use anyhow::Result;
use clap::ValueEnum;
use course::log::{Count, Verdict};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::grade::grader::Case;
use crate::grade::verdicts::Outcome;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON document.
    Json,
    /// JUnit XML.
    Junit,
}

#[derive(Serialize)]
struct Document<'a> {
    exercises: &'a [Outcome],
    #[serde(flatten)]
    core: Count,
    bonus: Count,
}

/// # Errors
/// Returns an error if the outcomes cannot be represented in that format.
pub fn text(format: Format, outcomes: &[Outcome], core: Count, bonus: Count) -> Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(&Document {
            exercises: outcomes,
            core,
            bonus,
        })?),
        Format::Junit => Ok(junit(outcomes).to_string()?),
    }
}

/// Each exercise is a test suite; a case's class is its stage.
fn junit(outcomes: &[Outcome]) -> Report {
    let mut report = Report::new("workbook");
    for outcome in outcomes {
        match outcome {
            Outcome::Graded(verdicts) => {
                let mut suite = TestSuite::new(verdicts.name.as_str());
                for case in verdicts.stages.iter().flat_map(|stage| &stage.cases) {
                    suite.add_test_case(test_case(case));
                }
                report.add_test_suite(suite);
            }
            Outcome::CouldNot { name, error } => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                // The sentence, and the compiler's text below it.
                let (sentence, _) = error.split_once('\n').unwrap_or((error, ""));
                status.set_message(sentence);
                status.set_description(error.as_str());
                let mut suite = TestSuite::new(name.as_str());
                suite.add_test_case(TestCase::new("build", status));
                report.add_test_suite(suite);
            }
        }
    }
    report
}

/// A case that was not started is skipped in JUnit's terms: nothing is wrong with it.
fn test_case(case: &Case) -> TestCase {
    let (stage, name) = case.name.split_once("::").unwrap_or(("", &case.name));
    let mut status = match case.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::NotStarted | Verdict::Skipped => TestCaseStatus::skipped(),
    };
    if let Some(sentence) = &case.sentence {
        status.set_message(sentence.as_str());
    }
    let mut test = TestCase::new(name, status);
    test.set_classname(stage);
    test
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_shows_the_sentence_and_the_compilers_text() {
        let could_not = Outcome::CouldNot {
            name: "private-alloc".to_owned(),
            error: "Region is not public. Restore it.\n\nerror[E0603]: struct `Region` is private"
                .to_owned(),
        };
        let sum = Count::default();
        let xml = text(Format::Junit, &[could_not], sum, sum).expect("XML");
        assert!(
            xml.contains("<error message=\"Region is not public. Restore it.\">"),
            "{xml}"
        );
        assert!(
            xml.contains("error[E0603]: struct `Region` is private</error>"),
            "{xml}"
        );
    }

    #[test]
    fn a_case_that_is_not_started_is_skipped_in_junit() {
        let case = Case {
            name: "region::zeroed".to_owned(),
            verdict: Verdict::NotStarted,
            kind: "not-started".to_owned(),
            sentence: Some("Not started.".to_owned()),
            output: Vec::new(),
            transcript: None,
            diff: None,
            debug: None,
        };
        assert!(matches!(
            test_case(&case).status,
            TestCaseStatus::Skipped { .. }
        ));
    }
}
