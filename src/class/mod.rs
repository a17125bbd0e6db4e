//! Grades the answers of a class, each in its own sandbox.
//!
//! `prepare` builds what all submissions need. `submission` reads a submission, `work` compiles and grades it,
//! `library` looks into the compiled answer, and `result` writes its result file. `gradescope` writes it in the format of
//! that service, and `questions` asks about it.

pub mod gradescope;
mod hash;
mod library;
pub mod prepare;
pub mod questions;
pub mod result;
pub mod submission;
pub mod work;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use prepare::Prepared;
use result::{Outcome, Status};
use submission::Submission;
use work::Graded;

/// How submissions are separated from each other and from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A sandbox of bubblewrap for each.
    Sandbox,
    /// This machine is a container for one submission, such as Gradescope's. The answer runs as the user nobody.
    Container,
}

/// Grades one submission, unless `result` is that of the same answer by the same graders. Returns the outcome. All cases
/// together may take `time`.
///
/// # Errors
/// Returns an error if the result cannot be written.
pub fn grade_one(
    prepared: &Prepared,
    submission: &Path,
    result: &Path,
    time: Duration,
) -> Result<Outcome> {
    let begin = Instant::now();
    let exercise = &prepared.exercise;
    let read = Submission::read(submission);
    let answer = match &read {
        Ok(submission) => submission.hash()?,
        Err(_) => String::new(),
    };
    let kept = Outcome::read(result).filter(|kept| kept.is_of(&answer, &prepared.graders));
    if let (Ok(_), Some(kept)) = (&read, kept) {
        return Ok(Outcome { kept: true, ..kept });
    }
    let student = submission::student(submission)?;
    let unusual = read.as_ref().ok().and_then(Submission::unusual);
    let mut outcome = Outcome::new(&student, exercise, answer, &prepared.graders);
    let graded = match read {
        Ok(submission) => work::grade(prepared, &submission, time),
        // An unreadable file is not the student's fault: the machine failed, or the teacher set its permissions.
        Err(error) if error.chain().any(|cause| cause.is::<io::Error>()) => Err(error),
        Err(error) => Ok(Graded::rejected(format!("{error:#}"))),
    };
    outcome.set(exercise, graded);
    if let Some(word) = unusual
        && outcome.status == Status::Graded
    {
        outcome.add_note(&format!("the code has `{word}`: read it"));
    }
    outcome.seconds = (begin.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    result::write_json(result, &outcome)?;
    Ok(outcome)
}
