//! Shows verdicts to people.

use std::io::{IsTerminal, Write};

use anstream::{eprint, eprintln, println};

use crate::exercise::Exercise;
use crate::grader::{Case, Verdict};
use crate::verdicts::{Count, Stage, Verdicts};
use crate::words::{FAINT, STRONG, sign, styled};

/// On a terminal: each failure as it comes, and a line that counts the verdicts while more are to come.
pub struct Progress {
    of: usize,
    done: usize,
    shown: bool,
}

impl Progress {
    /// Of that many to come.
    pub fn of(of: usize) -> Progress {
        let shown = std::io::stderr().is_terminal();
        let done = 0;
        Progress { of, done, shown }
    }

    /// One more has come.
    pub fn show(&mut self, case: &Case) {
        self.done += 1;
        if !self.shown {
            return;
        }
        if case.verdict == Verdict::Failed {
            self.clear();
            let sentence = case.sentence.as_deref().unwrap_or_default();
            eprintln!("{} {}: {sentence}", sign(case.verdict), case.name);
        }
        eprint!("\r{} of {} verdicts", self.done, self.of);
        let _ = std::io::stderr().flush();
    }

    /// They have all come.
    pub fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

/// Every verdict by stage, all that helps with the first failure, and what to do next.
pub fn verdicts(exercise: &Exercise, verdicts: &Verdicts) {
    println!("\n{}\n", styled(STRONG, &exercise.about.title));
    let mut first_failure = true;
    for stage in &verdicts.stages {
        show_stage(exercise, stage, &mut first_failure);
    }
    println!("\n{}", sum(verdicts.core));
    if verdicts.bonus.possible > 0 {
        println!("Bonus: {}", sum(verdicts.bonus));
    }
    if let Some(next) = next(exercise, verdicts) {
        println!("{next}");
    }
}

fn show_stage(exercise: &Exercise, stage: &Stage, first_failure: &mut bool) {
    let count = Count::of(&stage.cases);
    let (verdict, told) = match count {
        Count {
            not_started,
            possible,
            ..
        } if not_started == possible => {
            let told = format!("not started; about {} minutes, estimated", stage.minutes);
            (Verdict::NotStarted, told)
        }
        Count {
            passed, possible, ..
        } => {
            let verdict = match count {
                Count { failed: 1.., .. } => Verdict::Failed,
                Count {
                    not_started: 1.., ..
                } => Verdict::NotStarted,
                Count { skipped: 1.., .. } => Verdict::Skipped,
                _ => Verdict::Passed,
            };
            (verdict, format!("{passed} of {possible}"))
        }
    };
    let bonus = if stage.bonus { "bonus; " } else { "" };
    println!(
        "{} {:<10} {} {}",
        sign(verdict),
        stage.name,
        stage.title,
        styled(FAINT, &format!("({bonus}{told})"))
    );
    for case in &stage.cases {
        match case.verdict {
            Verdict::Passed => {}
            Verdict::NotStarted if count.not_started == count.possible => {}
            Verdict::Failed if *first_failure => {
                *first_failure = false;
                show_failure(exercise, stage, case);
            }
            _ => show_case(case),
        }
    }
}

fn show_case(case: &Case) {
    let sentence = case.sentence.as_deref().unwrap_or_default();
    println!("    {} {}", sign(case.verdict), short_name(case));
    println!("      {sentence}");
}

/// The first failure is shown with all that helps.
fn show_failure(exercise: &Exercise, stage: &Stage, case: &Case) {
    show_case(case);
    for line in &case.details {
        println!("      {line}");
    }
    if let Some(diff) = &case.diff {
        for line in diff.lines() {
            println!("      {line}");
        }
    }
    if let Some(transcript) = &case.transcript {
        show_calls("Your code called:", transcript);
        if let Some(calls) = solutions_calls(exercise, &case.name) {
            show_calls("The solution calls:", &calls);
        }
    }
    if !case.output.is_empty() {
        println!("      Your code printed:");
        for line in &case.output {
            println!("        | {line}");
        }
    }
    if let Some(debug) = &case.debug {
        println!("      In a debugger: {debug}");
    }
    println!(
        "      A hint: cargo run -- hint {} {}",
        exercise.name, stage.name
    );
}

fn show_calls(whose: &str, transcript: &str) {
    println!("      {whose}");
    for line in transcript.lines() {
        println!("        {line}");
    }
}

/// What the solution calls in that case, as the exam has recorded it.
fn solutions_calls(exercise: &Exercise, case: &str) -> Option<String> {
    let file = format!("tests/snapshots/exam__{}-calls.snap", exercise.name);
    let recorded = std::fs::read_to_string(exercise.root.join(file)).ok()?;
    let (_, after) = recorded.split_once(&format!("\n{case}\n"))?;
    let (calls, _) = after.split_once("\n\n").unwrap_or((after, ""));
    Some(calls.to_owned())
}

fn short_name(case: &Case) -> &str {
    case.name
        .split_once("::")
        .map_or(case.name.as_str(), |(_, name)| name)
}

fn sum(count: Count) -> String {
    let mut told = format!("{} of {} passed", count.passed, count.possible);
    for (number, what) in [
        (count.failed, "failed"),
        (count.skipped, "skipped"),
        (count.not_started, "not started"),
    ] {
        if number > 0 {
            told += &format!(", {number} {what}");
        }
    }
    told + "."
}

/// Where there is no failure to mend: the next thing to do.
fn next(exercise: &Exercise, verdicts: &Verdicts) -> Option<String> {
    let name = &exercise.name;
    if verdicts.core.failed + verdicts.bonus.failed > 0 {
        return None;
    }
    let waiting = |bonus: bool| {
        let mut stages = verdicts.stages.iter();
        stages.find(|stage| stage.bonus == bonus && Count::of(&stage.cases).not_started > 0)
    };
    let task = |stage: &Stage| {
        format!(
            "{}. The task is in exercises/{name}/README.md, your code goes in exercises/{name}/src/lib.rs.",
            stage.name
        )
    };
    if let Some(stage) = waiting(false) {
        return Some(format!("Next: {}", task(stage)));
    }
    if verdicts.core.skipped + verdicts.bonus.skipped > 0 {
        return None;
    }
    let mut told = format!(
        "Solved. Compare with solutions/src/{}.rs, and see tests/{name}/answers for {} ways to be wrong.",
        exercise.library(),
        wrong_answers(exercise)
    );
    if let Some(stage) = waiting(true) {
        told += &format!("\nFor more: {}", task(stage));
    }
    Some(told)
}

fn wrong_answers(exercise: &Exercise) -> usize {
    let folder = exercise.tests().join("answers/wrong");
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
