//! Reports for machines: one JSON document, or JUnit XML.

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use course::log::{Count, Verdict};
use serde::Serialize;
use xml::writer::{EmitterConfig, EventWriter, XmlEvent};

use crate::grade::grader::Case;
use crate::grade::verdicts::Outcome;
use crate::grade::visible::visible;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// JUnit XML.
    Junit,
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Format] {
        &[Format::Json, Format::Junit]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Format::Json => PossibleValue::new("json").help("One JSON document"),
            Format::Junit => PossibleValue::new("junit").help("JUnit XML"),
        })
    }
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
        Format::Junit => Ok(junit(outcomes)?),
    }
}

/// Each exercise is a test suite; a case's class is its stage. An answer that cannot be graded has one case, `build`.
fn junit(outcomes: &[Outcome]) -> Result<String> {
    let suites: Vec<_> = outcomes.iter().map(suite).collect();
    let all = suites.iter().flat_map(|(_, cases)| cases);
    let config = EmitterConfig::new().perform_indent(true);
    let mut writer = EventWriter::new_with_config(Vec::new(), config);
    start(&mut writer, "testsuites", "workbook", all)?;
    for (name, cases) in &suites {
        start(&mut writer, "testsuite", name, cases.iter())?;
        cases.iter().try_for_each(|case| case.write(&mut writer))?;
        writer.write(XmlEvent::end_element())?;
    }
    writer.write(XmlEvent::end_element())?;
    Ok(String::from_utf8(writer.into_inner())?)
}

/// Writes the start of an element that contains `cases`.
fn start<'a>(
    writer: &mut EventWriter<Vec<u8>>,
    element: &str,
    name: &str,
    cases: impl Iterator<Item = &'a TestCase<'a>> + Clone,
) -> Result<()> {
    let count = |status| {
        let cases = cases.clone();
        let count = cases.filter(|case| case.status == Some(status)).count();
        count.to_string()
    };
    writer.write(
        XmlEvent::start_element(element)
            .attr("name", name)
            .attr("tests", &cases.clone().count().to_string())
            .attr("skipped", &count("skipped"))
            .attr("failures", &count("failure"))
            .attr("errors", &count("error")),
    )?;
    Ok(())
}

fn suite(outcome: &Outcome) -> (&str, Vec<TestCase<'_>>) {
    match outcome {
        Outcome::Graded(verdicts) => {
            let cases = verdicts.stages.iter().flat_map(|stage| &stage.cases);
            (&verdicts.name, cases.map(TestCase::of).collect())
        }
        Outcome::CouldNot { name, error } => {
            // The sentence, and the compiler's text below it.
            let (sentence, _) = error.split_once('\n').unwrap_or((error, ""));
            let case = TestCase {
                name: "build",
                class: "",
                status: Some("error"),
                message: sentence,
                description: error,
            };
            (name, vec![case])
        }
    }
}

/// The element `testcase`. A text that is empty is left out.
struct TestCase<'a> {
    name: &'a str,
    class: &'a str,
    /// The element for a case that did not pass: `failure`, `error` or `skipped`.
    status: Option<&'a str>,
    message: &'a str,
    description: &'a str,
}

impl TestCase<'_> {
    /// A case that was not started is skipped in JUnit's terms: nothing is wrong with it.
    fn of(case: &Case) -> TestCase<'_> {
        let (stage, name) = case.name.split_once("::").unwrap_or(("", &case.name));
        TestCase {
            name,
            class: stage,
            status: match case.verdict {
                Verdict::Passed => None,
                Verdict::Failed => Some("failure"),
                Verdict::NotStarted | Verdict::Skipped => Some("skipped"),
            },
            message: case.sentence.as_deref().unwrap_or_default(),
            description: "",
        }
    }

    fn write(&self, writer: &mut EventWriter<Vec<u8>>) -> Result<()> {
        let mut element = XmlEvent::start_element("testcase").attr("name", self.name);
        if !self.class.is_empty() {
            element = element.attr("classname", self.class);
        }
        writer.write(element)?;
        if let Some(status) = self.status {
            // XML permits no control characters, not even escaped ones.
            let (message, text) = (visible(self.message), visible(self.description));
            let mut element = XmlEvent::start_element(status);
            if !message.is_empty() {
                element = element.attr("message", &message);
            }
            writer.write(element)?;
            if !text.is_empty() {
                writer.write(XmlEvent::characters(&text))?;
            }
            writer.write(XmlEvent::end_element())?;
        }
        writer.write(XmlEvent::end_element())?;
        Ok(())
    }
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
            xml.contains(
                r#"<testsuites name="workbook" tests="1" skipped="0" failures="0" errors="1">"#
            ),
            "{xml}"
        );
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
    fn text_in_xml_is_escaped() {
        let case = TestCase {
            name: "a_case",
            class: "region",
            status: Some("failure"),
            message: "Vec<T> & \"b\" c\x1b[1m",
            description: "",
        };
        let mut writer = EventWriter::new(Vec::new());
        case.write(&mut writer).expect("XML");
        let xml = String::from_utf8(writer.into_inner()).expect("UTF-8");
        let message = r"Vec&lt;T&gt; &amp; &quot;b&quot; c\u{1b}[1m";
        assert!(
            xml.contains(&format!("<failure message=\"{message}\" />")),
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
        assert_eq!(TestCase::of(&case).status, Some("skipped"));
    }
}
