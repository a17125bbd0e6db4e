//! Shows verdicts to people: each stage as soon as it is complete, and a progress line meanwhile.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;

use course::exercise::{Exercise, Stage};
use course::log::{Count, Verdict};

use crate::grade::grader::Case;
use crate::grade::order::Order;
use crate::grade::verdicts::{self, Verdicts, count, is_of};
use crate::say;
use crate::terminal::{
    FAINT, Prompt, STRONG, clear_progress, hanging, indented, show_progress, sign, styled,
};

/// The output for one exercise while it is graded. Stages are shown in their order.
pub struct Screen<'a> {
    exercise: &'a Exercise,
    /// `None` shows only the progress line.
    prompt: Option<Prompt>,
    /// The stages that are graded.
    stages: Vec<&'a Stage>,
    /// The cases that have no verdict yet.
    missing: BTreeSet<String>,
    cases: Vec<Case>,
    order: Order,
    /// How many stages have been shown.
    shown: usize,
    /// Whether a failure has been shown with its details.
    explained: bool,
}

impl<'a> Screen<'a> {
    pub fn begin(
        exercise: &'a Exercise,
        cases: BTreeSet<String>,
        prompt: Option<Prompt>,
    ) -> Screen<'a> {
        let has_cases = |stage: &&Stage| cases.iter().any(|case| is_of(case, &stage.name));
        let screen = Screen {
            exercise,
            prompt,
            stages: exercise.about.stages.iter().filter(has_cases).collect(),
            missing: cases,
            cases: Vec::new(),
            order: Order::of(exercise),
            shown: 0,
            explained: false,
        };
        screen.show_progress();
        screen
    }

    pub fn add(&mut self, case: Case) {
        self.missing.remove(&case.name);
        self.cases.push(case);
        self.show_complete_stages();
        self.show_progress();
    }

    /// Shows the sums, unless the grading was cut short.
    pub fn end(self, complete: bool) -> Verdicts {
        clear_progress();
        let verdicts = Verdicts::sort(self.exercise, &self.order, self.cases);
        if let Some(prompt) = self.prompt.filter(|_| complete) {
            say!();
            if verdicts.core.possible > 0 {
                say!("{}", sum(verdicts.core));
            }
            if verdicts.bonus.possible > 0 {
                say!("Bonus: {}", sum(verdicts.bonus));
            }
            let is_whole = self.stages.len() == self.exercise.about.stages.len();
            let next = match is_whole {
                true => next_step(self.exercise, &verdicts, prompt),
                false => whole_exercise(self.exercise, &verdicts),
            };
            if let Some(next) = next {
                say!("{next}");
            }
        }
        verdicts
    }

    fn show_progress(&self) {
        let done = self.cases.len();
        let all = done + self.missing.len();
        let mut text = format!("{done} of {all} verdicts");
        // An endless loop in a function that all cases call makes the grading last for minutes.
        match self.cases.iter().filter(|case| case.kind == "time").count() {
            0 => {}
            timed_out => text += &format!(" ({timed_out} timed out)"),
        }
        // libtest runs the cases in the order of their names, so the first one that is missing is running, and may hang.
        let mut missing = self.missing.iter();
        match missing.find(|case| !self.is_compile_fail(case)) {
            Some(case) => text += &format!("; running {case}"),
            // If trybuild is needed, the first time takes half a minute.
            None if done < all => text += "; compiling the compile-fail cases",
            None => {}
        }
        show_progress(&text);
    }

    fn is_compile_fail(&self, case: &str) -> bool {
        let file = case.replacen("::", "/", 1) + ".rs";
        let folder = self.exercise.grader().join("compile_fail");
        folder.join(file).is_file()
    }

    fn show_complete_stages(&mut self) {
        while let Some(&stage) = self.stages.get(self.shown)
            && !self.missing.iter().any(|name| is_of(name, &stage.name))
        {
            self.shown += 1;
            let Some(prompt) = self.prompt else { continue };
            clear_progress();
            if self.shown == 1 {
                say!("\n{}\n", styled(STRONG, &self.exercise.about.title));
            }
            self.order.sort(&mut self.cases);
            let cases = self.cases.iter();
            let cases: Vec<_> = cases
                .filter(|case| is_of(&case.name, &stage.name))
                .collect();
            show_stage(self.exercise, stage, &cases, &mut self.explained, prompt);
        }
    }
}

fn show_stage(
    exercise: &Exercise,
    stage: &Stage,
    cases: &[&Case],
    explained: &mut bool,
    prompt: Prompt,
) {
    let count = count(cases.iter().copied());
    let started = count.not_started < count.possible;
    let state = match started {
        true => format!("{} of {}", count.passed, count.possible),
        false => format!("not started; about {} minutes", stage.minutes),
    };
    let bonus = if stage.bonus { "bonus; " } else { "" };
    let state = styled(FAINT, &format!("({bonus}{state})"));
    let first = format!("{} {:<11} ", sign(count.verdict()), stage.name);
    let margin = " ".repeat(14);
    say!(
        "{}",
        hanging(&first, &margin, &format!("{} {state}", stage.title))
    );
    // What a `todo!()` says is of no use, in contrast to what complete code of the stub does.
    let is_of_use = |case: &&Case| started || case.kind == "unchanged";
    let (failed, others): (Vec<_>, Vec<_>) = cases
        .iter()
        .copied()
        .filter(|case| case.verdict != Verdict::Passed)
        .filter(is_of_use)
        .partition(|case| case.verdict == Verdict::Failed && !case.could_not_be_graded());
    for alike in grouped(failed) {
        show_cases(&alike);
        if !*explained {
            *explained = true;
            show_details(exercise, stage, alike[0], prompt);
        }
    }
    for alike in grouped(others) {
        show_cases(&alike);
    }
}

/// Splits the sentence of a compile-fail case into what all such cases say and what this one is about.
fn parts(case: &Case) -> (&str, Option<&str>) {
    let sentence = case.sentence.as_deref().unwrap_or_default();
    match sentence.split_once(": ") {
        Some((common, lesson)) if ["compiled", "other-error"].contains(&case.kind.as_str()) => {
            (common, Some(lesson))
        }
        _ => (sentence, None),
    }
}

/// Groups the cases by sentence, so that no sentence is printed twice. Groups are in the order of their first cases.
fn grouped(cases: Vec<&Case>) -> Vec<Vec<&Case>> {
    let mut groups: Vec<Vec<&Case>> = Vec::new();
    for case in cases {
        let mut known = groups.iter_mut();
        let common = |group: &[&Case]| (group[0].verdict, parts(group[0]).0.to_owned());
        match known.find(|group| common(group) == common(&[case])) {
            Some(group) => group.push(case),
            None => groups.push(vec![case]),
        }
    }
    groups
}

/// Shows cases that have the same sentence, or the same beginning of it.
fn show_cases(cases: &[&Case]) {
    let names: Vec<_> = cases.iter().map(|case| short_name(case)).collect();
    let first = format!("    {} ", sign(cases[0].verdict));
    say!("{}", hanging(&first, "      ", &names.join(", ")));
    let (common, lesson) = parts(cases[0]);
    if cases.len() == 1 || lesson.is_none() {
        let sentence = cases[0].sentence.as_deref().unwrap_or_default();
        say!("{}", indented(6, sentence));
        return;
    }
    say!("{}", indented(6, &format!("{common}:")));
    for lesson in cases.iter().filter_map(|case| parts(case).1) {
        say!("{}", hanging("      - ", "        ", lesson));
    }
}

/// Only the first failure is shown with its details.
fn show_details(exercise: &Exercise, stage: &Stage, case: &Case, prompt: Prompt) {
    // The diff contains all calls.
    if let Some(diff) = &case.diff {
        for line in shortened(diff) {
            say!("      {line}");
        }
    } else if let Some(transcript) = &case.transcript {
        show_calls("Your code called:", transcript);
        if let Some(calls) = calls_of_solution(exercise, &case.name) {
            show_calls("The solution calls:", &calls);
        }
    }
    if !case.output.is_empty() {
        say!("      Your code printed:");
        for line in &case.output {
            say!("        | {line}");
        }
    }
    if let Some(debug) = &case.debug {
        say!("      In a debugger: {debug}");
    }
    if prompt == Prompt::Shell {
        say!("      A hint: {}", prompt.hint(&exercise.name, &stage.name));
    }
}

fn show_calls(title: &str, calls: &str) {
    say!("      {title}");
    if calls.trim().is_empty() {
        say!("        (nothing)");
    }
    for line in shortened(calls) {
        say!("        {line}");
    }
}

/// The lines of `calls`. A loop around a call makes thousands of them; only the first and the last ones are of use.
fn shortened(calls: &str) -> Vec<Cow<'_, str>> {
    const KEPT: usize = 20;
    let mut lines: Vec<_> = calls.lines().map(Cow::from).collect();
    if lines.len() > 2 * KEPT + 1 {
        let left_out = KEPT..lines.len() - KEPT;
        let text = format!("… {} more", left_out.len());
        lines.splice(left_out, [text.into()]);
    }
    lines
}

/// Returns the calls of the solution in that case, as the exam has recorded them.
fn calls_of_solution(exercise: &Exercise, case: &str) -> Option<String> {
    let recorded = fs::read_to_string(exercise.solution_calls()).ok()?;
    recorded_calls(&recorded, case).map(str::to_owned)
}

/// Finds the entry of a case: a line with its name, its calls, and an empty line. A case may have no calls.
fn recorded_calls<'a>(recorded: &'a str, case: &str) -> Option<&'a str> {
    let (_, entry) = recorded.split_once(&format!("\n{case}\n"))?;
    match entry.strip_prefix('\n') {
        Some(_) => Some(""),
        None => Some(entry.split("\n\n").next().unwrap_or(entry)),
    }
}

fn short_name(case: &Case) -> &str {
    case.name
        .split_once("::")
        .map_or(case.name.as_str(), |(_, name)| name)
}

fn sum(count: Count) -> String {
    let mut text = format!("{} of {} passed", count.passed, count.possible);
    for (number, what) in [
        (count.failed, "failed"),
        (count.skipped, "skipped"),
        (count.not_started, "not started"),
    ] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    text + "."
}

/// Returns how to grade the other stages, too, if all cases of one stage passed.
fn whole_exercise(exercise: &Exercise, verdicts: &Verdicts) -> Option<String> {
    let all = verdicts.stages.iter().all(|stage| {
        let count = stage.count();
        count.passed == count.possible
    });
    let name = &exercise.name;
    all.then(|| format!("`cargo run -- grade {name}` grades and records all stages."))
}

/// Returns what to do next, unless a case failed.
fn next_step(exercise: &Exercise, verdicts: &Verdicts, prompt: Prompt) -> Option<String> {
    let name = &exercise.name;
    if verdicts.core.failed + verdicts.bonus.failed > 0 {
        return None;
    }
    let not_started = |bonus: bool| {
        let mut stages = verdicts.stages.iter();
        stages.find(|stage| stage.bonus == bonus && stage.count().not_started > 0)
    };
    let task = |what: &str, stage: &verdicts::Stage| {
        let stage = &stage.name;
        let text = format!(
            "{what}: {stage}. The task is in exercises/{name}/README.md, your code goes in exercises/{name}/src/lib.rs."
        );
        indented(0, &text)
    };
    if let Some(stage) = not_started(false) {
        return Some(task("Next", stage));
    }
    if verdicts.core.skipped + verdicts.bonus.skipped > 0 {
        return None;
    }
    let how = match prompt {
        Prompt::Shell => format!("`cargo run -- solution {name}`"),
        Prompt::Watch => "s and Enter".to_owned(),
    };
    let wrong = exercise.about.page.replace(".md", "-wrong.md");
    let mut solved =
        format!("Solved. book/src/{wrong} lists common mistakes, with the grader's sentences.");
    if exercise.ensure_solution().is_ok() {
        solved += &format!(" {how} shows how the solution differs.");
    }
    let mut text = indented(0, &solved);
    if let Some(stage) = not_started(true) {
        text += &format!("\n{}", task("Bonus", stage));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_calls_is_shortened() {
        let calls = "P: munmap(A, 4 KiB) = 0\n".repeat(100_000);
        let lines = shortened(&calls);
        assert_eq!(lines.len(), 41);
        assert_eq!(lines[20], "… 99960 more");
        assert_eq!(shortened("a\nb"), ["a", "b"]);
    }

    #[test]
    fn a_case_without_calls_does_not_show_another_cases_calls() {
        let recorded = "---\nheader\n---\na::one\n\na::two\nmmap\nmunmap\n\nb::three\nbrk\n";
        assert_eq!(recorded_calls(recorded, "a::one"), Some(""));
        assert_eq!(recorded_calls(recorded, "a::two"), Some("mmap\nmunmap"));
        assert_eq!(recorded_calls(recorded, "b::three"), Some("brk\n"));
        assert_eq!(recorded_calls(recorded, "b::four"), None);
    }
}
