//! Verdicts for machines: one JSON document, or JUnit's XML.

use anyhow::Result;
use clap::ValueEnum;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::grader::{Case, Verdict};
use crate::verdicts::{Count, Outcome};

/// A form of report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON document.
    Json,
    /// JUnit's XML.
    Junit,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    exercises: &'a [Outcome],
    #[serde(flatten)]
    core: Count,
    bonus: Count,
}

/// The report's text.
///
/// # Errors
/// If it cannot be written in that form.
pub fn text(format: Format, graded: &[Outcome], core: Count, bonus: Count) -> Result<String> {
    match format {
        Format::Json => Ok(serde_json::to_string_pretty(&Document {
            exercises: graded,
            core,
            bonus,
        })?),
        Format::Junit => Ok(junit(graded).to_string()?),
    }
}

/// An exercise is a suite; its stage is a case's class.
fn junit(graded: &[Outcome]) -> Report {
    let mut report = Report::new("workbook");
    for result in graded {
        match result {
            Outcome::Graded(verdicts) => {
                let mut suite = TestSuite::new(verdicts.name.as_str());
                for stage in &verdicts.stages {
                    for case in &stage.cases {
                        suite.add_test_case(test_case(case, stage.bonus));
                    }
                }
                report.add_test_suite(suite);
            }
            Outcome::CouldNot { name, error } => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(error.as_str());
                let mut suite = TestSuite::new(name.as_str());
                suite.add_test_case(TestCase::new("build", status));
                report.add_test_suite(suite);
            }
        }
    }
    report
}

fn test_case(case: &Case, bonus: bool) -> TestCase {
    let (stage, name) = case.name.split_once("::").unwrap_or(("", &case.name));
    let mut status = match case.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        // Nobody has to begin a bonus.
        Verdict::NotStarted if !bonus => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::NotStarted | Verdict::Skipped => TestCaseStatus::skipped(),
    };
    if let Some(sentence) = &case.sentence {
        status.set_message(sentence.as_str());
    }
    let mut test = TestCase::new(name, status);
    test.set_classname(stage);
    test
}
