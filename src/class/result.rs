//! The result file of a submission, and the table of all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use course::exercise::Exercise;
use serde::{Deserialize, Serialize};

use super::prepare::kernel;
use super::work::{Graded, ONLY_HERE, TOO_LATE};
use crate::grade::grader::Case;
use crate::grade::score::Score;
use crate::grade::visible::{beginning, visible};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    #[serde(rename = "graded")]
    Graded,
    /// It earns nothing: it does not compile, for example.
    #[serde(rename = "rejected")]
    Rejected,
    /// A fault of the machine or the command. It is graded again the next time.
    #[serde(rename = "could not grade")]
    CouldNot,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Status::Graded => "graded",
            Status::Rejected => "rejected",
            Status::CouldNot => "could not grade",
        }
    }
}

/// A result file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub student: String,
    pub exercise: String,
    pub status: Status,
    /// Why it earns nothing or could not be graded, or which cases were skipped.
    pub note: String,
    /// `None` if it could not be graded.
    pub score: Option<Score>,
    /// SHA-256 of the answer. Empty if there is none.
    pub answer: String,
    /// SHA-256 of the graders.
    pub graders: String,
    pub kernel: String,
    pub seconds: f64,
    pub cases: Vec<Case>,
    /// The compiler's errors.
    pub compiler: String,
    /// Whether it is from an earlier grading.
    #[serde(skip)]
    pub kept: bool,
}

impl Outcome {
    /// An outcome without points.
    pub fn new(student: &str, exercise: &Exercise, answer: String, graders: &str) -> Outcome {
        Outcome {
            student: student.to_owned(),
            exercise: exercise.name.clone(),
            status: Status::CouldNot,
            note: String::new(),
            score: None,
            answer,
            graders: graders.to_owned(),
            kernel: kernel(),
            seconds: 0.0,
            cases: Vec::new(),
            compiler: String::new(),
            kept: false,
        }
    }

    pub fn set(&mut self, exercise: &Exercise, graded: Result<Graded>) {
        match graded {
            Ok(Graded::Verdicts(verdicts)) => {
                let score = Score::of(exercise, &verdicts);
                self.status = Status::Graded;
                let stages = verdicts.stages.into_iter();
                self.cases = stages.flat_map(|stage| stage.cases).collect();
                let beginning_with = |begin: &str| {
                    let sentences = self.cases.iter().filter_map(|case| case.sentence.as_ref());
                    sentences.filter(|text| text.starts_with(begin)).count()
                };
                let notes = [
                    (
                        beginning_with(TOO_LATE),
                        "had no verdict when the time of the whole submission was over",
                    ),
                    (score.skipped, "skipped: this machine cannot grade them"),
                    (
                        beginning_with(ONLY_HERE),
                        "skipped for this answer only: they earn nothing",
                    ),
                ];
                let notes = notes.into_iter().filter(|(number, _)| *number > 0);
                let notes = notes.map(|(number, what)| format!("{number} of the cases {what}"));
                self.note = notes.collect::<Vec<_>>().join("; ");
                self.score = Some(score);
            }
            Ok(Graded::Rejected { note, compiler }) => {
                self.status = Status::Rejected;
                self.score = Some(Score::nothing(exercise));
                self.note = one_line(&note);
                self.compiler = beginning(&compiler);
            }
            Err(error) => {
                self.status = Status::CouldNot;
                self.note = one_line(&format!("{error:#}"));
            }
        }
    }

    pub fn add_note(&mut self, note: &str) {
        if !self.note.is_empty() {
            self.note += "; ";
        }
        self.note += note;
    }

    pub fn read(path: &Path) -> Option<Outcome> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    /// Whether it need not be made again.
    pub fn is_of(&self, answer: &str, graders: &str) -> bool {
        self.status != Status::CouldNot && self.answer == answer && self.graders == graders
    }

    /// One line about it.
    pub fn line(&self) -> String {
        let note = match self.note.as_str() {
            "" => String::new(),
            note => format!(" ({note})"),
        };
        match &self.score {
            Some(score) => format!("{} of {} points{note}", score.points, score.possible),
            None => format!("could not be graded{note}"),
        }
    }
}

/// A text of a student as one line of a terminal, which it cannot control, and of a bounded length.
pub fn one_line(text: &str) -> String {
    const MOST: usize = 400;
    let text = visible(text).replace('\n', "\\n");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The first line of the table.
const HEAD: &str = "student,exercise,points,possible,bonus,skipped,status,note";

/// The table of all results, as CSV.
pub fn table<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let mut text = format!("{HEAD}\n");
    for outcome in outcomes {
        let number = |of: fn(&Score) -> f64| {
            let score = outcome.score.as_ref();
            score.map_or(String::new(), |score| of(score).to_string())
        };
        let fields = [
            outcome.student.clone(),
            outcome.exercise.clone(),
            number(|score| score.points),
            number(|score| score.possible),
            number(|score| score.bonus),
            number(|score| score.skipped as f64),
            outcome.status.text().to_owned(),
            outcome.note.clone(),
        ];
        let fields = fields.map(|field| quoted(&field));
        text += &(fields.join(",") + "\n");
    }
    text
}

/// A field of a CSV file. What a spreadsheet would take for a formula gets an apostrophe. Some take semicolons and tabs for
/// the ends of fields, too.
fn quoted(field: &str) -> String {
    let mut text = String::new();
    let mut begins = true;
    for sign in field.chars() {
        if begins && ['=', '+', '-', '@', '\t', '\r'].contains(&sign) {
            text.push('\'');
        }
        text.push(sign);
        begins = [',', ';', '\t', '\n', '\r'].contains(&sign);
    }
    match text.contains(['"', ',', '\n', '\r', '\'']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Writes a file so that it is there either whole or not at all, even after a crash.
///
/// # Errors
/// Returns an error if it cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let write = || -> Result<()> {
        let path = std::path::absolute(path)?;
        let folder = path.parent().context("it is in no folder")?;
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new();
        // A result is no secret between those who may read the folder.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let mut file = file.permissions(mode).tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|failed| failed.error)?;
        File::open(folder)?.sync_all()?;
        Ok(())
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// Writes a JSON document.
///
/// # Errors
/// Returns an error if it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_no_formula() {
        assert_eq!(quoted("alice"), "alice");
        assert_eq!(quoted("a, b"), "\"a, b\"");
        assert_eq!(quoted("say \"a\""), "\"say \"\"a\"\"\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
        assert_eq!(quoted("a;=1+1"), "\"a;'=1+1\"");
        assert_eq!(quoted("a - b; c+d"), "a - b; c+d");
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/result.json");
        write(&path, "one").expect("written");
        write(&path, "two").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "two");
        let entries = fs::read_dir(folder.path().join("new")).expect("a folder");
        assert_eq!(entries.count(), 1);
        let error = write(folder.path(), "three").expect_err("it is a folder");
        let expected = format!(
            "{} cannot be written: Is a directory (os error 21)",
            folder.path().display()
        );
        assert_eq!(format!("{error:#}"), expected);
    }
}
