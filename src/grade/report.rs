//! Reports for machines: one JSON document, or JUnit XML.

use anyhow::Result;
use clap::ValueEnum;
use course::log::{Count, Verdict};
use serde::Serialize;

use crate::grade::grader::Case;
use crate::grade::verdicts::Outcome;
use crate::grade::visible::visible;

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
        Format::Junit => Ok(junit(outcomes)),
    }
}

/// Each exercise is a test suite; a case's class is its stage. An answer that cannot be graded has one case, `build`.
fn junit(outcomes: &[Outcome]) -> String {
    let suites: Vec<_> = outcomes.iter().map(suite).collect();
    let all = suites.iter().flat_map(|(_, cases)| cases);
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    xml += &format!("<testsuites name=\"workbook\" {}>\n", numbers(all));
    for (name, cases) in &suites {
        let (name, numbers) = (escaped(name), numbers(cases.iter()));
        xml += &format!("    <testsuite name=\"{name}\" {numbers}>\n");
        xml.extend(cases.iter().map(|case| format!("        {}\n", case.xml())));
        xml += "    </testsuite>\n";
    }
    xml + "</testsuites>"
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
                class: None,
                status: Some("error"),
                message: Some(sentence),
                description: Some(error),
            };
            (name, vec![case])
        }
    }
}

/// The element `testcase`.
struct TestCase<'a> {
    name: &'a str,
    class: Option<&'a str>,
    /// The element for a case that did not pass: `failure`, `error` or `skipped`.
    status: Option<&'a str>,
    message: Option<&'a str>,
    description: Option<&'a str>,
}

impl TestCase<'_> {
    /// A case that was not started is skipped in JUnit's terms: nothing is wrong with it.
    fn of(case: &Case) -> TestCase<'_> {
        let (stage, name) = case.name.split_once("::").unwrap_or(("", &case.name));
        TestCase {
            name,
            class: Some(stage),
            status: match case.verdict {
                Verdict::Passed => None,
                Verdict::Failed => Some("failure"),
                Verdict::NotStarted | Verdict::Skipped => Some("skipped"),
            },
            message: case.sentence.as_deref(),
            description: None,
        }
    }

    fn xml(&self) -> String {
        let name = attribute("name", Some(self.name));
        let class = attribute("classname", self.class);
        let Some(status) = self.status else {
            return format!("<testcase{name}{class}/>");
        };
        let message = attribute("message", self.message);
        let description = escaped(self.description.unwrap_or_default());
        format!("<testcase{name}{class}><{status}{message}>{description}</{status}></testcase>")
    }
}

/// The attributes that count the cases.
fn numbers<'a>(cases: impl Iterator<Item = &'a TestCase<'a>> + Clone) -> String {
    let count = |status| {
        let cases = cases.clone();
        cases.filter(|case| case.status == Some(status)).count()
    };
    format!(
        "tests=\"{}\" skipped=\"{}\" failures=\"{}\" errors=\"{}\"",
        cases.clone().count(),
        count("skipped"),
        count("failure"),
        count("error")
    )
}

fn attribute(name: &str, value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| {
        format!(" {name}=\"{}\"", escaped(value))
    })
}

/// `text` for an element or an attribute. XML permits no control characters, not even escaped ones.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in visible(text).chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // A parser turns a line end in an attribute into a space, unless it is escaped.
            '\n' => escaped += "&#10;",
            '\t' => escaped += "&#9;",
            '\u{fffe}' | '\u{ffff}' => escaped.extend(character.escape_default()),
            _ => escaped.push(character),
        }
    }
    escaped
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
        assert_eq!(
            escaped("Vec<T> & \"b\"\nc\x1b[1m\u{ffff}"),
            r"Vec&lt;T&gt; &amp; &quot;b&quot;&#10;c\u{1b}[1m\u{ffff}"
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
