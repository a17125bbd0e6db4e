//! The result of a submission in the format of Gradescope.

use course::log::Verdict;
use serde_json::{Value, json};

use super::result::Outcome;
use crate::grade::score::StageScore;
use crate::grade::verdicts;

/// When students see the verdicts, in Gradescope's words.
pub const VISIBILITIES: [&str; 4] = ["visible", "hidden", "after_due_date", "after_published"];

/// Returns the document `results.json`: a test for each stage, and one for the teacher that students never see.
pub fn document(outcome: &Outcome, visibility: &str) -> Value {
    let stages = outcome.score.iter().flat_map(|score| &score.stages);
    let mut tests: Vec<Value> = stages
        .map(|stage| test_of(outcome, stage, visibility))
        .collect();
    tests.push(json!({
        "name": "For the teacher",
        "visibility": "hidden",
        "output": format!(
            "SHA-256 of the answer: {}\nSHA-256 of the graders: {}\nKernel: {}",
            outcome.answer, outcome.graders, outcome.kernel
        ),
    }));
    let score = outcome.score.as_ref();
    let mut output = outcome.line();
    if !outcome.compiler.is_empty() {
        output += "\n\n";
        output += &outcome.compiler;
    }
    json!({
        "score": score.map_or(0.0, |score| score.points + score.bonus),
        "execution_time": outcome.seconds.ceil() as u64,
        "output": output,
        "output_format": "text",
        "stdout_visibility": "hidden",
        "tests": tests,
    })
}

fn test_of(outcome: &Outcome, stage: &StageScore, visibility: &str) -> Value {
    let mut lines = Vec::new();
    for case in &outcome.cases {
        let sign = match case.verdict {
            _ if !verdicts::is_of(&case.name, &stage.name) => continue,
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
            Verdict::NotStarted => "not started",
        };
        let sentence = case.sentence.as_deref().unwrap_or_default();
        lines.push(
            format!("{sign}: {}\n{sentence}", case.name)
                .trim_end()
                .to_owned(),
        );
    }
    let bonus = if stage.bonus { " (bonus)" } else { "" };
    json!({
        "name": format!("{}{bonus}", stage.title),
        "score": stage.points,
        "max_score": stage.possible,
        // A stage that is skipped neither passes nor fails.
        "status": match stage.passed + stage.skipped == stage.cases {
            true => "passed",
            false => "failed",
        },
        "output": lines.join("\n"),
        "output_format": "text",
        "visibility": visibility,
    })
}
