//! Reports a verdict to people (standard error) and to programs (one JSON line in the file `JUDGE_REPORT`).

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::{env, panic};

use serde::Serialize;

use super::{Failure, Verdict, sentence};
use crate::protocol::REPORT_KEY;
use crate::visible::{beginning, visible};

/// The result of a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub(crate) verdict: Verdict,
    /// The last lines that the case printed.
    pub output: Vec<String>,
    /// The watched calls, one line each.
    pub transcript: Option<String>,
    /// The difference, if calls or effects were compared and differ.
    pub diff: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// The key that the reader of the report has chosen. It distinguishes the judge's lines from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    case: &'a str,
    verdict: &'a str,
    kind: &'a str,
    sentence: Option<String>,
    output: &'a [String],
    transcript: Option<String>,
    diff: Option<String>,
    debug: Option<String>,
}

impl Outcome {
    /// A verdict without evidence.
    pub(crate) fn of(verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            output: Vec::new(),
            transcript: None,
            diff: None,
        }
    }

    /// The sentence that the learner reads; `None` for a pass. It may quote a panic's message.
    pub fn sentence(&self) -> Option<String> {
        sentence::sentence(&self.verdict).map(|sentence| visible(&sentence))
    }

    /// Reports the verdict, and fails the test if the case failed or was not started.
    ///
    /// # Panics
    /// Without a message, to fail the test: the sentence has been printed.
    pub fn settle(&self, case: &str) {
        self.record(case);
        self.print(case);
        if self.fails_the_test() {
            panic::resume_unwind(Box::new(()));
        }
    }

    /// Whether libtest must count the test as failed.
    pub(crate) fn fails_the_test(&self) -> bool {
        !matches!(self.verdict, Verdict::Passed | Verdict::Skipped(_))
    }

    /// Appends this case's line to the file `JUDGE_REPORT`, if it is set. Of long transcripts, it has the beginning.
    ///
    /// # Panics
    /// If the file cannot be written: a verdict must not get lost silently.
    pub fn record(&self, case: &str) {
        let Some(path) = env::var_os("JUDGE_REPORT") else {
            return;
        };
        let line = Line {
            key: env::var(REPORT_KEY).ok(),
            case,
            verdict: match self.verdict {
                Verdict::Passed => "passed",
                Verdict::Skipped(_) => "skipped",
                Verdict::NotStarted(_) | Verdict::Unchanged(_) => "not started",
                Verdict::Failed(_) => "failed",
            },
            kind: sentence::kind(&self.verdict),
            sentence: self.sentence(),
            output: &self.output,
            transcript: self.transcript.as_deref().map(beginning),
            diff: self.diff.as_deref().map(beginning),
            debug: self.debugger(case),
        };
        let written = serde_json::to_string(&line)
            .map_err(io::Error::other)
            .and_then(|json| {
                let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
                file.write_all(format!("{json}\n").as_bytes())
            });
        if let Err(error) = written {
            panic!(
                "the verdict of {case} cannot be written to {}: {error}",
                path.display()
            );
        }
    }

    /// Prints the verdict for a reader of plain `cargo test`.
    pub fn print(&self, case: &str) {
        let Some(sentence) = self.sentence() else {
            return;
        };
        match self.verdict {
            // libtest does not capture this: a skipped check must not look like one that passed.
            Verdict::Skipped(_) => {
                let _ = writeln!(io::stderr(), "– {case}: {sentence}");
                return;
            }
            Verdict::NotStarted(_) | Verdict::Unchanged(_) => eprintln!("· {sentence}"),
            _ => eprintln!("✗ {sentence}"),
        }
        if let Some(diff) = &self.diff {
            eprintln!("{}", beginning(diff));
        }
        if !self.output.is_empty() {
            eprintln!("  Your code printed:");
            for line in &self.output {
                eprintln!("  | {line}");
            }
        }
        if let Some(command) = self.debugger(case) {
            eprintln!("  To look at it in a debugger: {command}");
        }
    }

    /// The command line that runs a case that crashed, alone, under a debugger.
    fn debugger(&self, case: &str) -> Option<String> {
        let Verdict::Failed(failure) = &self.verdict else {
            return None;
        };
        let failure = match failure {
            Failure::After(_, failure) => failure,
            failure => failure,
        };
        let crashed = matches!(
            failure,
            Failure::Killed(..)
                | Failure::ChildKilled(..)
                | Failure::StackOverflow
                | Failure::AbortedByPanic(_)
        );
        let binary = env::current_exe().ok()?;
        crashed.then(|| {
            format!(
                "JUDGE_INLINE=1 rust-gdb --args {} {case} --exact --nocapture",
                binary.display()
            )
        })
    }
}
