//! `workbook new answer`: makes a wrong answer for the exam from the learner's current file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use course::exercise::Exercise;
use similar::TextDiff;

use crate::grade::grader::{CargoOutput, Stop};
use crate::grade::verdicts::Verdicts;
use crate::grade::{self, Show};
use crate::say;
use crate::terminal::indented;

/// Grades the learner's file, writes it as a patch to the solution with the header that the exam needs, and says which
/// case catches it.
///
/// # Errors
/// Returns an error if there is no such exercise, if the file cannot be graded or does not differ from the solution, or
/// if the slug is taken or not a file name.
pub fn answer(root: &Path, name: &str, slug: &str) -> Result<()> {
    let exercise = Exercise::find(root, name)?;
    let is_allowed = |letter: char| letter.is_ascii_lowercase() || "0123456789_".contains(letter);
    ensure!(
        !slug.is_empty() && slug.chars().all(is_allowed),
        "{slug:?} cannot be the name of an answer: use lower-case letters, digits and underscores"
    );
    let path = exercise
        .answers()
        .join("wrong")
        .join(slug)
        .with_extension("patch");
    ensure!(
        !path.exists(),
        "{} exists already; choose another name",
        path.display()
    );
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let (solution, answer) = (read(&exercise.solution())?, read(&exercise.answer())?);
    ensure!(
        answer != read(&exercise.stub())?,
        "exercises/{name}/src/lib.rs is the stub; copy the solution there, and make the mistake in it"
    );
    ensure!(
        answer != solution,
        "exercises/{name}/src/lib.rs is the solution; make the mistake in it first"
    );

    let show = Show {
        cargo: CargoOutput::Progress,
        verdicts: None,
    };
    let verdicts = grade::grade(&exercise, None, show, &Stop::default())?;
    ensure!(
        !verdicts.has_fault_of_judge(),
        "the grader itself failed, so its verdicts say nothing about the answer; see `cargo run -- grade {name}`"
    );
    let failure = verdicts.first_failure();
    let caught_by = failure.map_or("STAGE::CASE", |case| &case.name);
    let sentence = failure.and_then(|case| case.sentence.as_deref());
    let diff = TextDiff::from_lines(&solution, &answer);
    let diff = diff
        .unified_diff()
        .header("a/src/lib.rs", "b/src/lib.rs")
        .to_string();
    let patch = format!(
        "wrong: DESCRIBE THE CODE, FOR EXAMPLE: unmaps only the first page\n\
         caught by: {caught_by}\n\
         told: {}\n\n{diff}",
        sentence.unwrap_or("THE SENTENCE THAT THE CASE SHOULD SAY")
    );
    fs::write(&path, patch).with_context(|| path.display().to_string())?;

    let shown = path.strip_prefix(root).unwrap_or(&path);
    say!("Wrote {}.", shown.display());
    report(&verdicts);
    say!("Edit the header, then run: EXERCISE={name} cargo test --test exam");
    Ok(())
}

fn report(verdicts: &Verdicts) {
    let failed = verdicts.core.failed + verdicts.bonus.failed;
    match verdicts.first_failure() {
        Some(case) => {
            let more = match failed - 1 {
                0 => String::new(),
                1 => " and one other case".to_owned(),
                more => format!(" and {more} other cases"),
            };
            say!("Caught by {}{more}:", case.name);
            say!(
                "{}",
                indented(2, case.sentence.as_deref().unwrap_or_default())
            );
        }
        None => say!(
            "No case catches it. If it is wrong, the grader needs a new case: name it in the header. If it is right, \
             put the whole file into the folder `right` instead."
        ),
    }
    let not_started = verdicts.core.not_started + verdicts.bonus.not_started;
    if not_started > 0 {
        say!(
            "{not_started} cases are not started. A wrong answer should be the solution with one mistake: begin with a \
             copy of the solution."
        );
    }
}
